"""What a rehearsal of the study trains: a tiny model on made-up text."""

from typing import Any

TINY: dict[str, Any] = {
    "data": {
        "train": {"kind": "phrasebook", "grammar": "small", "split": "train", "size": 200},
        "validation": {"kind": "phrasebook", "grammar": "small", "split": "validation", "size": 8},
        "tests": {
            "test": {"kind": "phrasebook", "grammar": "small", "split": "test", "size": 8}
        },
        "max_length": 40,
    },
    "subwords": {"vocab_size": 200},
    "model": {
        "encoder_layers": 1, "decoder_layers": 1, "width": 16, "heads": 2, "feed_forward": 32,
        "norm": "post", "dropout": 0.3,
    },
    "training": {
        "max_steps": 12, "batch_tokens": 512, "shapes": 1, "warmup_steps": 4, "log_every": 2,
        "validate_every": 6, "validate_bleu": False, "checkpoint_every": 3, "keep_last": 4,
        "average_last": 2,
    },
    "decoding": {"beam": 2, "samples": 4, "max_length_ratio": 0.0, "max_length_extra": 12},
    "evaluation": {"lowercase_tokenized": True, "fit": False, "empty": False},
    "sweep": {"smoothing": [0, 0.1], "seeds": 1},
}  # fmt: skip
