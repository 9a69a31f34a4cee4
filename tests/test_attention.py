"""Every kernel gives the same numbers; one step with a cache is one row of the whole."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny import assert_close

from nmt_ls.model.attention import (
    CrossAttention,
    SelfAttention,
    _cudnn_applies,
    attend,
    explicit_attention,
)
from nmt_ls.model.dropout import Dropout, DropoutRates

B, T, S, H, C = 3, 5, 7, 2, 4


def qkv(keys: int = S) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.normal(size=(B, n, H, C)).astype(np.float32) * 2 for n in (T, keys, keys)]


def by_hand(q, k, v, lengths, causal: bool) -> np.ndarray:
    """One row, one head, one query at a time."""
    out = np.zeros_like(q, np.float64)
    for b, t, h in np.ndindex(B, T, H):
        seen = min(lengths[b], t + 1 if causal else k.shape[1])
        scores = k[b, :seen, h].astype(np.float64) @ q[b, t, h] / np.sqrt(C)
        weights = np.exp(scores - scores.max())
        out[b, t, h] = weights / weights.sum() @ v[b, :seen, h]
    return out


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("lengths", [None, [7, 1, 4]])
def test_kernels_agree(causal: bool, lengths: list[int] | None) -> None:
    keys = T if causal else S
    q, k, v = qkv(keys)
    lengths = None if lengths is None else np.minimum(lengths, keys)
    options = {"key_lengths": lengths, "causal": causal}
    explicit = attend(q, k, v, kernel="explicit", **options)
    expected = by_hand(q, k, v, [keys] * B if lengths is None else lengths, causal)
    assert_close(explicit, expected, 1e-6)
    assert_close(attend(q, k, v, kernel="xla", **options), explicit, 1e-6)
    np.testing.assert_array_equal(
        attend(q, k, v, kernel="auto", **options), attend(q, k, v, kernel="xla", **options)
    )


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="cuDNN is there")
def test_cudnn_is_xla_where_there_is_none() -> None:
    """So that a run that was trained on a GPU can be scored and translated with anywhere."""
    q, k, v = qkv()
    options = {"key_lengths": np.array([7, 1, 4])}
    np.testing.assert_array_equal(
        attend(q, k, v, kernel="cudnn", **options), attend(q, k, v, kernel="xla", **options)
    )


@pytest.mark.parametrize("keys", [3, 4, 5, 7])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("lengths", [None, [3, 1, 2]])
def test_what_cudnn_is_given(keys: int, causal: bool, lengths, monkeypatch) -> None:
    """Even numbers of positions, both lengths or neither; the same attention comes of it."""
    compute = jax.nn.dot_product_attention

    def as_cudnn(q, k, v, *, implementation, **options):
        assert implementation == "cudnn"
        assert q.shape[1] % 2 == k.shape[1] % 2 == 0
        given = [options[f"{side}_seq_lengths"] for side in ("query", "key_value")]
        assert all(x is None for x in given) or all(x.dtype == jnp.int32 for x in given)
        return compute(q, k, v, implementation="xla", **options)

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax.nn, "dot_product_attention", as_cudnn)
    q, k, v = qkv(keys)
    options = {"key_lengths": None if lengths is None else np.int32(lengths), "causal": causal}
    explicit = attend(q, k, v, kernel="explicit", **options)
    assert_close(attend(q, k, v, kernel="cudnn", **options), explicit, 1e-6)


@pytest.mark.parametrize(
    ("version", "capability", "found"),
    [
        ("PJRT C API\ncuda 13000", "9.0", True),
        ("cuda 12080", "8.0", True),
        ("cuda 12080", "10.0", True),
        ("cuda 12080", "7.5", False),
        ("rocm 60300", "gfx90a", False),
        ("cpu", None, False),
    ],
)
def test_cards_that_have_the_flash_kernel(version, capability, found, monkeypatch) -> None:
    device = SimpleNamespace(client=SimpleNamespace(platform_version=version))
    if capability is not None:
        device.compute_capability = capability
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    q = jnp.zeros((1, 1, 2, 64), jnp.bfloat16)
    assert _cudnn_applies(q, q) is found


def test_padding_may_hold_anything_finite() -> None:
    q, k, v = qkv()
    lengths = np.array([7, 1, 4])
    for kernel in ("explicit", "xla"):
        before = attend(q, k, v, key_lengths=lengths, kernel=kernel)
        k2, v2 = k.copy(), v.copy()
        for b, n in enumerate(lengths):
            k2[b, n:], v2[b, n:] = 1e4, -1e4
        np.testing.assert_array_equal(attend(q, k2, v2, key_lengths=lengths, kernel=kernel), before)


def test_weights_are_distributions() -> None:
    q, k, v = qkv()
    mask = (np.arange(S) < np.array([7, 1, 4])[:, None])[:, None, None, :]
    _, weights = explicit_attention(q, k, v, mask)
    np.testing.assert_allclose(np.sum(weights, axis=-1), 1, rtol=1e-6)
    assert (np.asarray(weights)[1, :, :, 1:] == 0).all()
    assert weights.dtype == jnp.float32


def test_softmax_of_bfloat16_is_in_float32() -> None:
    q, k, v = (jnp.asarray(x, jnp.bfloat16) for x in qkv())
    out, weights = explicit_attention(q, k, v, None)
    assert weights.dtype == jnp.float32
    assert out.dtype == jnp.bfloat16
    rounded = [np.asarray(x, np.float32) for x in (q, k, v)]
    _, exact = explicit_attention(*rounded, None)
    assert_close(weights, exact, 1e-6)


def test_dropping_weights_takes_the_explicit_path() -> None:
    q, k, v = qkv()
    key = jax.random.key(1)
    plain = attend(q, k, v, kernel="xla")
    all_zero = attend(q, k, v, kernel="xla", dropout=Dropout(key, DropoutRates(attention=0.0)))
    assert_close(all_zero, plain, 1e-6)
    half = attend(q, k, v, kernel="xla", dropout=Dropout(key, DropoutRates(attention=0.5)))
    assert np.abs(half - plain).max() > 0.1
    off = attend(q, k, v, kernel="xla", dropout=Dropout(None, DropoutRates(attention=0.5)))
    np.testing.assert_array_equal(off, plain)


@pytest.fixture(scope="module")
def layers() -> tuple[SelfAttention, CrossAttention]:
    options = {"dtype": jnp.float32, "kernel": "xla", "rngs": nnx.Rngs(0)}
    return SelfAttention(H * C, H, **options), CrossAttention(H * C, H, **options)


def test_self_attention_step_by_step(layers: tuple) -> None:
    layer = layers[0]
    x = np.random.default_rng(1).normal(size=(B, T, H * C)).astype(np.float32)
    whole = layer(x, Dropout(), causal=True)
    # What was never written must not be read, whatever it is.
    slots = [(jnp.full((B, H, C, T + 2), 9.0), jnp.full((B, H, T + 2, C), 9.0))]
    step = nnx.jit(lambda layer, *rest: layer.step(*rest))
    for position in range(T):
        reads = jnp.broadcast_to((jnp.arange(T + 2) <= position)[:, None], (B, 1, T + 2, 1))
        out, slots = step(layer, x[:, position : position + 1], slots, reads, position)
        assert_close(out[:, 0], whole[:, position], 1e-6)


def test_keys_have_no_bias(layers: tuple) -> None:
    width = H * C
    assert layers[0].project.bias.shape == (2 * width,)
    assert layers[1].project.bias.shape == (width,)
    # The queries' and values' parts get theirs.
    layers[0].project.bias[...] = jnp.arange(2.0 * width)
    full = layers[0].project._full_bias()
    layers[0].project.bias[...] = jnp.zeros(2 * width)
    expected = np.concatenate([np.arange(width), np.zeros(width), np.arange(width, 2 * width)])
    np.testing.assert_array_equal(full, expected)
