"""What decoding is measured with: a model with random parameters, subwords, sentences."""

from typing import NamedTuple

import jax
import numpy as np

from nmt_ls.config import DecodingConfig, ModelConfig, SubwordsConfig
from nmt_ls.data.subwords import Subwords
from nmt_ls.decoding.rows import sentences_at_a_time
from nmt_ls.decoding.translator import Translator
from nmt_ls.model import initial_params

MODEL = ModelConfig(encoder_layers=3, decoder_layers=3, width=256, heads=4, feed_forward=1024)
TINY = ModelConfig(encoder_layers=1, decoder_layers=1, width=32, heads=2, feed_forward=64)

_SYLLABLES = [c + v for c in "bcdfghklmnprstvwz" for v in "aeiou"]


class Problem(NamedTuple):
    """One translation task, the same for all sides."""

    model: ModelConfig
    subwords: Subwords
    params: dict[str, np.ndarray]
    sentences: list[str]
    beam: int
    batch_sentences: int
    tokens: int
    """Of each output, end-of-sentence included: no fewer and no more."""

    @property
    def decoding(self) -> DecodingConfig:
        """Exactly so many tokens of each output."""
        return DecodingConfig(
            beam=self.beam,
            batch_sentences=self.batch_sentences,
            max_length_ratio=0.0,
            max_length_extra=self.tokens,
            min_length=self.tokens - 1,
        )

    @property
    def at_a_time(self) -> int:
        """Sentences that all sides search at a time: of wide beams ours takes fewer."""
        return sentences_at_a_time(self.decoding)

    def translator(self) -> Translator:
        """Ours."""
        return Translator([self.model], [self.params], self.subwords, self.decoding)


def make_problem(
    sentences: int,
    *,
    beam: int,
    batch_sentences: int,
    tokens: int = 16,
    model: ModelConfig = MODEL,
    vocab_size: int = 8000,
    seed: int = 0,
) -> Problem:
    """Sentences of 3/4 to 5/4 as many tokens as `tokens`, of words that are one BPE piece each."""
    random = np.random.default_rng(seed)
    words = _words(vocab_size, random)
    text = [" ".join(words[i : i + 20]) for i in range(0, len(words), 20)]
    config = SubwordsConfig(vocab_size=vocab_size, algorithm="bpe")
    subwords = Subwords.train(lambda: text * 4, lambda: [], config)
    size = subwords.target_size
    params = initial_params(model, size, size, jax.random.key(seed))
    low, high = max(1, 3 * tokens // 4), 5 * tokens // 4
    whole = [w for w in words if len(subwords.encode_source([w])[0]) == 2] or words
    return Problem(
        model,
        subwords,
        jax.device_get(params),
        [
            " ".join(whole[i] for i in random.integers(len(whole), size=length - 1))
            for length in random.integers(low, high + 1, size=sentences)
        ],
        beam,
        batch_sentences,
        tokens,
    )


def _words(count: int, random: np.random.Generator) -> list[str]:
    lengths = random.integers(2, 5, size=count)
    return ["".join(random.choice(_SYLLABLES, size=n)) for n in lengths]
