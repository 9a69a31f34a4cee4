"""How sacreBLEU splits text into the words that BLEU counts.

Chinese and Japanese have no white space, and 13a, which is for the languages of WMT that have,
takes a sentence of theirs for one word: BLEU would be near 0 whatever the translation.
"""

import functools
import re
from collections.abc import Callable
from typing import get_args

from sacrebleu.metrics import BLEU

from nmt_ls.config import BleuTokenizer
from nmt_ls.config_languages import DEFAULT_TOKENIZER as DEFAULT
from nmt_ls.errors import UserError

NAMES = tuple(name for name in get_args(BleuTokenizer) if name != "auto")


def tokenizer_in(signature: str) -> str:
    """The name of the tokeniser in a signature of BLEU, which may go on with versions of it."""
    found = re.search(r"\btok:([^|]+)", signature)
    named = found[1] if found else DEFAULT
    fitting = [name for name in NAMES if named == name or named.startswith(f"{name}-")]
    return max(fitting, key=len, default=DEFAULT)


@functools.cache
def tokenizer(name: str) -> Callable[[str], str]:
    """What puts a space between the tokens of a line.

    Raises:
      UserError: packages are missing, or a model cannot be fetched.
    """
    if name not in NAMES:
        raise UserError(f"sacreBLEU does not split words by {name!r}; choose of {', '.join(NAMES)}")
    try:
        return BLEU(tokenize=name).tokenizer
    except Exception as error:  # RuntimeError without packages; whatever a download ends in
        why = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"sacreBLEU cannot split words by {name} here: {why}\n"
            "or choose another, such as evaluation.bleu_tokenize=char"
        ) from error
