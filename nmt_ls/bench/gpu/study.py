"""What is measured on a GPU: the stages of scripts/gpu_study, their commands and their rows.

Configurations are those of the working directory, which is the repository's.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import yaml

from nmt_ls.bench.gpu.rehearsal import TINY
from nmt_ls.bench.gpu.stages import Step, StepFailed
from nmt_ls.bench.gpu.targets import (
    Row,
    population_row,
    quality_row,
    ratio_rows,
    reproduction_row,
    side_rows,
    sweep_results,
)
from nmt_ls.bench.gpu.time_to_quality import METRIC, seconds_until
from nmt_ls.bench.training.peers import installed
from nmt_ls.outputs import write_beside
from nmt_ls.study.plan_file import read_plan
from nmt_ls.training.metrics import read_metrics

PUBLISHED = 41.02  # Wu et al. 2021, Transformer-Tiny on test_2016_flickr
QUALITY = 41.0
POPULATION_WANTED = 3.0
ALONE = "alone"


class Stage(NamedTuple):
    """One thing to measure."""

    about: str
    steps: "Steps"
    """The commands."""
    rows: "Rows"
    """What they found."""


class Study:
    """Where results go, and what the commands are.

    Args:
      out: the folder of results.
      tiny: a rehearsal.
    """

    def __init__(self, out: Path, tiny: bool):
        self.out, self.tiny = out, tiny
        self.study, self.tatoeba = out / "study", out / "tatoeba"
        self.reproduction, self.timed = out / "reproduction", out / "time_to_quality"
        self.configs = {
            name: Path.cwd() / "configs" / f"{name}.yaml"
            for name in ("multi30k_study", "multi30k_en_de_tiny", "tatoeba_en_de")
        }
        if tiny:
            grid = {"sweep": {**TINY["sweep"], "grid": {"model.dropout": [0, 0.3]}}}
            for name, settings in (("tiny_study", {**TINY, **grid}), ("tiny", TINY)):
                write_beside(out / f"{name}.yaml", yaml.safe_dump(settings))
            self.configs = dict.fromkeys(self.configs, out / "tiny.yaml")
            self.configs["multi30k_study"] = out / "tiny_study.yaml"

    def nmt_ls(self, name: str, *command: Any, continues: bool = False) -> Step:
        """A verb of ours."""
        return Step(name, [sys.executable, "-m", "nmt_ls.cli", *map(str, command)], continues)

    def keeps_compiled(self, step: Step) -> Step:
        """The step, with a cache of what it compiles: what takes long need not be done again."""
        cache = {
            "JAX_COMPILATION_CACHE_DIR": str(self.out / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        return step._replace(variables={**step.variables, **cache})

    def bench(self, name: str, what: str, full: Iterable[Any], tiny: Iterable[Any] = ()) -> Step:
        """A benchmark whose JSON is `name`.bench.json."""
        options = tiny if self.tiny else full
        return self.nmt_ls(name, "bench", what, *options, "--output", self.json_of(name))

    def json_of(self, name: str) -> Path:
        """Where a step's result goes."""
        return self.out / f"{name}.bench.json"

    def result_of(self, name: str) -> dict[str, Any]:
        """What it was."""
        return json.loads(self.json_of(name).read_text(encoding="utf-8"))


Steps = Callable[[Study], Iterator[Step]]
Rows = Callable[[Study], Iterator[Row]]


def loss_steps(study: Study) -> Iterator[Step]:
    tiny = ("--rows", 16, "--width", 8, "--vocab-size", 64, "--repeats", 1)
    for size, width in (("base", 512), ("big", 1024)):
        full = ("--rows", 25_000, "--width", width, "--dtype", "bfloat16")
        yield study.bench(f"loss_{size}", "loss", full, tiny)


def loss_rows(study: Study) -> Iterator[Row]:
    for size in ("base", "big"):
        if not study.json_of(f"loss_{size}").exists():  # it failed, or its turn has not come
            yield Row(size, "unmeasured", "measured", False)
            continue
        for row in ratio_rows(study.result_of(f"loss_{size}"), at_most=True):
            yield row._replace(what=f"{size}: {row.what}")


def train_steps(size: str) -> Steps:
    def steps(study: Study) -> Iterator[Step]:
        tiny = ("--size", "tiny", "--compute", "float32", "--repeats", 1)
        full = ("--size", size, "--compute", "bfloat16")
        # One at a time: together they may want more memory than a GPU has.
        for peer in peers_of_training():
            options = ("--peers", *([] if peer == ALONE else [peer]))
            name = f"train_{size}_{peer}"
            # Ours and its products, more than a hundred programs, are the same beside each.
            yield study.keeps_compiled(
                study.bench(name, "train", (*full, *options), (*tiny, *options))
            )

    return steps


def peers_of_training() -> list[str]:
    return installed() or [ALONE]


def train_rows(size: str) -> Rows:
    def rows(study: Study) -> Iterator[Row]:
        shares = []
        for peer in peers_of_training():
            name = f"train_{size}_{peer}"
            if not study.json_of(name).exists():  # it failed, or its turn has not come
                yield Row(f"beside {peer}", "unmeasured", "measured", False)
                continue
            result = study.result_of(name)
            found = side_rows(result, "tokens_per_second") + ratio_rows(result, at_most=False)
            yield from (row._replace(what=f"{peer}: {row.what}") for row in found)
            shares.append(result["products"]["efficiency"])
        if shares:
            share = median(shares)
            yield Row("its matrix products alone / the step", f"{share:.2f}", "≥ 0.6", share >= 0.6)

    return rows


def decode_steps(study: Study) -> Iterator[Step]:
    tiny = ("--sentences", 8, "--beam", 2, "--batch-sentences", 8, "--repeats", 1)
    yield study.bench("decode", "decode", (), tiny)


def decode_rows(name: str) -> Rows:
    def rows(study: Study) -> Iterator[Row]:
        result = study.result_of(name)
        yield from side_rows(result, "sentences_per_second")
        yield from ratio_rows(result, at_most=False)
        for peer, share in result.get("equal", {}).items():
            yield Row(f"outputs of {peer} equal to ours", f"{share:.1%}")
        for peer, why in result.get("left_out", {}).items():
            yield Row(f"ours / {peer}", f"left out: {why}", "measured", False)

    return rows


def population_steps(study: Study) -> Iterator[Step]:
    full: tuple[Any, ...] = ("--members", 12, "--width", 128, "--layers", 4, "--vocab-size", 9_800)
    full += ("--batch-tokens", 8192)
    tiny: tuple[Any, ...] = ("--members", 3, "--width", 8, "--layers", 1, "--vocab-size", 20)
    tiny += ("--batch-tokens", 64, "--repeats", 1)
    yield study.bench("population", "population", full, tiny)


def population_rows(study: Study) -> Iterator[Row]:
    yield population_row(study.result_of("population"), POPULATION_WANTED)


def study_steps(study: Study) -> Iterator[Step]:
    config = study.configs["multi30k_study"]
    yield study.nmt_ls("study", "sweep", config, "--run-dir", study.study, continues=True)


def study_rows(study: Study) -> Iterator[Row]:
    done = sweep_results(study.study)
    yield Row("runs trained and evaluated", f"{len(done)} of {len(read_plan(study.study))}")
    cells: dict[tuple[Any, float], list[dict[str, Any]]] = {}
    for entry, results in done:
        dropout = entry["settings"].get("model.dropout", "")
        key = (dropout, entry["label_smoothing"])
        cells.setdefault(key, []).append(next(iter(results.values())))
    for (dropout, epsilon), tests in cells.items():
        means = [sum(t[name] for t in tests) / len(tests) for name in ("bleu", "perplexity", "ece")]
        found = "BLEU {:.2f}, perplexity {:.3f}, ECE {:.4f}".format(*means)
        yield Row(f"dropout {dropout}, ε {epsilon:g}, mean of {len(tests)}", found)


def strategies_steps(study: Study) -> Iterator[Step]:
    """Sampling and MBR of the runs with the recipe's dropout, ε 0 and 0.1, two seeds."""
    entries = read_plan(study.study)
    if not entries:
        raise StepFailed(f"{study.study} has no plan.json; do the stage `study` first")
    kept = max(entry["settings"]["model.dropout"] for entry in entries)
    seeds = sorted({entry["seed"] for entry in entries})[:2]
    for entry in entries:
        chosen = entry["label_smoothing"] in (0, 0.1) and entry["seed"] in seeds
        if chosen and entry["settings"]["model.dropout"] == kept:
            name = f"strategies_{entry['run']}"
            command = ("evaluate", study.study / entry["run"], "--output", study.json_of(name))
            yield study.nmt_ls(name, *command, "--set", "evaluation.strategies=[sample, mbr]")


def strategies_rows(study: Study) -> Iterator[Row]:
    for step in strategies_steps(study):
        run = step.name.removeprefix("strategies_")
        if not study.json_of(step.name).exists():
            yield Row(run, "unmeasured")
            continue
        test, results = next(iter(study.result_of(step.name).items()))
        for way, found in results["strategies"].items():
            row = f"{run}, {test}: BLEU by {way}, by search"
            yield Row(row, f"{found['bleu']:.2f}, {results['bleu']:.2f}")


def reproduction_steps(study: Study) -> Iterator[Step]:
    config, seeds = study.configs["multi30k_en_de_tiny"], 2 if study.tiny else 5
    yield study.nmt_ls(
        "reproduction", "sweep", config, "--run-dir", study.reproduction, "--smoothing", 0.1,
        "--seeds", seeds, "--set", "evaluation.lowercase_tokenized=true", continues=True,
    )  # fmt: skip


def reproduction_rows(study: Study) -> Iterator[Row]:
    tests = [next(iter(results.values())) for _, results in sweep_results(study.reproduction)]
    yield reproduction_row([test[METRIC] for test in tests], PUBLISHED)


def quality_steps(study: Study) -> Iterator[Step]:
    config = study.configs["multi30k_en_de_tiny"]
    options: tuple[Any, ...] = ("--bleu", QUALITY)
    if study.tiny:
        options += ("--average", 2, "--every", 1)
    command = ("train", config, "--run-dir", study.timed, "--set", "training.keep_last=200")
    yield study.nmt_ls("quality_train", *command, continues=True)
    measure = [sys.executable, "-m", "nmt_ls.bench.gpu.time_to_quality", study.timed, *options]
    measure += ["--output", study.json_of("quality")]
    yield Step("quality", [*map(str, measure)], continues=True)


def quality_rows(study: Study) -> Iterator[Row]:
    yield quality_row(study.result_of("quality"))


def tatoeba_steps(study: Study) -> Iterator[Step]:
    """The base model, post-norm so that Hugging Face can hold it, until it gets no better."""
    settings = ["training.patience=10", "training.validate_bleu=false"]
    if not study.tiny:
        settings += [
            "model.norm=post", "model.heads=8", "model.feed_forward=2048",
            "training.learning_rate=7e-4", "training.warmup_steps=4000", "training.max_steps=60000",
        ]  # fmt: skip
    options = [word for setting in settings for word in ("--set", setting)]
    config = study.configs["tatoeba_en_de"]
    command = ("train", config, "--run-dir", study.tatoeba, *options)
    yield study.nmt_ls("tatoeba_train", *command, continues=True)
    yield study.nmt_ls("tatoeba", "evaluate", study.tatoeba, "--output", study.json_of("tatoeba"))


def tatoeba_rows(study: Study) -> Iterator[Row]:
    records = read_metrics(study.tatoeba / "metrics.jsonl")
    timed = [record for record in records if record.get("seconds") is not None]
    rate = sum(r["target_tokens"] for r in timed) / sum(r["seconds"] for r in timed)
    yield Row("steps until no better", f"{records[-1]['step']:,}")
    yield Row("seconds of training", f"{seconds_until(records, timed[-1]['step']):,.0f}")
    yield Row("real target tokens/s of training", f"{rate:,.0f}")
    for test, results in study.result_of("tatoeba").items():
        yield Row(
            f"{test}: BLEU, perplexity", f"{results['bleu']:.2f}, {results['perplexity']:.3f}"
        )


def newstest_steps(study: Study) -> Iterator[Step]:
    data = Path(os.environ.get("NMT_LS_DATA", Path.cwd().parent / "shared" / "data"))
    text = data / "newstest2014_en_de" / "test.en"
    full: tuple[Any, ...] = ("--input", text, "--sentences", 3003, "--batch-sentences", 128)
    full += ("--repeats", 3, "--compute", "bfloat16")
    tiny = ("--sentences", 4, "--beam", 2, "--repeats", 1)
    options = ("--run", study.tatoeba, *(tiny if study.tiny else full))
    yield study.bench("newstest", "decode", options, options)


STAGES = {
    "loss": Stage("the loss at base and big, bfloat16", loss_steps, loss_rows),
    "train_base": Stage("a training step, base", train_steps("base"), train_rows("base")),
    "train_big": Stage("a training step, big", train_steps("big"), train_rows("big")),
    "decode": Stage("beam search, random weights", decode_steps, decode_rows("decode")),
    "population": Stage("12 runs in one program", population_steps, population_rows),
    "study": Stage("7 ε, 5 seeds, dropout 0 and 0.3 on Multi30k", study_steps, study_rows),
    "strategies": Stage("sampling and MBR, ε 0 and 0.1", strategies_steps, strategies_rows),
    "reproduction": Stage("the published 41.02 BLEU", reproduction_steps, reproduction_rows),
    "time_to_quality": Stage("seconds of training until 41 BLEU", quality_steps, quality_rows),
    "tatoeba": Stage("a base model until it gets no better", tatoeba_steps, tatoeba_rows),
    "newstest": Stage("newstest2014 beside the others", newstest_steps, decode_rows("newstest")),
}
