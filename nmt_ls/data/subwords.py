"""Sentences to subword ids and back, with SentencePiece.

One model for both sides or one for each; trained on the run's own text or given as a file; or,
for text that is already segmented, a vocabulary of its whitespace tokens.

References: Kudo and Richardson, "SentencePiece" (EMNLP 2018); Kudo, "Subword Regularization"
(ACL 2018).
"""

import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nmt_ls.config import SubwordsConfig
from nmt_ls.data.segmenters import Pieces, Words, read_model, special_ids
from nmt_ls.data.subword_files import read_subwords, write_subwords
from nmt_ls.data.subword_training import train_pieces, train_words
from nmt_ls.data.vocabularies import Listed, Vocabulary
from nmt_ls.errors import UserError

Side = Literal["source", "target"]
Text = Callable[[], Iterable[str]]
"""Gives the training sentences of one side, from the start, each time it is called."""


@dataclasses.dataclass(frozen=True)
class Subwords:
    """The subword models of both sides. Small, hashable, picklable.

    Special ids are the same on both sides. What a given model lacks of pad, bos and eos gets an
    id beyond the pieces of both models.
    """

    target_model: bytes = dataclasses.field(repr=False)
    """The serialised SentencePiece model of the target side, or of both."""
    source_model: bytes | None = dataclasses.field(default=None, repr=False)
    """The source side's model, where the two differ."""
    pretokenized: bool = False
    """Pieces are whitespace tokens."""
    joiner: str = "@@ "
    """pretokenized: what `undo` deletes."""
    sampling_candidates: int = 1
    """Subword regularisation: how many best segmentations are drawn from."""
    sampling_alpha: float = 0.1
    """Subword regularisation: probability ∝ P(segmentation)^alpha."""
    vocabulary: Vocabulary | None = None
    """Ids of the pieces, special ones too, where they are not the models' own (Marian)."""

    # --- making -----------------------------------------------------------------------------

    @classmethod
    def train(
        cls,
        source: Text,
        target: Text,
        config: SubwordsConfig,
        *,
        pretokenized: bool = False,
        joiner: str = "@@ ",
    ) -> "Subwords":
        """Trains on the sentences of the two sides. The same text gives the same bytes.

        Raises:
            UserError: the vocabulary is larger than the text supports (the largest possible is
                named) or too small for its characters; or the text is empty.
        """
        fit = train_words if pretokenized else train_pieces

        def both() -> Iterable[str]:
            yield from source()
            yield from target()

        if config.joint:
            target_model, source_model = fit(both, config, "training text"), None
        else:
            target_model = fit(target, config, "target side of the training text")
            source_model = fit(source, config, "source side of the training text")
        return cls._configured(target_model, source_model, config, pretokenized, joiner)

    @classmethod
    def from_files(
        cls, config: SubwordsConfig, *, pretokenized: bool = False, joiner: str = "@@ "
    ) -> "Subwords":
        """The models that `config.model_file` and `config.source_model_file` name.

        Raises:
            UserError: a file is missing or no SentencePiece model.
        """
        target = read_model(config.model_file, "subwords.model_file")
        source = None
        if config.source_model_file:
            source = read_model(config.source_model_file, "subwords.source_model_file")
        return cls._configured(target, source, config, pretokenized, joiner)

    @classmethod
    def _configured(
        cls,
        target: bytes,
        source: bytes | None,
        config: SubwordsConfig,
        pretokenized: bool,
        joiner: str,
    ) -> "Subwords":
        subwords = cls(target, source if source != target else None, pretokenized, joiner)
        return subwords.with_sampling(config.sampling_candidates, config.sampling_alpha)

    def with_sampling(self, candidates: int, alpha: float) -> "Subwords":
        """The same models with other settings of subword regularisation.

        Raises:
            UserError: the models cannot list their best segmentations (BPE, words).
        """
        subwords = dataclasses.replace(self, sampling_candidates=candidates, sampling_alpha=alpha)
        if candidates > 1:
            try:
                subwords.candidates_source("a", 2)
                subwords.candidates_target("a", 2)
            except (RuntimeError, ValueError):
                raise UserError(
                    f"subwords.sampling_candidates={candidates} needs a unigram model; "
                    "set it to 1, or subwords.algorithm=unigram"
                ) from None
        return subwords

    def save(self, run_dir: str | os.PathLike[str]) -> None:
        """Writes `subwords.model`, `subwords.json` and, where the run has a source model or ids
        of its own, `source_subwords.model` and `vocabulary.json`."""
        settings = {
            "joint": self.joint,
            "pretokenized": self.pretokenized,
            "joiner": self.joiner,
            "sampling_candidates": self.sampling_candidates,
            "sampling_alpha": self.sampling_alpha,
        }
        models = (self.target_model, self.source_model)
        write_subwords(Path(run_dir), settings, *models, self.vocabulary)

    @classmethod
    def load(cls, run_dir: str | os.PathLike[str]) -> "Subwords":
        """What `save` wrote.

        Raises:
            UserError: a file is missing or damaged.
        """
        settings, target, source, vocabulary = read_subwords(Path(run_dir))
        return cls(target, source, **settings, vocabulary=vocabulary)

    # --- what there is ----------------------------------------------------------------------

    @property
    def joint(self) -> bool:
        """Whether both sides have the same model."""
        return self.source_model is None

    @functools.cached_property
    def fingerprint(self) -> str:
        """Digest of everything that decides `encode` and `decode`."""
        digest = hashlib.blake2b(digest_size=16)
        for part in (self.target_model, self.source_model or b"", self.joiner.encode()):
            digest.update(len(part).to_bytes(8, "little") + part)
        digest.update(bytes([self.pretokenized]))
        if self.vocabulary is not None:
            digest.update(self.vocabulary.to_json())
        return digest.hexdigest()

    @functools.cached_property
    def _target(self) -> "Pieces":
        if self.vocabulary is not None:
            return Listed(self.target_model, self.vocabulary.target, self.vocabulary)
        return (Words if self.pretokenized else Pieces)(self.target_model)

    @functools.cached_property
    def _source(self) -> "Pieces":
        model = self.source_model or self.target_model
        if self.vocabulary is not None:
            pieces = self.vocabulary.source or self.vocabulary.target
            return Listed(model, pieces, self.vocabulary)
        if self.source_model is None:
            return self._target
        return (Words if self.pretokenized else Pieces)(model)

    @functools.cached_property
    def _specials(self) -> tuple[int, int, int, int, int]:
        """pad, unk, bos, eos, and the number of ids that no model has."""
        if (listed := self.vocabulary) is not None:
            return listed.pad, listed.unk, listed.bos, listed.eos, 0
        return special_ids(self._target, self._source)

    @property
    def pad(self) -> int:
        """Id of the padding."""
        return self._specials[0]

    @property
    def unk(self) -> int:
        """Id of what the model has no piece for."""
        return self._specials[1]

    @property
    def bos(self) -> int:
        """Id that the decoder starts with."""
        return self._specials[2]

    @property
    def eos(self) -> int:
        """Id of the end of a sentence."""
        return self._specials[3]

    def _size(self, side: "Pieces") -> int:
        extra = self._specials[4]
        if not extra:
            return side.size
        return max(self._source.size, self._target.size) + extra

    @property
    def source_size(self) -> int:
        """Number of source ids."""
        return self._size(self._source)

    @property
    def target_size(self) -> int:
        """Number of target ids."""
        return self._size(self._target)

    def piece(self, side: Side, index: int) -> str:
        """The piece with that id, as SentencePiece writes it; `<extra>` beyond its pieces."""
        pieces = self._side(side)
        found = pieces.piece(index) if index < pieces.size else None
        return "<extra>" if found is None else found

    def target_pieces(self, ids: Sequence[int]) -> list[str]:
        """The piece of each target id, special ones among them."""
        return [self.piece("target", index) for index in ids]

    def _side(self, side: Side) -> "Pieces":
        if side not in ("source", "target"):
            raise ValueError(f"side={side!r}; expected 'source' or 'target'")
        return self._source if side == "source" else self._target

    # --- text to ids ------------------------------------------------------------------------

    def encode_source(self, texts: Sequence[str], *, threads: int = 1) -> list[list[int]]:
        """Ids of each sentence, `eos` at the end, no `bos`."""
        return [[*ids, self.eos] for ids in self._source.encode(texts, threads)]

    def encode_target(self, texts: Sequence[str], *, threads: int = 1) -> list[list[int]]:
        """Ids of each sentence, `eos` at the end, no `bos`."""
        return [[*ids, self.eos] for ids in self._target.encode(texts, threads)]

    def candidates_source(self, text: str, n: int | None = None) -> list[tuple[list[int], float]]:
        """The n best segmentations (default: `sampling_candidates`), best first.

        Returns:
            (ids with `eos`, log-probability in nats up to a constant of the text) for each.
        """
        return self._candidates(self._source, text, n)

    def candidates_target(self, text: str, n: int | None = None) -> list[tuple[list[int], float]]:
        """As `candidates_source`, for the target side."""
        return self._candidates(self._target, text, n)

    def _candidates(
        self, side: "Pieces", text: str, n: int | None
    ) -> list[tuple[list[int], float]]:
        found = side.candidates(text, n or self.sampling_candidates)
        return [([*ids, self.eos], score) for ids, score in found]

    def draw(self, text: str, side: Side, uniform: float) -> list[int]:
        """One of the n best segmentations, with probability ∝ exp(alpha · log-probability).

        SentencePiece's own sampler is not reproducible between processes even when seeded, so
        the caller brings the randomness: `uniform` in [0, 1).
        """
        found = self._candidates(self._side(side), text, None)
        scores = np.array([score for _, score in found])
        weights = np.exp(self.sampling_alpha * (scores - scores.max()))
        edges = np.cumsum(weights)
        chosen = int(np.searchsorted(edges, uniform * edges[-1], side="right"))
        return found[min(chosen, len(found) - 1)][0]

    # --- ids to text ------------------------------------------------------------------------

    def decode(self, ids_batch: Sequence[Sequence[int]]) -> list[str]:
        """Target text of each sequence, up to its first `eos`; `pad` and `bos` are skipped.

        Pretokenized text has its segmentation undone.
        """
        sentences = []
        size = self._target.size
        skipped = {self.pad, self.bos}
        for ids in ids_batch:
            kept = []
            for index in map(int, ids):
                if index == self.eos:
                    break
                if index not in skipped and 0 <= index < size:
                    kept.append(index)
            sentences.append(kept)
        return [self.undo(text) for text in self._target.decode(sentences)]

    def undo(self, text: str) -> str:
        """The text without segmentation marks; unchanged unless `pretokenized`."""
        if not self.pretokenized or not self.joiner:
            return text
        # A line that ends in half a word has the mark without its space.
        return text.replace(self.joiner, "").removesuffix(self.joiner.rstrip() or self.joiner)

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
