"""The plan of a sweep: which cells there are, where they go, who does them."""

import dataclasses
import json
import os
import re
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_config

from nmt_ls.config import Config, CorpusConfig, DataConfig
from nmt_ls.errors import UserError
from nmt_ls.study import plan as plan_module
from nmt_ls.study.grid import LONGEST_NAME, parse_grid, run_name
from nmt_ls.study.plan import (
    Request,
    cell_config,
    chosen,
    group_cells,
    make_plan,
    parse_shard,
)
from nmt_ls.study.plan_file import read_plan

BASE = Config(data=DataConfig(train=CorpusConfig(kind="phrasebook", size=10)))


def planned(folder, config=BASE, **request):
    return make_plan(config, folder, Request(**request))


def names(cells) -> list[str]:
    return [cell.entry["run"] for cell in cells]


def groups(cells) -> list[int]:
    return [cell.entry["group"] for cell in cells]


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("model.dropout=0,0.3", (0, 0.3)),
        ("training.learning_rate=1e-3, 2e-3", (0.001, 0.002)),
        ("data.deduplicate=true,false", (True, False)),
        ("data.validation=null", (None,)),
        ("data.joiner=@@ ,'a, b',\"\"", ("@@ ", "a, b", "")),
        ("data.source_language=no,it's", ("no", "it's")),
    ],
)
def test_values_are_read_as_overrides_are(option, values):
    assert parse_grid([option]) == {option.partition("=")[0]: values}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["model.dropout="], "--grid model.dropout=: no value"),
        (["model.dropout"], "--grid model.dropout: write key=value,value"),
        (["model.dropout=0,,1"], "an empty value; write '' for"),
        (["model.dropout=0", "model.dropout=0.3"], "model.dropout stands twice"),
        (["evaluation.beams=[1]"], "[1] is not a text, number, true, false or null"),
        (["model.dropot=0"], "has no setting 'dropot'; did you mean model.dropout?"),
        (
            ["modle.dropout=0"],
            "unknown key modle: there is no setting 'modle'; did you mean model?",
        ),
        (["model.dropout=0,1"], "model.dropout=1: must be less than 1"),
        (["model.width=wide"], "model.width=wide: must be a whole number"),
        (["model.heads=3"], "model.heads=3 does not divide model.width=256; use 2 heads"),
        (["model.dropout=0,0.0"], "the grid has model.dropout=0.0 twice"),
        (["name=a,b"], "a grid over name: it decides nothing about a run"),
        (["sweep.seeds=1,2"], "a grid over sweep.seeds: it decides nothing about a run"),
        (["seed=1,2"], "a grid over seed: --seeds"),
        (["loss.label_smoothing=0,0.1"], "a grid over loss.label_smoothing: --smoothing"),
        (["loss.beta=0,0.1"], "a grid over loss.beta: --smoothing"),
    ],
)
def test_a_grid_that_cannot_be_is_refused_and_nothing_written(options, message, tmp_path):
    with pytest.raises(UserError) as refused:
        planned(tmp_path / "sweep", grid=parse_grid(options))
    assert message in str(refused.value)
    assert str(refused.value).count("\n") <= 1
    assert not (tmp_path / "sweep").exists()


def test_a_file_is_no_sweep(tmp_path):
    (tmp_path / "sweep").write_text("x")
    with pytest.raises(UserError, match="sweep is a file; choose another --run-dir"):
        planned(tmp_path / "sweep")


def test_an_empty_list_in_the_configuration_is_refused(tmp_path):
    config = dataclasses.replace(
        BASE, sweep=dataclasses.replace(BASE.sweep, grid={"model.dropout": ()})
    )
    with pytest.raises(UserError, match=r"sweep\.grid\.model\.dropout is empty"):
        planned(tmp_path, config)


def test_every_combination_with_every_strength_and_seed(tmp_path):
    grid = parse_grid(["model.dropout=0,0.3", "data.noise=0.2"])
    cells = planned(tmp_path, smoothing=[0, 0.1], seeds=2, grid=grid)
    assert names(cells)[:4] == [
        "data.noise=0.2__model.dropout=0.0__smoothing_0.0_seed_1",
        "data.noise=0.2__model.dropout=0.0__smoothing_0.1_seed_1",
        "data.noise=0.2__model.dropout=0.3__smoothing_0.0_seed_1",
        "data.noise=0.2__model.dropout=0.3__smoothing_0.1_seed_1",
    ]
    assert len(set(names(cells))) == 8
    for cell in cells:
        entry, config = cell.entry, cell.config
        assert set(entry) == {"run", "label_smoothing", "seed", "settings", "group"}
        assert entry["settings"] == {"data.noise": 0.2, "model.dropout": config.model.dropout}
        assert (entry["label_smoothing"], entry["seed"]) == (
            config.loss.label_smoothing,
            config.seed,
        )
        assert config.data.noise == 0.2
    stored = json.loads((tmp_path / "plan.json").read_text())
    assert stored["runs"] == [cell.entry for cell in cells]
    # The order in which a grid is named decides nothing.
    again = planned(tmp_path, smoothing=[0.1, 0], seeds=2, grid=dict(reversed(grid.items())))
    assert again == cells


def test_the_grid_of_the_configuration_counts_unless_another_is_given(tmp_path):
    sweep = dataclasses.replace(
        BASE.sweep, smoothing=(0.0,), seeds=1, grid={"model.norm": ("pre", "post")}
    )
    config = dataclasses.replace(BASE, sweep=sweep)
    assert names(planned(tmp_path / "a", config)) == [
        f"model.norm={norm}__smoothing_0.0_seed_1" for norm in ("pre", "post")
    ]
    assert names(planned(tmp_path / "b", config, grid={})) == ["smoothing_0.0_seed_1"]


@pytest.mark.parametrize("kind", ["confidence_penalty", "generalized_entropy"])
def test_strengths_of_a_loss_without_epsilon_are_values_of_beta(kind, tmp_path):
    config = dataclasses.replace(BASE, loss=dataclasses.replace(BASE.loss, kind=kind))
    cells = planned(tmp_path, config, smoothing=[0, 2.5], seeds=1)
    assert [cell.config.loss.beta for cell in cells] == [0, 2.5]
    assert {cell.config.loss.label_smoothing for cell in cells} == {0.1}
    assert [cell.entry["label_smoothing"] for cell in cells] == [0, 2.5]
    assert names(cells) == ["smoothing_0.0_seed_1", "smoothing_2.5_seed_1"]
    assert groups(cells) == [0, 0]


def test_an_epsilon_above_one_is_refused_where_the_grid_has_one(tmp_path):
    grid = {"loss.kind": ("confidence_penalty", "label_smoothing")}
    with pytest.raises(UserError, match=r"loss\.label_smoothing=2\.0: must be at most 1"):
        planned(tmp_path, smoothing=[2], seeds=1, grid=grid)
    cells = planned(tmp_path, smoothing=[0.5], seeds=1, grid=grid)
    assert [(c.config.loss.beta, c.config.loss.label_smoothing) for c in cells] == [
        (0.5, 0.1),
        (0.1, 0.5),
    ]


@given(st.dictionaries(st.sampled_from(["data.root", "data.joiner"]), st.text(), min_size=1))
@settings(max_examples=100, deadline=None)
def test_directory_names_are_safe_and_not_too_long(varied):
    name = run_name(0.1, 1, varied)
    assert set(name) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._=+-")
    assert len(name) <= LONGEST_NAME and name.endswith("__smoothing_0.1_seed_1")
    longer = {key: value + "x" * 200 for key, value in varied.items()}
    other = {key: value + "x" * 200 + "y" for key, value in varied.items()}
    assert run_name(0.1, 1, longer) != run_name(0.1, 1, other)


@pytest.mark.parametrize("values", [("日本.tsv", "中国.tsv"), ("a/b", "a-b"), ("a", "A")])
def test_values_that_only_their_hash_tells_apart_have_directories_of_their_own(tmp_path, values):
    first, second = names(planned(tmp_path, seeds=1, smoothing=[0], grid={"data.root": values}))
    safe = first.removesuffix("__smoothing_0.0_seed_1")
    assert safe == run_name(0.0, 1, {"data.root": values[0]}).partition("__")[0]
    assert re.fullmatch(
        rf"{re.escape(safe)}-[0-9a-f]{{10}}__smoothing_0.0_seed_1", second, re.IGNORECASE
    )
    # Both keep their names, in whatever order they are asked for.
    again = planned(tmp_path, seeds=1, smoothing=[0], grid={"data.root": values[::-1]})
    assert names(again) == [first, second]


def test_groups_are_what_one_program_can_train(tmp_path):
    grid = {
        "model.dropout": (0, 0.1, 0.3),
        "training.learning_rate": (1e-3, 2e-3),
        "training.weight_decay": (0.0, 0.1),
        "model.norm": ("pre", "post"),
    }
    cells = planned(tmp_path, smoothing=[0, 0.1], seeds=2, grid=grid)

    def kind(cell):
        of = cell.config
        return (of.model.dropout > 0, of.training.weight_decay > 0, of.model.norm)

    kinds = {cell.entry["group"]: kind(cell) for cell in cells}
    assert sorted(kinds) == list(range(8)) and len(set(kinds.values())) == 8
    assert all(kinds[cell.entry["group"]] == kind(cell) for cell in cells)


def test_later_cells_form_groups_of_their_own(tmp_path):
    first = planned(tmp_path, smoothing=[0, 0.1], seeds=1)
    assert groups(first) == [0, 0]
    more = planned(tmp_path, smoothing=[0, 0.2], seeds=2)
    assert [cell.entry for cell in more[:2]] == [cell.entry for cell in first]
    assert names(more)[2:] == [f"smoothing_{e}" for e in ("0.2_seed_1", "0.0_seed_2", "0.2_seed_2")]
    assert groups(more) == [0, 0, 1, 1, 1]
    assert planned(tmp_path, smoothing=[0.1], seeds=1) == more


@pytest.mark.parametrize(
    ("together", "shards", "expected"),
    [
        (0, 1, [0] * 9),
        (1, 1, list(range(9))),
        (4, 1, [0, 0, 0, 1, 1, 1, 2, 2, 2]),
        (0, 2, [0] * 5 + [1] * 4),
        (0, 3, [0, 0, 0, 1, 1, 1, 2, 2, 2]),
        (0, 20, list(range(9))),
    ],
)
def test_a_group_is_no_larger_than_asked_and_than_a_share(together, shards, expected, tmp_path):
    config = dataclasses.replace(BASE, sweep=dataclasses.replace(BASE.sweep, together=together))
    assert groups(planned(tmp_path, config, shard=(1, shards))) == expected


def test_an_older_plan_is_taken_up(tmp_path):
    old = [{"run": "smoothing_0.1_seed_1", "label_smoothing": 0.1, "seed": 1}]
    (tmp_path / "plan.json").write_text(json.dumps({"title": "", "runs": old}))
    cells = planned(tmp_path, smoothing=[0.1, 0.2], seeds=1)
    assert cells[0].entry == {**old[0], "settings": {}, "group": 0}
    assert names(cells) == ["smoothing_0.1_seed_1", "smoothing_0.2_seed_1"]


@pytest.mark.parametrize("text", ["{", "[]", '{"runs": [{"run": "a"}]}', '{"runs": 3}'])
def test_a_damaged_plan_is_refused_by_name(text, tmp_path):
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(UserError, match=r"plan\.json is not a sweep's plan"):
        planned(tmp_path)


def test_another_directory_is_refused_and_left_as_it_is(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(UserError, match="is not empty and has no plan.json"):
        planned(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


@given(
    strengths=st.integers(1, 5), seeds=st.integers(1, 3), rates=st.integers(1, 3),
    together=st.integers(0, 4), shards=st.integers(1, 7),
)  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_every_cell_is_done_by_one_shard_and_groups_stay_whole(
    strengths, seeds, rates, together, shards
):
    entries = [
        {"run": f"{r}_{e}_{s}", "label_smoothing": e / 10, "seed": s,
         "settings": {"model.dropout": r / 10}}
        for s in range(seeds) for r in range(rates) for e in range(strengths)
    ]  # fmt: skip
    config = dataclasses.replace(BASE, sweep=dataclasses.replace(BASE.sweep, together=together))
    configs = [cell_config(config, entry) for entry in entries]
    cells = [
        plan_module.Cell(entry, config, None)
        for entry, config in zip(group_cells(entries, configs, shards), configs, strict=True)
    ]
    shares = [chosen(cells, Request(shard=(k, shards))) for k in range(1, shards + 1)]
    assert sorted(name for share in shares for name in names(share)) == sorted(names(cells))
    for group in set(groups(cells)):
        assert sum(group in groups(share) for share in shares) == 1
        assert groups(cells).count(group) <= (together or len(cells))


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "a/b", "1/0", "-1/3", "1/3/5"])
def test_a_share_that_is_none_is_refused(text):
    with pytest.raises(UserError, match=f"--shard {text}: write 1/8"):
        parse_shard(text)


def test_a_share(tmp_path):
    assert parse_shard("3/8") == (3, 8)
    config = dataclasses.replace(BASE, sweep=dataclasses.replace(BASE.sweep, together=1))
    cells = planned(tmp_path, config, smoothing=[0, 0.1, 0.2], seeds=2)
    assert names(chosen(cells, Request(shard=(2, 4)))) == [names(cells)[1], names(cells)[5]]
    assert names(chosen(cells, Request(only="smoothing_0.2_seed_2"))) == ["smoothing_0.2_seed_2"]
    with pytest.raises(UserError, match="--only x: the plan has smoothing_0.0_seed_1, "):
        chosen(cells, Request(only="x"))


@pytest.mark.parametrize("shard", [(2, 2), None])
def test_calls_that_ask_for_other_runs_are_told(tmp_path, caplog, shard):
    caplog.set_level("INFO")
    planned(tmp_path, smoothing=[0, 0.1], seeds=1, shard=(1, 2))
    planned(tmp_path, smoothing=[0, 0.1], seeds=1, shard=(2, 2))
    assert not caplog.messages
    planned(tmp_path, smoothing=[0, 0.2], seeds=1, shard=shard)
    assert [message.partition("plan.json: ")[2] for message in caplog.messages] == [
        "new besides the 2 there were: smoothing_0.2_seed_1",
        "planned by earlier calls, and part of the sweep: smoothing_0.1_seed_1",
    ]


def test_of_two_first_plans_the_later_joins_the_earlier(tmp_path, monkeypatch):
    real = os.link

    def late(source, target):
        monkeypatch.setattr(os, "link", real)
        planned(tmp_path, smoothing=[0.3], seeds=1)  # between the look and the write
        real(source, target)

    monkeypatch.setattr(os, "link", late)
    cells = planned(tmp_path, smoothing=[0, 0.3], seeds=1)
    assert names(cells) == ["smoothing_0.3_seed_1", "smoothing_0.0_seed_1"]
    assert read_plan(tmp_path) == [cell.entry for cell in cells]


def test_what_another_call_adds_while_this_one_checks_is_kept(tmp_path):
    planned(tmp_path, smoothing=[0], seeds=1)
    looks = []

    def slow(cells):
        if not looks:
            planned(tmp_path, smoothing=[0, 0.2], seeds=1)
        looks.append(len(cells))

    cells = make_plan(BASE, tmp_path, Request(smoothing=[0, 0.1], seeds=1), slow)
    assert names(cells) == [f"smoothing_{e}_seed_1" for e in ("0.0", "0.2", "0.1")]
    assert read_plan(tmp_path) == [cell.entry for cell in cells]
    assert looks == [2, 3]


def test_plans_written_at_the_same_time_are_identical_and_whole(tmp_path):
    found = []
    threads = [
        threading.Thread(target=lambda k=k: found.append(planned(tmp_path, shard=(k, 4))))
        for k in range(1, 5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and all(cells == found[0] for cells in found)
    assert [p.name for p in tmp_path.iterdir()] == ["plan.json"]
    before = (tmp_path / "plan.json").stat().st_mtime_ns
    planned(tmp_path)
    assert (tmp_path / "plan.json").stat().st_mtime_ns == before


def test_without_hard_links_a_plan_is_written_all_the_same(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError("no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    planned(tmp_path, smoothing=[0], seeds=1)
    assert [p.name for p in tmp_path.iterdir()] == ["plan.json"]


def test_a_cell_is_the_configuration_but_for_what_it_varies(tmp_path):
    config = tiny_config(tmp_path / "text")
    entry = {"run": "", "label_smoothing": 0.1, "seed": config.seed, "settings": {}}
    assert cell_config(config, entry) == config
