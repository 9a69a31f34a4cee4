"""Test sets by sacreBLEU's names: its own code over archives that the tests make, no network."""

import errno
import hashlib
import http.client
import io
import logging
import shutil
import tarfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.error import HTTPError, URLError

import portalocker
import pytest
from sacrebleu.dataset import DATASETS
from sacrebleu.dataset.fake_sgml import FakeSGMLDataset
from sacrebleu.dataset.plain_text import PlainTextDataset
from sacrebleu.dataset.wmt_xml import WMTXMLDataset

from nmt_ls.data.sacrebleu_sets import named_set
from nmt_ls.errors import UserError

SOURCES = ["A dog .", "", "Two\u2028dogs &amp; a\x85cat"]
TARGETS = ["Ein Hund .", "leer", "Zwei\u2028Hunde"]


class Shelf:
    """Stands for the web and for the cache: archives on one side, sacreBLEU's folder beside."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cache, self.web, self._patch = root / "cache", root / "web", monkeypatch
        self.web.mkdir()
        for module in ("sacrebleu.utils", "sacrebleu.dataset.base"):
            monkeypatch.setattr(f"{module}.SACREBLEU_DIR", str(self.cache))

    def add(self, kind, name: str, files: dict[str, str], langpairs, md5: str = "", **more) -> Path:
        archive = self.web / f"{name.replace('/', '_')}.tar.gz"
        with tarfile.open(archive, "w:gz") as tar:
            for path, text in files.items():
                info = tarfile.TarInfo(path)
                info.size = len(text.encode())
                tar.addfile(info, io.BytesIO(text.encode()))
        digest = md5 or hashlib.md5(archive.read_bytes()).hexdigest()
        dataset = kind(name, data=[archive.as_uri()], md5=[digest], langpairs=langpairs, **more)
        self._patch.setitem(DATASETS, name, dataset)
        return archive

    def add_plain(self, name: str = "tiny/full", **more) -> Path:
        files = {"t.en": lines(SOURCES), "t.de": lines(TARGETS)}
        return self.add(PlainTextDataset, name, files, {"en-de": ["t.en", "t.de"]}, **more)


def lines(texts: list[str]) -> str:
    return "".join(text + "\n" for text in texts)


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    def refuse(url, *_, **__):
        if not str(url).startswith("file:"):
            raise AssertionError(f"a test wants the network: {url}")
        return opened(url)

    opened = urllib.request.urlopen
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    return Shelf(tmp_path, monkeypatch)


def refused(name: str, pair: tuple[str, str] = ("en", "de")) -> str:
    with pytest.raises(UserError) as error:
        named_set(name, pair)
    message = str(error.value)
    assert len(message.splitlines()) <= 2
    return message


# --- what is there -------------------------------------------------------------------------------


def test_a_set_is_fetched_once_and_kept(shelf: Shelf) -> None:
    archive = shelf.add_plain()
    first = named_set("tiny/full", ("en", "de"))
    assert first == (SOURCES, [[text] for text in TARGETS])
    assert (shelf.cache / "tiny/full/tiny_full.en-de.src").is_file()
    archive.unlink()
    assert named_set("tiny/full", ("en", "de")) == first


def test_sgml_with_two_references(shelf: Shelf) -> None:
    def sgml(texts: list[str]) -> str:
        segments = "".join(f'<seg id="{i}">{t}</seg>\n' for i, t in enumerate(texts))
        return f'<doc docid="d" genre="news" origlang="en">\n{segments}</doc>\n'

    files = {"s.sgm": sgml(["A dog &amp; a cat", "b"])}
    files |= {"r0.sgm": sgml(["Ein  Hund ", "B"]), "r1.sgm": sgml(["Hund", "BB"])}
    shelf.add(FakeSGMLDataset, "tiny20", files, {"en-de": ["s.sgm", "r0.sgm", "r1.sgm"]})
    # Entities stay as sacreBLEU leaves them; white space is sacreBLEU's doing too.
    sources = ["A dog &amp; a cat", "b"]
    assert named_set("tiny20", ("en", "de")) == (sources, [["Ein Hund", "Hund"], ["B", "BB"]])


def test_translators_are_in_the_order_of_their_names(shelf: Shelf) -> None:
    translators = "DBCA"
    references = "".join(
        f'<ref lang="de" translator="{t}"><p><seg id="1">{t} eins</seg>'
        f'<seg id="2">{"" if t == "B" else t}</seg></p></ref>'
        for t in translators
    )
    xml = (
        '<dataset><doc id="d" origlang="en"><src lang="en"><p><seg id="1">one</seg>'
        f'<seg id="2">two</seg></p></src>{references}</doc></dataset>'
    )
    shelf.add(WMTXMLDataset, "tiny24", {"a.xml": xml}, {"en-de": ["a.xml"]}, refs=["C", "B", "A"])
    sources, found = named_set("tiny24", ("en", "de"))
    assert sources == ["one", "two"]
    assert found == [["A eins", "B eins", "C eins"], ["A", "", "C"]]  # D was not asked for


def test_a_real_name_reads_what_sacrebleu_keeps(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shelf.cache / "wmt14/full"
    folder.mkdir(parents=True)
    monkeypatch.setattr(DATASETS["wmt14/full"], "_outdir", str(folder))
    kept = {"src": SOURCES, "ref": TARGETS, "docid": ["d"], "genre": ["n"], "origlang": ["en"]}
    for field, texts in kept.items():
        (folder / f"wmt14_full.en-de.{field}").write_text(lines(texts), encoding="utf-8")
    sources, references = named_set("wmt14/full", ("en", "de"))
    assert (sources, references) == (SOURCES, [[text] for text in TARGETS])


def test_a_folder_without_locks_is_read_all_the_same(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.add_plain()
    named_set("tiny/full", ("en", "de"))

    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("fcntl.flock", refuse)
    assert named_set("tiny/full", ("en", "de"))[0] == SOURCES


def test_those_who_want_the_same_set_wait(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    # Threads stand for processes: each call opens the lock's file anew, as a process does.
    shelf.add_plain()
    convert, calls = DATASETS["tiny/full"].process_to_text, []

    def convert_slowly(pair: str) -> None:
        calls.append(pair)
        time.sleep(0.1)
        convert(pair)

    monkeypatch.setattr(DATASETS["tiny/full"], "process_to_text", convert_slowly)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: named_set("tiny/full", ("en", "de")), range(4)))
    assert all(sources == SOURCES for sources, _ in found)
    assert calls == ["en-de"], "the others find the files of the first"


# --- what is not ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "near"),
    [
        *[("wmt14/ful", "wmt14/full"), ("WMT20", "wmt20"), ("wmt2014", "wmt14")],
        *[("newstest2014", "wmt14"), ("multi30k_2016", "multi30k/2016")],
    ],
)
def test_unknown_set_has_neighbours(name: str, near: str) -> None:
    message = refused(name)
    assert message.startswith(f"sacreBLEU has no test set {name!r}; did you mean {near}")
    assert "sacrebleu --list" in message


@pytest.mark.parametrize("name", ["", "qqqqqqqqqqqq", "../../etc"])
def test_unknown_set_without_neighbours(name: str) -> None:
    assert refused(name).startswith(f"sacreBLEU has no test set {name!r}\n")


def test_unknown_language_pair_names_those_there_are(shelf: Shelf) -> None:
    shelf.add(PlainTextDataset, "t", {}, {"en-de": ["a", "b"], "cs-en": ["c", "d"]})
    assert refused("t", ("de", "en")) == "the test set 't' has no de-en; it has cs-en, en-de"
    assert not shelf.cache.exists(), "nothing is fetched for it"
    assert "has no en-sw; it has cs-en, de-en, " in refused("wmt14/full", ("en", "sw"))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (URLError(OSError(-2, "Name or service not known")), "Name or service not known"),
        (HTTPError("http://x", 404, "Not Found", http.client.HTTPMessage(), None), "404"),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), "reset by peer"),
        (TimeoutError("timed out"), "timed out"),
        (http.client.IncompleteRead(b"12", 8), "IncompleteRead"),
    ],
)
def test_no_network_and_no_copy(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    def fail(*_, **__):
        raise error

    shelf.add_plain()
    with monkeypatch.context() as patch:
        patch.setattr(urllib.request, "urlopen", fail)
        message = refused("tiny/full")
    folder = shelf.cache / "tiny/full"
    start = f"the test set 'tiny/full' is not in {folder} and cannot be downloaded: "
    assert message.startswith(start)
    assert reason in message and "urlopen error" not in message
    assert "`sacrebleu -t tiny/full -l en-de --echo src`" in message and "SACREBLEU" not in message
    # Once the network is back nothing stands in the way.
    assert named_set("tiny/full", ("en", "de"))[0] == SOURCES


def test_a_wrong_checksum_is_no_exit(shelf: Shelf, caplog, capfd) -> None:
    shelf.add_plain(md5="0" * 32)
    logger = logging.getLogger("sacrebleu")
    before = (logger.handlers[:], logger.propagate)
    message = refused("tiny/full")
    assert "MD5 sum" in message and f"Delete {shelf.cache / 'tiny/full'}" in message
    # sacreBLEU says it to the log, three lines of it; ours are enough.
    assert not caplog.records and capfd.readouterr() == ("", "")
    assert (logger.handlers[:], logger.propagate) == before
    # It leaves the wrong archive there, unpacked never: again no traceback, and the same advice.
    assert "is not whole" in refused("tiny/full")
    shutil.rmtree(shelf.cache / "tiny/full")
    shelf.add_plain()
    assert named_set("tiny/full", ("en", "de"))[0] == SOURCES


def test_no_archive_at_all(shelf: Shelf) -> None:
    # A page that asks to log in, say.
    archive = shelf.add_plain()
    archive.write_text("<html>")
    DATASETS["tiny/full"].md5 = None
    assert "is not whole" in refused("tiny/full")


@pytest.mark.parametrize("content", [b"", b"A dog .\n", b"\xff\xfe\n" * 3])
def test_a_copy_that_was_cut_off(shelf: Shelf, content: bytes) -> None:
    shelf.add_plain()
    named_set("tiny/full", ("en", "de"))
    (shelf.cache / "tiny/full/tiny_full.en-de.src").write_bytes(content)
    message = refused("tiny/full")
    assert message.startswith("the test set 'tiny/full' is not whole: ")
    assert message.endswith(
        f"Delete {shelf.cache / 'tiny/full'} and run again: sacreBLEU will download it anew"
    )


def test_a_file_where_the_folder_should_be(shelf: Shelf) -> None:
    shelf.add_plain()
    shelf.cache.write_text("")
    message = refused("tiny/full")
    assert f"cannot be kept in {shelf.cache / 'tiny/full'}" in message
    assert "environment variable SACREBLEU" in message


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "variable SACREBLEU"),
        (PermissionError(errno.EACCES, "Permission denied"), "variable SACREBLEU"),
        (portalocker.LockException("busy"), "another process downloads it"),
        (AssertionError(), "is not whole: AssertionError"),
    ],
)
def test_other_failures_of_sacrebleu(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    def fail(*_):
        raise error

    shelf.add_plain()
    monkeypatch.setattr(DATASETS["tiny/full"], "get_files", fail)
    assert said in refused("tiny/full")


def test_a_set_without_reference(shelf: Shelf) -> None:
    xml = (
        '<dataset><doc id="d" origlang="en"><src lang="en"><p><seg id="1">one</seg></p></src>'
        '<ref lang="de" translator="A"><p><seg id="1">eins</seg></p></ref></doc></dataset>'
    )
    shelf.add(WMTXMLDataset, "tiny24", {"a.xml": xml}, {"en-de": ["a.xml"]}, refs=["Z"])
    assert "has no reference of 'tiny24' for en-de" in refused("tiny24")
