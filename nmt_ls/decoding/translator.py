"""Text in, text out: one run, or an ensemble of runs that share their subwords."""

import dataclasses
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from nmt_ls.config import DecodingConfig, ModelConfig
from nmt_ls.data.subwords import Subwords
from nmt_ls.decoding.beam import Hypotheses, LengthPenalty, Variety
from nmt_ls.decoding.distributions import Cut
from nmt_ls.decoding.lengths import Lengths
from nmt_ls.decoding.mbr import MinimumBayesRisk
from nmt_ls.decoding.mixture import mass_of
from nmt_ls.decoding.rows import dealt, in_batches, pad_rows, sentences_at_a_time
from nmt_ls.decoding.search import SearchData, SearchRows, SearchSetting, search_program
from nmt_ls.errors import UserError
from nmt_ls.model.cache import SHARED
from nmt_ls.parallel import DataParallel
from nmt_ls.training.runs import LoadedRun, load_run

_AHEAD = 1
"""Pools that are searched while the one before them is made text."""

_POOL = 8
"""Batches that one call of a search works through, each sentence in the place of one that is done.
The last have nobody after them: the more there are, the less that counts."""


@dataclasses.dataclass(frozen=True)
class Translation:
    """One translation of one sentence."""

    text: str
    score: float
    """log p / length penalty; of a draw log p; of mbr its expected utility in percent."""
    log_prob: float
    """log p in nats, end-of-sentence included, in the distribution that was searched."""
    tokens: tuple[int, ...]
    """Subword ids, end-of-sentence included."""
    token_log_probs: tuple[float, ...] = ()
    """log p of each token; their sum is `log_prob`."""
    n_best: tuple["Translation", ...] = ()
    """All that were asked for, best first; this one is the first. Empty for one."""


class Translator:
    """Translates with the parameters of one model or, as an ensemble, of several.

    Args:
      models: shapes of the members.
      params: parameters of each.
      subwords: shared by all.
      decoding: strategy, distribution, longest output.
      masses: of each member the share of its prior to take off (`mixture.py`); None for none.

    Raises:
      UserError: settings that do not go together.
    """

    def __init__(
        self,
        models: Sequence[ModelConfig],
        params: Sequence[dict[str, np.ndarray]],
        subwords: Subwords,
        decoding: DecodingConfig,
        masses: Sequence[np.ndarray | None] | None = None,
    ):
        self.models, self.subwords, self.decoding = tuple(models), subwords, decoding
        self.lengths = Lengths(self.models, decoding)
        self.truncated = 0
        """Sentences so far that were longer than the limit and were cut there."""
        self._data = SearchData(
            DataParallel().on_local_devices(list(params)),  # once, not with each batch
            list(masses or [None] * len(self.models)),
            np.float32(decoding.temperature),
            np.uint32(decoding.seed),
            np.float32(decoding.diversity),
        )
        self._devices = len(DataParallel().local)

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
        decoding = decoding or first.config.decoding
        size, pad = first.subwords.target_size, first.subwords.pad
        masses = [mass_of(decoding, r.config.loss, size, pad, r.prior) for r in runs]
        return cls(models, params, first.subwords, decoding, masses)

    def translate(
        self,
        sentences: Sequence[str],
        *,
        n_best: int = 1,
        prefix: str = "",
        first: int = 0,
        progress: bool = False,
    ) -> list[Translation]:
        """One translation per sentence, in order; an empty sentence gives an empty translation.

        Args:
          sentences: source text.
          n_best: how many of each; they are in `Translation.n_best`.
          prefix: words that every translation begins with (beam search).
          first: number of the first sentence in the text; draws depend on it.
          progress: show a bar on a terminal.

        Raises:
          UserError: more n-best than hypotheses or samples; a prefix that does not fit, or that
            the subwords have no pieces for.
        """
        return self.translate_ids(
            self.subwords.encode_source(sentences),
            n_best=n_best,
            prefix=self._prefix(prefix),
            first=first,
            progress=progress,
        )

    def _prefix(self, text: str) -> Sequence[int]:
        ids = self.subwords.encode_target([text])[0][:-1]
        if self.subwords.unk in ids:
            words = text.split()
            each = self.subwords.encode_target(words)
            unknown = [w for w, ids in zip(words, each, strict=True) if self.subwords.unk in ids]
            raise UserError(
                f"a prefix with {' '.join(unknown) or text}, for which the run's subwords have no "
                "pieces: every translation would begin with <unk>; use other words"
            )
        return ids

    def translate_ids(
        self,
        source_ids: Sequence[Sequence[int]],
        *,
        n_best: int = 1,
        prefix: Sequence[int] = (),
        first: int = 0,
        progress: bool = False,
    ) -> list[Translation]:
        """As `translate`, for sentences that are subword ids with end-of-sentence.

        A sentence of more than `lengths.source` tokens is translated up to there, and counted in
        `truncated`; whoever calls says so to the user.
        """
        self._refuse(n_best, prefix)
        source_ids = [self._cut(ids) for ids in source_ids]
        empty = Translation("", 0.0, 0.0, ())
        results = [empty] * len(source_ids)
        wanted = [i for i, ids in enumerate(source_ids) if len(ids) > 1]
        lengths = [(len(source_ids[i]),) for i in wanted]
        bar = tqdm(total=len(source_ids), unit="sentence", disable=None if progress else True)
        bar.update(len(source_ids) - len(wanted))
        started: deque[tuple[list[int], Callable[[], Hypotheses]]] = deque()
        pool = self._pool(n_best)

        def finish() -> None:
            chosen, wait = started.popleft()
            found = wait()
            for row, j in zip(dealt(len(chosen), pool, self._devices), chosen, strict=True):
                results[wanted[j]] = self._translation(found, int(row), n_best)
            bar.update(len(chosen))

        for chosen, (source_length,) in in_batches(lengths, pool):
            batch = [source_ids[wanted[j]] for j in chosen]
            numbers = [first + wanted[j] for j in chosen]
            wait = self._search(batch, numbers, source_length, n_best, prefix)
            started.append((chosen, wait))
            if len(started) > _AHEAD:
                finish()
        while started:
            finish()
        bar.close()
        return results

    def _rows(self, n_best: int) -> int:
        """Sentences searched at a time, a multiple of the devices."""
        return DataParallel().whole_rows(sentences_at_a_time(self.decoding, n_best))

    def _pool(self, n_best: int) -> int:
        """Sentences of one call."""
        # Samples are drawn for all sentences at once, and wide beams are large enough.
        refills = self.decoding.strategy == "beam" and self.decoding.beam <= SHARED
        return self._rows(n_best) * (_POOL if refills else 1)

    def _refuse(self, n_best: int, prefix: Sequence[int]) -> None:
        d = self.decoding
        hypotheses = {"beam": d.beam, "mbr": d.samples}.get(d.strategy)
        if hypotheses is not None and n_best > hypotheses:
            setting = {"beam": "beam", "mbr": "samples"}[d.strategy]
            raise UserError(
                f"--n-best {n_best} needs decoding.{setting} of at least {n_best}, not {hypotheses}"
            )
        if prefix and d.strategy != "beam":
            raise UserError(f"a prefix is for beam search, not decoding.strategy={d.strategy}")
        limit = self.lengths.output(1)
        if len(prefix) >= limit:
            raise UserError(
                f"a prefix of {len(prefix)} tokens leaves no room in the shortest output limit of "
                f"{limit}; {self.lengths.way_out(1)}"
            )

    def _cut(self, ids: Sequence[int]) -> Sequence[int]:
        if len(ids) <= self.lengths.source:
            return ids
        self.truncated += 1
        return [*ids[: self.lengths.source - 1], self.subwords.eos]

    def _search(
        self,
        batch: Sequence[Sequence[int]],
        numbers: Sequence[int],
        source_length: int,
        n_best: int,
        prefix: Sequence[int],
    ) -> Callable[[], Hypotheses]:
        """Start the search; what is returned waits for it."""
        d, s = self.decoding, self.subwords
        draws = {"beam": 0, "sample": n_best, "mbr": d.samples}[d.strategy]
        setting = SearchSetting(
            self._rows(n_best) // self._devices,
            draws or d.beam,
            LengthPenalty(d.length_penalty, d.length_alpha, d.length_excludes_eos),
            d.stopping,
            Cut(d.top_k, d.top_p, d.epsilon_cut) if draws else None,
            d.temperature != 1,
            bool(d.min_length or d.min_length_ratio),
            Variety(d.groups, d.no_repeat_ngram),
        )
        program = search_program(
            self.models,
            (s.source_size, s.target_size),
            (s.bos, s.eos, s.pad),
            setting,
            self.lengths.output(source_length),
        )
        pool = self._pool(n_best)
        source, lengths = pad_rows(batch, pool, source_length, s.pad)
        # Of draws, rows that fill up the batch end at once.
        limits = np.array([self.lengths.output(int(n)) if n else 1 for n in lengths], np.int32)
        shortest = np.array([self.lengths.shortest(int(n)) if n else 1 for n in lengths], np.int32)
        # Eight at a time: prefixes of other lengths are the same program.
        width = -(-len(prefix) // 8) * 8
        begun = np.full((pool, width), s.pad, np.int32)
        begun[: len(batch), : len(prefix)] = prefix
        of_rows = np.zeros(pool, np.uint32)
        of_rows[: len(batch)] = numbers
        rows = SearchRows(source, lengths, limits, shortest, begun, of_rows)
        order = np.argsort(dealt(pool, pool, self._devices))
        rows = SearchRows(*(x[order] for x in rows))
        return program(self._data._replace(wanted=np.int32(n_best)), rows)

    def _translation(self, found: Hypotheses, row: int, n_best: int) -> Translation:
        one = jax.tree.map(lambda x: x[row], found)
        count = len(one.scores)  # draws, in the order they were drawn
        if self.decoding.strategy == "beam":
            # Fewer than asked for may have been found; the first always is.
            count = min(max(1, int(np.isfinite(one.scores).sum())), n_best)
        ids = [one.tokens[k, : one.lengths[k]].tolist() for k in range(count)]
        texts = self.subwords.decode(ids)
        scores, order = [float(x) for x in one.scores], list(range(count))
        if self.decoding.strategy == "mbr":
            expected = MinimumBayesRisk(self.decoding.utility).choose(texts).expected
            scores = [float(x) for x in expected]
            order = _distinct(texts, np.argsort(-expected, kind="stable").tolist())[:n_best]
        all_of_them = tuple(
            Translation(
                texts[k],
                scores[k],
                float(one.log_probs[k]),
                tuple(ids[k]),
                # A certain token's is 0, but for the rounding of two sums.
                tuple(np.minimum(np.diff(one.paths[k, : one.lengths[k]], prepend=0), 0).tolist()),
            )
            for k in order
        )
        if n_best == 1:
            return all_of_them[0]
        return dataclasses.replace(all_of_them[0], n_best=all_of_them)


def _distinct(texts: Sequence[str], order: Sequence[int]) -> list[int]:
    """The order with each text once, where it comes first."""
    first: dict[str, int] = {}
    for k in order:
        first.setdefault(texts[k], k)
    return list(first.values())
