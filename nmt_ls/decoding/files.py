"""Files and streams of sentences through a model, a block of lines at a time."""

import codecs
import contextlib
import json
import logging
import os
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from nmt_ls.decoding.alignment import attention_weights, hard_alignment
from nmt_ls.decoding.scoring import score_tokens
from nmt_ls.decoding.translator import Translation, Translator
from nmt_ls.errors import UserError
from nmt_ls.outputs import destination, is_stream
from nmt_ls.training.runs import LoadedRun

log = logging.getLogger("nmt_ls")

_BLOCK = 4096
"""Lines held at a time: enough to sort by length, whatever the size of the file."""


def read_lines(path: Path | None, undecodable: list[int] | None = None) -> Iterator[str]:
    """Lines of a UTF-8 file or of standard input, without their ends; only LF (or CRLF) ends one.

    A byte-order mark is no part of the first.

    Args:
      path: None is standard input.
      undecodable: takes the numbers of lines that are not UTF-8; they come as empty ones. Without
        it they are an error.

    Raises:
      UserError: no such file, or a line that is not UTF-8.
    """
    name = name_of(path)
    try:
        stream = sys.stdin.buffer if path is None else path.open("rb")
    except OSError as error:
        raise UserError(f"{name}: {error.strerror}") from error
    with stream if path is not None else contextlib.nullcontext():
        for number, line in enumerate(stream, 1):
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            try:
                yield line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8")
            except UnicodeDecodeError as error:
                if undecodable is None:
                    raise UserError(f"{name}, line {number}: not UTF-8 ({error.reason})") from error
                undecodable.append(number)
                yield ""


def name_of(path: Path | None) -> str:
    """What messages call an input."""
    return "standard input" if path is None else str(path)


@contextlib.contextmanager
def whole_lines(path: Path | None) -> Iterator[IO[str]]:
    """Where results go: standard output, or a file written beside and renamed when it is whole.

    What was done when something went wrong, or Ctrl-C or SIGTERM came, stays in `PATH.part`, in
    whole lines. Pipes and devices are written as they are.

    Raises:
      UserError: see `outputs.destination`.
    """
    if path is None:
        yield sys.stdout
        sys.stdout.flush()
        return
    path = destination(path)
    if is_stream(path):
        with path.open("w", encoding="utf-8", newline="\n") as file:
            yield file
        return
    beside = path.with_name(path.name + ".tmp")
    try:
        with beside.open("w", encoding="utf-8", newline="\n") as file:
            yield file
        os.replace(beside, path)
    except BaseException:
        if beside.exists() and _cut_half_a_line(beside):
            part = path.with_name(path.name + ".part")
            os.replace(beside, part)
            log.warning("what was done before that is in %s", part)
        else:
            beside.unlink(missing_ok=True)
        raise


def _cut_half_a_line(path: Path) -> int:
    """Cut a file after its last whole line; returns the bytes that are left."""
    with path.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - 2**16)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        file.truncate(end)
    return end


def _blocks(items: Iterator[Any]) -> Iterator[list[Any]]:
    while block := list(islice(items, _BLOCK)):
        yield block


def translate_lines(
    translator: Translator,
    source: Path | None,
    output: Path | None,
    *,
    n_best: int = 1,
    prefix: str = "",
    jsonl: bool = False,
) -> None:
    """One translation per line, in order; with n-best as text, `n_best` lines for each.

    A line that is not UTF-8 has an empty translation and is an error at the end, when all others
    are translated. Lines over the limit of length are translated up to there, with a warning.

    Raises:
      UserError: a missing file, lines that are not UTF-8, or more n-best than the beam.
    """
    undecodable: list[int] = []
    with whole_lines(output) as file, tqdm(unit="line", disable=None, file=sys.stderr) as bar:
        first = 0
        for block in _blocks(read_lines(source, undecodable)):
            translations = translator.translate(block, n_best=n_best, prefix=prefix, first=first)
            first += len(block)
            for text, found in zip(block, translations, strict=True):
                if jsonl:
                    record = {"source": text, **_record(found)}
                    if n_best > 1:
                        record["n_best"] = [_record(one) for one in found.n_best or (found,)]
                    file.write(json.dumps(record, ensure_ascii=False) + "\n")
                else:
                    chosen = list(found.n_best or (found,))
                    # A sentence with fewer hypotheses still has its n lines.
                    chosen += [Translation("", 0.0, 0.0, ())] * (n_best - len(chosen))
                    file.write("".join(_one_line(one.text) + "\n" for one in chosen))
            file.flush()
            bar.update(len(block))

    warn_of_truncated(translator)
    if undecodable:
        shown = ", ".join(map(str, undecodable[:8])) + (", …" if len(undecodable) > 8 else "")
        lines = "line" if len(undecodable) == 1 else "lines"
        raise UserError(
            f"{name_of(source)}, {lines} {shown}: not UTF-8; translated as empty, all others as"
            " they are"
        )


def warn_of_truncated(translator: Translator) -> None:
    """Say how many sentences were longer than the limit."""
    if translator.truncated:
        log.warning(
            "%d longer than %d tokens: translated up to there (%s); split such lines into"
            " sentences",
            translator.truncated, translator.lengths.source, translator.lengths.source_setting,
        )  # fmt: skip


def _one_line(text: str) -> str:
    return text.replace("\r", " ").replace("\n", " ")


def _record(translation: Translation) -> dict[str, Any]:
    return {
        "translation": translation.text,
        "score": translation.score,
        "log_prob": translation.log_prob,
        "tokens": len(translation.tokens),
        "token_log_probs": list(translation.token_log_probs),
    }


def score_files(
    run: LoadedRun, source: Path, target: Path, output: Path | None, *, alignment: bool = False
) -> None:
    """JSONL of `{"log_prob", "tokens", "token_log_probs"}` per pair, end-of-sentence included.

    Args:
      run: the model.
      source, target: aligned files.
      output: None is standard output.
      alignment: also `source_pieces`, `target_pieces`, and as `alignment` the place of the source
        piece that each target piece attends to most (`alignment.attention_weights`).

    Raises:
      UserError: a missing or undecodable file, or unequal numbers of lines.
    """
    pairs = _aligned(source, target)
    with whole_lines(output) as file, tqdm(unit="pair", disable=None, file=sys.stderr) as bar:
        for block in _blocks(pairs):
            sources, targets = zip(*block, strict=True)
            source_ids = run.subwords.encode_source(sources)
            target_ids = run.subwords.encode_target(targets)
            given = (run.config.model, run.subwords, run.params, source_ids, target_ids)
            rows = run.config.decoding.batch_sentences
            statistics = score_tokens(*given, batch_sentences=rows)
            weights = attention_weights(*given, batch_sentences=rows) if alignment else None
            for i, one in enumerate(statistics):
                log_probs = [-float(x) for x in one.nll]
                record: dict[str, Any] = {
                    "log_prob": sum(log_probs),
                    "tokens": len(log_probs),
                    "token_log_probs": log_probs,
                }
                if weights is not None:
                    record |= {
                        "source_pieces": [run.subwords.piece("source", x) for x in source_ids[i]],
                        "target_pieces": run.subwords.target_pieces(target_ids[i]),
                        "alignment": hard_alignment(weights[i]),
                    }
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
            file.flush()
            bar.update(len(block))


def _aligned(source: Path, target: Path) -> Iterator[tuple[str, str]]:
    for path in (source, target):
        if is_stream(path):
            raise UserError(f"{path} is a pipe, and score reads it twice; save it in a file first")
    # Counted before the first is scored: a mistake should not cost an hour.
    counts = [sum(1 for _ in read_lines(path)) for path in (source, target)]
    if counts[0] != counts[1]:
        raise UserError(f"{source} has {counts[0]} lines, {target} has {counts[1]}")
    return zip(read_lines(source), read_lines(target), strict=True)
