"""Reading sentence pairs: every kind of source, and every way in which one can be broken."""

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path

import datasets
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nmt_ls.config import CorpusConfig, DataConfig
from nmt_ls.data.corpora import content_fingerprint, load_pairs
from nmt_ls.errors import UserError

ROWS = [("one", "eins"), ("", "leer"), ("  two\u2028still two ", "zwei\x85 \x0b\x00"), ("3", "")]


@pytest.fixture
def data(tmp_path: Path) -> DataConfig:
    return DataConfig(root=str(tmp_path), cache_dir=str(tmp_path / "cache"))


def rows_of(table: datasets.Dataset) -> list[tuple[str, list[str]]]:
    return [(row["source"], row["references"]) for row in table]


def refused(corpus: CorpusConfig, data: DataConfig) -> str:
    with pytest.raises(UserError) as error:
        load_pairs(corpus, data, seed=1)
    cache = Path(data.cache_dir)
    left = (
        [p.name for p in cache.iterdir() if not p.name.endswith(".lock")] if cache.exists() else []
    )
    assert not left, "a refused corpus leaves nothing behind"
    return str(error.value).replace(data.root + "/", "")


def write(tmp_path: Path, **files: str | bytes) -> None:
    for name, content in files.items():
        content = content.encode() if isinstance(content, str) else content
        (tmp_path / name.replace("_", ".")).write_bytes(content)


TEXT = CorpusConfig(source="a.en", target="a.de")


# --- text ----------------------------------------------------------------------------------------


def test_text_keeps_every_line_in_order(tmp_path: Path, data: DataConfig) -> None:
    write(
        tmp_path,
        a_en="".join(s + "\n" for s, _ in ROWS),
        a_de="\n".join(t for _, t in ROWS),  # no newline at the end
    )
    # An unfinished empty line is no line, so the last reference needs its newline.
    write(tmp_path, a_de="".join(t + "\n" for _, t in ROWS))
    table = load_pairs(TEXT, data, seed=1)
    assert rows_of(table) == [(s, [t]) for s, t in ROWS]
    assert table.cache_files, "memory-mapped"


def test_bom_and_carriage_returns_go_other_whitespace_stays(
    tmp_path: Path, data: DataConfig
) -> None:
    write(tmp_path, a_en=b"\xef\xbb\xbf one \r\n\xef\xbb\xbftwo", a_de=b"a\rb\t\nc\n")
    assert rows_of(load_pairs(TEXT, data, seed=1)) == [
        (" one ", ["a\rb\t"]),
        ("\ufefftwo", ["c"]),
    ]


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40
)
@given(
    st.lists(
        st.tuples(*2 * [st.text(st.characters(codec="utf-8", exclude_characters="\n\r\ufeff"))]),
        min_size=1,
        max_size=5,
    )
)
def test_any_text_comes_back(
    tmp_path: Path, data: DataConfig, pairs: list[tuple[str, str]]
) -> None:
    write(tmp_path, a_en="".join(s + "\n" for s, _ in pairs))
    write(tmp_path, a_de="".join(t + "\n" for _, t in pairs))
    assert rows_of(load_pairs(TEXT, data, seed=1)) == [(s, [t]) for s, t in pairs]


def test_several_references_and_size(tmp_path: Path, data: DataConfig) -> None:
    write(tmp_path, a_en="1\n2\n3\n", a_de="a\nb\nc\n", b_de="x\ny\nz\n")
    corpus = CorpusConfig(source="a.en", target=("a.de", "b.de"), size=2)
    assert rows_of(load_pairs(corpus, data, seed=1)) == [("1", ["a", "x"]), ("2", ["b", "y"])]


@pytest.mark.parametrize(("first", "second"), [(3, 2), (2, 3), (1, 3)])
def test_unequal_line_counts(tmp_path: Path, data: DataConfig, first: int, second: int) -> None:
    write(tmp_path, a_en="x\n" * first, a_de="y\n" * second)
    for size in (0, 9):  # also where more pairs are asked for than there are
        assert refused(dataclasses.replace(TEXT, size=size), data) == (
            f"a.en has {first} lines but a.de has {second}; "
            "line n of one must be the translation of line n of the other"
        )
    first_pair = dataclasses.replace(TEXT, size=1)
    assert rows_of(load_pairs(first_pair, data, seed=1)) == [("x", ["y"])]


def test_files_that_are_not_there(tmp_path: Path, data: DataConfig) -> None:
    assert refused(TEXT, data).startswith("the corpus.source: no file a.en (data.root=")
    write(tmp_path, a_en="x\n", a_de="")
    assert refused(TEXT, data) == "the corpus.target: a.de is empty"
    (tmp_path / "a.de").unlink()
    (tmp_path / "a.de").mkdir()
    assert refused(TEXT, data) == "the corpus.target: a.de is a folder, not a file"
    assert refused(CorpusConfig(source="a.en"), data) == "the corpus.target names no file"


def test_invalid_utf8_names_file_and_line(tmp_path: Path, data: DataConfig) -> None:
    write(tmp_path, a_en="x\nx\nx\n", a_de=b"gut\nGr\xfc\xdfe\nx\n")
    assert refused(TEXT, data) == (
        "a.de, line 2: not UTF-8 (byte 0xfc at position 3); convert the file to UTF-8"
    )


def test_the_message_names_the_place_in_the_configuration(tmp_path: Path) -> None:
    data = DataConfig(root=str(tmp_path), cache_dir=str(tmp_path / "c"), tests={"news": TEXT})
    assert refused(TEXT, data).startswith("data.tests.news.source: no file a.en")


# --- TSV and JSONL -------------------------------------------------------------------------------


def test_tsv_by_number_and_by_name(tmp_path: Path, data: DataConfig) -> None:
    write(tmp_path, a_tsv='7\ta "b"\tc\n8\td\te\r\n', b_tsv="id\ten\tde\n7\ta\tc\n")
    by_number = CorpusConfig(kind="tsv", path="a.tsv", source="2", target=("3", "1"))
    assert rows_of(load_pairs(by_number, data, seed=1)) == [
        ('a "b"', ["c", "7"]),
        ("d", ["e", "8"]),
    ]
    by_name = CorpusConfig(kind="tsv", path="b.tsv", source="en", target="de")
    assert rows_of(load_pairs(by_name, data, seed=1)) == [("a", ["c"])]
    wrong = CorpusConfig(kind="tsv", path="b.tsv", source="en", target="fr")
    with pytest.raises(UserError, match=r"no column 'fr'; its first line names id, en, de"):
        load_pairs(wrong, data, seed=1)


def test_tsv_with_too_few_columns(tmp_path: Path, data: DataConfig) -> None:
    write(tmp_path, a_tsv="a\tb\nc\n")
    assert refused(CorpusConfig(kind="tsv", path="a.tsv"), data) == (
        "a.tsv, line 2: 1 tab-separated columns, but column 2 is wanted"
    )


def test_jsonl(tmp_path: Path, data: DataConfig) -> None:
    lines = [
        {"translation": {"en": "a\u2028b", "de": "c"}, "refs": ["x", "y"]},
        {"translation": {"en": "", "de": None}, "refs": ["z"]},
    ]
    write(tmp_path, a_jsonl="\n\n".join(json.dumps(x, ensure_ascii=False) for x in lines))
    usual = CorpusConfig(kind="jsonl", path="a.jsonl")
    assert rows_of(load_pairs(usual, data, seed=1)) == [("a\u2028b", ["c"]), ("", [""])]
    named = CorpusConfig(kind="jsonl", path="a.jsonl", source="translation.en", target="refs")
    assert rows_of(load_pairs(named, data, seed=1)) == [("a\u2028b", ["x", "y"]), ("", ["z"])]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "a.jsonl, line 2: not JSON"),
        ("[1]", "a.jsonl, line 2: not a JSON object"),
        ('{"en": "x"}', "a.jsonl, line 2: no key 'de'; there are 'en'"),
        ('{"en": "x", "de": 3}', "a.jsonl, line 2: 'de' is not a string: 3"),
        ('{"en": "x", "de": []}', "a.jsonl, line 2: 'de' holds no reference"),
        ('{"en": "x", "de": "\\ud800"}', "a.jsonl, line 2: 'de' has half of a surrogate pair"),
    ],
)
def test_bad_jsonl(tmp_path: Path, data: DataConfig, line: str, message: str) -> None:
    write(tmp_path, a_jsonl='{"en": "a", "de": "b"}\n' + line + "\n")
    corpus = CorpusConfig(kind="jsonl", path="a.jsonl", source="en", target="de")
    assert refused(corpus, data).startswith(message)


# --- datasets ------------------------------------------------------------------------------------

TRANSLATION = [{"en": "a", "de": "x"}, {"en": "b", "de": "y"}, {"en": None, "de": "z"}]


@pytest.fixture(autouse=True)
def own_hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hub"))


def nested() -> datasets.Dataset:
    features = datasets.Features({"translation": datasets.Translation(languages=["en", "de"])})
    return datasets.Dataset.from_dict({"translation": TRANSLATION}, features=features)


def test_saved_dataset_in_the_hubs_nested_form(tmp_path: Path, data: DataConfig) -> None:
    nested().save_to_disk(str(tmp_path / "saved"))
    for source, target in (("", ""), ("translation.en", "translation.de")):
        corpus = CorpusConfig(kind="datasets", path="saved", source=source, target=target)
        assert rows_of(load_pairs(corpus, data, seed=1)) == [
            ("a", ["x"]),
            ("b", ["y"]),
            ("", ["z"]),
        ]


def test_saved_dictionary_and_slices(tmp_path: Path, data: DataConfig) -> None:
    saved = datasets.DatasetDict({"train": nested(), "test": nested().select([1])})
    saved.save_to_disk(str(tmp_path / "saved"))

    def sources(**more: object) -> list[str]:
        corpus = CorpusConfig(kind="datasets", path="saved", **more)
        return [source for source, _ in rows_of(load_pairs(corpus, data, seed=1))]

    assert sources() == ["b"]  # no split named: a corpus that is not data.train is a test set
    assert sources(split="train[1:]") == ["b", ""]
    assert sources(split="train", size=2) == ["a", "b"]
    with pytest.raises(UserError, match="datasets cannot load 'saved': .*valid"):
        sources(split="valid")


@pytest.mark.parametrize(("suffix", "between"), [("csv", ","), ("tsv", "\t")])
def test_words_that_tables_take_for_nothing(
    tmp_path: Path, data: DataConfig, suffix: str, between: str
) -> None:
    lines = [("en", "de"), ("NA", "Nein"), ("null", "None"), ("", "leer")]
    wanted = lines[1:]
    if suffix == "tsv":  # as with `kind: tsv`, a quotation mark is one
        lines += [('"open', "x"), ("next", 'y"')]
        wanted = lines[1:]
    text = "".join(between.join(line) + "\n" for line in lines)
    (tmp_path / f"t.{suffix}").write_text(text)
    found = rows_of(load_pairs(CorpusConfig(kind="datasets", path=f"t.{suffix}"), data, seed=1))
    assert found == [(source, [target]) for source, target in wanted]


def test_what_is_in_a_file_counts_not_where_it_lies(tmp_path: Path, data: DataConfig) -> None:
    corpus = CorpusConfig(kind="datasets", path="t.csv")
    (tmp_path / "t.csv").write_text("en,de\na,b\n")
    here = content_fingerprint(corpus, data, 1)
    (tmp_path / "other").mkdir()
    moved = (tmp_path / "t.csv").rename(tmp_path / "other" / "t.csv")
    os.utime(moved, (1, 1))
    there = dataclasses.replace(data, root=str(tmp_path / "other"))
    assert content_fingerprint(corpus, there, 1) == here
    moved.write_text("en,de\na,c\n")
    assert content_fingerprint(corpus, there, 1) != here


@pytest.mark.parametrize("path", ["t.csv", "folder"])
def test_a_file_that_was_replaced_by_one_of_its_time(
    tmp_path: Path, data: DataConfig, path: str
) -> None:
    corpus = CorpusConfig(kind="datasets", path=path)
    (tmp_path / "folder").mkdir()
    for text in ("b", "c"):
        for file in (tmp_path / "t.csv", tmp_path / "folder" / "train.csv"):
            file.write_text(f"en,de\na,{text}\n")
            os.utime(file, (1, 1))
        assert rows_of(load_pairs(corpus, data, seed=1, key="data.train")) == [("a", [text])]


def test_what_is_in_a_folder_counts_not_where_it_lies(tmp_path: Path, data: DataConfig) -> None:
    corpus = CorpusConfig(kind="datasets", path="here")
    (tmp_path / "here").mkdir()
    for split in ("train", "test"):
        (tmp_path / "here" / f"{split}.jsonl").write_text(f'{{"en": "{split}", "de": "b"}}\n')
    here = content_fingerprint(corpus, data, 1, key="data.train")
    assert rows_of(load_pairs(corpus, data, seed=1, key="data.train")) == [("train", ["b"])]
    assert content_fingerprint(corpus, data, 1, key="data.tests.a") != here, "another split"
    moved = (tmp_path / "here").rename(tmp_path / "there")
    os.utime(moved / "train.jsonl", (1, 1))
    (moved / ".DS_Store").touch()
    there = dataclasses.replace(corpus, path="there")
    assert content_fingerprint(there, data, 1, key="data.train") == here
    (moved / "train.jsonl").write_text('{"en": "train", "de": "c"}\n')
    assert content_fingerprint(there, data, 1, key="data.train") != here


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl", "arrow"])
def test_files_that_datasets_reads(tmp_path: Path, data: DataConfig, suffix: str) -> None:
    table = datasets.Dataset.from_dict({"en": ["a", "b"], "de": ["x", "y"], "id": [1, 2]})
    path = str(tmp_path / f"t.{suffix}")
    if suffix == "arrow":
        table.save_to_disk(str(tmp_path / "s"))
        next((tmp_path / "s").glob("*.arrow")).rename(path)
    else:
        name = "json" if suffix == "jsonl" else suffix
        getattr(table, f"to_{name}")(path)
    corpus = CorpusConfig(kind="datasets", path=f"*.{suffix}")
    assert rows_of(load_pairs(corpus, data, seed=1)) == [("a", ["x"]), ("b", ["y"])]
    numbers = CorpusConfig(kind="datasets", path=f"t.{suffix}", source="id", target="de")
    with pytest.raises(UserError, match=r"the corpus.source: column 'id' holds int64, not strings"):
        load_pairs(numbers, data, seed=1)
    missing = CorpusConfig(kind="datasets", path=f"t.{suffix}", source="en", target="fr")
    with pytest.raises(UserError, match=r"no column 'fr'; there are en, de, id"):
        load_pairs(missing, data, seed=1)


def test_lists_of_references(tmp_path: Path, data: DataConfig) -> None:
    table = datasets.Dataset.from_dict({"s": ["a", "b"], "t": [["x", "y"], ["z", None]]})
    table.save_to_disk(str(tmp_path / "saved"))
    corpus = CorpusConfig(kind="datasets", path="saved", source="s", target="t")
    assert rows_of(load_pairs(corpus, data, seed=1)) == [("a", ["x", "y"]), ("b", ["z", ""])]
    table = datasets.Dataset.from_dict({"s": ["a", "b"], "t": [["x", "y"], []]})
    table.save_to_disk(str(tmp_path / "empty"))
    corpus = CorpusConfig(kind="datasets", path="empty", source="s", target="t")
    with pytest.raises(UserError, match="target: row 2 has no reference"):
        load_pairs(corpus, data, seed=1)


def test_missing_dataset_files(data: DataConfig) -> None:
    corpus = CorpusConfig(kind="datasets", path="none.parquet")
    assert refused(corpus, data).startswith("the corpus.path: no file none.parquet")


# --- fingerprints and the cache ------------------------------------------------------------------


def test_fingerprints_follow_the_contents(tmp_path: Path, data: DataConfig) -> None:
    write(tmp_path, a_en="x\ny\n", a_de="u\nv\n", b_en="x\ny\n")
    first = content_fingerprint(TEXT, data, 1)
    assert content_fingerprint(CorpusConfig(source="b.en", target="a.de"), data, 2) == first
    assert content_fingerprint(CorpusConfig(source="a.en", target="a.de", size=1), data, 1) != first
    write(tmp_path, a_de="u\nV\n")
    assert content_fingerprint(TEXT, data, 1) != first
    assert rows_of(load_pairs(TEXT, data, seed=1))[1] == ("y", ["V"])


def test_a_damaged_cache_is_built_again(tmp_path: Path, data: DataConfig) -> None:
    write(tmp_path, a_en="x\ny\n", a_de="u\nv\n")
    expected = rows_of(load_pairs(TEXT, data, seed=1))
    (table,) = (tmp_path / "cache").glob("pairs-*/pairs.arrow")
    whole = table.read_bytes()
    for damaged in (whole[:-40], whole.replace(b"uv", b"uw"), b""):
        table.write_bytes(damaged)
        assert rows_of(load_pairs(TEXT, data, seed=1)) == expected
    (table.parent / "manifest.json").write_text("{")
    assert rows_of(load_pairs(TEXT, data, seed=1)) == expected


# --- the phrasebook ------------------------------------------------------------------------------


class FakePhrasebook:
    """Answers with what it was asked."""

    def __init__(self, grammar: str) -> None:
        self.grammar = grammar

    def pairs(self, split: str, size: int, *, seed: int, noise: float) -> Iterator[tuple[str, str]]:
        if size > 100:
            raise ValueError(f"the {split} split has 100 pairs, not {size}")
        for i in range(size):
            yield f"{self.grammar} {split} {seed}", f"{i} {noise}"


def test_phrasebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nmt_ls.data.phrasebook.Phrasebook", FakePhrasebook)
    corpus = CorpusConfig(kind="phrasebook", size=2, grammar="small")
    # The same settings everywhere: which split is meant follows from the place.
    data = DataConfig(
        cache_dir=str(tmp_path), train=corpus, validation=corpus, tests={"t": corpus}, noise=0.25
    )

    def rows(key: str) -> list[tuple[str, list[str]]]:
        return rows_of(load_pairs(corpus, data, seed=5, key=key))

    assert rows("data.train") == [("small train 5", ["0 0.25"]), ("small train 5", ["1 0.25"])]
    assert rows("data.validation")[1] == ("small validation 5", ["1 0.0"])
    assert rows("data.tests.t")[0] == ("small test 5", ["0 0.0"])
    large = CorpusConfig(kind="phrasebook", size=101, split="validation")
    with pytest.raises(UserError, match="the corpus: the validation split has 100 pairs, not 101"):
        load_pairs(large, data, seed=5)
