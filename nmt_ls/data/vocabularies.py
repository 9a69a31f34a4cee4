"""Ids of subword pieces that are not SentencePiece's own: Marian's `vocab.json`."""

import dataclasses
import json
import re
from collections.abc import Sequence
from typing import Any

from nmt_ls.data.segmenters import Pieces

LANGUAGE_CODE = re.compile(r">>.*?<<", re.DOTALL)
"""What Marian's tokenizer takes off the start of a text before it segments the rest."""


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """The piece of each id. Small, hashable, picklable."""

    target: tuple[str | None, ...] = dataclasses.field(repr=False)
    """Pieces of the target side, or of both, by id; None where an id has none."""
    source: tuple[str | None, ...] | None = dataclasses.field(default=None, repr=False)
    """Pieces of the source side, where the two have ids of their own."""
    pad: int = 0
    unk: int = 0
    bos: int = 0
    """Marian starts its decoder with the padding."""
    eos: int = 0

    def to_json(self) -> bytes:
        """For `from_json`. The same vocabulary gives the same bytes."""
        return (json.dumps(dataclasses.asdict(self), ensure_ascii=False) + "\n").encode()

    @classmethod
    def from_json(cls, text: bytes) -> "Vocabulary":
        """What `to_json` wrote.

        Raises:
            ValueError, TypeError: the text is something else.
        """
        fields: dict[str, Any] = json.loads(text)
        for side in ("target", "source"):
            if fields.get(side) is not None:
                fields[side] = tuple(fields[side])
        return cls(**fields)


class Listed(Pieces):
    """Segmentation by a SentencePiece model, ids by a list of pieces.

    The ids are those of Hugging Face's `MarianTokenizer`: pieces that are not in the list are
    unknown, and a language code at the start of a sentence (`>>de<<`) is one piece.
    """

    def __init__(self, model: bytes, pieces: Sequence[str | None], vocabulary: Vocabulary) -> None:
        super().__init__(model)
        self.listed = tuple(pieces)
        self.unknown = vocabulary.unk
        self.ids = {piece: index for index, piece in enumerate(self.listed) if piece is not None}

    @property
    def size(self) -> int:
        return len(self.listed)

    def piece(self, index: int) -> str | None:
        return self.listed[index]

    def encode(self, texts: Sequence[str], threads: int) -> list[list[int]]:
        split = [_without_code(text) for text in texts]
        rest = [text for _, text in split]
        found = self.processor.encode(rest, out_type=str, num_threads=threads) if rest else []
        return [self._ids([*code, *row]) for (code, _), row in zip(split, found, strict=True)]

    def decode(self, sentences: list[list[int]]) -> list[str]:
        texts = [
            self.processor.decode_pieces([piece for i in ids if (piece := self.listed[i])])
            for ids in sentences
        ]
        # Pieces that only the other side's model knows come out as they are.
        return [text.replace("▁", " ").strip() for text in texts]

    def candidates(self, text: str, n: int) -> list[tuple[list[int], float]]:
        if n == 1:
            return [(self.encode([text], 1)[0], 0.0)]
        code, rest = _without_code(text)
        scores = [score for _, score in super().candidates(rest, n)]
        found = self.processor.nbest_encode(rest, nbest_size=n, out_type=str)
        return [(self._ids([*code, *row]), score) for row, score in zip(found, scores, strict=True)]

    def _ids(self, pieces: Sequence[str]) -> list[int]:
        return [self.ids.get(piece, self.unknown) for piece in pieces]


def _without_code(text: str) -> tuple[list[str], str]:
    """The language code at the start, if any, and the rest."""
    found = LANGUAGE_CODE.match(text)
    return ([found[0]], text[found.end() :]) if found else ([], text)
