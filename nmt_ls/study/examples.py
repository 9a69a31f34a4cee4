"""Sentences that the models of a sweep translate most differently, and how sure they were."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nmt_ls.errors import UserError
from nmt_ls.study.figures.blocks import Block
from nmt_ls.study.stored import read_details
from nmt_ls.study.wording import key, number

LEVELS = (0.9, 0.7, 0.5, 0.3, 0.1)
"""A token less probable than the n-th of these is shaded n levels deep."""

_BYTE = re.compile("<0x([0-9A-F]{2})>")
_END = "</s>"


class Token(NamedTuple):
    """A piece of a translation as the report shows it."""

    text: str
    """With the space before it, where it begins a word."""
    level: int
    """How deep its shade is, 0 for none."""
    title: str
    """Its probability in words."""


class Output(NamedTuple):
    """One model's translation of a sentence."""

    name: str
    text: str
    chrf: str
    tokens: list[Token] | None
    """The text in tokens; None where their probabilities are not stored."""


def examples(sweep_dir: Path, block: Block, which: str = "examples") -> list[dict[str, Any]]:
    """The texts of the sentences that the comparison picked (`examples`) or `drawn` by chance.

    Probabilities come from RUN/translations/NAME.jsonl where it is there and of these translations.

    Raises:
      UserError: such a file that is not what it should be.
    """
    found = []
    stored: dict[str, list[dict]] = {}
    for chosen in block.result.get(which) or ():
        i, outputs = chosen["sentence"], []
        of_seed = {
            key(run["label_smoothing"]): run for run in block.runs if run["seed"] == chosen["seed"]
        }
        for epsilon, chrf in chosen["chrf"].items():
            run = of_seed[epsilon]
            text = run["translations"][block.test][i]
            path = sweep_dir / run["run"] / "translations" / f"{block.test}.jsonl"
            if run["run"] not in stored:
                stored[run["run"]] = read_details(path)
            details = stored[run["run"]]
            tokens = _tokens(details[i], text, path) if i < len(details) else None
            outputs.append(Output(block.strength.value(epsilon), text, number(chrf, 1), tokens))
        # Runs of other ε may have nothing stored.
        runs = [of_seed[epsilon] for epsilon in chosen["chrf"]]
        sources = [s for run in runs if (s := run.get("sources", {}).get(block.test))]
        found.append(
            {
                "sentence": i + 1,
                "seed": chosen["seed"],
                "source": sources[0][i] if sources else None,
                "references": runs[0]["references"][block.test][i],
                "outputs": outputs,
            }
        )
    return found


def _tokens(details: dict, text: str, path: Path) -> list[Token] | None:
    pieces, log_probs = details.get("pieces"), details.get("token_log_probs")
    if not pieces or not log_probs or None in log_probs or details.get("translation") != text:
        return None
    if len(pieces) != len(log_probs):
        raise UserError(
            f"{path}: {len(pieces)} pieces but {len(log_probs)} token_log_probs; evaluate again"
        )
    tokens = tokens_of_pieces(pieces, log_probs)
    # Where pieces do not spell the text (undone segmentation, unknown words), the text is right.
    spelled = "".join(token.text for token in tokens if token.text != _END)
    return tokens if spelled.split() == text.split() else None


def tokens_of_pieces(pieces: Sequence[str], log_probs: Sequence[float]) -> list[Token]:
    """SentencePiece pieces as they read, each with its probability.

    Args:
      pieces: T pieces; "▁" is a space, `<0x..>` a byte. Bytes that make up one character are one
        token, as likely as all of them.
      log_probs: of each, nats.
    """
    tokens: list[Token] = []
    pending, sum_of_bytes = b"", 0.0
    for piece, log_prob in zip(pieces, log_probs, strict=True):
        if byte := _BYTE.fullmatch(piece):
            pending += bytes([int(byte[1], 16)])
            sum_of_bytes += log_prob
            try:
                text = pending.decode()
            except UnicodeDecodeError:
                continue
            log_prob, pending, sum_of_bytes = sum_of_bytes, b"", 0.0
        else:
            if pending:
                tokens.append(_token(pending.decode(errors="replace"), sum_of_bytes))
                pending, sum_of_bytes = b"", 0.0
            text = piece.replace("▁", " ")
        tokens.append(_token(text.lstrip() if not tokens else text, log_prob))
    if pending:
        tokens.append(_token(pending.decode(errors="replace"), sum_of_bytes))
    return [token for token in tokens if token.text]


def _token(text: str, log_prob: float) -> Token:
    probability = math.exp(min(log_prob, 0.0))
    level = sum(probability < least for least in LEVELS)
    what = "end of the sentence, " if text == _END else ""
    return Token(text, level, f"{what}p = {probability:.2f}")
