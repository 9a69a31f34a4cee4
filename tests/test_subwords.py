"""Subword models: training, round trips, special ids, sampling, pretokenized text."""

import hashlib
import io
import math
import os
import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt_ls.config import SubwordsConfig
from nmt_ls.data.subwords import Subwords
from nmt_ls.errors import UserError

ENGLISH_WORDS = (
    "the old man woman neighbour sister brother carries remembers forgets green heavy beautiful "
    "table window garden kitchen mountain river yesterday tomorrow always never slowly quickly "
    "between under behind without because although bread butter cheese apple orange summer winter "
    "teacher doctor engineer baker painter reads writes listens travels sleeps dreams laughing"
)
GERMAN_WORDS = (
    "der alte Mann die Frau Nachbar Schwester Bruder trägt erinnert vergisst grüne schwere schöne "
    "Tisch Fenster Garten Küche Gebirge Fluss gestern morgen immer niemals langsam schnell "
    "zwischen unter hinter ohne weil obwohl Brot Butter Käse Apfel Orange Sommer Winter Lehrer "
    "Ärztin Ingenieur Bäcker Maler liest schreibt hört reist schläft träumt lachend"
)


def sentences(text: str, count: int = 300) -> list[str]:
    """Distinct sentences of 4 to 8 of the words."""
    words = text.split()
    chosen = (
        [words[(7 * i + (i // 11 + 3) * k * k) % len(words)] for k in range(4 + i % 5)]
        for i in range(count)
    )
    return [" ".join(sentence).capitalize() + "." for sentence in chosen]


ENGLISH, GERMAN = sentences(ENGLISH_WORDS), sentences(GERMAN_WORDS)
CONFIG = SubwordsConfig(vocab_size=150)
DATA = Path(os.environ.get("NMT_LS_DATA", Path(__file__).parents[2] / "shared" / "data"))


def trained(config: SubwordsConfig = CONFIG, **settings: object) -> Subwords:
    return Subwords.train(lambda: ENGLISH, lambda: GERMAN, config, **settings)


@pytest.fixture(scope="module")
def joint() -> Subwords:
    return trained()


def test_special_ids_and_sizes(joint: Subwords) -> None:
    assert (joint.pad, joint.unk, joint.bos, joint.eos) == (0, 1, 2, 3)
    assert joint.joint
    assert joint.source_size == joint.target_size == 150


def test_encoding_ends_with_eos_and_has_no_bos(joint: Subwords) -> None:
    ids = joint.encode_target([GERMAN[0], ""])
    assert ids[0][-1] == 3
    assert 2 not in ids[0]
    assert ids[1] == [3]
    assert joint.encode_target([GERMAN[0], ""], threads=2) == ids
    assert joint.encode_source([]) == []


def test_round_trip(joint: Subwords) -> None:
    assert joint.decode(joint.encode_target(GERMAN)) == GERMAN


def test_decoding_stops_at_eos_and_skips_pad_and_bos(joint: Subwords) -> None:
    ids = joint.encode_target([GERMAN[0]])[0]
    assert joint.decode([[2, 0, *ids, *ids, 0], [3, *ids], [], [10**6, -1]]) == [
        GERMAN[0],
        "",
        "",
        "",
    ]


@settings(deadline=None)
@given(st.lists(st.text(), max_size=3))
def test_any_text_encodes(texts: list[str]) -> None:
    texts = [text.encode("utf-8", "ignore").decode() for text in texts]
    subwords = _bytes_model()
    ids = subwords.encode_target(texts)
    assert all(row[-1] == subwords.eos for row in ids)
    assert not any(subwords.unk in row for row in ids)
    assert all(0 <= index < subwords.target_size for row in ids for index in row)
    # With bytes and no normalisation, what is written is what comes back, spaces squeezed.
    for text, decoded in zip(texts, subwords.decode(ids), strict=True):
        if "▁" not in text:
            assert decoded == " ".join(word for word in text.split(" ") if word)


_CACHE: list[Subwords] = []


def _bytes_model() -> Subwords:
    if not _CACHE:
        _CACHE.append(
            trained(SubwordsConfig(vocab_size=400, byte_fallback=True, normalization="identity"))
        )
    return _CACHE[0]


@pytest.mark.parametrize("algorithm", ["unigram", "bpe"])
def test_training_is_deterministic_across_processes(algorithm: str) -> None:
    config = SubwordsConfig(vocab_size=150, algorithm=algorithm)
    here = hashlib.sha256(trained(config).target_model).hexdigest()
    code = (
        "import hashlib, sys; sys.path[:0] = ['tests', '.']; import test_subwords as t;"
        f"c = t.SubwordsConfig(vocab_size=150, algorithm={algorithm!r});"
        "print(hashlib.sha256(t.trained(c).target_model).hexdigest())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == here
    assert done.stderr == "", "SentencePiece is silent"


def test_separate_models() -> None:
    subwords = trained(SubwordsConfig(vocab_size=120, joint=False, algorithm="bpe"))
    assert not subwords.joint
    assert (subwords.source_size, subwords.target_size) == (120, 120)
    assert subwords.source_model != subwords.target_model
    assert subwords.decode(subwords.encode_target(GERMAN[:5])) == GERMAN[:5]
    assert subwords.unk in subwords.encode_source(["ä"])[0]


def test_user_symbols_and_normalisation() -> None:
    subwords = trained(
        SubwordsConfig(vocab_size=130, user_symbols=("<2de>", "a,b"), normalization="nmt_nfkc_cf")
    )
    for symbol in ("<2de>", "a,b"):
        ids = subwords.encode_source([f"{symbol} Two"])[0]
        assert any(subwords.piece("source", index) == symbol for index in ids)
    assert subwords.decode(subwords.encode_target(["SIEHT"])) == ["sieht"]


# --- wrong sizes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["unigram", "bpe"])
def test_too_large_a_vocabulary_names_the_largest(algorithm: str) -> None:
    with pytest.raises(UserError) as error:
        trained(SubwordsConfig(vocab_size=50_000, algorithm=algorithm))
    message = str(error.value)
    assert message.startswith(
        "subwords.vocab_size=50000 is more than the training text supports; set it to at most "
    )
    largest = int(message.rpartition(" ")[2])
    assert trained(SubwordsConfig(vocab_size=largest, algorithm=algorithm)).source_size == largest


def test_too_small_a_vocabulary_names_the_smallest() -> None:
    letters = ["".join(chr(0x4E00 + i) for i in range(200))]
    with pytest.raises(UserError, match="cannot hold the characters .* set it to at least 205"):
        Subwords.train(lambda: letters, lambda: letters, SubwordsConfig(vocab_size=100))


def test_separate_sides_are_named() -> None:
    with pytest.raises(UserError, match="than the source side of the training text supports"):
        Subwords.train(
            lambda: ["a b c"], lambda: GERMAN, SubwordsConfig(vocab_size=110, joint=False)
        )


@pytest.mark.parametrize("pretokenized", [False, True])
def test_no_text(pretokenized: bool) -> None:
    with pytest.raises(UserError, match="the training text has no "):
        Subwords.train(list, lambda: ["", " "][:0], CONFIG, pretokenized=pretokenized)


# --- saving and given files ----------------------------------------------------------------------


@pytest.mark.parametrize("is_joint", [True, False])
def test_saved_models_come_back(tmp_path: Path, is_joint: bool) -> None:
    subwords = trained(SubwordsConfig(vocab_size=120, joint=is_joint, sampling_candidates=4))
    subwords.save(tmp_path)
    again = Subwords.load(tmp_path)
    assert again == subwords
    assert again.fingerprint == subwords.fingerprint
    assert (tmp_path / "source_subwords.model").exists() is not is_joint
    # A plain SentencePiece model that other tools can read.
    plain = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "subwords.model"))
    assert [*plain.encode(GERMAN[0]), 3] == subwords.encode_target([GERMAN[0]])[0]


def test_pickles_are_small_and_work(joint: Subwords) -> None:
    joint.encode_source(["x"])
    assert pickle.loads(pickle.dumps(joint)).encode_source(ENGLISH) == joint.encode_source(ENGLISH)


def given_model(path: Path, **settings: object) -> str:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(ENGLISH + GERMAN),
        model_writer=model,
        vocab_size=120,
        minloglevel=2,
        **settings,
    )
    path.write_bytes(model.getvalue())
    return str(path)


def test_a_given_model_keeps_its_ids(tmp_path: Path) -> None:
    path = given_model(tmp_path / "m", unk_id=0, eos_id=1, pad_id=2, bos_id=-1)
    subwords = Subwords.from_files(SubwordsConfig(model_file=path))
    assert (subwords.pad, subwords.unk, subwords.bos, subwords.eos) == (2, 0, 120, 1)
    assert subwords.source_size == subwords.target_size == 121
    assert subwords.decode([[120, *subwords.encode_target([GERMAN[7]])[0], 9]]) == [GERMAN[7]]


def test_a_model_without_special_ids_gets_them_beyond_its_pieces(tmp_path: Path) -> None:
    path = given_model(tmp_path / "m", unk_id=0, eos_id=-1, pad_id=-1, bos_id=-1)
    subwords = Subwords.from_files(SubwordsConfig(model_file=path))
    assert (subwords.pad, subwords.bos, subwords.eos) == (120, 121, 122)
    assert subwords.target_size == 123
    assert subwords.decode(subwords.encode_target(GERMAN[:9])) == GERMAN[:9]


def test_given_models_share_special_ids(tmp_path: Path) -> None:
    target = given_model(tmp_path / "t", unk_id=0, eos_id=1, bos_id=2, pad_id=-1)
    source = given_model(tmp_path / "s", unk_id=0, eos_id=2, bos_id=1, pad_id=3)
    config = SubwordsConfig(model_file=target, source_model_file=source, joint=False)
    subwords = Subwords.from_files(config)
    assert (subwords.pad, subwords.bos, subwords.eos) == (120, 121, 122)
    assert subwords.source_size == subwords.target_size == 123
    assert subwords.encode_source(["The"])[0][-1] == 122
    other = given_model(tmp_path / "o", unk_id=3, eos_id=1, bos_id=2, pad_id=0)
    config = SubwordsConfig(model_file=target, source_model_file=other, joint=False)
    with pytest.raises(UserError, match="different ids for <unk>"):
        _ = Subwords.from_files(config).pad


def test_files_that_are_no_models(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="subwords.model_file: cannot read .*/none: No such file"):
        Subwords.from_files(SubwordsConfig(model_file=str(tmp_path / "none")))
    for content in (b"", b"hello"):
        (tmp_path / "bad").write_bytes(content)
        with pytest.raises(UserError, match="bad is not a SentencePiece model"):
            Subwords.from_files(SubwordsConfig(model_file=str(tmp_path / "bad")))
    with pytest.raises(UserError, match="subwords.json is missing"):
        Subwords.load(tmp_path)


# --- subword regularisation ----------------------------------------------------------------------


def test_candidates_are_segmentations_of_the_same_text(joint: Subwords) -> None:
    found = joint.candidates_target(GERMAN[0], 8)
    assert len(found) == 8
    assert found[0][0] == joint.encode_target([GERMAN[0]])[0]
    assert joint.decode([ids for ids, _ in found]) == [GERMAN[0]] * 8
    scores = [score for _, score in found]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("text", [GERMAN[5], "日本語 sieht €€", "x"])
def test_scores_are_sentencepieces_own_up_to_a_constant(joint: Subwords, text: str) -> None:
    pytest.importorskip("google.protobuf", reason="SentencePiece gives its scores by protobuf")
    processor = sentencepiece.SentencePieceProcessor(model_proto=joint.target_model)
    theirs = [
        n.score for n in processor.nbest_encode(text, nbest_size=5, return_type="proto").nbests
    ]
    ours = [score for _, score in joint.candidates_target(text, 5)]
    assert len(ours) == len(theirs)
    for our, their in zip(ours, theirs, strict=True):
        assert our - ours[0] == pytest.approx(their - theirs[0], abs=1e-3)


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_draws_follow_the_probabilities(joint: Subwords, alpha: float) -> None:
    subwords = joint.with_sampling(4, alpha)
    found = subwords.candidates_source("The old teacher")
    weights = [math.exp(alpha * score) for _, score in found]
    steps = 2000
    drawn = Counter(
        tuple(subwords.draw("The old teacher", "source", (i + 0.5) / steps)) for i in range(steps)
    )
    for (ids, _), weight in zip(found, weights, strict=True):
        assert drawn[tuple(ids)] / steps == pytest.approx(weight / sum(weights), abs=1 / steps)
    assert subwords.draw("The old teacher", "source", 0.0) == found[0][0]
    assert subwords.draw("The old teacher", "source", 1 - 2**-53) == found[-1][0]
    assert subwords.draw("", "target", 0.7) == [3]


def test_sampling_needs_a_unigram_model() -> None:
    with pytest.raises(UserError, match="sampling_candidates=4 needs a unigram model"):
        trained(SubwordsConfig(vocab_size=150, algorithm="bpe")).with_sampling(4, 0.1)
    with pytest.raises(UserError, match="sampling_candidates=4 needs a unigram model"):
        trained(pretokenized=True).with_sampling(4, 0.1)


# --- pretokenized text ---------------------------------------------------------------------------


def test_words_are_the_vocabulary() -> None:
    english = ["a b@@ c <unk>", "a </s> ▁x", "x" * 70_000]  # some line of base64
    subwords = Subwords.train(
        lambda: english, lambda: ["a d@@"], SubwordsConfig(), pretokenized=True
    )
    words = {subwords.piece("target", i) for i in range(4, subwords.target_size)}
    assert words == {"▁a", "▁b@@", "▁c", "▁d@@"}
    a, unk = subwords.encode_source(["a"])[0][0], subwords.unk
    assert a == 4, "the most frequent word comes first"
    # Neighbouring unknown words stay apart; ▁ cannot be in a piece of a SentencePiece model.
    assert subwords.encode_source(["new newer a ▁x <unk> </s> "]) == [[unk, unk, a, *3 * [unk], 3]]
    assert subwords.decode(subwords.encode_target(["a b@@ c", "a d@@"])) == ["a bc", "a d"]


def test_marks_are_undone_only_in_pretokenized_text(joint: Subwords) -> None:
    words = trained(pretokenized=True)
    assert words.undo("viel@@ er bü@@ sche .") == "vieler büsche ."
    assert words.undo("viel@@") == "viel"
    assert joint.undo("a@@ b") == "a@@ b"
    other = trained(pretokenized=True, joiner="￭ ")
    assert other.undo("a￭ b@@ c") == "ab@@ c"


def test_separate_words_with_symbols() -> None:
    config = SubwordsConfig(joint=False, user_symbols=("<2de>",))
    subwords = Subwords.train(lambda: ["<2de> a b"], lambda: ["c <2de>"], config, pretokenized=True)
    assert (subwords.source_size, subwords.target_size) == (7, 6)
    assert subwords.encode_source(["<2de> a c"])[0][2] == subwords.unk
    assert subwords.decode(subwords.encode_target(["<2de> c"])) == ["<2de> c"]


def test_published_bpe_text_round_trips_byte_for_byte() -> None:
    folder = DATA / "multi30k_en_de"
    if not (folder / "bpe10k").is_dir():
        pytest.skip(f"no Multi30k under {DATA} (NMT_LS_DATA)")

    def lines(name: str) -> list[str]:
        text = (folder / name).read_bytes().decode()
        return text.removesuffix("\n").split("\n")

    english, german = lines("bpe10k/train.en"), lines("bpe10k/train.de")
    subwords = Subwords.train(lambda: english, lambda: german, SubwordsConfig(), pretokenized=True)
    tokens = {word for line in english + german for word in line.split(" ")}
    assert subwords.target_size == len(tokens) + 4 == 9712
    ids = subwords.encode_target(german)
    assert not any(subwords.unk in row for row in ids)
    pieces = [subwords.piece("target", i).removeprefix("▁") for i in range(subwords.target_size)]
    assert [" ".join(pieces[i] for i in row[:-1]) for row in ids] == german
    assert subwords.decode(ids) == lines("tok/train.de")
    source_ids = subwords.encode_source(english)
    assert subwords.decode(source_ids) == [line.replace("@@ ", "") for line in english]
