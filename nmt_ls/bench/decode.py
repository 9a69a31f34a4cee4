"""Sentences per second of beam search beside others, where its time goes, its memory over lines."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any, Literal

import jax
from tabulate import tabulate

from nmt_ls.bench.decoding import parts as decode_parts
from nmt_ls.bench.decoding.lines import describe_lines, measure_lines
from nmt_ls.bench.decoding.model import Problem, make_problem
from nmt_ls.bench.decoding.peers import (
    CTRANSLATE2,
    HUGGING_FACE,
    PeerTask,
    PeerWorker,
    installed,
    packages_of,
)
from nmt_ls.bench.decoding.run import OURS, describe_equal, measure_run
from nmt_ls.bench.machine import about, alternate, describe_machine, timed
from nmt_ls.bench.sides import asked_for, equal_precision

WANTED = {CTRANSLATE2: 1.0, HUGGING_FACE: 2.0}
"""Our sentences per second over a peer's: at least so many."""


def bench_decode(
    *,
    sentences: int = 512,
    beam: int = 5,
    batch_sentences: int = 64,
    tokens: int = 16,
    repeats: int = 5,
    lines: int = 0,
    run_directory: Path | None = None,
    source: Path | None = None,
    compute: Literal["float32", "bfloat16"] = "float32",
    peers: bool = True,
    folders: Mapping[str, Path] | None = None,
    **shape: Any,
) -> dict[str, Any]:
    """Times beam search, text to text, with random parameters and outputs of one fixed length.

    All sides make as many steps. Peers take and give ids; ours takes and gives text.

    Args:
      sentences: of about `tokens` tokens, 3/4 to 5/4 as many.
      beam: hypotheses of a sentence.
      batch_sentences: searched at a time, by all sides; of beams over 16 fewer, as ours does.
      tokens: of each output, end-of-sentence included.
      repeats: rounds, after one that does not count.
      lines: so many lines through a tiny model from file to file, for its memory, and nothing
        else; 0: the rest.
      run_directory: instead, the weights of this run on all sides: see `measure_run`.
      source, compute: of `measure_run`.
      peers: others too, where they are installed.
      folders: models for the peers, by name; without one a peer has random weights.
      shape: of `make_problem`: `model`, `vocab_size`, `seed`.

    Returns:
      machine, versions, settings. `lines`: see `measure_lines`; or `sides`: name,
      device, sentences_per_second (the median), repeats (seconds); `ratios`: ours over theirs:
      beside, ratio, wanted (None where devices differ); `left_out`: why, of each peer that cannot
      run here; `batch_seconds`: one whole batch, id to hypothesis, of the run above; `parts`:
      name, seconds (of one batch or one step; the median), times (a batch), share (of the batch).

    Raises:
      ValueError: numbers under 1; options that do not go together.
      UserError: see `measure_run`.
    """
    settings: dict[str, Any] = {
        "sentences": sentences,
        "beam": beam,
        "batch_sentences": batch_sentences,
        "tokens": tokens,
        "repeats": repeats,
        "lines": lines,
    }
    for name, value in settings.items():
        least = {"lines": 0, "tokens": 2}.get(name, 1)
        if value < least:
            raise ValueError(f"{name}={value}: at least {least}")
    if run_directory is not None:
        if lines:
            raise ValueError("--lines and --run exclude each other")
        return measure_run(
            run_directory, source=source, sentences=sentences, beam=beam,
            batch_sentences=batch_sentences, repeats=repeats, compute=compute, peers=peers,
        )  # fmt: skip
    if source is not None or compute != "float32":
        raise ValueError("--input and --compute go with --run; random weights are float32")
    names = installed() if peers and not lines else []
    result = about(settings, ("jax", "jaxlib", "flax", *packages_of(names)))
    result["machine"]["device"] = jax.devices()[0].device_kind
    result["machine"]["devices"] = jax.local_device_count()
    if lines:
        return {**result, "lines": measure_lines(lines, beam=beam, batch_sentences=batch_sentences)}
    problem = make_problem(
        sentences, beam=beam, batch_sentences=batch_sentences, tokens=tokens, **shape
    )
    settings["batch_sentences"] = problem.at_a_time
    result["left_out"] = {}
    with equal_precision("float32") as precision:
        seconds, devices = _sides(problem, names, folders or {}, repeats, result["left_out"])
        middle = {name: median(times) for name, times in seconds.items()}
        batches = -(-sentences // problem.at_a_time)
        result["batch_seconds"] = middle[OURS] / batches
        result["parts"] = _parts(problem, repeats, result["batch_seconds"])
    settings["precision"] = precision
    result["sides"] = [
        {
            "name": name,
            "device": devices[name],
            "sentences_per_second": sentences / middle[name],
            "repeats": times,
        }
        for name, times in seconds.items()
    ]
    result["ratios"] = [
        {
            "beside": name,
            "ratio": middle[name] / middle[OURS],
            "wanted": asked_for(WANTED[name], jax.local_device_count(), devices[name]),
        }
        for name in names
        if name in seconds
    ]
    return result


def _sides(
    problem: Problem,
    names: list[str],
    folders: Mapping[str, Path],
    repeats: int,
    left_out: dict[str, str],
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Seconds, and where each side computes."""
    translator = problem.translator()
    subwords, model = problem.subwords, problem.model
    ids = subwords.encode_source(problem.sentences)
    candidates: dict[str, Callable[[], float]] = {
        OURS: lambda: timed(lambda: translator.translate(problem.sentences))
    }
    workers = []
    try:
        for name in names:
            task = PeerTask(
                ids, subwords.target_size, model.encoder_layers, model.width, model.heads,
                model.feed_forward, problem.beam, problem.at_a_time, problem.tokens,
                subwords.eos, subwords.pad, folders.get(name),
            )  # fmt: skip
            workers.append(PeerWorker(name, task))
            candidates[name] = workers[-1].run
        seconds = alternate(candidates, repeats, left_out)
        devices = {worker.name: worker.device() for worker in workers if worker.name in seconds}
        return seconds, devices | {OURS: jax.default_backend()}
    finally:
        for worker in workers:
            worker.close()


def _parts(problem: Problem, repeats: int, whole: float) -> list[dict[str, Any]]:
    seconds = alternate(decode_parts.parts(problem), repeats)
    found = []
    for name, taken in seconds.items():
        times = problem.tokens if name.startswith("step:") else 1
        one = median(taken)
        found.append({"name": name, "seconds": one, "times": times, "share": one * times / whole})
    return found


def describe(result: dict[str, Any]) -> str:
    """The result of `bench_decode` as text."""
    if "lines" in result:
        return f"{describe_lines(result['lines'])}\n\n{describe_machine(result)}"
    s = result["settings"]
    rates = _rates(result)
    if "equal" in result:
        return (
            f"{s['sentences']:,} sentences of {s['source']} by {s['run']} ({s['checkpoint']}) into "
            f"{result['outputs_tokens']:.1f} tokens each on average,\nbeam {s['beam']}, "
            f"{s['batch_sentences']} at a time, {s['compute']}, the same weights on all sides;\n"
            f"median of {s['repeats']} rounds in turn, on {result['machine']['device']}, "
            f"{os.cpu_count()} cores, {result['machine']['devices']} devices\n\n{rates}\n\n"
            f"{describe_equal(result)}\n\n{describe_machine(result)}"
        )
    rows = [
        [p["name"], f"{p['seconds'] * 1e3:.2f}", str(p["times"]), f"{p['share']:.1%}"]
        for p in result["parts"]
    ]
    listed = (*decode_parts.STEP_PARTS, decode_parts.ENCODE, *decode_parts.HOST_PARTS)
    rest = 1 - sum(p["share"] for p in result["parts"] if p["name"] in listed)
    rows.append(["the rest: hypotheses, loop, dispatch", "", "", f"{rest:.1%}"])
    where = tabulate(
        rows,
        ["", "ms", "times", "of a batch"],
        disable_numparse=True,
        colalign=("left", *["right"] * 3),
    )
    return (
        f"{s['sentences']:,} sentences of about {s['tokens']} tokens into {s['tokens']} tokens "
        f"each, beam {s['beam']}, {s['batch_sentences']} at a time, float32, random parameters;\n"
        f"median of {s['repeats']} rounds in turn, on {result['machine']['device']}, "
        f"{os.cpu_count()} cores as {result['machine']['devices']} devices\n\n{rates}\n\n"
        f"{_left_out(result)}"
        f"One batch takes {result['batch_seconds'] * 1e3:.0f} ms. Its parts, each compiled and "
        f"timed alone, all devices at once:\n\n{where}\n\n{describe_machine(result)}"
    )


def _left_out(result: dict[str, Any]) -> str:
    return "".join(f"left out: {name}: {why}\n\n" for name, why in result["left_out"].items())


def _rates(result: dict[str, Any]) -> str:
    ratios = {r["beside"]: r for r in result["ratios"]}
    sides = []
    for side in result["sides"]:
        ratio = ratios.get(side["name"])
        wanted = ratio and ratio["wanted"]
        sides.append(
            [
                side["name"],
                side["device"],
                f"{side['sentences_per_second']:.1f}",
                f"{ratio['ratio']:.2f}" if ratio else "",
                f"≥ {wanted:g}" if wanted else "",
            ]
        )
    return tabulate(
        sides,
        ["", "on", "sentences/s", "ours / theirs", "asked for"],
        disable_numparse=True,
        colalign=("left", "left", *["right"] * 3),
    )
