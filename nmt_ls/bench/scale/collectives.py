"""What a compiled program sends between devices, read from its text."""

import math
import re
from typing import NamedTuple

_BYTES = {
    "pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "f16": 2, "bf16": 2, "s32": 4, "u32": 4,
    "f32": 4, "s64": 8, "u64": 8, "f64": 8, "c64": 8, "c128": 16,
}  # fmt: skip

# `%name = SHAPE all-reduce(` or, where it is started and awaited apart, `all-reduce-done(`: the
# shape of `all-reduce-start(` has the operands too in jax 0.12.
_ALL_REDUCE = re.compile(r"= (?P<shape>.*?) all-reduce(?:-done)?\(")
_BEGINS = re.compile(r"= .*? all-reduce(?:-start)?\(")
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,]*)\]")
_OTHERS = re.compile(
    r"= .*? (all-gather|all-to-all|reduce-scatter|collective-permute|collective-broadcast)"
    r"(?:-start)?\("
)


class Collectives(NamedTuple):
    """Communication of one execution of a program."""

    all_reduces: int
    arrays: int
    """That they sum; one operation may take many."""
    bytes: int
    """Of those arrays on one device: Σ operand sizes, not what crosses a link."""
    others: int
    """Operations of other kinds (all-gather, …)."""


def begun_early(text: str) -> int | None:
    """All-reduces that begin before a scheduled GPU program's last product; None of other programs.

    Products within loops do not count: None too where there are no others.

    Args:
      text: of the optimised HLO, whose lines are in the order that they are launched in.
    """
    lines = text[text.rfind("\nENTRY") :].splitlines()
    products = [i for i, line in enumerate(lines) if 'custom_call_target="__cublas' in line]
    if not products:
        return None
    return sum(bool(_BEGINS.search(line)) for line in lines[: products[-1]])


def collectives(text: str) -> Collectives:
    """Counts the all-reduces of a compiled program and the bytes they sum.

    Args:
      text: of the optimised HLO (`compiled.as_text()`).

    Raises:
      ValueError: an array of a type that is not known here.
    """
    operations = arrays = size = others = 0
    for line in text.splitlines():
        others += bool(_OTHERS.search(line))
        found = _ALL_REDUCE.search(line)
        if found is None:
            continue
        operations += 1
        for kind, shape in _ARRAY.findall(found["shape"]):
            if kind not in _BYTES:
                raise ValueError(f"an all-reduce of {kind}: of how many bytes is not known")
            arrays += 1
            size += _BYTES[kind] * math.prod(map(int, filter(None, shape.split(","))))
    return Collectives(operations, arrays, size, others)
