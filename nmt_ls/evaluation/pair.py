"""Two systems on the same sentences: sacreBLEU's scores, and whether they differ by luck alone.

The p-values are of sacreBLEU's own paired tests and speak of this pair of models, whose outputs
are as they are: what else their training seeds could have made of them, no resampling of sentences
shows (`study.decision` compares recipes of training).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sacrebleu.significance import PairedTest
from tabulate import tabulate

from nmt_ls.decoding.files import read_lines
from nmt_ls.errors import UserError
from nmt_ls.evaluation.breakdown import by_length
from nmt_ls.evaluation.completeness import read_results
from nmt_ls.evaluation.formatting import interval, number, p_value
from nmt_ls.evaluation.resampling import SAMPLES
from nmt_ls.evaluation.significance import ALPHA, paired_bootstrap
from nmt_ls.evaluation.tokenizers import DEFAULT, tokenizer_in
from nmt_ls.evaluation.translation import (
    MetricName,
    checked_streams,
    scorer_of,
    sentence_statistics,
)

LABEL = "this pair of models"
TRIALS = 10_000
"""Of approximate randomisation: sacreBLEU's default."""

TOGETHER = "all together"
VALIDATION = "validation"

_METRICS: tuple[MetricName, ...] = ("bleu", "chrf", "ter")
_NAMES: dict[str, str] = {"bleu": "BLEU", "chrf": "chrF2", "ter": "TER (lower is better)"}


@dataclass(frozen=True)
class Outputs:
    """What two systems made of one test set of N sentences."""

    references: list[list[str]]
    """[N] references of each sentence."""
    a: list[str]
    b: list[str]
    sources: list[str] | None = None
    tokenize: str = DEFAULT
    """How BLEU splits words."""


@dataclass(frozen=True)
class _Known:
    """Counts of sentences that sacreBLEU's tests would otherwise make anew, each of them twice."""

    outputs: Outputs
    counts: Sequence[np.ndarray]
    """Of a and b, [N, K] each."""

    def __call__(self, hypotheses: list[str], references: None) -> list[list[float]]:
        return self.counts[hypotheses is self.outputs.b].tolist()


def compare_pair(
    outputs: Outputs, *, samples: int = SAMPLES, trials: int = TRIALS
) -> dict[str, Any]:
    """Scores of two systems, their differences, and p-values of sacreBLEU's paired tests.

    Args:
      outputs: translations, detokenised, and raw references.
      samples: bootstrap resamples of sentences (Koehn 2004).
      trials: of approximate randomisation (Riezler & Maxwell 2005).

    Returns:
      `label`, `sentences`, `same_outputs` (how many sentences have equal translations), and
      `metrics`: for `bleu`, `chrf` and `ter` the scores `a` and `b` in percent, `difference`
      b − a, `ci95` of it (percentiles of our own bootstrap over sentences), `p_bootstrap` and
      `p_randomisation` (two-sided), `signature`, `signature_bootstrap`,
      `signature_randomisation`. A difference of exactly 0 has p = 1: sacreBLEU's count of larger
      differences would make it the smallest p there is. Of one sentence the interval and the p are
      None: nothing can be resampled. With sources also `by_source_length`, of `a` and `b`, as
      `breakdown.by_length`.

    Raises:
      ValueError: no sentences, unequal numbers, or a sentence without reference.
    """
    streams = checked_streams(outputs.a, outputs.references)
    checked_streams(outputs.b, outputs.references)
    scorers = {
        metric: scorer_of(metric, outputs.tokenize, references=streams) for metric in _METRICS
    }
    systems = [("a", outputs.a), ("b", outputs.b)]
    counts = {
        metric: sentence_statistics(
            [outputs.a, outputs.b], outputs.references, metric, outputs.tokenize
        )
        for metric in _METRICS
    }
    for metric, scorer in scorers.items():
        scorer._extract_corpus_statistics = _Known(outputs, counts[metric])
    signatures = {name: str(scorer.get_signature()) for name, scorer in scorers.items()}
    tests = {
        kind: PairedTest(systems, scorers, None, test_type=kind, n_samples=count)()
        for kind, count in (("bs", samples), ("ar", trials))
    }
    metrics: dict[str, dict[str, Any]] = {}
    # sacreBLEU has its own names for the metrics, in our order after "System".
    for metric, theirs in zip(_METRICS, list(tests["bs"][1])[1:], strict=True):
        a, b = (float(result.score) for result in tests["bs"][1][theirs])
        of_a, of_b = counts[metric]
        p_values: dict[str, float | None] = {
            kind: 1.0 if a == b else float(scores[theirs][1].p_value)
            for kind, (_, scores) in tests.items()
        }
        if len(outputs.a) < 2:
            p_values = dict.fromkeys(p_values)
        metrics[metric] = {
            "a": a,
            "b": b,
            "difference": b - a,
            "ci95": paired_bootstrap(of_b, of_a, metric, samples)["ci95"],
            "p_bootstrap": p_values["bs"],
            "p_randomisation": p_values["ar"],
            "signature": signatures[metric],
            "signature_bootstrap": str(tests["bs"][0][theirs]),
            "signature_randomisation": str(tests["ar"][0][theirs]),
        }
    found: dict[str, Any] = {
        "label": LABEL,
        "sentences": len(outputs.a),
        "same_outputs": sum(a == b for a, b in zip(outputs.a, outputs.b, strict=True)),
        "metrics": metrics,
    }
    if outputs.sources is not None:
        found["by_source_length"] = {
            name: by_length(texts, outputs.references, outputs.sources, outputs.tokenize)
            for name, texts in systems
        }
    return found


def pair_table(found: dict[str, Any], test: str, a: str, b: str) -> str:
    """What `compare_pair` found on a test set, for people; `a` and `b` name the systems."""
    rows = []
    for metric, r in found["metrics"].items():
        difference = f"{number(r['difference'], 2, True)} [{interval(r['ci95'])}]"
        p_values = [p_value(r[f"p_{kind}"]).removeprefix("= ") for kind in _TESTS]
        rows.append([_NAMES[metric], number(r["a"]), number(r["b"]), difference, *p_values])
    headers = ["", "A", "B", "B − A [95 % over sentences]", *(f"p, {t}" for t in _TESTS.values())]
    right = ("left", *["right"] * (len(headers) - 1))
    lines = [
        f"{test}: {found['sentences']} sentences, {found['same_outputs']} with the same output",
        f"A = {a}, B = {b}",
        tabulate(rows, headers, disable_numparse=True, colalign=right),
        pair_sentence(found),
        *(f"{_NAMES[m].split()[0]}: {r['signature']}" for m, r in found["metrics"].items()),
    ]
    if lengths := found.get("by_source_length"):
        rows = [
            [
                str(of_a["low"]) + ("+" if of_a["high"] is None else f"–{of_a['high']}"),
                str(of_a["sentences"]),
                *(number(r["bleu"]) for r in (of_a, of_b)),
                *(number(r["length_ratio"]) for r in (of_a, of_b)),
            ]
            for of_a, of_b in zip(lengths["a"], lengths["b"], strict=True)
        ]
        headers = ["source words", "sentences", "BLEU A", "BLEU B", "length A", "length B"]
        lines += ["", tabulate(rows, headers, disable_numparse=True, stralign="right")]
    return "\n".join(lines)


_TESTS = {"bootstrap": "paired bootstrap", "randomisation": "approximate randomisation"}


def pair_sentence(found: dict[str, Any]) -> str:
    """What both tests say of BLEU, and of what."""
    bleu = found["metrics"]["bleu"]
    if found["same_outputs"] == found["sentences"]:
        return "The two give the same output for every sentence: there is nothing to tell apart."
    if found["sentences"] < 2:
        return "One sentence: too few to tell the two apart."
    p_values = [bleu[f"p_{kind}"] for kind in _TESTS]
    if max(p_values) < ALPHA:
        better = "better" if bleu["difference"] > 0 else "worse"
        verdict = f"B is {better} than A in BLEU"
    elif min(p_values) < ALPHA:
        verdict = "the two tests disagree on whether A and B differ in BLEU"
    else:
        verdict = "no clear difference in BLEU"
    return f"For {LABEL}: {verdict}. Other seeds of the same recipes may come out otherwise."


def outputs_of_runs(a: Path, b: Path, split: str | None = None) -> dict[str, Outputs]:
    """The stored outputs of two runs, by test set, and of several also `all together`.

    Args:
      a, b: run directories that `evaluate` has been through.
      split: one test set; None: all that both have, without `validation` if there are others.

    Raises:
      UserError: no stored outputs, none that both have, different references, or files that do
        not fit together.
    """
    stored = {run: _stored(run) for run in (a, b)}
    shared = [name for name in stored[a] if name in stored[b]]
    if split is not None and split not in shared:
        have = "; ".join(f"{run} has {', '.join(names)}" for run, names in stored.items())
        raise UserError(f"--split {split}: {have}")
    if not shared:
        have = "; ".join(f"{run} has {', '.join(names)}" for run, names in stored.items())
        raise UserError(f"no test set was evaluated with both: {have}")
    chosen = [split] if split is not None else [n for n in shared if n != VALIDATION] or shared
    found = {}
    for name in chosen:
        references, of_a, sources = _read(a, name)
        others, of_b, _ = _read(b, name)
        if references != others:
            raise UserError(
                f"{a} and {b} were evaluated on different references of {name}; evaluate both again"
            )
        by_a, by_b = (_tokenizer_of(run, name) for run in (a, b))
        if by_a != by_b:
            raise UserError(
                f"BLEU of {name} is of words split by {by_a} in {a} and by {by_b} in {b}; "
                "evaluate both with one evaluation.bleu_tokenize"
            )
        found[name] = Outputs(references, of_a, of_b, sources, by_a)
    if len(found) > 1 and len({outputs.tokenize for outputs in found.values()}) == 1:
        found[TOGETHER] = _together(list(found.values()))
    return found


def outputs_of_files(
    a: Path,
    b: Path,
    references: Sequence[Path],
    source: Path | None = None,
    tokenize: str = DEFAULT,
) -> Outputs:
    """Translations in two files, a line per sentence, and their references.

    Raises:
      UserError: a file that is missing, empty or not UTF-8, or unequal numbers of lines.
    """
    paths = [a, b, *references, *([source] if source else [])]
    texts = [_lines(path) for path in paths]
    for path, lines in zip(paths, texts, strict=True):
        if len(lines) != len(texts[2]):
            raise UserError(
                f"{path} has {len(lines)} lines, {references[0]} has {len(texts[2])}: "
                "line i of all files must be of the same sentence"
            )
    of_sentence = [list(lines) for lines in zip(*texts[2 : 2 + len(references)], strict=True)]
    return Outputs(of_sentence, texts[0], texts[1], texts[-1] if source else None, tokenize)


def _together(sets: Sequence[Outputs]) -> Outputs:
    """Several test sets as one."""
    sources = [s.sources for s in sets]
    return Outputs(
        [line for s in sets for line in s.references],
        [line for s in sets for line in s.a],
        [line for s in sets for line in s.b],
        [line for s in sources for line in s or ()] if None not in sources else None,
        sets[0].tokenize,
    )


def _tokenizer_of(run: Path, name: str) -> str:
    """How the words of a test set were split when a run was evaluated."""
    results = read_results(run) if (run / "results.json").exists() else {}
    return tokenizer_in(results.get(name, {}).get("bleu_signature") or "")


def _stored(run: Path) -> list[str]:
    """The test sets of which a run has outputs and references."""
    if not run.is_dir():
        what = "is a file; give --reference too" if run.exists() else "is no run directory"
        raise UserError(f"{run} {what}")
    ending = ".references.json"
    names = [p.name.removesuffix(ending) for p in (run / "translations").glob(f"*{ending}")]
    names = sorted(name for name in names if (run / "translations" / f"{name}.txt").exists())
    if not names:
        raise UserError(f"{run} has no stored translations; `nmt-ls evaluate {run}` writes them")
    return names


def _read(run: Path, name: str) -> tuple[list[list[str]], list[str], list[str] | None]:
    """(references, translations, sources) that a run stored of a test set."""
    folder = run / "translations"
    path = folder / f"{name}.references.json"
    try:
        references = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); evaluate {run} again") from error
    source = folder / f"{name}.source.txt"
    texts = [_lines(folder / f"{name}.txt"), _lines(source) if source.exists() else None]
    for lines, file in zip(texts, (f"{name}.txt", source.name), strict=True):
        if lines is not None and len(lines) != len(references):
            raise UserError(
                f"{folder / file} has {len(lines)} lines but there are {len(references)} "
                f"references; evaluate {run} again"
            )
    return references, texts[0] or [], texts[1]


def _lines(path: Path) -> list[str]:
    lines = list(read_lines(path))
    if not lines:
        raise UserError(f"{path} is empty")
    return lines
