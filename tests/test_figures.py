"""Which figures are drawn, of what, and from which numbers."""

import math
import re

import matplotlib.axes
import pytest
from made_up import everything_sweep
from test_comparison import made_up_run, only_numbers

from nmt_ls.study.comparison import compare
from nmt_ls.study.figures import blocks_to_draw, draw_all, inline, png, quality, search, svg
from nmt_ls.study.figures.blocks import blocks_of, pooled_blocks, rows_by_bucket
from nmt_ls.study.figures.curves import learning_curves
from nmt_ls.study.figures.drawing import (
    against_smoothing,
    file_name,
    panel,
    smoothing_ticks,
    summaries,
)
from nmt_ls.study.figures.gains import gains
from nmt_ls.study.figures.quality import differences
from nmt_ls.study.protocol import protocol_rows


def axes_of(picture) -> matplotlib.axes.Axes:
    return picture.figure.axes[0]


def names(pictures) -> list[str]:
    return [picture.name for picture in pictures]


@pytest.fixture(scope="module")
def sweep():
    runs = everything_sweep(smoothing=(0.0, 0.1), seeds=(1, 2), tests=("flickr", "coco"))
    return runs, compare(runs, samples=50)


@pytest.fixture(scope="module")
def pictures(sweep):
    runs, comparison = sweep
    return draw_all({**comparison, "pooled": {}}, runs, {})


def test_panels_of_a_kind_stand_side_by_side(pictures):
    found = names(pictures)
    assert found[:6] == [
        f"{kind}_{test}" for kind in ("bleu", "chrf", "difference") for test in ("flickr", "coco")
    ]
    assert len(found) == len(set(found)) == 2 * 17


def test_lines_are_means_over_seeds_with_their_intervals(pictures):
    [picture] = [p for p in pictures if p.name == "empty_flickr"]
    # 10 − 25·ε per cent, the same for both seeds.
    [line] = [x for x in axes_of(picture).get_lines() if x.get_marker() == "o"]
    assert list(line.get_xdata()) == [0.0, 0.1]
    assert list(line.get_ydata()) == pytest.approx([10.0, 7.5])
    # Mean 2, sd √2: t(0.975; 1) · 1 = 12.706 to either side.
    _figure, axes = panel("x")
    assert against_smoothing(axes, summaries({"0.1": [1.0, 3.0]}))
    [bars] = axes.collections[:1]
    [segment] = bars.get_segments()
    assert segment[:, 1].tolist() == pytest.approx([2 - 12.7062, 2 + 12.7062], abs=1e-3)
    dots = axes.collections[-1].get_offsets().tolist()
    assert dots == [[0.1, 1.0], [0.1, 3.0]]


def test_nothing_is_drawn_without_data():
    runs = only_numbers({(0.0, 1): 30.0, (0.1, 1): 31.0})
    found = draw_all({**compare(runs), "pooled": {}}, runs, {})
    assert names(found) == ["bleu_test"]
    _figure, axes = panel("x")
    nothing = {"0.0": {"mean": None, "ci95": None, "values": [None]}}
    assert not against_smoothing(axes, nothing) and not axes.get_lines()


def test_buckets_are_averaged_over_runs_and_gaps_stay_gaps():
    def table(*rows):
        return [{"low": low, "high": low + 4, "bleu": bleu} for low, bleu in rows]

    found = {
        "0.0": [table((1, 10.0), (6, 20.0)), table((1, 30.0))],
        "0.1": [table((1, 5.0), (11, None))],
    }
    order, lines = rows_by_bucket(found, ("low", "high"), "bleu")
    assert order == [(1, 5), (6, 10), (11, 15)]
    assert lines == {"0.0": [20.0, 20.0, None], "0.1": [5.0, None, None]}


def test_ticks_do_not_run_into_each_other():
    _figure, axes = panel("x")
    smoothing_ticks(axes, [0.0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.3])
    assert list(axes.get_xticks()) == [0.0, 0.01, 0.05, 0.1, 0.2, 0.3]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["0", "", "0.05", "0.1", "0.2", "0.3"]


def difference(mean, half, over="seeds"):
    bounds = [mean - half, mean + half]
    if over == "seeds":
        return {"mean": mean, "ci95": bounds, "p": 0.5, "p_holm": 0.5, "n": 3}
    sampled = {"difference": mean, "ci95": bounds, "p": 0.5, "p_holm": 0.5}
    return {"mean": mean, "ci95": None, "p": None, "p_holm": None, "n": 1, "bootstrap": sampled}


def gained(settings: dict, mean: float, **more) -> dict:
    settings_of = {
        "0.0": {"differences": None, "measures": {}},
        "0.1": {"differences": {"bleu": difference(mean, 0.5)}, "measures": {}},
    }
    return {"settings": settings, "baseline": 0.0, "by_smoothing": settings_of, **more}


def test_gains_against_each_setting_with_the_others_held():
    blocks = {
        f"{dropout} {noise}": gained(
            {"model.dropout": dropout, "data.noise": noise}, 10 * noise + dropout
        )
        for dropout in (0.3, 0.1)
        for noise in (0, 0.2)
    }
    found = {picture.name: picture for picture in gains(blocks)}
    assert set(found) == {
        "gain_model.dropout_data.noise_0",
        "gain_model.dropout_data.noise_0.2",
        "gain_data.noise_model.dropout_0.3",
        "gain_data.noise_model.dropout_0.1",
    }
    axes = axes_of(found["gain_model.dropout_data.noise_0.2"])
    assert axes.get_xlabel() == "dropout"
    assert found["gain_data.noise_model.dropout_0.3"].caption == (
        "Gain over ε = 0 against label noise (model.dropout=0.3)"
    )
    [line] = [x for x in axes.get_lines() if x.get_marker() == "o"]
    assert list(line.get_xdata()) == [0.1, 0.3]
    assert list(line.get_ydata()) == pytest.approx([2.1, 2.3])
    assert [segment[:, 1].tolist() for segment in axes.collections[0].get_segments()] == [
        pytest.approx([1.6, 2.6]), pytest.approx([1.8, 2.8])
    ]  # fmt: skip


def test_settings_that_are_no_numbers_have_no_axis():
    blocks = {"a": gained({"model.norm": "pre"}, 1.0), "b": gained({"model.norm": "post"}, 2.0)}
    assert list(gains(blocks)) == []
    assert list(gains({"": gained({}, 1.0)})) == []


def test_the_difference_says_what_its_interval_is_over():
    by_smoothing = {
        "0.0": {"differences": None},
        "0.1": {"differences": {"bleu": difference(1.0, 0.5, "sentences")}},
        "0.2": {"differences": {"bleu": difference(1.0, 0.5, "seeds")}},
    }
    picture = differences({"baseline": 0.0, "by_smoothing": by_smoothing}, "news")
    assert picture.caption.endswith("95 % intervals over seeds or sentences")
    alone = {"baseline": 0.0, "by_smoothing": {"0.0": {"differences": None}}}
    assert differences(alone, "news") is None


def test_differences_are_from_the_baseline_of_their_own_settings():
    runs = only_numbers(
        {(e, s): 30.0 + e + 0.1 * s * e for e in (0.0, 0.1, 0.2) for s in (1, 2, 3)}
    )
    without = [run for run in runs if run["label_smoothing"]]
    runs = [run | {"settings": {"model.dropout": 0.3}} for run in runs]
    runs += [r | {"run": f"{r['run']}_", "settings": {"model.dropout": 0.0}} for r in without]
    comparison = compare(runs)
    drawn = draw_all(comparison, runs, {})
    titles = {p.label: axes_of(p).get_title("left") for p in drawn if p.kind == "difference"}
    assert titles == {
        "test (model.dropout=0.0)": "ΔBLEU vs ε = 0.1",
        "test (model.dropout=0.3)": "ΔBLEU vs ε = 0",
    }
    said = dict(protocol_rows(comparison, runs, {}))["claims"]
    assert said.startswith("differences in BLEU from ε = 0.1 or ε = 0, ")


def test_gains_over_other_baselines_are_other_lines():
    blocks = {str(x): gained({"model.dropout": x}, x) for x in (0.0, 0.1, 0.2)}
    settings = blocks["0.2"]["by_smoothing"]
    blocks["0.2"] |= {"baseline": 0.05, "by_smoothing": {"0.05": settings["0.0"], **settings}}
    [picture] = gains(blocks)
    axes = axes_of(picture)
    found = {text.get_text() for text in picture.figure.legends[0].get_texts()}
    assert found == {"ε = 0.1 over ε = 0", "ε = 0.1 over ε = 0.05"}
    lengths = [len(x.get_xdata()) for x in axes.get_lines() if x.get_marker() in "os"]
    assert lengths == [2, 1]
    assert picture.caption == "Gain over ε = 0 or ε = 0.05 against dropout"


def test_runs_of_other_settings_are_in_other_blocks():
    runs = [made_up_run(0.0, 1), made_up_run(0.1, 1), made_up_run(0.1, 1)]
    runs[2] |= {"settings": {"model.dropout": 0.3}, "run": "other"}
    plain = compare(runs[:2], samples=20)["tests"]["flickr"]
    tests = {
        "flickr": plain,
        "flickr (model.dropout=0.3)": {
            **plain, "test": "flickr", "settings": {"model.dropout": 0.3},
        },
    }  # fmt: skip
    first, second = blocks_of({"tests": tests}, runs)
    assert [run["run"] for run in first.runs] == ["smoothing_0.0_seed_1", "smoothing_0.1_seed_1"]
    assert [run["run"] for run in second.runs] == ["other"] and second.test == "flickr"
    assert second.found("bleu") == {"0.1": [runs[2]["results"]["flickr"]["bleu"]]}
    assert second.found("adjusted", "both", "ece") == {}


def test_pooled_blocks_come_first_where_there_are_several_test_sets(sweep):
    runs, comparison = sweep
    pooled = {"": comparison["tests"]["flickr"]}
    several = {**comparison, "pooled": pooled}
    labels = [block.label for block in blocks_to_draw(several, runs)]
    assert labels == ["all test sets", "flickr", "coco"]
    alone = {**several, "tests": {"flickr": several["tests"]["flickr"]}}
    block = blocks_to_draw(several, runs)[0]
    assert next(quality.quality(block)).name == "bleu_all_test_sets"
    assert search.empty(block) is None and list(search.beams(block)) == []
    assert pooled_blocks(alone) == []


def test_of_a_large_grid_only_a_part_is_drawn(sweep):
    _, comparison = sweep
    result = comparison["tests"]["flickr"]
    tests = {
        f"{test} (model.dropout={i})": {**result, "test": test, "settings": {"model.dropout": i}}
        for i in range(12)
        for test in ("flickr", "coco")
    }
    drawn = blocks_to_draw({"tests": tests}, [])
    assert len(drawn) == 9 and {block.test for block in drawn} == {"flickr"}


def test_learning_curves_end_where_training_did():
    runs = [{"label_smoothing": 0.1, "run": "a"}]
    records = [{"step": step, "perplexity": math.exp(5 - step / 200)} for step in range(1, 1000)]
    [picture] = learning_curves(runs, {"a": records})
    [line] = axes_of(picture).get_lines()
    assert len(line.get_xdata()) <= 150 and line.get_xdata()[-1] == 999
    assert picture.name == "curves_training"
    assert list(learning_curves(runs, {"a": records[:1]})) == []


def test_inline_pictures_can_share_a_page(pictures):
    picture = pictures[0]
    document = svg(picture.figure)
    markup = inline(document, "x", 'a "b" <c>')
    assert markup.startswith('<svg role="img" aria-label="a &quot;b&quot; &lt;c>"')
    assert 'id="x-' in markup and "metadata" not in markup
    assert "<dc:date>" not in document and svg(picture.figure) == document
    assert png(picture.figure) == png(picture.figure)


def test_names_of_files_have_an_end():
    for plain in ("flickr", "test_2016-de", "日本", "x" * 100):
        assert file_name(plain) == plain
    assert file_name("flickr (data.noise=0.2)") == "flickr_data.noise_0.2"
    names = [file_name(text) for text in ("x" * 300, "x" * 301, "日" * 90, "日" * 91)]
    assert len(set(names)) == 4
    assert all(len(name.encode()) <= 111 and re.fullmatch(r"[\w.-]+", name) for name in names)


def test_steps_without_a_number_are_not_drawn():
    """A step that was skipped, or a perplexity beyond all floats."""
    found = [math.nan, 30.0, math.inf, None, 20.0]
    records = [{"step": step, "perplexity": value} for step, value in enumerate(found)]
    [picture] = learning_curves([{"label_smoothing": 0.1, "run": "a"}], {"a": records})
    [line] = axes_of(picture).get_lines()
    assert list(line.get_ydata()) == [30.0, 20.0]


def test_ticks_are_those_of_all_lines():
    _figure, axes = panel("x")
    one = {"mean": 1.0, "ci95": None}
    against_smoothing(axes, {"0.0": one, "0.1": one, "0.2": one}, 0, "a")
    against_smoothing(axes, {"0.1": one}, 1, "b")
    assert list(axes.get_xticks()) == [0.0, 0.1, 0.2]
