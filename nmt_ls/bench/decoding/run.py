"""A trained run and its exports over the same sentences: the same weights on all sides."""

import contextlib
import dataclasses
import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, Literal

import jax

from nmt_ls.bench.decoding.peers import (
    CTRANSLATE2,
    HUGGING_FACE,
    PeerTask,
    PeerWorker,
    installed,
    packages_of,
)
from nmt_ls.bench.machine import about, alternate, timed
from nmt_ls.bench.sides import asked_for, equal_precision
from nmt_ls.decoding.files import read_lines
from nmt_ls.decoding.rows import sentences_at_a_time
from nmt_ls.decoding.translator import Translation, Translator
from nmt_ls.errors import UserError
from nmt_ls.evaluation.evaluate import test_sets
from nmt_ls.interchange.ctranslate import POSITIONS
from nmt_ls.interchange.export import export
from nmt_ls.interchange.pieces import piece_list
from nmt_ls.interchange.search import plain_search, power_of_length
from nmt_ls.training.runs import LoadedRun, load_run

log = logging.getLogger("nmt_ls")

OURS = "nmt-ls"

_FORMATS = {CTRANSLATE2: "ctranslate2", HUGGING_FACE: "huggingface"}


def measure_run(
    run_directory: Path,
    *,
    source: Path | None = None,
    sentences: int = 512,
    beam: int = 5,
    batch_sentences: int = 64,
    repeats: int = 5,
    compute: Literal["float32", "bfloat16"] = "float32",
    peers: bool = True,
) -> dict[str, Any]:
    """Times beam search over real sentences with the weights of a run, and compares what is said.

    Ours goes from text to text, the others from ids to ids. Each searches its own way up to the end
    that the model finds: with the run's length penalty, within the longest of our limits, and
    without the tokens that we never put out (padding, begin-of-sentence). Settings of the run's
    search that the others do not have are left at their defaults, with a warning.

    Args:
      run_directory: the run; what can hold its weights is exported from it.
      source: lines of text; None: the run's first test set.
      sentences: the first so many; empty ones and those beyond the positions are left out.
      beam, batch_sentences, repeats: as of `bench_decode`.
      compute: type that all sides compute in, float32 or bfloat16.
      peers: others too, where they are installed.

    Returns:
      as `bench_decode` without its parts, and `without` in its settings: those of the run's search
      that are left at their defaults; `outputs_tokens`: the mean of ours, end-of-sentence
      included; `equal`: of each peer the share of sentences that it translates into the same
      tokens; `left_out`: why, of each peer that cannot hold the run or cannot run here.

    Raises:
      UserError: no such run or file, or no sentence in it.
    """
    run = load_run(Path(run_directory))
    model = dataclasses.replace(run.config.model, compute=compute)
    plain, left = plain_search(run.config.decoding)
    if left:
        log.warning("all sides search without %s, which not all of them have", ", ".join(left))
    decoding = dataclasses.replace(plain, beam=beam, batch_sentences=batch_sentences)
    at_a_time = sentences_at_a_time(decoding)  # on all sides
    config = dataclasses.replace(run.config, model=model, decoding=decoding)
    run = dataclasses.replace(run, config=config)
    translator = Translator.of([run], decoding)
    positions = min(POSITIONS, model.max_positions)  # which the others' models have
    lines = _sentences(run, source, sentences, min(translator.lengths.source, positions))
    ids = run.subwords.encode_source(lines)
    found: list[list[Translation]] = []
    candidates: dict[str, Callable[[], float]] = {
        OURS: lambda: timed(lambda: found.append(translator.translate(lines)))
    }
    limit = int(decoding.max_length_ratio * max(map(len, ids))) + decoding.max_length_extra
    task = PeerTask(
        ids, run.subwords.target_size, model.encoder_layers, model.width, model.heads,
        model.feed_forward, beam, at_a_time, 0, run.subwords.eos, run.subwords.pad,
        pieces=(piece_list(run.subwords, "source"), piece_list(run.subwords, "target")),
        longest=min(limit, positions), length_alpha=_alpha(run), compute=compute,
        never=tuple(sorted({run.subwords.pad, run.subwords.bos})),
    )  # fmt: skip
    outputs, devices, workers = {}, {OURS: jax.default_backend()}, []
    with (
        _exported(run, installed() if peers else []) as (folders, left_out),
        equal_precision(compute) as precision,
    ):
        try:
            for name, folder in folders.items():
                workers.append(PeerWorker(name, task._replace(folder=folder)))
                candidates[name] = workers[-1].run
            seconds = alternate(candidates, repeats, left_out)
            for worker in workers:
                if worker.name in seconds:
                    outputs[worker.name] = worker.outputs()
                    devices[worker.name] = worker.device()
        finally:
            for worker in workers:
                worker.close()
    ours = [list(one.tokens) for one in found[-1]]
    settings = {
        "run": Path(run_directory).name, "checkpoint": run.checkpoint, "sentences": len(lines),
        "source": source.name if source else next(iter(run.config.data.tests)), "beam": beam,
        "batch_sentences": at_a_time, "repeats": repeats, "compute": compute,
        "without": left, "precision": precision,
    }  # fmt: skip
    result = about(settings, ("jax", "jaxlib", "flax", *packages_of(list(outputs))))
    result["machine"]["device"] = jax.devices()[0].device_kind
    result["machine"]["devices"] = jax.local_device_count()
    middle = {name: median(times) for name, times in seconds.items()}
    return {
        **result,
        "sides": [
            {
                "name": _named(name, compute),
                "device": devices[name],
                "sentences_per_second": len(lines) / middle[name],
                "repeats": times,
            }
            for name, times in seconds.items()
        ],
        "ratios": [
            {
                "beside": _named(name, compute),
                "ratio": middle[name] / middle[OURS],
                "wanted": asked_for(_wanted(name), jax.local_device_count(), devices[name]),
            }
            for name in outputs
        ],
        "outputs_tokens": sum(map(len, ours)) / len(ours),
        "equal": {
            _named(name, compute): _equal_share(ours, theirs, run.subwords.eos)
            for name, theirs in outputs.items()
        },
        "left_out": {_named(name, compute): why for name, why in left_out.items()},
    }


def _wanted(name: str) -> float | None:
    """At least so many times a peer's sentences per second; on a GPU one figure is asked for."""
    if jax.default_backend() == "cpu":
        return {CTRANSLATE2: 1.0, HUGGING_FACE: 2.0}[name]
    return {HUGGING_FACE: 3.0}.get(name)


def _named(name: str, compute: str) -> str:
    return name.replace("float32", compute)


def _alpha(run: LoadedRun) -> float:
    """The exponent of length that the others know; the GNMT penalty none of them has."""
    decoding = run.config.decoding
    if decoding.length_penalty == "gnmt":
        raise UserError(
            f"{run.run_dir} has decoding.length_penalty=gnmt, which neither CTranslate2 nor "
            "Hugging Face has; measure a run with average or none"
        )
    return power_of_length(decoding)


def _sentences(run: LoadedRun, source: Path | None, count: int, longest: int) -> list[str]:
    if source is not None:
        lines = list(read_lines(source))
    else:
        name = next(iter(run.config.data.tests), None)
        lines = test_sets(run, None if name is None else [name])[0].sources
    lines = [line for line in lines[:count] if line.strip()]
    lengths = map(len, run.subwords.encode_source(lines))
    lines = [line for line, n in zip(lines, lengths, strict=True) if 1 < n <= longest]
    if not lines:
        raise UserError(f"{source or 'the test set'} has no sentence to translate")
    return lines


@contextlib.contextmanager
def _exported(run: LoadedRun, names: list[str]) -> Iterator[tuple[dict[str, Path], dict[str, str]]]:
    """Folders of the run in each peer's format while the block runs, and why others have none."""
    folders, left_out = {}, {}
    with tempfile.TemporaryDirectory(prefix="nmt_ls_bench_") as base:
        for name in names:
            folder = Path(base) / _FORMATS[name]
            try:
                export(run, _FORMATS[name], folder)
                folders[name] = folder
            except UserError as error:
                left_out[name] = str(error)
        yield folders, left_out


def _equal_share(ours: list[list[int]], theirs: list[list[int]], eos: int) -> float:
    """Share of sentences with the same tokens; the end itself is not compared."""
    said = [ids[:-1] if ids and ids[-1] == eos else ids for ids in ours]
    return sum(a == b for a, b in zip(said, theirs, strict=True)) / len(said)


def describe_equal(result: dict[str, Any]) -> str:
    """What the sides said, and which were left out."""
    lines = [f"{share:.1%} of {name}'s outputs are ours" for name, share in result["equal"].items()]
    lines += [f"left out: {name}: {why}" for name, why in result["left_out"].items()]
    return "\n".join(lines)
