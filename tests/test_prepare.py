"""From files to tokenised tables: filters and their counts, the cache, evaluation sets."""

import dataclasses
import errno
import fcntl
import json
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from test_subwords import ENGLISH, GERMAN

from nmt_ls.config import (
    Config,
    CorpusConfig,
    DataConfig,
    LossConfig,
    SubwordsConfig,
    TrainingConfig,
)
from nmt_ls.data import cache, filtering
from nmt_ls.data.evaluation_sets import load_evaluation_set
from nmt_ls.data.prepare import PreparedData, given_subwords, prepare
from nmt_ls.data.subwords import Subwords
from nmt_ls.errors import UserError


def config_of(tmp_path: Path, pairs: list[tuple[str, str]], **settings: object) -> Config:
    write_pairs(tmp_path, "train", pairs)
    data = DataConfig(
        root=str(tmp_path),
        train=CorpusConfig(source="train.en", target="train.de"),
        cache_dir=str(tmp_path / "cache"),
        **settings,
    )
    return Config(data=data, subwords=SubwordsConfig(vocab_size=150))


def write_pairs(tmp_path: Path, name: str, pairs: list[tuple[str, str]]) -> None:
    for side, language in enumerate(("en", "de")):
        text = "".join(pair[side] + "\n" for pair in pairs)
        (tmp_path / f"{name}.{language}").write_text(text, encoding="utf-8")


def change(config: Config, **settings: object) -> Config:
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **settings))


PAIRS = list(zip(ENGLISH, GERMAN, strict=True))


def quietly(config: Config, **settings: object) -> PreparedData:
    return prepare(config, log=lambda line: None, **settings)


def test_the_table(tmp_path: Path) -> None:
    found = quietly(config_of(tmp_path, PAIRS))
    table, subwords = found.train, found.subwords
    assert table.column_names == ["source", "target", "source_ids", "target_ids"]
    assert list(table["source"]) == ENGLISH
    assert list(table["target"]) == GERMAN
    assert list(table["source_ids"]) == subwords.encode_source(ENGLISH)
    assert list(table["target_ids"]) == subwords.encode_target(GERMAN)
    assert table.cache_files, "memory-mapped"
    assert found.report == {
        "pairs_read": len(PAIRS),
        "removed": {"empty": 0, "duplicate": 0, "too_long": 0, "ratio": 0},
        "pairs_kept": len(PAIRS),
        "tokens": {
            "source": sum(map(len, table["source_ids"])),
            "target": sum(map(len, table["target_ids"])),
        },
        "unk_share": {"train": {"source": 0.0, "target": 0.0}},
    }
    assert found.validation is None


def test_filters_count_what_they_take(tmp_path: Path) -> None:
    pairs = [
        *PAIRS[:3],
        ("", "leer"),
        ("nothing", " \u3000 "),
        PAIRS[0],
        (PAIRS[0][0], PAIRS[1][1]),  # half a duplicate is none
        (" ".join(ENGLISH[:20]), " ".join(GERMAN[:20])),
        (" ".join(ENGLISH[:4]), "Die Frau."),
        *PAIRS,
    ]
    found = quietly(config_of(tmp_path, pairs, deduplicate=True))
    assert found.report["removed"] == {"empty": 2, "duplicate": 4, "too_long": 1, "ratio": 1}
    assert found.report["pairs_read"] == len(pairs)
    assert found.report["pairs_kept"] == len(found.train) == len(pairs) - 8
    assert found.train[3]["target"] == PAIRS[1][1]
    kept_all = quietly(config_of(tmp_path, pairs))
    assert kept_all.report["removed"]["duplicate"] == 0


def test_lengths_count_eos(tmp_path: Path) -> None:
    config = config_of(tmp_path, PAIRS)
    whole = quietly(config)
    lengths = [
        max(len(s), len(t))
        for s, t in zip(whole.train["source_ids"], whole.train["target_ids"], strict=True)
    ]
    longest = max(lengths)
    assert len(quietly(change(config, max_length=longest)).train) == len(PAIRS)
    cut = quietly(change(config, max_length=longest - 1))
    assert cut.report["removed"]["too_long"] == lengths.count(longest)


def test_short_pairs_pass_the_ratio(tmp_path: Path) -> None:
    words = [("a b c d e f g h i", "a"), ("a b c d e f g h i j", "a"), ("a b c", "a b c")]
    config = config_of(tmp_path, words, pretokenized=True, max_length_ratio=2.0)
    found = quietly(config)
    assert list(found.train["source"]) == [words[0][0], words[2][0]]  # 10 and 11 tokens with eos
    assert found.report["removed"]["ratio"] == 1


def test_no_pair_left(tmp_path: Path) -> None:
    config = config_of(tmp_path, PAIRS, max_length=2)
    with pytest.raises(UserError) as error:
        quietly(config)
    assert str(error.value) == (
        f"no training pair is left of {len(PAIRS)}: {len(PAIRS)} too long; "
        "check data.train and data.max_length"
    )
    names = [p.name for p in (tmp_path / "cache").iterdir() if not p.name.endswith(".lock")]
    assert [name for name in names if not name.startswith("pairs-")] == []


def test_too_large_a_vocabulary(tmp_path: Path) -> None:
    config = config_of(tmp_path, PAIRS)
    config = dataclasses.replace(config, subwords=SubwordsConfig(vocab_size=9000))
    with pytest.raises(UserError, match="vocab_size=9000 is more than the training text supports"):
        quietly(config)


def test_training_pairs_have_one_reference(tmp_path: Path) -> None:
    rows = [{"en": "a", "de": ["b"]}, {"en": "a", "de": ["b", "c"]}]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = config_of(tmp_path, PAIRS)
    config = change(config, train=CorpusConfig(kind="jsonl", path="t.jsonl"))
    with pytest.raises(UserError, match="one reference each, but pair 2 has 2"):
        quietly(config)


# --- evaluation sets -----------------------------------------------------------------------------


def test_evaluation_sets_keep_every_line(tmp_path: Path) -> None:
    config = config_of(tmp_path, PAIRS)
    odd = [
        ("", ""),
        (PAIRS[0][0], " " + PAIRS[0][1]),
        ("日本", "語"),
        (" ".join(ENGLISH[:20]), "die"),
    ]
    write_pairs(tmp_path, "valid", odd)
    corpus = CorpusConfig(source="valid.en", target=("valid.de", "valid.en"))
    config = change(config, validation=corpus)
    lines: list[str] = []
    found = prepare(config, log=lines.append)
    valid = found.validation
    assert valid is not None
    assert valid.sources == [source for source, _ in odd]
    assert valid.references == [[target, source] for source, target in odd]
    assert valid.source_ids[0].tolist() == [found.subwords.eos]
    assert all(ids.dtype == np.int32 for ids in valid.source_ids + valid.target_ids)
    assert [ids.tolist() for ids in valid.target_ids] == found.subwords.encode_target(
        [target for _, target in odd]
    )
    tokens = sum(len(ids) - 1 for ids in valid.source_ids + valid.target_ids)
    assert valid.unk_share == pytest.approx(2 / tokens)
    assert found.report["unk_share"]["validation"] == valid.unk_share
    assert any("of the validation tokens are <unk>" in line for line in lines)
    again = load_evaluation_set("validation", corpus, config, found.subwords)
    assert again.fingerprint == valid.fingerprint


def test_a_missing_validation_file_is_found_before_training(tmp_path: Path) -> None:
    config = config_of(tmp_path, PAIRS)
    gone = CorpusConfig(source="gone.en", target="gone.de")
    lines: list[str] = []
    with pytest.raises(UserError, match="data.validation.source: no file"):
        prepare(change(config, validation=gone), log=lines.append)
    assert lines == []
    prepare(change(config, tests={"far": gone}), log=lines.append)
    assert lines[0].startswith("warning: data.tests.far.source: no file")


def test_pretokenized_references_are_undone(tmp_path: Path) -> None:
    pairs = [("a b@@ c", "d@@ e f")]
    write_pairs(tmp_path, "valid", [*pairs, ("a new", "d@@ e f")])
    config = config_of(tmp_path, pairs, pretokenized=True)
    found = quietly(change(config, validation=CorpusConfig(source="valid.en", target="valid.de")))
    assert found.train[0]["target"] == "d@@ e f"
    assert found.validation is not None
    assert found.validation.references == [["de f"], ["de f"]]
    assert found.validation.sources == ["a b@@ c", "a new"]
    assert found.subwords.decode([found.train[0]["target_ids"]]) == ["de f"]


# --- the cache -----------------------------------------------------------------------------------


def test_the_cache_is_used_and_follows_contents_and_settings(tmp_path: Path) -> None:
    config = config_of(tmp_path, PAIRS)
    lines: list[str] = []
    first = prepare(config, log=lines.append)
    assert any("training subwords" in line for line in lines)
    lines.clear()
    second = prepare(change(config, num_proc=2), log=lines.append)
    assert not any("training subwords" in line for line in lines)
    assert second.fingerprint == first.fingerprint
    assert second.report == first.report
    other_seed = dataclasses.replace(config, seed=7)
    sampled = dataclasses.replace(
        config, subwords=SubwordsConfig(vocab_size=150, sampling_candidates=8)
    )
    assert quietly(other_seed).fingerprint == first.fingerprint
    assert quietly(sampled).fingerprint == first.fingerprint
    assert quietly(sampled).subwords.sampling_candidates == 8
    fingerprints = {first.fingerprint}
    for changed in (
        change(config, max_length=100),
        change(config, deduplicate=True),
        dataclasses.replace(config, subwords=SubwordsConfig(vocab_size=151)),
    ):
        fingerprints.add(quietly(changed).fingerprint)
    write_pairs(tmp_path, "train", PAIRS[1:])
    fingerprints.add(quietly(config).fingerprint)
    assert len(fingerprints) == 5


def test_the_same_text_gives_the_identical_table(tmp_path: Path) -> None:
    config = config_of(tmp_path, PAIRS)
    tables = []
    for name in ("one", "two"):
        found = quietly(change(config, cache_dir=str(tmp_path / name)))
        tables.append((tmp_path / name / found.fingerprint / "train.arrow").read_bytes())
    assert tables[0] == tables[1]


@pytest.mark.parametrize("name", ["train.arrow", "subwords.model", "report.json", "subwords.json"])
def test_a_damaged_cache_is_built_again(tmp_path: Path, name: str) -> None:
    config = config_of(tmp_path, PAIRS)
    first = quietly(config)
    expected = list(first.train["target_ids"])
    path = tmp_path / "cache" / first.fingerprint / name
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    lines: list[str] = []
    again = prepare(config, log=lines.append)
    assert "is damaged; it is built again" in lines[0]
    assert list(again.train["target_ids"]) == expected
    assert path.read_bytes() == content


def _prepare_elsewhere(config: Config) -> str:
    return quietly(config).train[-1]["target"]


def test_two_processes_at_once(tmp_path: Path) -> None:
    config = config_of(tmp_path, PAIRS)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.map(_prepare_elsewhere, [config] * 2) == [GERMAN[-1]] * 2
    names = [p.name for p in (tmp_path / "cache").iterdir() if "building" in p.name]
    assert names == []


def test_given_subwords_are_not_trained_again(tmp_path: Path) -> None:
    config = config_of(tmp_path, PAIRS)
    given = Subwords.train(lambda: ENGLISH, lambda: GERMAN, SubwordsConfig(vocab_size=130))
    lines: list[str] = []
    found = prepare(config, subwords=given, log=lines.append)
    assert found.subwords == given
    assert not any("training subwords" in line for line in lines)
    given.save(tmp_path)
    settings = SubwordsConfig(model_file=str(tmp_path / "subwords.model"))
    from_file = quietly(dataclasses.replace(config, subwords=settings))
    assert from_file.fingerprint == found.fingerprint


def test_a_run_goes_on_with_its_own_subwords(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache is gone, and another version of SentencePiece would train others."""
    config = config_of(tmp_path, PAIRS)
    first = quietly(config)
    begun = Subwords.train(lambda: ENGLISH, lambda: GERMAN, SubwordsConfig(vocab_size=130))
    assert quietly(config, begun=first.subwords).train.cache_files == first.train.cache_files
    found = quietly(config, begun=begun)
    assert found.subwords == begun
    assert (found.fingerprint, found.text) == (first.fingerprint, first.text)
    assert found.train["target_ids"][0] == begun.encode_target([GERMAN[0]])[0]
    monkeypatch.setattr("nmt_ls.data.prepare.version", lambda package: "99")
    upgraded = quietly(config)
    assert upgraded.fingerprint != first.fingerprint
    assert upgraded.text == first.text
    assert quietly(change(config, max_length=9)).text != first.text


def test_a_sample_of_the_sentences_trains_the_subwords(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(tmp_path, PAIRS)
    settings = SubwordsConfig(vocab_size=150, training_sentences=200)
    found = quietly(dataclasses.replace(config, subwords=settings))
    assert found.subwords.target_model != quietly(config).subwords.target_model
    assert len(found.train) == len(PAIRS)
    monkeypatch.setattr("nmt_ls.data.prepare.TRAINING_CHARACTERS", 5000)
    lines: list[str] = []
    prepare(change(config, cache_dir=str(tmp_path / "other")), log=lines.append)
    characters = sum(map(len, ENGLISH + GERMAN))
    sampled = int(5000 * len(PAIRS) / characters)
    assert lines[0] == f"training subwords on {sampled} of {len(PAIRS)} pairs"


def test_batches_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(tmp_path, PAIRS, deduplicate=True)
    whole = quietly(config)
    monkeypatch.setattr(cache, "ROWS", 100)
    monkeypatch.setattr(filtering, "_ROWS", 33)
    pieces = quietly(change(config, cache_dir=str(tmp_path / "other")))
    chunks = pieces.train.data.table["target_ids"].chunks
    assert [len(chunk) for chunk in chunks[:-1]] == [100] * (len(chunks) - 1)
    assert pieces.train.to_dict() == whole.train.to_dict()
    assert pieces.report == whole.report
    values = chunks[1].flatten()
    assert isinstance(values, pa.Int32Array)
    flat = values.to_numpy(zero_copy_only=True)
    assert flat.tolist() == [i for row in whole.train["target_ids"][100:200] for i in row]


def test_whose_the_subwords_are() -> None:
    """As `prepare` is given them: a run that is gone on from before a teacher before files."""
    base = Config()
    assert given_subwords(base) == {}
    files = dataclasses.replace(base, subwords=SubwordsConfig(model_file="a"))
    assert given_subwords(files) == {"subwords.model_file": "a"}
    both = SubwordsConfig(model_file="a", source_model_file="b", joint=False)
    two = dataclasses.replace(base, subwords=both)
    assert list(given_subwords(two).values()) == ["a", "b"]
    graduated = dataclasses.replace(two, loss=LossConfig(graduated="run", graduated_run="g"))
    assert given_subwords(graduated) == {"loss.graduated_run": "g"}
    taught = dataclasses.replace(two, loss=LossConfig(kind="distillation", teacher_run="t"))
    assert given_subwords(taught) == {"loss.teacher_run": "t"}
    tuned = dataclasses.replace(taught, training=TrainingConfig(init_from="i"))
    assert given_subwords(tuned) == {"training.init_from": "i"}


def test_a_folder_that_another_has_built_meanwhile(tmp_path: Path) -> None:
    def slow(building: Path) -> None:
        # Who may not write the lock's file builds beside us.
        cache.cached_folder(tmp_path / "other", build)
        (tmp_path / "other").rename(tmp_path / "found")
        build(building)

    def build(building: Path) -> None:
        (building / "a").write_text("a")

    assert cache.cached_folder(tmp_path / "found", slow) == tmp_path / "found"
    assert not list(tmp_path.glob(".*building*"))


def test_where_nothing_can_be_locked_each_builds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    def slow(building: Path) -> None:
        # Another process is faster, and has not waited.
        assert cache.cached_folder(tmp_path / "found", build) == tmp_path / "found"
        assert building.is_dir()
        build(building)

    def build(building: Path) -> None:
        (building / "a").write_text("a")

    monkeypatch.setattr(fcntl, "flock", none)
    assert cache.cached_folder(tmp_path / "found", slow) == tmp_path / "found"
    assert (tmp_path / "found" / "a").read_text() == "a"
    assert not list(tmp_path.glob(".*building*"))
