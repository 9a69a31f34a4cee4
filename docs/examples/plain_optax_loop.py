"""The fused loss in a loop of plain jax and optax: a character model of 100 equations."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nmt_ls.losses import (
    linear_label_smoothed_cross_entropy_sum,
    linear_label_smoothed_cross_entropy_sum_with_statistics,
)

TEXT = [f"{i}*{i}={i * i}." for i in range(100)]
ALPHABET = "".join(sorted(set("".join(TEXT))))
PAD, WINDOW, WIDTH = -100, 3, 32
labels = np.full((len(TEXT), max(map(len, TEXT))), PAD)  # [B, T]
for row, line in zip(labels, TEXT, strict=True):
    row[: len(line)] = [ALPHABET.index(character) for character in line]
real = labels != PAD
# The characters before each one; an id of its own stands for what is before the beginning.
before = np.pad(np.where(real, labels, 0), ((0, 0), (WINDOW, 0)), constant_values=len(ALPHABET))
context = np.stack([before[:, i : i - WINDOW] for i in range(WINDOW)], axis=-1)  # [B, T, WINDOW]


def rows(params):
    """What the loss needs: hidden states [B, T, WIDTH], output matrix [V, WIDTH], labels, ε."""
    read = params["input"][context].reshape(*labels.shape, -1)
    return jnp.tanh(read @ params["hidden"]), params["output"], labels, 0.1


def loss(params):
    return linear_label_smoothed_cross_entropy_sum(*rows(params), where=real) / jnp.sum(real)


@jax.jit
def perplexity(params):
    """Of the hard labels: the statistics never contain ε."""
    _, hard = linear_label_smoothed_cross_entropy_sum_with_statistics(*rows(params), where=real)
    return jnp.exp(jnp.sum(hard.nll) / jnp.sum(real))


@jax.jit
def update(params, state):
    value, gradient = jax.value_and_grad(loss)(params)
    changes, state = optimizer.update(gradient, state, params)
    return optax.apply_updates(params, changes), state, value


sizes = {"input": len(ALPHABET) + 1, "hidden": WINDOW * WIDTH, "output": len(ALPHABET)}
keys = dict(zip(sizes, jax.random.split(jax.random.key(0), 3), strict=True))
params = {name: 0.1 * jax.random.normal(keys[name], (n, WIDTH)) for name, n in sizes.items()}
optimizer = optax.adamw(1e-2)
state = optimizer.init(params)
for step in range(301):
    trained, state, value = update(params, state)
    if step % 100 == 0:
        print(f"step {step:3}  smoothed loss {value:.3f}  perplexity {perplexity(params):.2f}")
    params = trained
