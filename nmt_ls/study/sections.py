"""The parts of a report that hold figures: headings, and how to read what stands under them."""

_BARS = (
    "Marks are means over seeds, bars their 95 % intervals (none with one seed), dots single runs."
)

SECTIONS: dict[str, tuple[str, str]] = {
    "quality": (
        "Translation quality",
        f"{_BARS} What decides is the difference from the baseline, with its interval: where that "
        "crosses 0, nothing has been shown.",
    ),
    "settings": (
        "Gains under other settings",
        "BLEU over the baseline’s, in runs that differ in one other setting; bars are 95 % "
        "intervals.",
    ),
    "likelihood": (
        "Likelihood",
        "Hard labels, natural logarithm: the same measure for all models, and perplexity is its "
        "exponential. Label smoothing mixes a share of its prior into what a model learns; "
        "un-mixing takes that share off again, tempering sharpens or flattens; both are fitted "
        "on validation text. A model that knows what it does not know has an entropy equal to its "
        "nll; above it the model doubts more than it must.",
    ),
    "calibration": (
        "Calibration",
        "The distance between how sure a model is and how often it is right, over bins of "
        "confidence: when it reads the reference (teacher forcing), and of the words that it "
        "writes itself. The signed gap says on which side it errs. Risk and coverage: if only the "
        "sentences are kept that a model is surest of, how bad are those? Lower is better.",
    ),
    "search": (
        "Search",
        "Wider beams find more probable translations, which without a length penalty are often "
        "shorter and worse. Sampling shows the distribution itself; minimum Bayes risk chooses "
        "among samples.",
    ),
    "where": (
        "Which sentences and words",
        "Buckets with fewer than 20 sentences or words are left out.",
    ),
    "hidden": (
        "Hidden states",
        "Label smoothing draws the states that predict one word together. Within/between is their "
        "variance within a word over that between words, in the whole space; the axes have no "
        "common unit.",
    ),
    "training": (
        "Training",
        "Perplexity is of hard labels here too, so that lines of all models can be compared.",
    ),
}
"""Key of `Picture.section`: heading, and how to read the figures. In the order of the report."""
