"""Attention to the source: what a model looks at, whatever it is batched with."""

import dataclasses

import numpy as np
import pytest
from tiny import MODEL, random_params, tiny_config, tiny_data

from nmt_ls.decoding.alignment import attention_weights, hard_alignment
from nmt_ls.decoding.scoring import hidden_states
from nmt_ls.model.layers import sinusoidal_positions

SOURCES = ["w01 w02 w03", "w07", "w30 w31 w32 w33"]
TARGETS = ["w03 w02", "w07 w07 w07", "w33"]


@pytest.fixture(scope="module")
def subwords(tmp_path_factory):
    return tiny_data(tiny_config(tmp_path_factory.mktemp("tiny"))).subwords


def by_numpy(params, source, target, bos, heads):
    """The first decoder layer's cross-attention after a self-attention that adds nothing."""

    def embed(ids):
        width = params["target_embedding.table"].shape[1]
        positions = np.asarray(sinusoidal_positions(np.arange(len(ids)), width))
        return params["target_embedding.table"][ids] * width**0.5 + positions

    def norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return scaled * params[f"{name}.scale"] + params[f"{name}.bias"]

    encoded = norm(embed(source), "encoder_norm")
    query = norm(embed([bos, *target[:-1]]), "decoder.0.norms.1")
    name = "decoder.0.cross_attention"
    q = query @ params[f"{name}.query.kernel"] + params[f"{name}.query.bias"]
    k = (encoded @ params[f"{name}.project.kernel"])[:, : q.shape[1]]
    q, k = (x.reshape(len(x), heads, -1) for x in (q, k))
    logits = np.einsum("thc,shc->hts", q, k) / q.shape[-1] ** 0.5
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return (weights / weights.sum(-1, keepdims=True)).mean(0)


def test_against_numpy(subwords):
    params = random_params(MODEL, subwords.source_size, subwords.target_size)
    # Without what the other blocks add to the residual stream the layer is short enough to write.
    for name in params:
        if name.startswith(("encoder.0", "decoder.0.self_attention")) and (
            ".output." in name or ".feed_forward." in name
        ):
            params[name] = np.zeros_like(params[name])
    sources, targets = subwords.encode_source(SOURCES), subwords.encode_target(TARGETS)
    found = attention_weights(MODEL, subwords, params, sources, targets, batch_sentences=8)
    for weights, source, target in zip(found, sources, targets, strict=True):
        wanted = by_numpy(params, source, target, subwords.bos, MODEL.heads)
        np.testing.assert_allclose(weights, wanted, atol=2e-6)
        assert hard_alignment(weights) == wanted.argmax(1).tolist()


def test_rows_are_distributions_and_watching_changes_nothing(subwords):
    model = dataclasses.replace(MODEL, decoder_layers=2)
    params = random_params(model, subwords.source_size, subwords.target_size)
    sources, targets = subwords.encode_source(SOURCES), subwords.encode_target(TARGETS)
    together = attention_weights(model, subwords, params, sources, targets, batch_sentences=8)
    states = hidden_states(model, subwords, params, sources, targets, batch_sentences=8)
    for i, weights in enumerate(together):
        assert (
            weights.shape == (len(targets[i]), len(sources[i])) == (len(states[i]), len(sources[i]))
        )
        np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-5)
        pair = (sources[i : i + 1], targets[i : i + 1])
        (alone,) = attention_weights(model, subwords, params, *pair, batch_sentences=8)
        np.testing.assert_allclose(weights, alone, rtol=1e-5)
    assert hard_alignment(np.zeros((0, 0))) == []
