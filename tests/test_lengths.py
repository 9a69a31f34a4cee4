"""Limits of length by hand, and the settings that messages name."""

import dataclasses

import pytest
from tiny import MODEL

from nmt_ls.config import DecodingConfig
from nmt_ls.decoding.lengths import Lengths

LEARNED = dataclasses.replace(MODEL, positions="learned", max_positions=32)


@pytest.mark.parametrize(
    ("models", "decoding", "source", "output", "shortest", "setting", "way_out"),
    [
        ([MODEL], {}, 512, 40, 1, "decoding.max_source_length", "decoding.max_length_extra"),
        ([MODEL, LEARNED], {}, 32, 32, 1, "model.max_positions", "model.max_positions"),
        (
            [LEARNED],
            {"max_source_length": 9, "max_length_extra": 2, "min_length_ratio": 0.5},
            9, 22, 5, "decoding.max_source_length", "decoding.max_length_extra",
        ),
    ],
)  # fmt: skip
def test_by_hand(models, decoding, source, output, shortest, setting, way_out) -> None:
    lengths = Lengths(models, DecodingConfig(max_length_ratio=2.0, **decoding))
    assert lengths.source == source
    assert lengths.output(10) == output
    assert lengths.shortest(10) == shortest
    assert lengths.source_setting == setting
    assert way_out in lengths.way_out(10)
