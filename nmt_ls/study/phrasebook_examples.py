"""Translations of new phrasebook sentences beside what the grammar accepts.

`python -m nmt_ls.study.phrasebook_examples RUN [RUN …] --count 6`; a SWEEP stands for its runs.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from nmt_ls.compilation import enable_compilation_cache
from nmt_ls.data.phrasebook import Phrasebook
from nmt_ls.decoding.translator import Translator
from nmt_ls.errors import UserError
from nmt_ls.study.strength import STRENGTHS
from nmt_ls.training.runs import load_run

_SEED = 2026
"""Not the seed that training, validation and test pairs are drawn with."""


def examples(run_dirs: Sequence[Path], count: int) -> str:
    """`count` sentences of the test split that the run has not been measured on, translated.

    Each translation stands with its probability under the grammar (0: not an accepted
    translation), then the other accepted ones, most probable first.
    """
    runs = [load_run(path) for given in run_dirs for path in _runs_in(given)]
    corpora = list(runs[0].config.data.tests.values())
    if not corpora or corpora[0].kind != "phrasebook":
        raise UserError(f"{run_dirs[0]} was not tested on the phrasebook")
    book = Phrasebook(corpora[0].grammar)
    sources = [source for source, _ in islice(book.pairs("test", count, seed=_SEED), count)]
    blocks = [[f"{source}"] for source in sources]
    for run in runs:
        loss = run.config.loss
        strength = loss.label_smoothing if loss.kind == "label_smoothing" else loss.beta
        label = STRENGTHS[loss.kind].value(strength)
        for block, source, found in zip(
            blocks, sources, Translator.of([run]).translate(sources), strict=True
        ):
            accepted = dict(book.translations(source))
            share = accepted.get(found.text, 0.0)
            verdict = f"accepted, p = {share:.2f}" if share else "not accepted"
            block.append(f"  {label}: {found.text}  ({verdict})")
    for block, source in zip(blocks, sources, strict=True):
        ranked = book.translations(source)
        shown = [f"{text} ({p:.2f})" for text, p in ranked[:3]]
        more = f", and {len(ranked) - 3} more" if len(ranked) > 3 else ""
        block.append(f"  the grammar: {'; '.join(shown)}{more}")
    return "\n".join("\n".join(block) for block in blocks)


def _runs_in(path: Path) -> list[Path]:
    if not (path / "plan.json").exists():
        return [path]
    plan = json.loads((path / "plan.json").read_text())["runs"]
    first_seed = min(run["seed"] for run in plan)
    return [path / run["run"] for run in plan if run["seed"] == first_seed]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--count", type=int, default=6)
    arguments = parser.parse_args()
    enable_compilation_cache()
    try:
        print(examples(arguments.runs, arguments.count))
    except UserError as error:
        print(f"nmt-ls: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
