"""Hugging Face Marian (OPUS-MT): a folder of `MarianMTModel` to a run directory and back."""

import contextlib
import dataclasses
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nmt_ls.config import Config, CorpusConfig, DataConfig, DecodingConfig, ModelConfig
from nmt_ls.config_files import save_config
from nmt_ls.data.subwords import Subwords
from nmt_ls.interchange.folders import whole_folder
from nmt_ls.interchange.marian_config import (
    NORM_EPSILON,
    MarianConfig,
    marian_config_of,
    model_config_of,
    read_marian_config,
)
from nmt_ls.interchange.marian_subwords import (
    ADDED,
    TOKENIZER,
    added_codes,
    languages_of,
    read_subwords,
    write_subwords,
)
from nmt_ls.interchange.marian_weights import marian_of_params, params_of_marian, positions_of
from nmt_ls.interchange.search import decoding_of, generation_of
from nmt_ls.interchange.tensors import (
    WEIGHTS,
    read_json,
    read_tensors,
    read_weights,
    write_json,
    write_tensors,
)
from nmt_ls.training.checkpoints import Checkpoints
from nmt_ls.training.progress import Progress
from nmt_ls.training.runs import LoadedRun, environment

log = logging.getLogger("nmt_ls")

KEPT = "huggingface.safetensors"
"""What an imported run keeps for its export: tensors that the run lacks or has otherwise, and the
JSON files as metadata."""

GENERATION = "generation_config.json"
_KEPT_FILES = ("config.json", GENERATION, TOKENIZER, ADDED)
_ADDED_CODES = "added codes"


def import_marian(folder: Path, run_dir: Path) -> None:
    """Make a run directory, with one checkpoint of step 0, from a folder of a Marian model.

    Args:
      folder: has `config.json`, `model.safetensors`, `source.spm`, `target.spm`, `vocab.json`.
      run_dir: what is made; it is there whole or not at all.

    Raises:
      UserError: something in the folder is missing, damaged, contradictory or not supported, or
        `run_dir` is there already.
    """
    folder = Path(folder)
    marian, raw = read_marian_config(folder)
    generation = _generation_settings(folder, raw)
    tensors = read_weights(folder)
    positions, rows = positions_of(tensors, marian.d_model)
    model = model_config_of(marian, positions)
    if positions == "learned" and rows is not None:
        model = dataclasses.replace(model, max_positions=rows)
    sizes = (marian.vocab_size, marian.target_size)
    banned = marian.pad_token_id if _bans_padding(marian, generation) else None
    params, kept = params_of_marian(tensors, model, sizes, str(folder), banned)
    subwords = read_subwords(folder, marian)  # of as many ids as the tables have rows, by now
    config = _config_of(folder, marian, model, generation)
    texts = {
        name: json.dumps(read_json(folder / name), ensure_ascii=False)
        for name in _KEPT_FILES
        if (folder / name).is_file()
    }
    texts[_ADDED_CODES] = json.dumps(added_codes(folder), ensure_ascii=False)
    with whole_folder(run_dir, "--run-dir") as beside:
        write_tensors(beside / KEPT, kept, texts)
        write_run(beside, config, subwords, params)


def write_run(
    run_dir: Path, config: Config, subwords: Subwords, params: Mapping[str, np.ndarray]
) -> None:
    """Fill a run directory with a model as it stands, as the checkpoint of step 0."""
    subwords.save(run_dir)
    with contextlib.closing(Checkpoints(run_dir / "checkpoints")) as checkpoints:
        state = {"params": jax.tree.map(jnp.asarray, dict(params))}
        checkpoints.save(0, state, Progress().as_dict())
    write_json(run_dir / "environment.json", environment())
    save_config(config, run_dir / "config.yaml")


def _generation_settings(folder: Path, raw: Mapping[str, Any]) -> dict[str, Any]:
    """How `generate` searches: older models say it in `config.json`."""
    there = (folder / GENERATION).is_file()
    return {**raw, **(read_json(folder / GENERATION) if there else {})}


def _bans_padding(marian: MarianConfig, generation: Mapping[str, Any]) -> bool:
    """Whether padding is never put out, so that no probability is its own.

    Marian has no padding: its converter adds a row of zeros, whose logit of 0 means nothing, and
    bans it. A model that transformers has trained from the beginning has learned its logit.
    """
    banned = generation.get("bad_words_ids")
    return isinstance(banned, list) and [marian.pad_token_id] in banned


def _config_of(
    folder: Path, marian: MarianConfig, model: ModelConfig, generation: Mapping[str, Any]
) -> Config:
    source, target = languages_of(folder)
    data = DataConfig(
        train=CorpusConfig(kind="none"), source_language=source, target_language=target
    )
    if model.positions == "learned":
        longest = min(data.max_length, model.max_positions)
        data = dataclasses.replace(data, max_length=longest)
    decoding, refused = decoding_of(generation)
    if refused:
        log.warning("%s: the search here has no %s and does without", folder, ", ".join(refused))
    config = Config(name=folder.resolve().name, data=data, model=model, decoding=decoding)
    if marian.tied == "all":
        return config
    # One list of ids or two: what is not shared may be either.
    return dataclasses.replace(config, subwords=dataclasses.replace(config.subwords, joint=False))


def export_marian(run: LoadedRun, output: Path) -> None:
    """Write a folder that `MarianMTModel` and `MarianTokenizer` load, in float32.

    Args:
      run: imported from such a folder, or trained here with `model.norm=post`.
      output: what is made; it is there whole or not at all.

    Raises:
      UserError: Marian cannot express a setting of the run, or `output` is there already.
    """
    kept: dict[str, np.ndarray] = {}
    files: dict[str, dict[str, Any]] = {}
    if (run.run_dir / KEPT).is_file():
        kept, texts = read_tensors(run.run_dir / KEPT)
        files = {name: json.loads(text) for name, text in texts.items()}
    model, subwords, before = _with_positions(run), run.subwords, files.get("config.json", {})
    fields = marian_config_of(model, subwords.source_size, subwords.target_size, before)
    specials: dict[str, Any] = {
        "pad_token_id": subwords.pad,
        "eos_token_id": subwords.eos,
        "decoder_start_token_id": subwords.bos,
    }
    languages = (run.config.data.source_language, run.config.data.target_language)
    with whole_folder(output, "--output") as beside:
        added = files.get(_ADDED_CODES, {})
        write_subwords(beside, subwords, languages, model.max_positions, added)
        if ADDED in files:
            write_json(beside / ADDED, files[ADDED])
        tensors = marian_of_params(run.params, model, kept)
        write_tensors(beside / WEIGHTS, tensors, {"format": "pt"})
        write_json(beside / "config.json", {**before, "dtype": "float32", **fields, **specials})
        generation = _generation_of(run, model.max_positions)
        if GENERATION in files:
            generation = _with_changes(files[GENERATION], before, run.config.decoding)
        write_json(beside / GENERATION, {**generation, **specials})
        if TOKENIZER in files:
            written = read_json(beside / TOKENIZER)
            written.pop("bos_token", None)  # theirs, if they have one
            write_json(beside / TOKENIZER, {**written, **files[TOKENIZER]})
    if model.norm_epsilon != NORM_EPSILON:
        log.warning(
            "model.norm_epsilon=%g, but Marian's layer norms have %g: its logits will differ by "
            "some %.0e of their size",
            model.norm_epsilon, NORM_EPSILON, abs(NORM_EPSILON - model.norm_epsilon),
        )  # fmt: skip


def _with_positions(run: LoadedRun) -> ModelConfig:
    """Our settings of a model whose positions reach as far as the run's sentences.

    Ours end nowhere where they are computed; Marian's do, and an imported model's stay as they are.
    """
    config, model = run.config, run.config.model
    if model.positions == "learned" or (run.run_dir / KEPT).is_file():
        return model
    longest = max(model.max_positions, config.data.max_length, config.decoding.max_source_length)
    return dataclasses.replace(model, max_positions=longest)


def _with_changes(
    generation: dict[str, Any], raw: Mapping[str, Any], decoding: DecodingConfig
) -> dict[str, Any]:
    """What an import read, with the settings that the run has otherwise by now."""
    before = generation_of(decoding_of({**raw, **generation})[0])
    now = generation_of(decoding)
    return {**generation, **{name: now[name] for name in now if now[name] != before[name]}}


def _generation_of(run: LoadedRun, longest: int) -> dict[str, Any]:
    """How `generate` searches as we do: beam, lengths, what is never put out."""
    decoding, subwords = run.config.decoding, run.subwords
    settings = generation_of(decoding)
    for optional in ("min_new_tokens", "no_repeat_ngram_size"):
        if not settings[optional]:
            del settings[optional]
    return {
        **settings,
        "max_length": longest,
        "bad_words_ids": [[index] for index in sorted({subwords.pad, subwords.bos})],
        "forced_eos_token_id": subwords.eos,
    }
