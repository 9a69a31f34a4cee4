"""Reading collectives out of a compiled program's text."""

import jax
import numpy as np
import pytest

from nmt_ls.bench.scale.collectives import Collectives, begun_early, collectives
from nmt_ls.parallel import AXIS, DataParallel

TEXT = """
ENTRY %main (p: f32[3,4]) -> (f32[], f32[3,4], bf16[5]) {
  %all-reduce.1 = (f32[], f32[3,4]{1,0}, /*index=2*/bf16[5]{0}) all-reduce(%a, %b), to_apply=%f
  %x = f32[] get-tuple-element(%all-reduce.1), index=0
  %all-reduce-start.2 = ((s32[2]{0}), s32[2]{0}) all-reduce-start(%x), channel_id=1
  %all-reduce-done.2 = s32[2]{0} all-reduce-done(%all-reduce-start.2)
  %g = f32[8]{0} all-gather(%y), dimensions={0}
"""


def test_bytes_of_arrays_by_hand() -> None:
    # 4 + 3·4·4 + 5·2 in the first, 2·4 in the second; `start` and the tuple's parts are no more.
    assert collectives(TEXT) == Collectives(2, 4, 62 + 8, 1)
    assert collectives("%dot = f32[2,2]{1,0} dot(%a, %b)") == Collectives(0, 0, 0, 0)


def test_those_that_begin_before_the_last_product() -> None:
    product = '  %y = custom-call(%x), custom_call_target="__cublas$lt$matmul"\n'
    lines = TEXT.splitlines(keepends=True)
    assert begun_early("".join([*lines[:4], product, *lines[4:]])) == 1
    assert begun_early(product + TEXT + product) == 2  # what another computation has is not asked
    assert begun_early(TEXT) is None


def test_a_type_of_unknown_size() -> None:
    with pytest.raises(ValueError, match="f4e2"):
        collectives("  %r = f4e2[3]{0} all-reduce(%a)")


def test_the_program_of_a_step_says_what_it_sums() -> None:
    parallel = DataParallel(4)

    def step(state, rows):
        total = jax.lax.psum(rows.sum(axis=(0, 1)), AXIS)
        return state * total, total

    state = parallel.replicate(np.zeros(6, np.float32))
    rows = parallel.split_rows(np.ones((8, 6), np.float32))
    program = parallel.lowered(step, state, rows).compile()
    assert collectives(program.as_text()) == Collectives(1, 1, 24, 0)
    assert np.asarray(program(state, rows)[1]).tolist() == [8] * 6
