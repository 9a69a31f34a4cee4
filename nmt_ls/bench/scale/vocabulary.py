"""How large a vocabulary will be, from the configuration alone."""

from typing import Any

from nmt_ls.config import Config
from nmt_ls.config_words import shown
from nmt_ls.data.prepare import given_subwords
from nmt_ls.errors import UserError


def vocab_size_of(config: Config, given: int | None = None) -> int:
    """As many pieces as are given by hand, else as the subwords that are trained on the text.

    Raises:
      UserError: the vocabulary comes from elsewhere, and the configuration does not say how large
        it is.
    """
    if given is not None:
        return given
    elsewhere: dict[str, Any] = dict(given_subwords(config))
    if config.data.pretokenized:
        elsewhere.setdefault("data.pretokenized", True)
    for key, value in elsewhere.items():
        raise UserError(
            f"with {key}={shown(value)} the configuration does not say how large the vocabulary "
            "is; give --vocab-size"
        )
    return config.subwords.vocab_size
