"""Text in, text out: one run, or an ensemble of runs that share their subwords."""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from nmt_ls.config import DecodingConfig, ModelConfig
from nmt_ls.data.subwords import Subwords
from nmt_ls.decoding.beam import Hypotheses, LengthPenalty, beam_search
from nmt_ls.decoding.rows import in_batches, pad_rows
from nmt_ls.errors import UserError
from nmt_ls.model import graph_of, model_of
from nmt_ls.parallel import DataParallel
from nmt_ls.training.runs import LoadedRun, load_run


@dataclasses.dataclass(frozen=True)
class Translation:
    """One translation of one sentence."""

    text: str
    score: float
    """log p / length penalty."""
    log_prob: float
    """log p in nats, end-of-sentence included."""
    tokens: tuple[int, ...]
    """Subword ids, end-of-sentence included."""
    n_best: tuple["Translation", ...] = ()
    """All that were asked for, best first; this one is the first. Empty for one."""


class _Rows(NamedTuple):
    source: np.ndarray
    source_lengths: np.ndarray
    limits: np.ndarray


@lru_cache(maxsize=32)
def _program(
    models: tuple[ModelConfig, ...],
    sizes: tuple[int, int],
    specials: tuple[int, int, int],
    beam: int,
    penalty: LengthPenalty,
    length: int,
):
    graphs = [graph_of(model, *sizes) for model in models]
    bos, eos, pad = specials

    def search(all_params: Sequence[Any], rows: Any) -> Hypotheses:
        members = [model_of(g, p) for g, p in zip(graphs, all_params, strict=True)]
        memories = [m.encode(rows.source, rows.source_lengths) for m in members]
        hypotheses = rows.source.shape[0] * beam

        def step(tokens, position, caches):
            log_probs, filled = [], []
            for member, memory, cache in zip(members, memories, caches, strict=True):
                logits, new = member.decode_step(memory, tokens, position, cache)
                log_probs.append(jax.nn.log_softmax(logits))
                filled.append(new)
            if len(log_probs) == 1:
                return log_probs[0], filled
            # Arithmetic mean of probabilities.
            mean = jax.nn.logsumexp(jnp.stack(log_probs), axis=0) - math.log(len(log_probs))
            return mean, filled

        caches = [m.start_cache(hypotheses, length) for m in members]
        return beam_search(
            step, caches, rows.limits, beam=beam, length=length, penalty=penalty, bos=bos, eos=eos,
            pad=pad,
        )  # fmt: skip

    return DataParallel().rows(search)


class Translator:
    """Translates with the parameters of one model or, as an ensemble, of several.

    Args:
      models: shapes of the members.
      params: parameters of each.
      subwords: shared by all.
      decoding: beam, length penalty, longest output.
    """

    def __init__(
        self,
        models: Sequence[ModelConfig],
        params: Sequence[dict[str, np.ndarray]],
        subwords: Subwords,
        decoding: DecodingConfig,
    ):
        self.models, self.params = tuple(models), list(params)
        self.subwords, self.decoding = subwords, decoding
        self._rows = DataParallel().whole_rows(decoding.batch_sentences)

    @classmethod
    def load(
        cls,
        *runs: str | Path,
        checkpoint: str = "",
        decoding: DecodingConfig | None = None,
    ) -> "Translator":
        """The model of a run directory, or the ensemble of several.

        Raises:
          UserError: no such run or checkpoint, or runs with different subwords.
        """
        return cls.of([load_run(Path(run), checkpoint) for run in runs], decoding)

    @classmethod
    def of(cls, runs: Sequence[LoadedRun], decoding: DecodingConfig | None = None) -> "Translator":
        """As `load`, for runs already in memory."""
        first = runs[0]
        for other in runs[1:]:
            if other.subwords.fingerprint != first.subwords.fingerprint:
                raise UserError(
                    f"{first.run_dir} and {other.run_dir} have different subwords;"
                    " an ensemble needs the same"
                )
        models, params = [r.config.model for r in runs], [r.params for r in runs]
        return cls(models, params, first.subwords, decoding or first.config.decoding)

    def translate(
        self, sentences: Sequence[str], *, n_best: int = 1, progress: bool = False
    ) -> list[Translation]:
        """One translation per sentence, in order; an empty sentence gives an empty translation."""
        return self.translate_ids(
            self.subwords.encode_source(sentences), n_best=n_best, progress=progress
        )

    def translate_ids(
        self, source_ids: Sequence[Sequence[int]], *, n_best: int = 1, progress: bool = False
    ) -> list[Translation]:
        """As `translate`, for sentences that are subword ids with end-of-sentence."""
        if n_best > self.decoding.beam:
            raise UserError(
                f"--n-best {n_best} needs decoding.beam of at least {n_best},"
                f" not {self.decoding.beam}"
            )
        empty = Translation("", 0.0, 0.0, ())
        results = [empty] * len(source_ids)
        wanted = [i for i, ids in enumerate(source_ids) if len(ids) > 1]
        self._refuse_too_long([len(source_ids[i]) for i in wanted])
        lengths = [(len(source_ids[i]),) for i in wanted]
        bar = tqdm(total=len(source_ids), unit="sentence", disable=None if progress else True)
        bar.update(len(source_ids) - len(wanted))
        for chosen, (source_length,) in in_batches(lengths, self._rows):
            batch = [source_ids[wanted[j]] for j in chosen]
            for j, found in zip(chosen, self._search(batch, source_length, n_best), strict=True):
                results[wanted[j]] = found
            bar.update(len(chosen))
        bar.close()
        return results

    def _refuse_too_long(self, lengths: Sequence[int]) -> None:
        longest = max(lengths, default=0)
        for model in self.models:
            if model.positions == "learned" and longest > model.max_positions:
                raise UserError(
                    f"a sentence of {longest} tokens is longer than model.max_positions="
                    f"{model.max_positions}, and learned positions end there; split it"
                )

    def _limit(self, source_length: int) -> int:
        """Longest output for a source of so many tokens, end-of-sentence included in both."""
        limit = int(self.decoding.max_length_ratio * source_length) + self.decoding.max_length_extra
        for model in self.models:
            if model.positions == "learned":
                limit = min(limit, model.max_positions)
        return limit

    def _search(
        self, batch: Sequence[Sequence[int]], source_length: int, n_best: int
    ) -> Iterable[Translation]:
        d, s = self.decoding, self.subwords
        program = _program(
            self.models,
            (s.source_size, s.target_size),
            (s.bos, s.eos, s.pad),
            d.beam,
            LengthPenalty(d.length_penalty, d.length_alpha, d.length_excludes_eos),
            self._limit(source_length),
        )
        source, lengths = pad_rows(batch, self._rows, source_length, s.pad)
        # Rows that fill up the batch end at once.
        limits = np.array([self._limit(int(n)) if n else 1 for n in lengths], np.int32)
        found = program(self.params, _Rows(source, lengths, limits))
        for row in range(len(batch)):
            yield self._translation(found, row, n_best)

    def _translation(self, found: Hypotheses, row: int, n_best: int) -> Translation:
        ids = [
            found.tokens[row, k, : found.lengths[row, k]].tolist()
            for k in range(n_best)
            if k == 0 or np.isfinite(found.scores[row, k])
        ]
        all_of_them = tuple(
            Translation(
                text, float(found.scores[row, k]), float(found.log_probs[row, k]), tuple(tokens)
            )
            for k, (text, tokens) in enumerate(zip(self.subwords.decode(ids), ids, strict=True))
        )
        if n_best == 1:
            return all_of_them[0]
        return dataclasses.replace(all_of_them[0], n_best=all_of_them)
