"""Where a decoder's time goes: the parts of a search, each compiled and timed alone.

All devices work on a part at the same time, as in a search: those that are threads of one core
take twice as long together.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nmt_ls.bench.decoding.model import Problem
from nmt_ls.bench.machine import timed
from nmt_ls.decoding.candidates import Unnormalised, best_candidates
from nmt_ls.decoding.rows import pad_rows, padded_length
from nmt_ls.model import graph_of, model_of
from nmt_ls.model.cache import (
    SHARED,
    Cache,
    attend_past,
    attend_source,
    readable,
    reordered,
    with_own_slots,
)
from nmt_ls.model.dropout import Dropout
from nmt_ls.model.transformer import StepMemory

ENCODE = "encoder"
PROJECTIONS = "step: projections and feed-forward blocks"
SELF_ATTENTION = "step: self-attention"
SOURCE_ATTENTION = "step: attention over the source"
OUTPUT = "step: output matrix"
CANDIDATES = "step: logsumexp and best candidates"
REORDER = "step: reordering the past"
WHOLE_STEP = "step: all of the model's"
PRODUCTS = "step: its matrix products alone"
TO_IDS = "host: text to ids"
PADDING = "host: padding"
TO_TEXT = "host: ids to text"

STEP_PARTS = (PROJECTIONS, SELF_ATTENTION, SOURCE_ATTENTION, OUTPUT, CANDIDATES, REORDER)
HOST_PARTS = (TO_IDS, PADDING, TO_TEXT)


def parts(problem: Problem) -> dict[str, Callable[[], float]]:
    """For each part: does it once for one batch and returns the seconds it took.

    Those that begin with "step:" are one step of the decoder.
    """
    compiled = _model_parts(problem)
    found: dict[str, Callable[[], float]] = {}
    for name, (program, arguments) in compiled.items():
        repeated = problem.tokens if name in (SELF_ATTENTION, WHOLE_STEP) else 1
        found[name] = partial(_run, program, arguments, repeated)
    texts = problem.sentences[: problem.at_a_time]
    subwords = problem.subwords
    ids = subwords.encode_source(texts)
    length = padded_length(max(map(len, ids)))
    pad = partial(pad_rows, ids, problem.at_a_time, length, subwords.pad)
    # Found one by one, as results are.
    said = [[sentence[: problem.tokens]] for sentence in ids]
    found[TO_IDS] = lambda: timed(lambda: subwords.encode_source(texts))
    found[PADDING] = lambda: timed(pad)
    found[TO_TEXT] = lambda: timed(lambda: [subwords.decode(one) for one in said])
    return found


def _run(program: Any, arguments: Sequence[Any], repeated: int) -> float:
    return timed(lambda: jax.block_until_ready(program(*arguments))) / repeated


def _model_parts(problem: Problem) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    c, beam = problem.model, problem.beam
    rows = -(-problem.at_a_time // jax.local_device_count())  # one device's share
    size = problem.subwords.target_size
    graph = graph_of(c, size, size)
    params = jax.device_put(problem.params)
    ids = problem.subwords.encode_source(problem.sentences[:rows])
    length = padded_length(max(map(len, ids)))
    source, lengths = pad_rows(ids, rows, length, problem.subwords.pad)
    random = np.random.default_rng(0)

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(random.standard_normal(shape), jnp.float32)

    hidden = normal(rows, beam, c.width)
    inner = normal(rows, beam, c.feed_forward)
    heads = normal(rows, beam, c.heads, c.width // c.heads)
    logits, scores = normal(rows, beam, size), normal(rows, beam)
    tokens = jnp.asarray(random.integers(size, size=(rows, beam)), jnp.int32)
    parents = jnp.asarray(random.integers(beam, size=(rows, beam)), jnp.int32)

    def encode(params, source, lengths):
        return StepMemory.of(model_of(graph, params).encode(source, lengths))

    def start(params):
        return model_of(graph, params).start_cache(
            rows * beam, problem.tokens, beam if beam <= SHARED else 1
        )

    def projections(params, x):
        for layer in model_of(graph, params).decoder:
            y = layer.self_attention.project(x)[..., : c.width]
            y = layer.cross_attention.query(layer.self_attention.output(y))
            x = layer.feed_forward(layer.cross_attention.output(y), Dropout())
        return x

    # In a loop the cache is filled where it lies; a step alone would copy it.
    def self_attention(cache, q):
        def one(position, carried):
            cache, _ = carried
            position = jnp.full(len(cache.ancestors), position)
            cache = with_own_slots(cache, position)
            reads = readable(cache, position)
            x = q.reshape(*reads.shape[:2], *q.shape[2:])
            layers = [attend_past(x, x, x, slots, reads, position) for slots in cache.layers]
            return cache._replace(layers=[s for _, s in layers]), [y for y, _ in layers]

        shape = (*cache.ancestors.shape[:2], *q.shape[2:])
        carried = cache, [jnp.zeros(shape) for _ in cache.layers]
        return jax.lax.fori_loop(0, problem.tokens, one, carried)[1]

    def source_attention(memory, q):
        return [attend_source(q, slots, memory.lengths) for slots in memory.layers]

    def output(params, x):
        return model_of(graph, params).logits(x)

    def candidates(scores, logits):
        s = problem.subwords
        return best_candidates(
            scores, Unnormalised(logits), 2 * beam, never=(s.pad, s.bos), eos=s.eos,
            no_eos=jnp.ones(rows, bool), only=jnp.full(rows, -1),
        )  # fmt: skip

    def steps(params, memory, tokens, cache):
        model = model_of(graph, params)

        def one(position, carried):
            return model.decode_step(memory, tokens, position, carried[1])

        carried = jnp.zeros(logits.shape), cache
        return jax.lax.fori_loop(0, problem.tokens, one, carried)[0]

    def products(params, x, h):
        found = []
        for layer in model_of(graph, params).decoder:
            own, other, feed = layer.self_attention, layer.cross_attention, layer.feed_forward
            for dense in (own.project, own.output, other.query, other.output, feed.expand):
                found.append(x @ dense.kernel[...])
            found.append(h @ feed.contract.kernel[...])
        matrix, _ = model_of(graph, params).output_matrix()
        return found, x @ matrix.T

    memory = jax.jit(encode)(params, source, lengths)
    cache = jax.jit(start)(params)
    return {
        ENCODE: _compiled(encode, params, source, lengths),
        PROJECTIONS: _compiled(projections, params, hidden),
        SELF_ATTENTION: _compiled(self_attention, cache, heads),
        SOURCE_ATTENTION: _compiled(source_attention, memory, heads),
        OUTPUT: _compiled(output, params, hidden),
        CANDIDATES: _compiled(candidates, scores, logits),
        # A search with one hypothesis has none to reorder.
        **({REORDER: _compiled(moved, cache, parents)} if beam > 1 else {}),
        WHOLE_STEP: _compiled(steps, params, memory, tokens, cache),
        PRODUCTS: _compiled(products, params, hidden, inner),
    }


def moved(cache: Cache, parents: jax.Array) -> Any:
    """What reordering writes: the table of ancestors, or, of wide beams, all keys and values."""
    found = reordered(cache, parents)
    return found.ancestors if cache.ancestors.shape[1] > 1 else found


def _compiled(fn: Callable, *arguments: Any) -> tuple[Any, tuple[Any, ...]]:
    """The program of one device's share, on all of them at once, and what it takes."""
    devices = jax.local_devices()
    shares = jax.tree.map(lambda x: np.stack([x] * len(devices)), arguments)
    program = jax.pmap(fn, devices=devices).lower(*shares).compile()
    return program, jax.pmap(lambda *x: x, devices=devices)(*shares)
