"""How BLEU splits words: by the target language, as sacreBLEU does with its own test sets."""

import dataclasses

import pytest
import sacrebleu

from nmt_ls.config import Config, DataConfig, EvaluationConfig
from nmt_ls.config_languages import bleu_tokenizer
from nmt_ls.errors import UserError
from nmt_ls.evaluation import tokenizers
from nmt_ls.evaluation.breakdown import by_length, by_word_frequency, word_counts
from nmt_ls.evaluation.completeness import is_complete
from nmt_ls.evaluation.tokenizers import NAMES, tokenizer, tokenizer_in
from nmt_ls.evaluation.translation import (
    corpus_bleu,
    scores_from_statistics,
    sentence_statistics,
    translation_metrics,
)

CHINESE = ["一个男人骑自行车。", "两只狗在草地上跑。"]
REFERENCES = [["一名男子骑自行车。"], ["两只狗在草地上奔跑。"]]


def config_of(language: str, **evaluation: str) -> Config:
    data = dataclasses.replace(DataConfig(), target_language=language)
    return Config(data=data, evaluation=EvaluationConfig(**evaluation))


@pytest.mark.parametrize(
    ("language", "name"),
    [("de", "13a"), ("zh", "zh"), ("zh-CN", "zh"), ("zh_Hant", "zh"), ("ja", "ja-mecab"),
     ("KO", "ko-mecab"), ("zho_Hans", "zh"), ("cmn", "zh"), ("jpn", "ja-mecab"),
     ("zhx", "13a"), ("", "13a")],
)  # fmt: skip
def test_by_the_language(language: str, name: str) -> None:
    assert bleu_tokenizer(config_of(language)) == name
    assert bleu_tokenizer(config_of(language, bleu_tokenize="char")) == "char"


def test_words_of_chinese_are_its_characters() -> None:
    streams = [[lines[0] for lines in REFERENCES]]
    expected = sacrebleu.corpus_bleu(CHINESE, streams, tokenize="zh").score
    assert expected > 40
    found = translation_metrics(CHINESE, REFERENCES, tokenize="zh")
    assert found["bleu"] == expected == corpus_bleu(CHINESE, REFERENCES, "zh")
    assert "|tok:zh|" in str(found["bleu_signature"])
    assert translation_metrics(CHINESE, REFERENCES)["bleu"] < 10
    (counts,) = sentence_statistics([CHINESE], REFERENCES, "bleu", "zh")
    assert scores_from_statistics(counts.sum(0)[None], "bleu")[0] == pytest.approx(expected)
    (row,) = by_length(CHINESE, REFERENCES, ["a b", "a b"], "zh")
    assert row["bleu"] == expected
    known = word_counts(["自行车"], "zh")
    assert known == {"自": 1, "行": 1, "车": 1}
    unseen, seen = by_word_frequency(CHINESE, REFERENCES, known, "zh")
    assert (unseen["words"], seen["words"]) == (16, 3)


@pytest.mark.parametrize("name", ["13a", "zh", "intl", "char", "none"])
def test_what_a_signature_says(name: str) -> None:
    signature = translation_metrics(CHINESE, REFERENCES, tokenize=name)["bleu_signature"]
    assert tokenizer_in(str(signature)) == name


def test_versions_behind_the_name() -> None:
    assert tokenizer_in("nrefs:1|case:mixed|eff:no|tok:ja-mecab-0.996-IPA|smooth:exp") == "ja-mecab"
    assert tokenizer_in("") == "13a"


def test_packages_that_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(**_: object) -> None:
        raise RuntimeError("\nJapanese needs more.\n\n    pip install sacrebleu[ja]\n")

    monkeypatch.setattr(tokenizers, "BLEU", missing)
    tokenizer.cache_clear()
    try:
        with pytest.raises(UserError) as error:
            tokenizer("ja-mecab")
    finally:
        tokenizer.cache_clear()
    assert str(error.value).splitlines() == [
        "sacreBLEU cannot split words by ja-mecab here: Japanese needs more. pip install"
        " sacrebleu[ja]",
        "or choose another, such as evaluation.bleu_tokenize=char",
    ]
    with pytest.raises(UserError, match=f"'kana'; choose of {', '.join(NAMES)}"):
        tokenizer("kana")


def test_results_of_other_words_are_measured_again() -> None:
    config = config_of("zh", fit=False, empty=False, word_frequency=False)
    results = {"decode": {}, "fingerprint": "now"}
    for name, complete in (("zh", True), ("13a", False)):
        said = translation_metrics(CHINESE, REFERENCES, tokenize=name)["bleu_signature"]
        assert is_complete(results | {"bleu_signature": said}, config, "now") is complete
