"""Tokens of example translations: their text, their shades, and files that are broken."""

import json
import math

import pytest

from nmt_ls.errors import UserError
from nmt_ls.study.examples import examples, tokens_of_pieces
from nmt_ls.study.figures.blocks import Block

PIECES = ["▁Der", "▁Hu", "nd", ".", "</s>"]
PROBABILITIES = [0.95, 0.6, 0.05, 0.3, 1.0]


def test_tokens_by_hand():
    tokens = tokens_of_pieces(PIECES, [math.log(p) for p in PROBABILITIES])
    assert [token.text for token in tokens] == ["Der", " Hu", "nd", ".", "</s>"]
    assert [token.level for token in tokens][:3] == [0, 2, 5]
    assert tokens[1].title == "p = 0.60"
    assert tokens[-1] == ("</s>", 0, "end of the sentence, p = 1.00")


def test_bytes_of_a_character_are_one_token():
    pieces = ["▁a", "<0xC3>", "<0x9F>", "▁", "b", "<0xC3>", "c"]
    tokens = tokens_of_pieces(pieces, [math.log(0.5)] * 7)
    assert [token.text for token in tokens] == ["a", "ß", " ", "b", "\ufffd", "c"]
    assert tokens[1].title == "p = 0.25"


@pytest.fixture
def block(tmp_path):
    runs = []
    for epsilon in (0.0, 0.1):
        name = f"smoothing_{epsilon}_seed_1"
        (tmp_path / name / "translations").mkdir(parents=True)
        runs.append(
            {
                "run": name, "label_smoothing": epsilon, "seed": 1,
                "results": {"news": {}}, "translations": {"news": ["a", "Der Hund."]},
                "references": {"news": [["b"], ["Ein Hund.", "Hund."]]},
                "sources": {"news": ["c", "A dog."]} if epsilon == 0 else {},
            }
        )  # fmt: skip
    picked = [{"sentence": 1, "seed": 1, "chrf": {"0.0": 71.25, "0.1": 3.0}}]
    return Block("news", {"examples": picked, "by_smoothing": {}}, runs)


def write(tmp_path, **changes):
    log_probs = [math.log(p) for p in PROBABILITIES]
    details = {"translation": "Der Hund.", "pieces": PIECES, "token_log_probs": log_probs}
    lines = [json.dumps({"translation": "a"}), json.dumps(details | changes)]
    path = tmp_path / "smoothing_0.1_seed_1" / "translations" / "news.jsonl"
    path.write_text("\n".join(lines) + "\n")


def test_an_example_is_what_was_picked(block, tmp_path):
    write(tmp_path)
    [found] = examples(tmp_path, block)
    assert found["sentence"] == 2 and found["source"] == "A dog."
    assert found["references"] == ["Ein Hund.", "Hund."]
    plain, shaded = found["outputs"]
    assert plain == ("ε = 0", "Der Hund.", "71.2", None)
    assert shaded.name == "ε = 0.1" and "".join(t.text for t in shaded.tokens[:-1]) == "Der Hund."


def test_a_run_without_stored_translations_is_passed_over(block, tmp_path):
    write(tmp_path)
    bare = {"run": "bare", "label_smoothing": 0.05, "seed": 1, "results": {"news": {}}}
    bare |= {"translations": {}, "references": {}, "sources": {}}
    whole = examples(tmp_path, block)
    block.runs.insert(0, bare)
    assert examples(tmp_path, block) == whole


@pytest.mark.parametrize(
    "changes",
    [{"translation": "Die Katze."}, {"pieces": None}, {"pieces": ["▁Das", *PIECES[1:]]}],
    ids=["of another translation", "without pieces", "pieces that spell something else"],
)
def test_what_does_not_belong_to_the_text_is_not_shown(block, tmp_path, changes):
    write(tmp_path, **changes)
    [found] = examples(tmp_path, block)
    assert found["outputs"][1].tokens is None


def test_broken_files_are_refused_by_name(block, tmp_path):
    write(tmp_path, token_log_probs=[-1.0])
    with pytest.raises(UserError, match=r"news\.jsonl: 5 pieces but 1 token_log_probs"):
        examples(tmp_path, block)
    path = tmp_path / "smoothing_0.1_seed_1" / "translations" / "news.jsonl"
    path.write_text('{"translation"')
    with pytest.raises(UserError, match=r"news\.jsonl is not valid JSON lines"):
        examples(tmp_path, block)
