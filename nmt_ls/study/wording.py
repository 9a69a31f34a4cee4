"""A comparison in words, and no more of them than its numbers bear.

What is said to differ was decided in `decision`; everything else is said to have been measured.
"""

import json
from collections.abc import Callable, Sequence

from nmt_ls.evaluation.formatting import interval, number, p_value
from nmt_ls.evaluation.likelihood import perplexity_of
from nmt_ls.evaluation.significance import ALPHA
from nmt_ls.study.decision import SEEDS_NEEDED
from nmt_ls.study.measures import key
from nmt_ls.study.strength import strength_in
from nmt_ls.study.tables import corrected_together, evidence, results_csv, table, table_rows

__all__ = [
    "headline",
    "headlines",
    "key",
    "number",
    "results_csv",
    "sentence",
    "table",
    "table_rows",
]


def sentence(comparison: dict, test: str) -> str:
    """What a block of `comparison["tests"]` shows, in plain English.

    With several test sets only all of them together decide (`headline`), and this describes.
    """
    return block_sentence(comparison["tests"][test])


def headline(comparison: dict, label: str = "") -> str:
    """What all test sets together decide, for one block of `comparison["pooled"]`."""
    return block_sentence(comparison["pooled"][label])


def headlines(comparison: dict) -> list[str]:
    """The headline of each group of settings."""
    return [headline(comparison, label) for label in comparison["pooled"]]


def block_sentence(block: dict) -> str:
    """The primary contrast of a block, what else differs, perplexity and calibration."""
    settings, base = block["by_smoothing"], key(block["baseline"])
    others = [epsilon for epsilon in settings if epsilon != base]
    place = f"On {block['test']}"
    if block["settings"]:
        place += " with " + ", ".join(f"{k} = {_plain(v)}" for k, v in block["settings"].items())
    if base not in settings:
        missing = strength_in(block).value(base)
        return f"{place}, no run of the baseline {missing} was measured: nothing to compare."
    if not others:
        alone = strength_in(block).value(next(iter(settings)))
        return f"{place} there is only {alone}: nothing to compare."
    primary = key(block["primary"])
    epsilon = primary if primary in settings else others[0]
    decided = epsilon in (block["decision"] or {}).get("differs", ())
    perplexity = _perplexity(block, base, epsilon)
    joint = (" while " if decided else "; ") if perplexity else ""
    return (
        f"{place}, {_contrast(block, epsilon)}{joint}{perplexity}."
        f"{_other_contrasts(block, epsilon)}{_calibration(block)}"
    )


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)


def _contrast(block: dict, epsilon: str) -> str:
    """BLEU of one ε against the baseline: decided, undecided, or only described."""
    bleu = block["by_smoothing"][epsilon]["differences"]["bleu"]
    found = evidence(bleu)
    strength = strength_in(block)
    name, base = strength.value(epsilon), strength.value(block["baseline"])
    if not bleu["n"]:
        both = (block["by_smoothing"][e] for e in (epsilon, key(block["baseline"])))
        of_both = [setting["measures"]["bleu"]["n"] for setting in both]
        why = "no seed was run with both" if all(of_both) else "translations are not stored"
        return f"{name} cannot be compared with {base} in BLEU: {why}"
    measured = f"{name} scored {number(bleu['mean'], 2, True)} BLEU against {base}"
    if found is None:
        lacking = "one sentence" if bleu.get("bootstrap") else "no stored translations"
        return f"{measured} (one seed, {lacking}: no interval)"
    # With one contrast Holm's correction changes nothing and need not be named.
    contrasts = corrected_together(block, found["over"])
    holm = f" after Holm over {contrasts} contrasts" if contrasts > 1 else ""
    p = "" if found.get("p_holm") is None else f", p {p_value(found['p_holm'])}{holm}"
    bounds = f"95 % CI {interval(found['ci95'])}"
    if found["over"] == "sentences":
        text = f"{measured} with this pair of models ({bounds} over sentences{p}"
        if p and found["p_holm"] >= ALPHA:
            text += ", no clear difference"
        about = f"too few to decide about {strength.symbol} ({SEEDS_NEEDED} needed)"
        return f"{text}): one seed, {about}"
    facts = f"({bounds}, {found['n']} seeds{p})"
    if block["decision"] is None:
        return f"{measured} {facts}"
    verdict = block["decision"]["verdicts"][epsilon]
    if verdict == "too few seeds":
        return f"{measured} {facts}: too few seeds to decide ({SEEDS_NEEDED} needed)"
    if verdict == "higher":
        text = f"{name} gives {number(bleu['mean'], 2, True)} BLEU over {base} {facts}"
    elif verdict == "lower":
        text = f"{name} loses {number(-bleu['mean'])} BLEU against {base} {facts}"
    else:
        gain = number(bleu["mean"], 2, True)
        text = f"{name} shows no clear difference in BLEU from {base}: {gain} {facts}"
    sampled = bleu.get("bootstrap")
    if sampled and sampled["ci95"] and _sign(sampled["ci95"]) != _sign(found["ci95"]):
        text += f", {interval(sampled['ci95'])} over seeds and sentences"
    return text


def _sign(bounds: Sequence[float]) -> int:
    """1 or −1 where an interval is all above or all below 0, else 0."""
    return (bounds[0] > 0) - (bounds[1] < 0)


def _perplexity(block: dict, base: str, epsilon: str) -> str:
    before, after = _means(block, "perplexity", base, epsilon)
    if before is None or after is None:
        return ""
    difference = block["by_smoothing"][epsilon]["differences"]["perplexity"]
    verb = "goes"
    if difference["p_holm"] is not None and difference["p_holm"] < ALPHA:
        verb = "rises" if difference["mean"] > 0 else "falls"
    text = f"perplexity {verb} from {number(before)} to {number(after)}"
    if number(before) == number(after):
        text = f"perplexity stays at {number(after)}"
    clean = _means(block, "nll_unmixed", base, epsilon, perplexity_of)
    if None in clean:
        return f"{text} (un-mixing was not fitted)"
    of_base = f"{number(clean[0])} for {strength_in(block).value(base)}"
    return f"{text}; after un-mixing it is {number(clean[1])} ({of_base})"


def _means(
    block: dict,
    measure: str,
    base: str,
    epsilon: str,
    of: Callable[[float], float] = float,
) -> list[float | None]:
    """Means of a measure, baseline first, over the seeds that both have: those of the difference
    between them. None where there are no such seeds, or a run of them diverged."""
    shared = block["by_smoothing"][epsilon]["differences"][measure]["seeds"]
    means: list[float | None] = []
    for setting in (block["by_smoothing"][base], block["by_smoothing"][epsilon]):
        by_seed = zip(setting["seeds"], setting["measures"][measure]["values"], strict=True)
        values = [value for seed, value in by_seed if seed in shared]
        known = [of(value) for value in values if value is not None]
        whole = known and len(known) == len(values)
        means.append(sum(known) / len(known) if whole else None)
    return means


def _other_contrasts(block: dict, epsilon: str) -> str:
    """The other strengths that were decided to differ."""
    found = (block["decision"] or {}).get("differs", ())
    differing = [e for e in found if e != epsilon]
    if not differing:
        return ""
    gains = {e: block["by_smoothing"][e]["differences"]["bleu"]["mean"] for e in differing}
    value = strength_in(block).value
    named = [f"{value(e)} ({number(gain, 2, True)})" for e, gain in gains.items()]
    verb = "differs" if len(named) == 1 else "differ"
    too = " too" if epsilon in found else ""
    return f" {_and(named)} {verb} from {value(block['baseline'])} in BLEU{too}."


def _calibration(block: dict) -> str:
    found = block["calibration"]
    if found is None:
        return ""
    value = strength_in(block).value
    best, ece = value(found["smoothing"]), f"ECE {number(found['mean'], 4)}"
    if found["decided"]:
        return f" Best calibrated at {best} ({ece})."
    text = f" Lowest ECE measured at {best} ({number(found['mean'], 4)}"
    if found["seeds"] < SEEDS_NEEDED:
        return f"{text}; too few seeds to tell it from others)."
    close = [value(e) for e in found["close"]]
    return f"{text}, not told apart from {_and(close)})."


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
