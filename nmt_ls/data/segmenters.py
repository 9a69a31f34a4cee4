"""One side's segmentation: pieces of a SentencePiece model, or whitespace tokens."""

import os
from collections.abc import Sequence
from pathlib import Path

import sentencepiece

from nmt_ls.errors import UserError


class Pieces:
    """One side's SentencePiece model."""

    def __init__(self, model: bytes) -> None:
        self.processor = sentencepiece.SentencePieceProcessor(model_proto=model)

    @property
    def size(self) -> int:
        """Number of ids."""
        return self.processor.get_piece_size()

    def piece(self, index: int) -> str | None:
        """The piece with that id below `size`; None where it has none."""
        return self.processor.id_to_piece(index)

    def pieces(self) -> list[str]:
        """The pieces of the SentencePiece model."""
        return self.processor.id_to_piece(list(range(self.processor.get_piece_size())))

    def encode(self, texts: Sequence[str], threads: int) -> list[list[int]]:
        return self.processor.encode(list(texts), num_threads=threads)

    def decode(self, sentences: list[list[int]]) -> list[str]:
        return self.processor.decode(sentences) if sentences else []

    def candidates(self, text: str, n: int) -> list[tuple[list[int], float]]:
        if n == 1:
            return [(self.processor.encode(text), 0.0)]
        found = self.processor.nbest_encode(text, nbest_size=n)
        # SentencePiece's own scores need protobuf. These differ from them by what unknown
        # characters cost, which is the same for every segmentation of a text.
        return [(ids, float(sum(map(self.processor.get_score, ids)))) for ids in found]


class Words(Pieces):
    """One side's whitespace tokens; the model is only the list of them.

    SentencePiece itself would merge neighbouring unknown words into one `<unk>`.
    """

    def __init__(self, model: bytes) -> None:
        super().__init__(model)
        self.words = [piece.removeprefix("▁") for piece in self.pieces()]
        self.words[self.processor.unk_id()] = "<unk>"
        self.ids = {
            word: index
            for index, word in enumerate(self.words)
            if not self.processor.is_control(index) and not self.processor.is_unknown(index)
        }

    def encode(self, texts: Sequence[str], threads: int) -> list[list[int]]:
        ids, unknown = self.ids, self.processor.unk_id()
        return [[ids.get(word, unknown) for word in text.split()] for text in texts]

    def decode(self, sentences: list[list[int]]) -> list[str]:
        control = self.processor.is_control
        return [
            " ".join(self.words[index] for index in ids if not control(index)) for ids in sentences
        ]

    def candidates(self, text: str, n: int) -> list[tuple[list[int], float]]:
        if n > 1:
            raise ValueError("words have one segmentation")
        return [(self.encode([text], 1)[0], 0.0)]


def special_ids(target: Pieces, source: Pieces) -> tuple[int, int, int, int, int]:
    """pad, unk, bos, eos of two models, and the number of ids that no model has.

    An id that the two do not share, or that one lacks, is a new one beyond the pieces of both.

    Raises:
        UserError: they have different ids for `<unk>`.
    """
    sides = [target.processor, source.processor]
    unknown = {side.unk_id() for side in sides}
    if len(unknown) > 1:
        raise UserError(
            "subwords.model_file and subwords.source_model_file have different ids for <unk>; "
            "train both with the same unk_id"
        )
    beyond = max(side.get_piece_size() for side in sides)
    extra = 0
    ids = []
    for name in ("pad_id", "bos_id", "eos_id"):
        own = {getattr(side, name)() for side in sides}
        if len(own) == 1 and min(own) >= 0:
            ids.append(own.pop())
        else:
            ids.append(beyond + extra)
            extra += 1
    pad, bos, eos = ids
    return pad, unknown.pop(), bos, eos, extra


def read_model(path: str | os.PathLike[str], key: str) -> bytes:
    try:
        model = Path(path).expanduser().read_bytes()
    except OSError as error:
        raise UserError(f"{key}: cannot read {path}: {error.strerror}") from None
    try:
        if not model:
            raise RuntimeError
        sentencepiece.SentencePieceProcessor(model_proto=model)
    except RuntimeError:
        raise UserError(f"{key}: {path} is not a SentencePiece model") from None
    return model
