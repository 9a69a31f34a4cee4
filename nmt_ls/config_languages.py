"""What follows from the languages that a configuration names."""

import re

from nmt_ls.config import Config

DEFAULT_TOKENIZER = "13a"
"""sacreBLEU's for languages with white space."""

_TOKENIZERS = {
    **dict.fromkeys(("zh", "zho", "chi", "cmn"), "zh"),
    **dict.fromkeys(("ja", "jpn", "jap"), "ja-mecab"),
    **dict.fromkeys(("ko", "kor"), "ko-mecab"),
}
"""sacreBLEU's own choice for its test sets, by ISO 639-1 and -3 and what OPUS has used."""


def bleu_tokenizer(config: Config) -> str:
    """The name of the tokeniser that a run's BLEU is to be of: `evaluation.bleu_tokenize`."""
    named = config.evaluation.bleu_tokenize
    if named != "auto":
        return named
    language = re.split(r"[-_]", config.data.target_language.lower())[0]
    return _TOKENIZERS.get(language, DEFAULT_TOKENIZER)
