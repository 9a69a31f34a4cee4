"""Which sentences form step k: a pure function that loses nobody."""

import os
from collections import Counter
from pathlib import Path

import datasets
import numpy as np
import pytest

from nmt_ls.data.batches import Batches, BatchPlan, TokenColumn, random_order

REPOSITORY = Path(__file__).parent.parent


def table_of(count: int = 230, longest: int = 30) -> datasets.Dataset:
    """Sentence i's ids begin with i, so that batches can be traced back."""
    generator = np.random.default_rng(0)
    rows = {"source_ids": [], "target_ids": []}
    for i in range(count):
        length = int(generator.integers(1, longest))
        other = max(1, length + int(generator.integers(-3, 4)))
        rows["source_ids"].append([i + 1] * length)
        rows["target_ids"].append([i + 1, *range(1, other)])
    features = datasets.Features({n: datasets.List(datasets.Value("int32")) for n in rows})
    return datasets.Dataset.from_dict(rows, features=features)


TABLE = table_of()


def batches_of(**options: object) -> Batches:
    return Batches(TABLE, **{"batch_tokens": 128, "shapes": 4, "seed": 3, "pad": 0, **options})


def ids_in(batch) -> list[int]:
    return (batch.source[batch.source_lengths > 0, 0] - 1).tolist()


def test_rows_are_the_sentences() -> None:
    batches = batches_of()
    for step in range(5):
        batch = batches.batch(step)
        for r, i in enumerate(ids_in(batch)):
            for side, ids, lengths in (
                ("source_ids", batch.source, batch.source_lengths),
                ("target_ids", batch.target, batch.target_lengths),
            ):
                expected = TABLE[i][side]
                assert lengths[r] == len(expected)
                assert ids[r].tolist() == expected + [0] * (ids.shape[1] - len(expected))


def test_the_order_of_asking_does_not_matter() -> None:
    steps = list(range(60))
    sequential = [batches_of().batch(k) for k in steps]
    one = batches_of()
    for k in random_order(9, 9, size=60).tolist():
        for a, b in zip(one.batch(k), sequential[k], strict=True):
            np.testing.assert_array_equal(a, b)
    fresh = batches_of().batch(41)
    for a, b in zip(fresh, sequential[41], strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_seed_chooses_sentences_and_not_shapes() -> None:
    one, other = batches_of(seed=3), batches_of(seed=4)
    steps = range(100)
    assert [one.plan.shape_of(k) for k in steps] == [other.plan.shape_of(k) for k in steps]
    assert len({one.plan.shape_of(k) for k in steps}) == len(one.plan.shapes)
    same = sum(set(ids_in(one.batch(k))) == set(ids_in(other.batch(k))) for k in range(30))
    assert same <= 3
    epoch = one.plan.steps_in(0)
    shapes = [one.plan.shape_of(k) for k in steps]
    assert shapes[:epoch] != shapes[epoch : 2 * epoch], "each epoch has its own order"


def test_everybody_is_seen_once_per_visit() -> None:
    plan = batches_of().plan
    streams: dict[int, list[int]] = {i: [] for i in range(len(plan.shapes))}
    steps = sum(plan.steps_in(e) for e in range(5))
    for step in range(steps):
        shape, rows = plan.rows_of(step)
        streams[shape] += rows.tolist()
    members = []
    for stream in streams.values():
        who = sorted(set(stream))
        members += who
        visits = len(stream) // len(who)
        assert visits >= 4
        orders = [tuple(stream[v * len(who) : (v + 1) * len(who)]) for v in range(visits)]
        for order in orders:
            assert sorted(order) == who
        assert len(who) < 4 or len(set(orders)) == visits, "each visit has its own order"
    assert sorted(members) == list(range(len(TABLE)))
    # After whole epochs nobody is more than one batch behind.
    counts = Counter(i for stream in streams.values() for i in stream)
    assert max(counts.values()) - min(counts.values()) <= 2


def test_epochs_add_up() -> None:
    plan = batches_of().plan
    step = 0
    for epoch in range(4):
        for position in range(plan.steps_in(epoch)):
            assert plan.epoch_of(step) == (epoch, position)
            step += 1
    # An epoch shows every sentence once, but for a batch of each shape cut off at its ends.
    seen = sum(len(plan.rows_of(k)[1]) for k in range(step))
    assert 4 * len(TABLE) <= seen < 4 * len(TABLE) + sum(plan.rows)


def test_a_far_step_needs_no_walk() -> None:
    plan = batches_of().plan
    far = 10**9
    epoch, position = plan.epoch_of(far)
    assert 0 <= position < plan.steps_in(epoch)
    assert plan.epoch_of(far - position) == (epoch, 0)
    assert plan.epoch_of(far - position - 1) == (epoch - 1, plan.steps_in(epoch - 1) - 1)
    assert len(plan.rows_of(far)[1]) == plan.rows[plan.shape_of(far)]


def test_the_first_step_needs_the_most_memory() -> None:
    plan = batches_of().plan
    positions = [r * (s + t) for r, (s, t) in zip(plan.rows, plan.shapes, strict=True)]
    assert positions[plan.shape_of(0)] == max(positions)
    batch = batches_of().batch(0)
    assert batch.source.size + batch.target.size == max(positions)


@pytest.mark.parametrize("budget", [1, 20, 128, 1000])
def test_the_budget(budget: int) -> None:
    plan = batches_of(batch_tokens=budget).plan
    for rows, (_, target) in zip(plan.rows, plan.shapes, strict=True):
        assert rows * target <= budget or rows == 1
        assert (rows + 1) * target > budget, "as many as fit"


def test_rows_are_filled_up_with_empty_ones() -> None:
    plain, multiple = batches_of(), batches_of(row_multiple=8)
    filled = 0
    for step in range(10):
        a, b = plain.batch(step), multiple.batch(step)
        rows = len(a.source)
        assert len(b.source) % 8 == 0
        assert len(b.source) - rows < 8
        np.testing.assert_array_equal(b.source[:rows], a.source)
        np.testing.assert_array_equal(b.target[:rows], a.target)
        for array in b:
            assert (array[rows:] == 0).all()
        filled += len(b.source) - rows
    assert filled


def test_fresh_segmentations() -> None:
    calls = []

    def resample(row: int, u: float, v: float) -> tuple[list[int], list[int]]:
        calls.append((row, u, v))
        # The source loses a token or more; the target outgrows every shape and is left alone.
        return [row + 1, 7][: 1 + int(u * 2)], [8] * 1000

    drawn, plain = batches_of(resample=resample), batches_of()
    batch, before = drawn.batch(4), plain.batch(4)
    uniforms = [u for _, *pair in calls for u in pair]
    assert [row for row, _, _ in calls] == ids_in(before)
    assert all(0 <= u < 1 for u in uniforms)
    assert len(set(uniforms)) == len(uniforms)
    for r, (row, u, _) in enumerate(calls):
        expected = [row + 1, 7][: 1 + int(u * 2)]
        if len(expected) <= batch.source.shape[1]:
            assert batch.source[r].tolist() == expected + [0] * (
                batch.source.shape[1] - len(expected)
            )
            assert batch.source_lengths[r] == len(expected)
    np.testing.assert_array_equal(batch.target, before.target)
    np.testing.assert_array_equal(batch.target_lengths, before.target_lengths)
    first = list(calls)
    calls.clear()
    drawn.batch(4)
    assert calls == first, "the same step draws the same"
    calls.clear()
    drawn.batch(5)
    assert not {u for _, u, _ in calls} & {u for _, u, _ in first}


def test_columns_over_several_chunks() -> None:
    table = datasets.concatenate_datasets([TABLE.select(range(90)), TABLE.select(range(90, 230))])
    column = TokenColumn(table, "target_ids")
    assert len(column._values) > 1
    for row in (0, 89, 90, 229):
        assert column[row].tolist() == TABLE[row]["target_ids"]
    out = np.zeros((3, 40), np.int32)
    column.fill(np.array([229, 5, 90]), out)
    for r, row in enumerate((229, 5, 90)):
        ids = TABLE[row]["target_ids"]
        assert out[r].tolist() == ids + [0] * (40 - len(ids))
        assert column.lengths[row] == len(ids)


def test_orders_are_fixed_for_all_time() -> None:
    """Runs that are resumed under another numpy must see the same sentences."""
    assert random_order(2, 1, 0, 0, size=10).tolist() == [3, 9, 5, 6, 0, 8, 4, 7, 2, 1]


def test_multi30k_is_mostly_real() -> None:
    root = Path(os.environ.get("NMT_LS_DATA", REPOSITORY.parent / "shared" / "data"))
    folder = root / "multi30k_en_de" / "bpe10k"
    if not folder.is_dir():
        pytest.skip(f"no {folder}; set NMT_LS_DATA")
    sides = []
    for language in ("en", "de"):
        text = (folder / f"train.{language}").read_text(encoding="utf-8").splitlines()
        sides.append(np.array([len(line.split()) + 1 for line in text], np.int32))
    fits = np.maximum(*sides) <= 128
    plan = BatchPlan(sides[0][fits], sides[1][fits], batch_tokens=3072, shapes=8)
    assert len(plan.shapes) <= 8
    assert plan.real_share >= 0.83
    steps = plan.steps_in(0)
    real = positions = 0
    for step in range(steps):
        shape, rows = plan.rows_of(step)
        real += int(sides[0][fits][rows].sum() + sides[1][fits][rows].sum())
        positions += len(rows) * sum(plan.shapes[shape])
    assert real / positions >= 0.83
