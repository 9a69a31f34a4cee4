"""Marian's padding, whose logit of 0 means nothing, takes no part in what is translated."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file
from test_interchange_marian import (
    FIXTURES,
    MODELS,
    copied,
    edit,
    exported,
    imported,
    logits_of,
    without_padding,
)
from tiny import assert_close


@pytest.mark.parametrize("name", MODELS)
def test_a_banned_padding_has_no_probability(name: str, tmp_path: Path) -> None:
    folder = copied(name, tmp_path / "given")
    pad = json.loads((folder / "config.json").read_text())["pad_token_id"]
    edit(folder / "config.json", bad_words_ids=[[pad]])
    run = imported(folder, tmp_path / "run")
    expected = load_file(FIXTURES / name / "expected.safetensors")
    given = (expected["source"], expected["lengths"], expected["decoder_ids"])
    found = jax.nn.log_softmax(logits_of(run, *given))
    assert (np.exp(found[..., pad]) == 0).all() and np.isfinite(found).all()
    # As transformers: the padding's logit is banned, the others are normalised without it.
    logits = expected["logits"].copy()
    logits[..., pad] = -np.inf
    theirs = without_padding(np.asarray(jax.nn.log_softmax(logits)), run)
    assert_close(without_padding(found, run), theirs, 1e-5)


@pytest.mark.parametrize(
    ("file", "banned", "bias"),
    [
        ("generation_config.json", [[141]], -1e4),
        ("config.json", [[7, 8], [141]], -1e4),
        ("config.json", [[7], [141, 5]], None),
        ("config.json", 141, None),  # what transformers refuses
    ],
)
def test_padding_keeps_its_bias_unless_banned(
    file: str, banned: Any, bias: float | None, tmp_path: Path
) -> None:
    folder = copied("opus", tmp_path / "given")
    edit(folder / "config.json", decoder_start_token_id=3)
    edit(folder / file, bad_words_ids=banned)
    run = imported(folder, tmp_path / "run")
    given = load_file(folder / "model.safetensors")["final_logits_bias"][0]
    found = run.params["output_bias"]
    assert found[141] == (given[141] if bias is None else bias)
    np.testing.assert_array_equal(found[:141], given[:141])
    # A start that the tokenizer does not name stays without a name.
    exported(run.run_dir, tmp_path / "back")
    for name in ("tokenizer_config.json", "generation_config.json"):
        back, before = (json.loads((f / name).read_text()) for f in (tmp_path / "back", folder))
        assert back == {**before, **({"decoder_start_token_id": 3} if "gen" in name else {})}
