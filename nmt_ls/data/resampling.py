"""Subword regularisation (Kudo 2018): a new segmentation of a sentence each time it is seen."""

from nmt_ls.data.batches import Resample
from nmt_ls.data.prepare import PreparedData


def resampler(data: PreparedData) -> Resample:
    """Subword regularisation: draw the segmentations of a row anew (Kudo 2018)."""
    sources, targets = data.train.data.column("source"), data.train.data.column("target")

    def resample(row: int, u_source: float, u_target: float) -> tuple[list[int], list[int]]:
        return (
            data.subwords.draw(sources[row].as_py(), "source", u_source),
            data.subwords.draw(targets[row].as_py(), "target", u_target),
        )

    return resample
