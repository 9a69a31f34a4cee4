"""The Transformer's parts. Parameters are float32; products run in the compute type.

Layers take and return plain arrays and hold no state but their parameters: dropout keys come in as
an argument, decoding caches as explicit pytrees.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from nmt_ls.model.dropout import Dropout


@jax.custom_vjp
def project(x: Float[Array, "*B D"], kernel: Float[Array, "D F"]) -> Float[Array, "*B F"]:
    """x @ kernel, with a gradient of the kernel that transposes the narrower of x and dy.

    jax makes it of dyᵀ and x. XLA's products on CPU want dyᵀ as a copy, which for a layer that
    widens is larger than xᵀ: 5 % of a training step went into such copies.
    """
    return x @ kernel


def _project_forward(x, kernel):
    return x @ kernel, (x, kernel)


def _project_backward(saved, d_y):
    x, kernel = saved
    rows, d_rows = x.reshape(-1, x.shape[-1]), d_y.reshape(-1, d_y.shape[-1])
    over_rows = (((0,), (0,)), ((), ()))
    if x.shape[-1] < d_y.shape[-1]:
        d_kernel = jax.lax.dot_general(rows, d_rows, over_rows)
    else:
        d_kernel = jax.lax.dot_general(d_rows, rows, over_rows).T
    return d_y @ kernel.T, d_kernel


project.defvjp(_project_forward, _project_backward)


class Dense(nnx.Module):
    """y = x @ kernel + bias over the last axis, Xavier-uniform kernel.

    `biased` says which of the equal parts of the output (q, k, v) have a bias; the kernel of each
    part is drawn as if it stood alone.
    """

    def __init__(
        self,
        fan_in: int,
        fan_out: int,
        *,
        dtype,
        rngs: nnx.Rngs,
        biased: tuple[bool, ...] = (True,),
    ):
        parts = len(biased)
        draw = jax.nn.initializers.xavier_uniform()
        kernels = [draw(rngs.params(), (fan_in, fan_out // parts)) for _ in range(parts)]
        self.kernel = nnx.Param(jnp.concatenate(kernels, axis=1))
        self.bias = nnx.Param(jnp.zeros(fan_out // parts * sum(biased)))
        self.biased, self.dtype = biased, dtype

    def _full_bias(self) -> Float[Array, "F"]:
        bias = self.bias[...].astype(self.dtype)
        if all(self.biased):
            return bias
        size = self.kernel.shape[1] // len(self.biased)
        pieces, given = [], iter(bias.reshape(-1, size))
        for has in self.biased:
            pieces.append(next(given) if has else jnp.zeros(size, self.dtype))
        return jnp.concatenate(pieces)

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B F"]:
        return (
            project(x.astype(self.dtype), self.kernel[...].astype(self.dtype)) + self._full_bias()
        )


class LayerNorm(nnx.Module):
    """Layer normalisation, statistics in float32."""

    def __init__(self, width: int, *, dtype, epsilon: float = 1e-6):
        self.scale = nnx.Param(jnp.ones(width))
        self.bias = nnx.Param(jnp.zeros(width))
        self.dtype, self.epsilon = dtype, epsilon

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        x = x.astype(jnp.float32)
        mean = jnp.mean(x, axis=-1, keepdims=True)
        centred = x - mean
        variance = jnp.mean(centred * centred, axis=-1, keepdims=True)
        normal = centred * jax.lax.rsqrt(variance + self.epsilon)
        return (normal * self.scale[...] + self.bias[...]).astype(self.dtype)


class Embedding(nnx.Module):
    """Token embeddings, N(0, 1/D), multiplied by √D on the way in (Vaswani et al. 2017, §3.4).

    Without `scaled` they come as they stand in the table.
    """

    def __init__(self, size: int, width: int, *, dtype, rngs: nnx.Rngs, scaled: bool = True):
        self.table = nnx.Param(jax.random.normal(rngs.params(), (size, width)) * width**-0.5)
        self.dtype, self.scaled = dtype, scaled

    def __call__(self, ids: Int[Array, "*B"]) -> Float[Array, "*B D"]:
        table = self.table[...]
        rows = jnp.take(table, ids, axis=0)
        return (rows * table.shape[1] ** 0.5 if self.scaled else rows).astype(self.dtype)


@jax.custom_jvp
def relu(x: Float[Array, "*B F"]) -> Float[Array, "*B F"]:
    """max(x, 0), with a gradient that looks at what comes out.

    That of `jax.nn.relu` looks at x, which then has to be kept too. Without, a GPU's product adds
    the bias and takes the maximum before it writes anything: the base model's step takes a sixth
    less memory (`scripts/compile_ahead`). The numbers are the same.
    """
    return jnp.maximum(x, 0)


@relu.defjvp
def _(primals, tangents):
    y = relu(*primals)
    # Not y > 0, which XLA makes x > 0 of.
    return y, jnp.where(y != 0, tangents[0], 0)


_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": relu,
    "gelu": jax.nn.gelu,  # the tanh approximation
    "gelu_exact": partial(jax.nn.gelu, approximate=False),
    "swish": jax.nn.silu,
}


class FeedForward(nnx.Module):
    """Two products around an activation; SwiGLU (Shazeer 2020) has a second, gating one."""

    def __init__(self, width: int, inner: int, activation: str, *, dtype, rngs: nnx.Rngs):
        # SwiGLU's gate and value share one product.
        biased = (True,) * (2 if activation == "swiglu" else 1)
        self.expand = Dense(width, inner * len(biased), dtype=dtype, rngs=rngs, biased=biased)
        self.contract = Dense(inner, width, dtype=dtype, rngs=rngs)
        self.activation = activation

    def __call__(self, x: Float[Array, "B T D"], dropout: Dropout) -> Float[Array, "B T D"]:
        h = self.expand(x)  # [B, T, F] or [B, T, 2F]
        if self.activation == "swiglu":
            gate, h = jnp.split(h, 2, axis=-1)
            h = jax.nn.silu(gate) * h
        else:
            h = _ACTIVATIONS[self.activation](h)
        return self.contract(dropout.activation(h))


def sinusoidal_positions(positions: Int[ArrayLike, "*B"], width: int) -> Float[Array, "*B D"]:
    """Sines in the first half, cosines in the second, wavelengths 2π … 10000·2π, float32.

    The layout of tensor2tensor, fairseq and Marian; the paper interleaves them, which is the same
    up to a permutation of dimensions. It also ends at a shorter wavelength: see
    `paper_positions`.
    """
    half = width // 2
    frequencies = jnp.exp(-jnp.log(10000.0) / max(half - 1, 1) * jnp.arange(half))
    angles = jnp.asarray(positions)[..., None] * frequencies
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def paper_positions(positions: Int[ArrayLike, "*B"], width: int) -> Float[Array, "*B D"]:
    """As `sinusoidal_positions`, with the wavelengths 2π·10000^(2i/D) of Vaswani et al. (2017).

    Hugging Face's Marian has a table of these, made in float64. To stay within rounding of it at
    any position, each frequency is split into one of 12 bits, whose products with positions below
    4096 are exact, and a small rest.
    """
    frequencies = 10000.0 ** (-2 * np.arange(width // 2) / width)
    mantissa, exponent = np.frexp(frequencies)
    coarse = np.ldexp(np.round(mantissa * 4096) / 4096, exponent)
    position = jnp.asarray(positions, jnp.float32)[..., None]
    a, b = (position * jnp.asarray(part, jnp.float32) for part in (coarse, frequencies - coarse))
    sines = jnp.sin(a) * jnp.cos(b) + jnp.cos(a) * jnp.sin(b)
    cosines = jnp.cos(a) * jnp.cos(b) - jnp.sin(a) * jnp.sin(b)
    return jnp.concatenate([sines, cosines], axis=-1)
