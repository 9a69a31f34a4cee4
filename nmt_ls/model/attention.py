"""Multi-head attention: one product per projection, and a choice of kernels for the rest."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from nmt_ls.model.cache import Slots, SourceSlots, attend_past, attend_source
from nmt_ls.model.dropout import Dropout
from nmt_ls.model.layers import Dense


def explicit_attention(
    q: Float[Array, "B T H C"],
    k: Float[Array, "B S H C"],
    v: Float[Array, "B S H C"],
    mask: Bool[Array, "#B #1 #T S"] | None,
    dropout: Dropout | None = None,
) -> tuple[Float[Array, "B T H C"], Float[Array, "B H T S"]]:
    """softmax(q·k/√C)·v and the weights before dropout; softmax in at least float32."""
    logits = jnp.einsum("bthc,bshc->bhts", q, k, preferred_element_type=jnp.float32)
    logits = logits * q.shape[-1] ** -0.5
    if mask is not None:
        logits = jnp.where(mask, logits, jnp.finfo(logits.dtype).min)
    weights = jax.nn.softmax(logits, axis=-1)
    kept = weights if dropout is None else dropout.attention(weights)
    return jnp.einsum("bhts,bshc->bthc", kept.astype(v.dtype), v), weights


def has_cudnn() -> bool:
    """Whether this machine computes on GPUs, whose kernels cuDNN has."""
    return jax.default_backend() == "gpu"


def _has_flash_kernel() -> bool:
    """Whether the GPU is one of NVIDIA's of compute capability 8.0 or later."""
    device = jax.local_devices()[0]
    cuda = "cuda" in getattr(device.client, "platform_version", "").lower()
    major = str(getattr(device, "compute_capability", "")).partition(".")[0]
    return cuda and major.isdecimal() and int(major) >= 8


def _cudnn_applies(q: Array, k: Array) -> bool:
    # What cuDNN's flash kernel accepts (jax._src.cudnn.fused_attention_stablehlo).
    half = q.dtype in (jnp.bfloat16, jnp.float16)
    return (
        has_cudnn() and _has_flash_kernel() and half and q.shape[-1] % 8 == 0 and q.shape[-1] <= 128
    )


def attend(
    q: Float[Array, "B T H C"],
    k: Float[Array, "B S H C"],
    v: Float[Array, "B S H C"],
    *,
    key_lengths: Int[Array, "B"] | None = None,
    causal: bool = False,
    kernel: str = "auto",
    dropout: Dropout | None = None,
) -> Float[Array, "B T H C"]:
    """Attention over the first `key_lengths` keys of each row (at least one), causal if asked.

    kernel: "auto" (cuDNN's flash kernel where it applies, else XLA), "xla", "cudnn" (XLA on a
    machine without a GPU), "explicit".
    Dropping attention weights takes the explicit path whatever the kernel.
    """
    if kernel == "explicit" or (dropout is not None and dropout.drops_attention):
        mask = None
        if key_lengths is not None:
            mask = (jnp.arange(k.shape[1]) < key_lengths[:, None])[:, None, None, :]
        if causal:
            lower = jnp.tril(jnp.ones((q.shape[1], k.shape[1]), bool))[None, None]
            mask = lower if mask is None else mask & lower
        return explicit_attention(q, k, v, mask, dropout)[0]
    if kernel == "auto":
        kernel = "cudnn" if _cudnn_applies(q, k) else "xla"
    if kernel == "cudnn" and not has_cudnn():  # a run that was trained on a GPU
        kernel = "xla"
    if kernel == "cudnn":
        return _cudnn(q, k, v, key_lengths, causal)
    return jax.nn.dot_product_attention(
        q, k, v, key_value_seq_lengths=key_lengths, is_causal=causal, implementation="xla"
    )


def _cudnn(q: Array, k: Array, v: Array, key_lengths: Array | None, causal: bool) -> Array:
    """cuDNN's flash kernel, which jax differentiates for even numbers of positions only.

    That is a limit of biases, but jax takes each call for one with a bias
    (`check_is_flash_attention` in jax 0.10 to 0.12). A position more, which no query sees, is no
    other result.
    """
    queries, keys = q.shape[1], k.shape[1]
    behind_all = causal and queries <= keys
    if keys % 2 and key_lengths is None and not behind_all:
        key_lengths = jnp.full(len(k), keys, jnp.int32)
    q, k, v = (
        jnp.pad(x, ((0, 0), (0, 1), (0, 0), (0, 0))) if x.shape[1] % 2 else x for x in (q, k, v)
    )
    query_lengths = None
    if key_lengths is not None:
        # It wants both lengths: queries beyond theirs are padding, which nobody reads. And under a
        # `vmap` over models it wants lengths for each of them, though all have the same.
        none = jnp.where(q[:, 0, 0, 0] == 0, 0, 0)
        key_lengths, query_lengths = key_lengths + none, jnp.int32(queries) + none
    y = jax.nn.dot_product_attention(
        q, k, v, key_value_seq_lengths=key_lengths, query_seq_lengths=query_lengths,
        is_causal=causal, implementation="cudnn",
    )  # fmt: skip
    return y[:, :queries]


class SelfAttention(nnx.Module):
    """Self-attention with one fused product for queries, keys and values.

    Keys have no bias: it shifts all of a query's logits alike, so softmax never sees it, and its
    gradient is rounding noise that Adam would blow up.
    """

    def __init__(self, width: int, heads: int, *, dtype, kernel: str, rngs: nnx.Rngs):
        self.project = Dense(width, 3 * width, dtype=dtype, rngs=rngs, biased=(True, False, True))
        self.output = Dense(width, width, dtype=dtype, rngs=rngs)
        self.heads, self.kernel = heads, kernel

    def _heads(self, x):
        q, k, v = jnp.split(self.project(x), 3, axis=-1)
        return tuple(y.reshape(*y.shape[:-1], self.heads, -1) for y in (q, k, v))

    def __call__(
        self,
        x: Float[Array, "B T D"],
        dropout: Dropout,
        *,
        lengths: Int[Array, "B"] | None = None,
        causal: bool = False,
    ) -> Float[Array, "B T D"]:
        q, k, v = self._heads(x)
        y = attend(q, k, v, key_lengths=lengths, causal=causal, kernel=self.kernel, dropout=dropout)
        return self.output(y.reshape(x.shape))

    def step(
        self,
        x: Float[Array, "R G D"],
        slots: Slots,
        reads: Bool[Array, "R G T G"],
        position: Int[Array, "R"],
    ) -> tuple[Float[Array, "R G D"], Slots]:
        """One position with its past (`cache.attend_past`): the output and the filled slots."""
        q, k, v = self._heads(x)
        y, slots = attend_past(q, k, v, slots, reads, position)
        return self.output(y.reshape(x.shape)), slots


class CrossAttention(nnx.Module):
    """Attention of the decoder over the encoder's states; keys (no bias) and values are fused."""

    def __init__(self, width: int, heads: int, *, dtype, kernel: str, rngs: nnx.Rngs):
        self.query = Dense(width, width, dtype=dtype, rngs=rngs)
        self.project = Dense(width, 2 * width, dtype=dtype, rngs=rngs, biased=(False, True))
        self.output = Dense(width, width, dtype=dtype, rngs=rngs)
        self.heads, self.kernel = heads, kernel

    def memory(self, encoded: Float[Array, "B S D"]) -> tuple[Array, Array]:
        """Keys and values `[B, S, H, C]` of the encoder's states: once per sentence."""
        k, v = jnp.split(self.project(encoded), 2, axis=-1)
        shape = (*k.shape[:-1], self.heads, -1)
        return k.reshape(shape), v.reshape(shape)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        memory: tuple[Float[Array, "B S H C"], Float[Array, "B S H C"]],
        source_lengths: Int[Array, "B"],
        dropout: Dropout,
    ) -> Float[Array, "B T D"]:
        q = self.query(x)
        q = q.reshape(*q.shape[:-1], self.heads, -1)
        y = attend(q, *memory, key_lengths=source_lengths, kernel=self.kernel, dropout=dropout)
        return self.output(y.reshape(x.shape))

    def weights(
        self,
        x: Float[Array, "B T D"],
        memory: tuple[Float[Array, "B S H C"], Float[Array, "B S H C"]],
        source_lengths: Int[Array, "B"],
    ) -> Float[Array, "B H T S"]:
        """What each head's queries give to the positions of the source; 0 beyond its length."""
        q = self.query(x)
        mask = jnp.arange(memory[0].shape[1]) < source_lengths[:, None]
        heads = q.reshape(*q.shape[:-1], self.heads, -1)
        return explicit_attention(heads, *memory, mask[:, None, None, :])[1]

    def step(
        self, x: Float[Array, "B K D"], slots: SourceSlots, source_lengths: Int[Array, "B"]
    ) -> Float[Array, "B K D"]:
        """One position of K hypotheses, which share the sentence's memory."""
        q = self.query(x)
        q = q.reshape(*q.shape[:-1], self.heads, -1)
        return self.output(attend_source(q, slots, source_lengths).reshape(x.shape))
