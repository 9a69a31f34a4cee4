"""How long sentences and their translations may be, and which setting says so."""

import dataclasses
import math
from collections.abc import Sequence

from nmt_ls.config import DecodingConfig, ModelConfig


@dataclasses.dataclass(frozen=True)
class Lengths:
    """Limits in tokens, end-of-sentence included, of one model or an ensemble."""

    models: Sequence[ModelConfig]
    decoding: DecodingConfig

    @property
    def _positions(self) -> float:
        """So many positions are there."""
        learned = [m.max_positions for m in self.models if m.positions == "learned"]
        return min(learned, default=math.inf)

    @property
    def source(self) -> int:
        """Longest source."""
        return int(min(self.decoding.max_source_length, self._positions))

    @property
    def source_setting(self) -> str:
        """The setting that the longest source comes from."""
        learned = self._positions < self.decoding.max_source_length
        return "model.max_positions" if learned else "decoding.max_source_length"

    def _asked(self, source_length: int) -> int:
        d = self.decoding
        return int(d.max_length_ratio * source_length) + d.max_length_extra

    def output(self, source_length: int) -> int:
        """Longest output for a source of so many tokens."""
        return int(min(self._asked(source_length), self._positions))

    def way_out(self, source_length: int) -> str:
        """What makes room where `output` is too short."""
        learned = self._positions <= self._asked(source_length)
        return (
            "shorten it: model.max_positions allows no more"
            if learned
            else "raise decoding.max_length_extra"
        )

    def shortest(self, source_length: int) -> int:
        """Fewest tokens of an output."""
        d = self.decoding
        return int(d.min_length_ratio * (source_length - 1)) + d.min_length + 1
