"""JoeyNMT 2.3's model, loss and updates, called as its trainer calls them.

Runs in a peer's process, in JoeyNMT's own environment (it wants importlib_metadata, sentencepiece
0.2.0, tensorboard and subword-nmt); imports nothing of ours but `peers`.
"""

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from joeynmt.batch import Batch
from joeynmt.model import build_model
from joeynmt.vocabulary import Vocabulary
from torch import nn

from nmt_ls.bench.training.peers import LABEL_SMOOTHING, Peer, Setting

_UNK, _PAD, _BOS, _EOS = range(4)  # its order


def joeynmt(s: Setting) -> Peer:
    """Dropout is where JoeyNMT has it, which is also on attention weights and in feed-forward
    blocks; so is its loss: ε over all classes but the padding, from full log-probabilities."""
    special = SimpleNamespace(
        unk_token="<unk>", pad_token="<pad>", bos_token="<s>", eos_token="</s>", sep_token=None,
        unk_id=_UNK, pad_id=_PAD, bos_id=_BOS, eos_id=_EOS, sep_id=None, lang_tags=[],
    )  # fmt: skip
    vocabulary = Vocabulary([f"p{i}" for i in range(4, s.vocab_size)], special)
    side = {
        "type": "transformer", "num_layers": s.layers, "num_heads": s.heads,
        "hidden_size": s.width, "ff_size": s.feed_forward, "dropout": s.dropout,
        "layer_norm": "pre", "freeze": False,
        "embeddings": {"embedding_dim": s.width, "scale": True, "dropout": s.dropout},
    }  # fmt: skip
    shape = {
        "initializer": "xavier_uniform", "embed_initializer": "xavier_uniform",
        "tied_embeddings": True, "tied_softmax": True, "encoder": side, "decoder": side,
    }  # fmt: skip
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = build_model(shape, vocabulary, vocabulary).to(device).train()
    model.loss_function = ("crossentropy", LABEL_SMOOTHING)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=s.learning_rate, betas=(s.beta1, s.beta2), eps=s.epsilon,
        weight_decay=s.weight_decay,
    )  # fmt: skip
    # Ours and theirs, among the first ids.
    renamed = np.arange(s.vocab_size)
    renamed[[s.unk, s.pad, s.bos, s.eos]] = range(4)

    def prepare(source, source_lengths, target, target_lengths) -> Any:
        rows = np.flatnonzero(target_lengths)  # it knows no empty rows
        first = np.full((len(rows), 1), s.bos)
        both = [source[rows], np.concatenate([first, target[rows]], axis=1)]
        source, target = (torch.from_numpy(renamed[x]).to(torch.long) for x in both)
        lengths = torch.from_numpy(source_lengths[rows]).to(torch.long)
        return Batch(
            source, lengths, None, target, None, torch.arange(len(rows)), device, _PAD, _EOS
        )

    def step(batch: Any) -> torch.Tensor:
        batch.sort_by_src_length()
        with torch.autocast(device.type, getattr(torch, s.compute), enabled=s.compute != "float32"):
            loss, _, _, correct = model(return_type="loss", **vars(batch))
        loss = batch.normalize(loss, normalization="tokens")
        loss.backward()
        loss.item(), correct.item()
        if s.clip_norm:
            nn.utils.clip_grad_norm_(model.parameters(), s.clip_norm)
        optimizer.step()
        model.zero_grad()
        return loss.detach()

    return Peer(step, prepare, sum(p.numel() for p in model.parameters()), device.type)
