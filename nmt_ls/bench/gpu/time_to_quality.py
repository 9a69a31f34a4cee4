"""How long a run was trained until its averaged checkpoints reached a BLEU.

    python -m nmt_ls.bench.gpu.time_to_quality RUN --bleu 41 --output FILE

The run has kept its checkpoints (`training.keep_last`). At every so many of them the mean of those
before is evaluated on a test set, as a run that stopped there would have been.
"""

import argparse
import contextlib
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nmt_ls.decoding.translator import Translator
from nmt_ls.errors import UserError
from nmt_ls.evaluation.evaluate import test_sets
from nmt_ls.evaluation.translation import translation_metrics
from nmt_ls.outputs import write_beside
from nmt_ls.training.checkpoints import Checkpoints, mean_of_params
from nmt_ls.training.metrics import read_metrics
from nmt_ls.training.runs import load_run, regular_steps

METRIC = "bleu_lowercase_tokenized"


def seconds_until(records: Sequence[dict[str, Any]], step: int) -> float:
    """Seconds of training up to a step, by the records of metrics.jsonl.

    Between two records time is taken to pass evenly. Validations, checkpoints and what lies between
    two processes do not count: a record's seconds are those of its steps. Steps that none counts,
    those between a record and the checkpoint that a run went on from, take as long each as the
    steps of the record after them.
    """
    total, before = 0.0, 0
    for record in records:
        if record.get("seconds") is None:
            continue
        of_one = record["seconds"] / record["steps"]
        last = min(step, record["step"])
        total, before = total + of_one * (last - before), last
        if last == step:
            return total
    raise ValueError(f"no record as late as step {step}")


def time_to_quality(
    run_dir: Path, bleu: float, output: Path, *, every: int = 10, average: int = 10
) -> dict[str, Any]:
    """Evaluates the mean of checkpoints along a run, on its first test set.

    Args:
      run_dir: trained to its end.
      bleu: what is to be reached, lower-cased and tokenised.
      output: written after each evaluation; what is in it is not evaluated again.
      every: checkpoints between evaluations.
      average: checkpoints in a mean.

    Returns:
      test_set; wanted; `curve`: step, bleu, seconds; step and seconds of the first that reaches it,
      None where none does.

    Raises:
      UserError: no such run, or fewer checkpoints than one mean needs.
    """
    run = load_run(run_dir, "last")
    data = test_sets(run)[0]
    known = json.loads(output.read_text())["curve"] if output.exists() else []
    curve = {point["step"]: point for point in known}
    records = read_metrics(run_dir / "metrics.jsonl")
    result: dict[str, Any] = {}
    with contextlib.closing(Checkpoints(run_dir / "checkpoints")) as checkpoints:
        steps = regular_steps(checkpoints.steps(), run.config)
        if len(steps) < average:
            raise UserError(
                f"{run_dir} has {len(steps)} checkpoints, of which {average} make one mean; train "
                "with a larger training.keep_last"
            )
        for last in range(average, len(steps) + 1, every):
            step = steps[last - 1]
            if step not in curve:
                params = mean_of_params(checkpoints, steps[last - average : last])
                translator = Translator.of([dataclasses.replace(run, params=params)])
                found = translator.translate_ids([ids.tolist() for ids in data.source_ids])
                texts = [one.text for one in found]
                metrics = translation_metrics(texts, data.references, lowercase_tokenized=True)
                seconds = seconds_until(records, step)
                curve[step] = {"step": step, "bleu": metrics[METRIC], "seconds": seconds}
            result = _result(data.name, bleu, [curve[s] for s in sorted(curve)])
            write_beside(output, json.dumps(result, indent=1) + "\n")
    return result


def _result(test_set: str, wanted: float, curve: list[dict[str, Any]]) -> dict[str, Any]:
    reached = next((point for point in curve if point["bleu"] >= wanted), None)
    return {
        "test_set": test_set,
        "wanted": wanted,
        "step": reached and reached["step"],
        "seconds": reached and reached["seconds"],
        "curve": curve,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run as a program; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--bleu", type=float, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--average", type=int, default=10)
    given = parser.parse_args(argv)
    try:
        options = {"every": given.every, "average": given.average}
        time_to_quality(given.run, given.bleu, given.output, **options)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
