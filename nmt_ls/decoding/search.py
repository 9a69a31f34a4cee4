"""The compiled search: encode, then beam search or sampling over the models' distributions."""

import math
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nmt_ls.config import ModelConfig
from nmt_ls.decoding.beam import Asked, BeamSearch, Hypotheses, LengthPenalty, Variety
from nmt_ls.decoding.candidates import Reduced, Unnormalised
from nmt_ls.decoding.distributions import Cut, unmixed, with_temperature
from nmt_ls.decoding.refill import refilled_search
from nmt_ls.decoding.sampling import sample
from nmt_ls.model import graph_of, model_of, ready_to_multiply
from nmt_ls.model.cache import SHARED, Cache, reordered
from nmt_ls.model.transformer import StepMemory
from nmt_ls.parallel import DataParallel


class SearchRows(NamedTuple):
    """Sentences in a row after the other on each device; those without a source come last."""

    source: np.ndarray
    source_lengths: np.ndarray
    limits: np.ndarray
    shortest: np.ndarray
    """Fewest tokens of each output, the end included."""
    prefix: np.ndarray
    """[R, P] tokens that each output begins with, then padding; P is 0 without one."""
    sentences: np.ndarray
    """Number of each sentence in the text, for draws."""


class SearchData(NamedTuple):
    """What a search reads besides its rows; the same for all of them."""

    params: list[Any]
    masses: list[Any]
    """Of each member the share of its prior that is taken off; None for none."""
    temperature: Any
    seed: Any
    diversity: Any = 0.0
    wanted: Any = 1
    """So many of each sentence's best hypotheses are asked for."""


class SearchSetting(NamedTuple):
    """Constants of a compiled search."""

    rows: int
    """Sentences that each device searches at a time; samples are drawn for all at once."""
    beam: int
    """Hypotheses of a sentence, or samples."""
    penalty: LengthPenalty
    stopping: Literal["bound", "first_k"]
    cut: Cut | None
    """None: search. Otherwise draw."""
    tempered: bool
    shortest: bool
    variety: Variety = Variety()


@lru_cache(maxsize=32)
def search_program(
    models: tuple[ModelConfig, ...],
    sizes: tuple[int, int],
    specials: tuple[int, int, int],
    setting: SearchSetting,
    length: int,
):
    """`fn(data, rows)` starts a search over this host's devices; what it returns waits for it.

    Compiled once for its arguments.

    Args:
      models: members of the ensemble; their parameters are data.
      sizes: vocabulary sizes.
      specials: ids of bos, eos, pad.
      setting: constants of the search.
      length: longest output, end-of-sentence included.
    """
    graphs = [graph_of(model, *sizes) for model in models]
    bos, eos, pad = specials

    def search(data: Any, rows: Any) -> Hypotheses:
        members = [
            model_of(graph, ready_to_multiply(model, params))
            for graph, model, params in zip(graphs, models, data.params, strict=True)
        ]
        outputs = [member.matrix_to_multiply() for member in members]
        # Only log p of the few best is asked for then.
        drawing = setting.cut is not None  # draws never descend from one another
        plain = len(members) == 1 and data.masses[0] is None
        plain = plain and not (setting.tempered or drawing)
        reduced = any(mass is not None for mass in data.masses)

        def as_one(log_probs):
            log_p = log_probs[0]
            if len(log_probs) > 1:  # arithmetic mean of probabilities
                log_p = jax.nn.logsumexp(jnp.stack(log_probs), axis=0) - math.log(len(log_probs))
            return with_temperature(log_p, data.temperature) if setting.tempered else log_p

        def encode(start: Any) -> list[StepMemory]:
            def some(x):
                return jax.lax.dynamic_slice_in_dim(x, start, setting.rows)

            source, lengths = some(rows.source), some(rows.source_lengths)
            return [StepMemory.of(m.encode(source, lengths)) for m in members]

        def step(tokens, position, cache):
            memories, caches = cache
            log_probs, floored, filled = [], [], []
            for member, output, memory, past, mass in zip(
                members, outputs, memories, caches, data.masses, strict=True
            ):
                logits, new = member.decode_step(memory, tokens, position, past, output)
                if plain:
                    return Unnormalised(logits), (memories, [new])
                log_p = jax.nn.log_softmax(logits)
                filled.append(new)
                log_probs.append(log_p if mass is None else unmixed(log_p, mass))
                if reduced:
                    kept = log_p if mass is None else unmixed(log_p, mass, purpose="likelihood")
                    floored.append(kept)
            if reduced:
                return Reduced(as_one(log_probs), as_one(floored)), (memories, filled)
            return as_one(log_probs), (memories, filled)

        shared = 1 if drawing or setting.beam > SHARED else setting.beam
        caches = [m.start_cache(setting.rows * setting.beam, length, shared) for m in members]
        ids = {"bos": bos, "eos": eos, "pad": pad}
        if setting.cut is not None:
            return sample(
                step, (encode(0), caches), rows.limits, rows.sentences, data.seed,
                samples=setting.beam, length=length, cut=setting.cut, **ids,
            )  # fmt: skip
        beams = BeamSearch(
            step, reorder=_reordered, beam=setting.beam, length=length, penalty=setting.penalty,
            stopping=setting.stopping, variety=setting.variety, diversity=data.diversity,
            wanted=data.wanted, **ids,
        )  # fmt: skip
        shortest = rows.shortest if setting.shortest else None
        asked = Asked(rows.limits, shortest, rows.prefix)
        count = jnp.sum(rows.source_lengths > 0)
        return refilled_search(beams, caches, encode, asked, count, setting.rows)

    return DataParallel().started_rows(search)


def _reordered(cache: tuple[Any, list[Cache]], parents: jax.Array) -> tuple[Any, list[Cache]]:
    memories, caches = cache
    return memories, [reordered(cache, parents) for cache in caches]
