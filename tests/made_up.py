"""A made-up sweep whose runs hold everything that a report can draw."""

import json

import numpy as np
from test_comparison import made_up_sweep

from nmt_ls.evaluation.breakdown import by_length, by_word_frequency
from nmt_ls.evaluation.risk_coverage import risk_coverage


def write_sweep(path, runs, planned=()) -> None:
    """A sweep's directory as training and evaluation leave it; the last log line is unfinished."""
    plan = [{name: run[name] for name in ("run", "label_smoothing", "seed")} for run in runs]
    path.mkdir(parents=True, exist_ok=True)
    (path / "plan.json").write_text(json.dumps({"runs": [*plan, *planned]}))
    for run in runs:
        directory = path / run["run"]
        (directory / "translations").mkdir(parents=True)
        (directory / "results.json").write_text(json.dumps(run["results"]))
        for test, lines in run["translations"].items():
            text = "".join(f"{line}\n" for line in lines)
            (directory / "translations" / f"{test}.txt").write_bytes(text.encode())
            (directory / "translations" / f"{test}.references.json").write_text(
                json.dumps(run["references"][test])
            )
        records = [
            {"step": step, "validation_perplexity": 500 / step, "validation_bleu": step / 10}
            for step in (100, 200, 300)
        ]
        lines = [json.dumps(record) for record in [{"step": 50, "perplexity": 30.0}, *records]]
        (directory / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 40')
        (directory / "environment.json").write_text('{"jax": "0.10.2", "devices": ["cpu"]}')


def with_everything(runs: list[dict]) -> list[dict]:
    """The runs with all that `evaluate` can measure, in its own shapes."""
    for run in runs:
        epsilon, seed = run["label_smoothing"], run["seed"]
        random = np.random.default_rng([seed, int(100 * epsilon)])
        for test, results in run["results"].items():
            hypotheses, references = run["translations"][test], run["references"][test]
            sources = [" ".join("ab" for _ in row[0].split()) for row in references]
            counts = {"der": 3, "die": 30, "Hund": 300, "Park": 12, "im": 5000}
            raw = results["nll_per_token"]
            adjusted = {
                kind: {"nll_per_token": raw - gain, "entropy": raw - gain, "ece": 0.02, "gap": 0.0}
                for kind, gain in (("temperature", 0.02), ("unmixed", 0.5 * epsilon), ("both", 0.1))
            }
            results |= {
                "entropy": raw + 2 * epsilon,
                "adjusted": adjusted,
                "inference_calibration": {"ece": 0.1 + epsilon, "gap": 0.1 - epsilon},
                "by_source_length": [
                    {**row, "sentences": row["sentences"] + 20}
                    for row in by_length(hypotheses, references, sources)
                ],
                "by_word_frequency": [
                    {**row, "words": row["words"] + 20}
                    for row in by_word_frequency(hypotheses, references, counts)
                ],
                "risk_coverage": risk_coverage(random.uniform(size=40), random.uniform(size=40)),
                "empty_better": 0.1 - epsilon / 4,
                "beam_curve": [
                    {"beam": beam, "bleu": 40 - beam / 20, "length_ratio": 1 - beam / 500}
                    for beam in (1, 5, 50)
                ],
                "strategies": {
                    "sample": {"bleu": 25 - 40 * epsilon, "chrf": 40.0},
                    "mbr": {"bleu": 31.0, "chrf": 50.0 - epsilon},
                },
                "projection": projected(random, 0.5 - epsilon),
            }
    return runs


def projected(random: np.random.Generator, spread: float) -> dict:
    """What `evaluation.projection` returns, its numbers drawn."""
    corners = {"ein": (-1, 0), "Mann": (1, 0), "im": (0, 1.7)}
    points = {w: (c + spread * random.normal(size=(20, 2))).tolist() for w, c in corners.items()}
    found = {"within": spread**2, "between": 1.0, "ratio": spread**2}
    return {
        "words": list(corners),
        "tokens": [20] * 3,
        "points": points,
        "templates": {w: list(c) for w, c in corners.items()},
        "plane": found,
        "hidden": found,
    }


def everything_sweep(**options) -> list[dict]:
    """As `made_up_sweep`, with everything."""
    return with_everything(made_up_sweep(**options))
