"""What a study may claim: which ε differ from the baseline, and which is calibrated best.

A claim is about recipes of training, so what is drawn at random is the training seed, and the
test is the paired t-test over seeds. Resampling a handful of seeds instead finds differences where
there are none (`python -m nmt_ls.study.false_alarms` counts them).
"""

from collections.abc import Mapping
from typing import Any

from nmt_ls.evaluation.significance import ALPHA, holm, paired_over_seeds

SEEDS_NEEDED = 3
"""Two seeds leave one degree of freedom: their interval is 18 standard deviations wide."""


def corrected(differences: Mapping[str, Mapping[str, Any]]) -> dict[str, float | None]:
    """Holm's p of each ε contrast that has seeds enough to decide; None for the others.

    Args:
      differences: by ε, what `significance.paired_over_seeds` says of one measure.
    """
    enough = [d["p"] if d["n"] >= SEEDS_NEEDED else None for d in differences.values()]
    return dict(zip(differences, holm(enough), strict=True))


def decide(differences: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Which ε differ from the baseline: paired t-test over seeds, Holm over the ε contrasts.

    The chance that any ε is said to differ where none does is at most `ALPHA`, for differences
    that are about normal over seeds.

    Args:
      differences: by ε, what `significance.paired_over_seeds` says of one measure.

    Returns:
      `differs`: the ε that do; `verdicts`, by ε: `higher` or `lower` (than the baseline), `no
      clear difference`, or why it cannot be decided: `too few seeds`, or `no spread` where all
      seeds differ by the same; `alpha`, `seeds_needed`.
    """
    p_values = corrected(differences)
    verdicts = {}
    for epsilon, difference in differences.items():
        p = p_values[epsilon]
        if difference["n"] < SEEDS_NEEDED:
            verdicts[epsilon] = "too few seeds"
        elif p is None:
            verdicts[epsilon] = "no spread"
        elif p < ALPHA:
            verdicts[epsilon] = "higher" if difference["mean"] > 0 else "lower"
        else:
            verdicts[epsilon] = "no clear difference"
    return {
        "differs": [e for e, verdict in verdicts.items() if verdict in ("higher", "lower")],
        "verdicts": verdicts,
        "alpha": ALPHA,
        "seeds_needed": SEEDS_NEEDED,
    }


def lowest(values: Mapping[str, Mapping[int, float | None]]) -> dict[str, Any] | None:
    """The ε with the lowest mean of a measure, and whether seeds tell it from all the others.

    It is compared with each of the others by the paired t-test over seeds, with Bonferroni's
    correction for their number: it was picked for being lowest. For k equal ε the chance that one
    is said to be the lowest is at most `ALPHA`.

    Args:
      values: by ε, the measure of each seed.

    Returns:
      `smoothing` (the ε), `mean`, `decided`, `close`: the ε from which it is not told apart;
      `seeds`: the fewest that it shares with another. None with fewer than two ε measured.
    """
    known = {e: [v for v in by_seed.values() if v is not None] for e, by_seed in values.items()}
    means = {e: sum(v) / len(v) for e, v in known.items() if v}
    if len(means) < 2:
        return None
    best = min(means, key=lambda epsilon: means[epsilon])
    others = {e: paired_over_seeds(values[best], values[e]) for e in means if e != best}
    close = [
        e
        for e, difference in others.items()
        if difference["n"] < SEEDS_NEEDED
        or difference["p"] is None
        or difference["mean"] >= 0
        or difference["p"] * len(others) >= ALPHA
    ]
    return {
        "smoothing": best,
        "mean": means[best],
        "decided": not close,
        "close": close,
        "seeds": min(difference["n"] for difference in others.values()),
    }
