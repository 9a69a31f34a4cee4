"""One Transformer and its updates in torch, two ways: `nn.Transformer`, Hugging Face's Marian.

Runs in a peer's process; imports nothing of ours but `peers`.
"""

import contextlib
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from nmt_ls.bench.training.peers import LABEL_SMOOTHING, Peer, Setting

_IGNORED = -100


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _peer(setting: Setting, model: nn.Module, loss: Callable, compiled: bool = False) -> Peer:
    """Updates of a model: loss, gradients, clipping, fused AdamW.

    loss: (source, padding of the source, inputs, labels) → mean over real tokens.
    """
    device = _device()
    model.to(device).train()
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1]},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(
        groups, lr=setting.learning_rate, betas=(setting.beta1, setting.beta2),
        eps=setting.epsilon, weight_decay=setting.weight_decay, fused=True,
    )  # fmt: skip
    if compiled:
        loss = torch.compile(loss)
    autocast: Any = contextlib.nullcontext
    if setting.compute != "float32":
        autocast = partial(torch.autocast, device, getattr(torch, setting.compute))

    def prepare(source, source_lengths, target, target_lengths) -> tuple[Any, ...]:
        padding = np.arange(source.shape[1]) >= np.maximum(source_lengths, 1)[:, None]
        real = np.arange(target.shape[1]) < target_lengths[:, None]
        first = np.full((len(target), 1), setting.bos)
        inputs = np.concatenate([first, target[:, :-1]], axis=1)
        arrays = (source, padding, inputs, np.where(real, target, _IGNORED))
        return tuple(
            torch.from_numpy(np.ascontiguousarray(x)).to(device, bool if x is padding else int)
            for x in map(np.asarray, arrays)
        )

    def step(batch) -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        with autocast():
            value = loss(*batch)
        value.backward()
        if setting.clip_norm:
            nn.utils.clip_grad_norm_(model.parameters(), setting.clip_norm)
        optimizer.step()
        return value.detach()

    return Peer(step, prepare, sum(p.numel() for p in model.parameters()), device)


def _cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(
        logits.flatten(0, 1).float(), labels.flatten(), ignore_index=_IGNORED,
        label_smoothing=LABEL_SMOOTHING,
    )  # fmt: skip


class TiedTransformer(nn.Module):
    """Ours around `nn.Transformer`: pre-norm, sinusoidal positions, one matrix for both sides.

    Its keys have biases, which ours lack. `as_ours`: it drops out where ours does by default, in
    embeddings and what blocks add; else also attention weights and inside feed-forward blocks.
    """

    def __init__(self, s: Setting, as_ours: bool):
        super().__init__()
        self.transformer = nn.Transformer(
            s.width, s.heads, s.layers, s.layers, s.feed_forward, s.dropout, batch_first=True,
            norm_first=True,
        )  # fmt: skip
        for module in self.transformer.modules() if as_ours else ():
            if isinstance(module, nn.MultiheadAttention):
                module.dropout = 0.0
            elif isinstance(module, nn.TransformerEncoderLayer | nn.TransformerDecoderLayer):
                module.dropout.p = 0.0
        self.table = nn.Parameter(torch.randn(s.vocab_size, s.width) * s.width**-0.5)
        self.drop = nn.Dropout(s.dropout)
        frequencies = torch.exp(-math.log(10_000.0) * torch.arange(0, s.width, 2) / s.width)
        angles = torch.arange(1024)[:, None] * frequencies
        self.register_buffer("positions", torch.cat([angles.sin(), angles.cos()], dim=-1))
        self.scale = s.width**0.5

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Token ids `[B, T]` → `[B, T, D]`."""
        embedded = functional.embedding(ids, self.table) * self.scale
        return self.drop(embedded + self.positions[: ids.shape[1]])

    def forward(self, source, padding, inputs) -> torch.Tensor:
        """Logits `[B, T, V]`."""
        length = inputs.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=inputs.device).triu(1)
        hidden = self.transformer(
            self.embed(source), self.embed(inputs), tgt_mask=causal, tgt_is_causal=True,
            src_key_padding_mask=padding, memory_key_padding_mask=padding,
        )  # fmt: skip
        return functional.linear(hidden, self.table)


def nn_transformer(setting: Setting, compiled: bool, as_ours: bool) -> Peer:
    """torch's own layers."""
    model = TiedTransformer(setting, as_ours)

    def loss(source, padding, inputs, labels) -> torch.Tensor:
        return _cross_entropy(model(source, padding, inputs), labels)

    return _peer(setting, model, loss, compiled)


def hugging_face(setting: Setting) -> Peer:
    """transformers' Marian (post-norm; drops out where ours does)."""
    from transformers import MarianConfig, MarianMTModel

    s = setting
    model = MarianMTModel(
        MarianConfig(
            vocab_size=s.vocab_size, d_model=s.width, max_position_embeddings=1024,
            encoder_layers=s.layers, decoder_layers=s.layers, encoder_attention_heads=s.heads,
            decoder_attention_heads=s.heads, encoder_ffn_dim=s.feed_forward,
            decoder_ffn_dim=s.feed_forward, activation_function="relu", scale_embedding=True,
            dropout=s.dropout, attention_dropout=0.0, activation_dropout=0.0, pad_token_id=s.pad,
            eos_token_id=s.eos, forced_eos_token_id=s.eos, decoder_start_token_id=s.bos,
            use_cache=False,
        )
    )  # fmt: skip

    def loss(source, padding, inputs, labels) -> torch.Tensor:
        logits = model(
            input_ids=source, attention_mask=(~padding).long(), decoder_input_ids=inputs
        ).logits
        return _cross_entropy(logits, labels)

    return _peer(setting, model, loss)
