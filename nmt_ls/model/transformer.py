"""The Transformer encoder–decoder: encode, decode a whole target, decode one step with a cache."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from nmt_ls.config import ModelConfig
from nmt_ls.model.attention import CrossAttention, SelfAttention
from nmt_ls.model.cache import (
    Cache,
    SourceSlots,
    empty_cache,
    readable,
    source_slots,
    with_own_slots,
)
from nmt_ls.model.dropout import Dropout
from nmt_ls.model.layers import (
    Dense,
    Embedding,
    FeedForward,
    LayerNorm,
    paper_positions,
    sinusoidal_positions,
)


class Memory(NamedTuple):
    """What the decoder needs of the encoder: per-layer keys and values, and real lengths."""

    layers: list[tuple[Float[Array, "B S H C"], Float[Array, "B S H C"]]]
    lengths: Int[Array, "B"]


class StepMemory(NamedTuple):
    """`Memory` as single steps read it."""

    layers: list[SourceSlots]
    lengths: Int[Array, "B"]

    @classmethod
    def of(cls, memory: Memory) -> "StepMemory":
        """The same in another layout."""
        return cls([source_slots(*layer) for layer in memory.layers], memory.lengths)


def _norm(c: ModelConfig, dtype) -> LayerNorm:
    return LayerNorm(c.width, dtype=dtype, epsilon=c.norm_epsilon)


Watch = Callable[[Float[Array, "B H T S"]], None]
"""Takes the weights that a layer's heads give to the source."""


class EncoderLayer(nnx.Module):
    def __init__(self, c: ModelConfig, *, dtype, rngs: nnx.Rngs):
        self.attention = SelfAttention(c.width, c.heads, dtype=dtype, kernel=c.attention, rngs=rngs)
        self.feed_forward = FeedForward(
            c.width, c.feed_forward, c.activation, dtype=dtype, rngs=rngs
        )
        self.norms = nnx.List([_norm(c, dtype) for _ in range(2)])
        self.pre_norm = c.norm == "pre"

    def __call__(self, x: Float[Array, "B S D"], lengths, dropout: Dropout):
        def attend(y):
            return self.attention(y, dropout, lengths=lengths)

        def feed(y):
            return self.feed_forward(y, dropout)

        for norm, block in zip(self.norms, (attend, feed), strict=True):
            x = residual_block(x, block, norm, self.pre_norm, dropout)
        return x


class DecoderLayer(nnx.Module):
    def __init__(self, c: ModelConfig, *, dtype, rngs: nnx.Rngs):
        self.self_attention = SelfAttention(
            c.width, c.heads, dtype=dtype, kernel=c.attention, rngs=rngs
        )
        self.cross_attention = CrossAttention(
            c.width, c.heads, dtype=dtype, kernel=c.attention, rngs=rngs
        )
        self.feed_forward = FeedForward(
            c.width, c.feed_forward, c.activation, dtype=dtype, rngs=rngs
        )
        self.norms = nnx.List([_norm(c, dtype) for _ in range(3)])
        self.pre_norm = c.norm == "pre"

    def _blocks(self, x, attend_self, attend_source, dropout: Dropout):
        def feed(y):
            return self.feed_forward(y, dropout)

        for norm, block in zip(self.norms, (attend_self, attend_source, feed), strict=True):
            x = residual_block(x, block, norm, self.pre_norm, dropout)
        return x

    def __call__(
        self,
        x: Float[Array, "B T D"],
        memory,
        source_lengths,
        dropout: Dropout,
        watch: Watch | None = None,
    ):
        # Causal masking alone suffices: padding comes after every real target position.
        def attend_self(y):
            return self.self_attention(y, dropout, causal=True)

        def attend_source(y):
            if watch is not None:
                watch(self.cross_attention.weights(y, memory, source_lengths))
            return self.cross_attention(y, memory, source_lengths, dropout)

        return self._blocks(x, attend_self, attend_source, dropout)

    def step(self, x: Float[Array, "B K D"], slots, reads, position, memory, source_lengths):
        """One position of K hypotheses per sentence; they share the sentence's memory."""
        filled = []

        def attend_self(y):
            grouped = y.reshape(*reads.shape[:2], y.shape[-1])
            out, new = self.self_attention.step(grouped, slots, reads, position)
            filled.append(new)
            return out.reshape(y.shape)

        def attend_source(y):
            return self.cross_attention.step(y, memory, source_lengths)

        return self._blocks(x, attend_self, attend_source, Dropout()), filled[0]


def residual_block(x, block, norm: LayerNorm, pre_norm: bool, dropout: Dropout):
    """x + block(norm(x)) (pre-norm) or norm(x + block(x)) (post-norm, Vaswani et al. 2017)."""
    if pre_norm:
        x = x + dropout.residual(block(norm(x)))
    else:
        x = norm(x + dropout.residual(block(x)))
    return settle(x)


def settle(x):
    """x itself, computed once; likewise its gradient.

    XLA fuses a residual sum into each of its readers, so that on CPU every layer adds up (and
    drops out) the whole stream from the embeddings on again; it removes optimization barriers
    before it fuses. A branch is never fused; that this one is always taken XLA cannot know.
    """
    if jax.default_backend() != "cpu":
        return x
    first = x.ravel()[0]
    always = (first >= 0) | (first < 0) | jnp.isnan(first)
    return jax.lax.cond(always, lambda y: y, jnp.zeros_like, x)


class Transformer(nnx.Module):
    """Encoder–decoder over subword ids. Split it with `nnx.split` for pure functions of its state.

    Args:
      config: shape and switches.
      source_size, target_size: vocabulary sizes V of the two sides.
      rngs: a `params` stream for initialisation.
    """

    def __init__(self, config: ModelConfig, source_size: int, target_size: int, rngs: nnx.Rngs):
        c = self.config = config
        dtype = self.dtype = jnp.dtype(c.compute)
        if c.tied_embeddings == "all" and source_size != target_size:
            raise ValueError("tied_embeddings: all needs one vocabulary for both sides")
        scaled = c.scale_embeddings
        self.target_embedding = Embedding(
            target_size, c.width, dtype=dtype, rngs=rngs, scaled=scaled
        )
        if c.tied_embeddings != "all":
            self.source_embedding = Embedding(
                source_size, c.width, dtype=dtype, rngs=rngs, scaled=scaled
            )
        if c.tied_embeddings == "none":
            self.output = Dense(c.width, target_size, dtype=dtype, rngs=rngs)
        elif c.output_bias:
            self.output_bias = nnx.Param(jnp.zeros(target_size))
        if c.positions == "learned":
            # √D belongs to tokens; without it, positions start as small as in BERT.
            longest = c.max_positions
            self.source_positions = Embedding(
                longest, c.width, dtype=dtype, rngs=rngs, scaled=False
            )
            self.target_positions = Embedding(
                longest, c.width, dtype=dtype, rngs=rngs, scaled=False
            )
        self.encoder = nnx.List(
            [EncoderLayer(c, dtype=dtype, rngs=rngs) for _ in range(c.encoder_layers)]
        )
        self.decoder = nnx.List(
            [DecoderLayer(c, dtype=dtype, rngs=rngs) for _ in range(c.decoder_layers)]
        )
        if c.norm == "pre":
            self.encoder_norm = _norm(c, dtype)
            self.decoder_norm = _norm(c, dtype)

    def _positions(self, positions: Int[Array, "*B"], side: str) -> Float[Array, "*B D"]:
        if self.config.positions == "learned":
            table = self.source_positions if side == "source" else self.target_positions
            # Padding, and what a test set has beyond the table, share its last row: reading past
            # the end would give NaN, which no mask takes away again.
            return table(jnp.minimum(positions, self.config.max_positions - 1))
        paper = self.config.positions == "sinusoidal_paper"
        encode = paper_positions if paper else sinusoidal_positions
        return encode(positions, self.config.width).astype(self.dtype)

    def encode(
        self,
        source: Int[Array, "B S"],
        source_lengths: Int[Array, "B"],
        dropout: Dropout | None = None,
    ) -> Memory:
        """Encoder states as the decoder layers' keys and values.

        Rows of length 0 (padding rows) attend to their first position, so that nothing is NaN.
        """
        dropout = dropout or Dropout()
        shared = self.config.tied_embeddings == "all"
        embed = self.target_embedding if shared else self.source_embedding
        lengths = jnp.maximum(source_lengths, 1)
        x = embed(source) + self._positions(jnp.arange(source.shape[1]), "source")
        x = dropout.residual(x)
        for layer in self.encoder:
            x = layer(x, lengths, dropout)
        if self.config.norm == "pre":
            x = self.encoder_norm(x)
        return Memory([layer.cross_attention.memory(x) for layer in self.decoder], lengths)

    def decode(
        self,
        memory: Memory,
        inputs: Int[Array, "B T"],
        dropout: Dropout | None = None,
        *,
        watch: Watch | None = None,
    ) -> Float[Array, "B T D"]:
        """Hidden states before the output matrix, for inputs that begin with bos.

        `watch` is given each layer's attention to the source, first layer first.
        """
        dropout = dropout or Dropout()
        x = self.target_embedding(inputs) + self._positions(jnp.arange(inputs.shape[1]), "target")
        x = dropout.residual(x)
        for layer, kv in zip(self.decoder, memory.layers, strict=True):
            x = layer(x, kv, memory.lengths, dropout, watch)
        return self.decoder_norm(x) if self.config.norm == "pre" else x

    def start_cache(self, hypotheses: int, length: int, shared: int = 1) -> Cache:
        """An empty cache for so many hypotheses of up to `length` tokens.

        shared: so many neighbours, the hypotheses of a sentence, share their slots.
        """
        c = self.config
        return empty_cache(
            hypotheses, length, shared=shared, layers=len(self.decoder), heads=c.heads,
            channels=c.width // c.heads, dtype=self.dtype,
        )  # fmt: skip

    def decode_step(
        self,
        memory: Memory | StepMemory,
        tokens: Int[Array, "B K"],
        position: Int[Array, ""] | Int[Array, "B"],
        cache: Cache,
        output: Float[Array, "V D"] | None = None,
    ) -> tuple[Float[Array, "B K V"], Cache]:
        """Logits after the token at `position` of K hypotheses per sentence, and the new cache.

        Each sentence may be at a position of its own. `cache` holds B·K hypotheses in that order.
        Position 0 holds bos. A loop over steps should be given what is made once outside of it:
        `StepMemory.of(memory)` and `output`, which is `matrix_to_multiply()`.
        """
        if isinstance(memory, Memory):
            memory = StepMemory.of(memory)
        position = jnp.broadcast_to(position, tokens.shape[:1])
        x = self.target_embedding(tokens) + self._positions(position[:, None], "target")
        rows = (tokens.shape[0], tokens.shape[1] // cache.ancestors.shape[1])
        position = jnp.broadcast_to(position[:, None], rows).reshape(-1)  # of the cache's rows
        cache = with_own_slots(cache, position)
        reads = readable(cache, position)
        filled = []
        for layer, kv, past in zip(self.decoder, memory.layers, cache.layers, strict=True):
            x, new = layer.step(x, past, reads, position, kv, memory.lengths)
            filled.append(new)
        if self.config.norm == "pre":
            x = self.decoder_norm(x)
        return self.logits(x, output), cache._replace(layers=filled)

    def output_matrix(self) -> tuple[Float[Array, "V D"], Float[Array, "V"] | None]:
        """The matrix that turns hidden states into logits, a row per token, and its bias."""
        if self.config.tied_embeddings == "none":
            return self.output.kernel[...].T, self.output.bias[...]
        bias = self.output_bias[...] if self.config.output_bias else None
        return self.target_embedding.table[...], bias

    def matrix_to_multiply(self) -> Float[Array, "V D"]:
        """The output matrix in the compute type."""
        return self.output_matrix()[0].astype(self.dtype)

    def logits(
        self, hidden: Float[Array, "*B D"], output: Float[Array, "V D"] | None = None
    ) -> Float[Array, "*B V"]:
        """Scores of the next token, float32 whatever the compute type.

        `output`: `matrix_to_multiply()`, where it has been made before.
        """
        matrix = self.matrix_to_multiply() if output is None else output
        _, bias = self.output_matrix()
        logits = jnp.einsum("...d,vd->...v", hidden, matrix, preferred_element_type=jnp.float32)
        logits = logits if bias is None else logits + bias
        cap = self.config.logit_softcap
        return cap * jnp.tanh(logits / cap) if cap else logits
