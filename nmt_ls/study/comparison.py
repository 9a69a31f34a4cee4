"""What smoothing did: finished runs → means, intervals, differences, and what they decide."""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from nmt_ls.errors import UserError
from nmt_ls.evaluation import significance
from nmt_ls.evaluation.tokenizers import tokenizer_in
from nmt_ls.study.blocks import Measured, make_block
from nmt_ls.study.measures import Counts, counts_of, joined, pool, reference_length
from nmt_ls.study.strength import DEFAULT, strength_in
from nmt_ls.study.wording import headline, results_csv, sentence, table

FORMAT_VERSION = 2
__all__ = ["compare", "headline", "results_csv", "sentence", "table"]

PRIMARY = 0.1

log = logging.getLogger("nmt_ls")

VALIDATION = "validation"
"""Checkpoints, temperature and un-mixing are chosen on it: it is no test set to decide on."""

Run = dict[str, Any]


def compare(
    runs: Sequence[Run],
    baseline: float | None = None,
    truth: dict[str, dict] | None = None,
    samples: int = significance.SAMPLES,
    title: str = "",
) -> dict:
    """The content of comparison.json.

    Args:
      runs: finished runs: `label_smoothing` (ε, or β where the loss has no ε), `loss` (the
        configuration's `loss.kind`; absent: label_smoothing), `seed`, `run` (directory name),
        `results` (as in results.json), `translations`, `references` and `confidences` (log p
        per token of each translation; absent: their AURC is not pooled) by test set,
        `settings`, what else a grid varies (`{"model.dropout": 0.3}`; absent: nothing), `own`,
        test sets on which nothing is decided (absent: none), and `truth`, as below but per token
        of the run's own subwords.
      baseline: the ε that the others are compared with; None: 0 where it was run, else the
        smallest. Runs of settings without it are compared with what None says.
      truth: for the built-in corpus, what the true distribution gets, by test set
        (`perplexity_floor`, `nll_floor`, `bleu_oracle`, …), of runs that do not say themselves.
      samples: bootstrap resamples.
      title: what the pooled test sets are called in sentences, such as "Multi30k en→de"; their
        names by default.

    Returns:
      `baseline`, `primary` (the ε whose contrast is reported first, chosen before seeing any
      number: 0.1 if it was run, else the next above the baseline), `smoothing` (all ε),
      `tests` and `pooled`. Both hold blocks of runs with the same settings, which say everything
      about themselves. `tests`: by the test set's name, with several settings `NAME
      (model.dropout=0.3)`. `pooled`: by the settings' text ("" where there are none to tell
      apart), all test sets as one (see `measures.pool`): those that most runs of these settings
      have, without `validation`; runs that lack one of them are in `left_out`. A block has

      - `test` (its name in sentences), `tests` (names), `settings`, `loss` (its strengths are
        what is called ε here), `left_out`, `baseline`, `primary`, `signatures`, `sentences`,
        `tokens`, `truth`;
      - `by_smoothing`: per ε `seeds`, `runs`, `measures` (`significance.over_seeds` of each of
        `MEASURES`), `reliability` (merged over seeds) and `differences` from the baseline, None
        for itself: per measure `significance.paired_over_seeds` and `p_holm` (over the ε
        contrasts of this block and measure, None below three seeds); BLEU and chrF also
        `bootstrap`, over seeds and sentences, which decides nothing;
      - `decision` (`decision.decide` on BLEU) and `calibration` (`decision.lowest` on ECE) where
        the block decides: the pooled one, and its only test set; None elsewhere;
      - `examples`: sentences whose chrF differs most, each with `test`, `sentence` (from 0),
        `seed`, `runs` and `chrf` by ε; `drawn`: as many drawn by chance, of the same form.

    Raises:
      UserError: no runs, two runs of one (settings, ε, seed), no run at `baseline`, or runs that
        were evaluated on different references.
    """
    if not runs:
        raise UserError("no finished run to compare; `nmt-ls sweep` trains and evaluates them")
    smoothing = sorted({float(run["label_smoothing"]) for run in runs})
    if baseline is not None and baseline not in smoothing:
        symbol = strength_in(runs[0]).symbol
        raise UserError(
            f"no finished run has the baseline {symbol}={baseline}; there is {smoothing}"
        )
    groups = _groups(runs)
    tests: dict[str, dict] = {}
    pooled: dict[str, dict] = {}
    for label, group in groups.items():
        base, primary = _chosen([float(run["label_smoothing"]) for run in group], baseline)
        options: dict[str, Any] = {"baseline": base, "samples": samples}
        settings = group[0].get("settings") or {}
        # Floors are per token of the subwords that they were computed with.
        known = {} if any(name.startswith("subwords.") for name in settings) else truth or {}
        said = [run.get("truth", known) for run in group]
        known = said[0] if said.count(said[0]) == len(said) else {}
        names = list(dict.fromkeys(name for run in group for name in run["results"]))
        own = {name for run in group for name in run.get("own", ())}
        counts = {}
        for name in list(names):
            try:
                counts[name] = _counts(group, name)
            except UserError as error:
                if name not in own:
                    raise
                log.warning("%s is left out: %s", name, error)
                names.remove(name)
        chosen = _pooled_tests(group, [name for name in names if name not in own])
        about = {"settings": settings, "loss": group[0].get("loss", DEFAULT), "primary": primary}
        for name in names:
            block = _block(group, [name], counts, known, chosen == [name], options)
            tests[_key(name, label)] = {"test": name, "tests": [name], **about, **block}
        if len(chosen) == 1:
            (name,) = chosen
            pooled[label] = tests[_key(name, label)] | {"test": title or name}
        elif chosen:
            block = _block(group, chosen, counts, known, True, options)
            together = f"{', '.join(chosen[:-1])} and {chosen[-1]} together"
            pooled[label] = {"test": title or together, "tests": chosen, **about, **block}
    base, primary = _chosen(smoothing, baseline)
    return {
        "format_version": FORMAT_VERSION,
        "baseline": base,
        "primary": primary,
        "smoothing": smoothing,
        "tests": tests,
        "pooled": pooled,
    }


def _key(name: str, label: str) -> str:
    return f"{name} ({label})" if label else name


def _chosen(smoothing: Sequence[float], baseline: float | None) -> tuple[float, float | None]:
    """The baseline among these ε, and the ε whose contrast is reported first."""
    if baseline is None or baseline not in smoothing:
        baseline = 0.0 if 0.0 in smoothing else min(smoothing)
    base = float(baseline)
    contrasts = sorted({value for value in smoothing if value != base})
    above = [value for value in contrasts if value > base] or contrasts
    return base, PRIMARY if PRIMARY in contrasts else next(iter(above), None)


def settings_text(settings: Mapping[str, Any]) -> str:
    """`data.noise=0.2, model.dropout=0.3`; nothing for no settings."""
    return ", ".join(
        f"{name}={value if isinstance(value, str) else json.dumps(value)}"
        for name, value in sorted(settings.items())
    )


def _groups(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs of the same settings, by what tells them apart, in the order of ε and seed."""
    by_text: dict[str, list[Run]] = {}
    cells: dict[tuple[str, float, int], str] = {}
    for run in sorted(runs, key=_order):
        text = settings_text(run.get("settings") or {})
        cell = (text, float(run["label_smoothing"]), int(run["seed"]))
        if cell in cells:
            also = f", {text}" if text else ""
            raise UserError(
                f"{cells[cell]} and {run['run']} are both {strength_in(run).symbol}={cell[1]}, "
                f"seed {cell[2]}{also}"
            )
        cells[cell] = run["run"]
        by_text.setdefault(text, []).append(run)
    return {"": next(iter(by_text.values()))} if len(by_text) == 1 else by_text


def _order(run: Run) -> tuple:
    settings = sorted((run.get("settings") or {}).items())
    # Numbers by size, before whatever is no number.
    values = [
        (name, (0, value, "") if isinstance(value, int | float) else (1, 0, str(value)))
        for name, value in settings
    ]
    return values, run["label_smoothing"], run["seed"], run["run"]


def _pooled_tests(group: Sequence[Run], names: Sequence[str]) -> list[str]:
    """The test sets that more than half of the runs have, as far as a run has them all."""
    having = {name: sum(name in run["results"] for run in group) for name in names}
    common = [name for name in names if having[name] * 2 > len(group)]
    chosen = [name for name in common if name != VALIDATION] or common
    while chosen and not any(set(chosen) <= run["results"].keys() for run in group):
        chosen.remove(min(reversed(chosen), key=having.__getitem__))
    return chosen


def _counts(group: Sequence[Run], name: str) -> dict[str, Counts]:
    """By run, the counts of each sentence of a test set, for runs whose translations are stored."""
    stored = [run for run in group if run.get("translations", {}).get(name)]
    if not stored:
        return {}
    references = stored[0]["references"][name]
    for run in stored:
        if run["references"][name] != references:
            raise UserError(
                f"{stored[0]['run']} and {run['run']} were evaluated on different references of "
                f"{name}; evaluate both again"
            )
    measured = (run["results"].get(name) or {} for run in stored)
    split = {tokenizer_in(results.get("bleu_signature") or "") for results in measured}
    if len(split) > 1:
        raise UserError(
            f"the words of {name} were split in several ways for BLEU ({', '.join(sorted(split))});"
            " evaluate all runs with one evaluation.bleu_tokenize"
        )
    found = counts_of([run["translations"][name] for run in stored], references, split.pop())
    return dict(zip([run["run"] for run in stored], found, strict=True))


def _block(
    group: Sequence[Run],
    names: Sequence[str],
    counts: Mapping[str, Mapping[str, Counts]],
    truth: Mapping[str, Mapping[str, Any]],
    decides: bool,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """The block of some test sets as one, of the runs that have them all."""
    whole = [run for run in group if all(name in run["results"] for name in names)]
    block = make_block(
        _measured(whole, names, counts),
        sentences={n: len(next(iter(counts[n].values()))["bleu"]) for n in names if counts[n]},
        decides=decides,
        truth=_truth(truth, whole[0], names),
        **options,
    )
    return block | {"left_out": [run["run"] for run in group if run not in whole]}


def _measured(
    runs: Sequence[Run], names: Sequence[str], counts: Mapping[str, Mapping[str, Counts]]
) -> list[Measured]:
    references = {name: run["references"][name] for run in runs for name in run["references"]}
    lengths = [reference_length(references.get(n)) if len(names) > 1 else None for n in names]
    found = []
    for run in runs:
        of_run = [counts[name].get(run["run"]) for name in names]
        stored = [c for c in of_run if c]
        sure = [run.get("confidences", {}).get(name) for name in names]
        results = pool([run["results"][name] for name in names], of_run, lengths, sure)
        for signature in ("bleu_signature", "chrf_signature", "ter_signature"):
            said = {run["results"][name].get(signature) or "" for name in names}
            results[signature] = "; ".join(sorted(said))
        found.append(
            Measured(
                label_smoothing=float(run["label_smoothing"]),
                seed=int(run["seed"]),
                run=run["run"],
                results=results,
                counts=joined(stored) if len(stored) == len(names) else None,
            )
        )
    return found


def _truth(
    truth: Mapping[str, Mapping[str, Any]], run: Run, names: Sequence[str]
) -> dict[str, Any] | None:
    """What the true distribution gets on test sets: of several, the nll over all their tokens."""
    if any(name not in truth for name in names):
        return None
    if len(names) == 1:
        return dict(truth[names[0]])
    tokens = [run["results"][name].get("tokens") for name in names]
    pooled: dict[str, Any] = {}
    for kind in ("floor", "oracle"):
        values = [truth[name].get(f"nll_{kind}") for name in names]
        if all(value is not None for value in [*values, *tokens]):
            nll = sum(v * n for v, n in zip(values, tokens, strict=True)) / sum(tokens)
            pooled |= {f"nll_{kind}": nll, f"perplexity_{kind}": math.exp(nll)}
    return pooled or None
