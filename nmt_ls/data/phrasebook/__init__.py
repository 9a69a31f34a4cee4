"""The built-in English-German corpus: a grammar that knows every acceptable translation."""

from nmt_ls.data.phrasebook.book import Phrasebook
from nmt_ls.data.phrasebook.grammars import GRAMMARS
from nmt_ls.data.phrasebook.truth import Truth, next_token_probabilities

__all__ = ["GRAMMARS", "Phrasebook", "Truth", "next_token_probabilities"]
