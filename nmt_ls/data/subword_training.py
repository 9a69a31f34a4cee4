"""Training SentencePiece models, with its failures said in the configuration's words."""

import collections
import io
import re
import tempfile
from collections.abc import Callable, Iterable
from typing import Any

import sentencepiece

from nmt_ls.config import SubwordsConfig
from nmt_ls.errors import UserError

_SPECIALS: dict[str, Any] = {"pad_id": 0, "unk_id": 1, "bos_id": 2, "eos_id": 3}
_THREADS = 16
"""Fixed: the sums over threads, and so the model's last bits, depend on their number."""


def train_pieces(
    sentences: Callable[[], Iterable[str]], config: SubwordsConfig, text: str
) -> bytes:
    """A serialised unigram or BPE model.

    Args:
        sentences: Gives the training sentences.
        config: Algorithm, size and the other settings.
        text: What the sentences are, for messages.

    Raises:
        UserError: the vocabulary does not fit the text.
    """
    return _fit(
        config,
        text,
        sentence_iterator=iter(sentences()),
        model_type=config.algorithm,
        vocab_size=config.vocab_size,
        character_coverage=config.character_coverage,
        byte_fallback=config.byte_fallback,
        normalization_rule_name=config.normalization,
        user_defined_symbols=list(config.user_symbols),
        num_threads=_THREADS,
    )


_LONGEST_WORD = 2**16


def train_words(sentences: Callable[[], Iterable[str]], config: SubwordsConfig, text: str) -> bytes:
    """A serialised model whose pieces are the whitespace tokens of the text, most frequent first.

    Raises:
        UserError: the text is empty.
    """
    counts: collections.Counter[str] = collections.Counter()
    for sentence in sentences():
        counts.update(sentence.split())
    for word in config.user_symbols:
        counts[word] += 1
    # SentencePiece reserves these two characters, and `<unk>` and the like, and refuses all words
    # for one that is longer; such words stay unknown.
    words = [w for w in counts if "▁" not in w and "▅" not in w and len(w) <= _LONGEST_WORD]
    if not words:
        raise UserError(f"the {text} has no words to make a vocabulary of")
    words.sort(key=lambda word: (-counts[word], word))
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", newline="\n", suffix=".tsv") as table:
        table.writelines(f"{word}\t{counts[word]}\n" for word in words)
        table.flush()
        return _fit(
            config,
            text,
            input=table.name,
            input_format="tsv",
            model_type="word",
            use_all_vocab=True,
            vocab_size=len(words) + len(_SPECIALS),
            character_coverage=1.0,
            normalization_rule_name="identity",
            max_sentence_length=1 << 20,
            num_threads=1,
        )


def _fit(config: SubwordsConfig, text: str, **settings: Any) -> bytes:
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            model_writer=model, minloglevel=2, **_SPECIALS, **settings
        )
    except RuntimeError as error:
        raise _explained(str(error), config, text) from None
    return model.getvalue()


def _explained(message: str, config: SubwordsConfig, text: str) -> Exception:
    """SentencePiece's message as a `UserError`; what we do not know stays a RuntimeError."""
    asked = f"subwords.vocab_size={config.vocab_size}"
    if found := re.search(r"Vocabulary size too high .* value <= (\d+)", message):
        return UserError(f"{asked} is more than the {text} supports; set it to at most {found[1]}")
    if found := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
        return UserError(
            f"{asked} cannot hold the characters of the {text}; set it to at least {found[1]}, "
            "or lower subwords.character_coverage"
        )
    if "!sentences_.empty()" in message:
        return UserError(f"the {text} has no sentence to train subwords on")
    return RuntimeError(f"SentencePiece could not be trained: {message}")
