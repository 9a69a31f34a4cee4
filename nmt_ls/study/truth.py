"""What the true distribution gets on test sets of the built-in corpus."""

import math
from typing import Any

from nmt_ls.config import Config
from nmt_ls.config_languages import bleu_tokenizer
from nmt_ls.data.evaluation_sets import load_evaluation_set
from nmt_ls.data.phrasebook import Phrasebook
from nmt_ls.data.subwords import Subwords
from nmt_ls.evaluation.translation import translation_metrics


def truth_of(config: Config, subwords: Subwords) -> dict[str, dict[str, Any]]:
    """Per test set from the phrasebook: the floor of nll and perplexity, and the oracle's BLEU.

    `nll_floor` is Σ H(Y|x) / Σ E[tokens] under the run's segmentation: no model can have less in
    expectation. `nll_oracle` is the true distribution's nll of the references drawn. The oracle
    translates every source by its most probable translation.
    """
    found = {}
    for name, corpus in config.data.tests.items():
        if corpus.kind != "phrasebook":
            continue
        book = Phrasebook(corpus.grammar)
        data = load_evaluation_set(name, corpus, config, subwords)
        pairs = list(zip(data.sources, (r[0] for r in data.references), strict=True))
        truth = book.truth(pairs, lambda text: subwords.encode_target([text])[0][:-1])
        best = [book.best_translation(source) for source in data.sources]
        metrics = translation_metrics(best, data.references, tokenize=bleu_tokenizer(config))
        found[name] = {
            "nll_floor": truth.nll_floor,
            "nll_oracle": truth.nll_oracle,
            "perplexity_floor": math.exp(truth.nll_floor),
            "perplexity_oracle": math.exp(truth.nll_oracle),
            "bleu_oracle": metrics["bleu"],
            "chrf_oracle": metrics["chrf"],
            "sentences_in_all": book.count(),
        }
    return found
