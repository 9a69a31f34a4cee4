"""A sweep does what is missing and nothing twice: killed, shared out, and taken up again."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_up import write_sweep
from test_comparison import only_numbers
from tiny import sentence_pairs

from nmt_ls.cli import main
from nmt_ls.config import Config, CorpusConfig, DataConfig, LossConfig, TrainingConfig
from nmt_ls.config_files import load_resolved, save_config
from nmt_ls.config_languages import bleu_tokenizer
from nmt_ls.errors import UserError
from nmt_ls.study import finished as finished_module
from nmt_ls.study import runs as runs_module
from nmt_ls.study import sweep as sweep_module
from nmt_ls.study.plan import Request
from nmt_ls.study.plan_file import read_plan
from nmt_ls.study.protocol import described, kind_of_subwords
from nmt_ls.study.stored import load_runs
from nmt_ls.study.sweep import Pace, sweep, unfinished
from nmt_ls.study.wording import results_csv
from nmt_ls.training import opening as opening_module
from nmt_ls.training import trainer as trainer_module
from nmt_ls.training.bookkeeping import Diverged
from nmt_ls.training.opening import check_settings

BOOK = CorpusConfig(kind="phrasebook", size=10)
CONFIG = Config(
    data=DataConfig(train=BOOK, tests={"test": BOOK, "other": BOOK}),
    training=TrainingConfig(max_steps=3, keep_last=1, average_last=1),
)
TWO = Request(smoothing=[0, 0.1], seeds=1)


class Killed(BaseException):
    """What nothing catches."""


class Workshop:
    """Stands in for training and evaluation: the files they write, in their order.

    `work` counts what was done; `moments` counts down to a kill.
    """

    def __init__(self, monkeypatch):
        self.work: list[tuple[str, str, object]] = []
        self.moments = -1
        self.text = "text"
        subwords = SimpleNamespace(fingerprint="subwords")
        monkeypatch.setattr(
            runs_module,
            "_inputs_of",
            lambda *_: (
                SimpleNamespace(fingerprint=self.text, text=self.text, subwords=subwords),
                None,
                None,
            ),
        )
        monkeypatch.setattr(opening_module, "Subwords", SimpleNamespace(load=lambda _: subwords))
        monkeypatch.setattr(runs_module, "make_validator", lambda *_: None)
        monkeypatch.setattr(runs_module, "groups_of", lambda members: [[m] for m in members])
        monkeypatch.setattr(
            runs_module,
            "fit_population",
            lambda group: [self.train(m.config, m.run_dir) for m in group],
        )
        monkeypatch.setattr(finished_module, "Subwords", SimpleNamespace(load=lambda _: None))
        monkeypatch.setattr(finished_module, "fingerprint_now", self.fingerprint)
        monkeypatch.setattr(trainer_module, "average_steps", self.average_steps)
        monkeypatch.setattr(sweep_module, "evaluate_run", self.evaluate)
        monkeypatch.setattr(sweep_module, "report", self.report)

    def moment(self):
        self.moments -= 1
        if self.moments == 0:
            raise Killed

    def train(self, config: Config, run_dir: Path) -> int:
        self.moment()
        if not (run_dir / "config.yaml").exists():
            check_settings(run_dir, config)  # what a kill left behind is no obstacle
            run_dir.mkdir(exist_ok=True)
            for name in (".subwords.model.17", "subwords.model", "data.json.tmp", "data.json"):
                (run_dir / name).write_text(json.dumps({"fingerprint": self.text}))
                self.moment()
        save_config(config, run_dir / "config.yaml")
        steps = [int(p.name) for p in run_dir.glob("checkpoints/*") if p.name.isdigit()]
        for step in range(max(steps, default=0) + 1, config.training.max_steps + 1):
            self.moment()
            self.work.append(("step", run_dir.name, step))
            (run_dir / "checkpoints" / str(step)).mkdir(parents=True)
        self.moment()
        average = run_dir / "checkpoints" / "average"
        average.mkdir(exist_ok=True)
        (average / "steps").write_text(str(config.training.max_steps))
        self.moment()
        return config.training.max_steps

    def average_steps(self, directory: Path) -> list[int]:
        return [int((directory / "average" / "steps").read_text())]

    def evaluate(self, run_dir: Path) -> None:
        self.moment()
        config = load_resolved(run_dir / "config.yaml")
        last = self.average_steps(run_dir / "checkpoints")[-1]
        found = {
            "decode": json.loads(json.dumps(dataclasses.asdict(config.decoding))),
            "checkpoint": f"average of {last}",
            "bleu": 12.345,
            "perplexity": None,
            "ece": 0.1,
            "empty_better": 0.0,
            "by_word_frequency": None,
            "beam_curve": [{"beam": beam} for beam in config.evaluation.beams],
        }
        stored = {}
        for test, corpus in config.data.tests.items():
            self.moment()
            stored[test] = {**found, "fingerprint": self.fingerprint(test, corpus)}
            (run_dir / "results.json").write_text(json.dumps(stored))
        self.work.append(("evaluation", run_dir.name, last))
        self.moment()

    def fingerprint(self, name: str, corpus: CorpusConfig, *_: object) -> str:
        return f"{name} {corpus}"

    def report(self, sweep_dir: Path) -> str:
        assert all((sweep_dir / entry["run"]).exists() for entry in read_plan(sweep_dir))
        for name in ("results.csv", "report.html"):
            self.moment()
            (sweep_dir / name).write_text("the report")
        self.moment()
        return "the report"

    def of(self, kind: str) -> list[tuple[str, object]]:
        return [(name, what) for done, name, what in self.work if done == kind]


@pytest.fixture
def workshop(monkeypatch):
    return Workshop(monkeypatch)


ALL_STEPS = [(f"smoothing_{e}_seed_1", step) for e in (0.0, 0.1) for step in (1, 2, 3)]


@given(st.lists(st.integers(1, 32), max_size=4))
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_killed_at_any_moments_nothing_is_done_twice_or_lost(workshop, tmp_path_factory, moments):
    folder = tmp_path_factory.mktemp("sweep") / "sweep"
    workshop.work.clear()
    for workshop.moments in moments:
        try:
            sweep(CONFIG, folder, TWO)
        except Killed:
            continue
    workshop.moments = -1
    assert sweep(CONFIG, folder, TWO) == "the report"
    assert workshop.of("step") == ALL_STEPS
    # A kill between the file and the next look costs nothing either.
    assert workshop.of("evaluation") == [(f"smoothing_{e}_seed_1", 3) for e in (0.0, 0.1)]
    done = len(workshop.work)
    assert sweep(CONFIG, folder, TWO) == "the report"
    assert len(workshop.work) == done and unfinished(CONFIG, folder, TWO) == []


@pytest.mark.parametrize("moment", [2, 4, 5])
def test_a_run_that_is_continued_is_measured_again(workshop, tmp_path, moment):
    """Wherever it is killed; at the fourth moment it has its last step and its old average."""
    sweep(CONFIG, tmp_path, TWO)
    longer = dataclasses.replace(CONFIG, training=dataclasses.replace(CONFIG.training, max_steps=5))
    workshop.moments = moment
    with pytest.raises(Killed):
        sweep(longer, tmp_path, TWO)
    workshop.moments = -1
    sweep(longer, tmp_path, TWO)
    assert workshop.of("evaluation")[2:] == [(f"smoothing_{e}_seed_1", 5) for e in (0.0, 0.1)]
    assert unfinished(longer, tmp_path, TWO) == []


def test_another_decoding_is_measured_without_training(workshop, tmp_path):
    sweep(CONFIG, tmp_path, TWO)
    other = dataclasses.replace(CONFIG, decoding=dataclasses.replace(CONFIG.decoding, beam=2))
    sweep(other, tmp_path, TWO)
    sweep(other, tmp_path, TWO)
    assert workshop.of("step") == ALL_STEPS
    assert len(workshop.of("evaluation")) == 4


def test_other_test_text_or_more_measures_are_measured_without_training(workshop, tmp_path):
    sweep(CONFIG, tmp_path, TWO)
    larger = {"other": dataclasses.replace(BOOK, size=20)}
    tests = dataclasses.replace(CONFIG.data, tests=CONFIG.data.tests | larger)
    beams = dataclasses.replace(CONFIG.evaluation, beams=(1, 5))
    fewer = dataclasses.replace(CONFIG.evaluation, beams=(5,), empty=False)
    for count, changed in ((4, {"data": tests}), (6, {"data": tests, "evaluation": beams})):
        other = dataclasses.replace(CONFIG, **changed)
        sweep(other, tmp_path, TWO)
        sweep(other, tmp_path, TWO)
        assert len(workshop.of("evaluation")) == count
    sweep(dataclasses.replace(other, evaluation=fewer), tmp_path, TWO)
    assert len(workshop.of("evaluation")) == 6
    assert workshop.of("step") == ALL_STEPS


def test_shards_share_the_work_and_make_no_report(workshop, tmp_path, caplog):
    caplog.set_level("INFO")
    for place in (1, 2, 3):
        request = TWO._replace(shard=(place, 3), smoothing=[0, 0.1, 0.2], seeds=2)
        before = len(workshop.of("evaluation"))
        assert sweep(CONFIG, tmp_path, request) == ""
        assert len(workshop.of("evaluation")) == before + 2
        assert f"shard {place}/3 is done; when all are, `nmt-ls report" in caplog.text
    done = [name for name, _ in workshop.of("evaluation")]
    assert sorted(done) == sorted(entry["run"] for entry in read_plan(tmp_path))
    assert sweep(CONFIG, tmp_path, TWO) == "the report"


def test_a_group_is_trained_by_one_call(workshop, tmp_path, monkeypatch):
    seen = []
    real = runs_module.train_group

    def spy(cells, configs, run_dirs, trained):
        seen.append([cell["run"] for cell in cells])
        real(cells, configs, run_dirs, trained)

    monkeypatch.setattr(sweep_module, "train_group", spy)
    grid = {"model.dropout": (0, 0.3)}
    sweep(CONFIG, tmp_path, TWO._replace(grid=grid, only="model.dropout=0.3__smoothing_0.1_seed_1"))
    sweep(CONFIG, tmp_path, TWO._replace(grid=grid))
    assert seen == [
        ["model.dropout=0.3__smoothing_0.1_seed_1"],
        [f"model.dropout=0.0__smoothing_{e}_seed_1" for e in (0.0, 0.1)],
        ["model.dropout=0.3__smoothing_0.0_seed_1"],
    ]


def test_every_run_ends_in_a_line_with_its_figures(workshop, tmp_path, caplog):
    caplog.set_level("INFO")
    sweep(CONFIG, tmp_path, TWO)
    lines = [line for line in caplog.messages if "BLEU" in line]
    one = r"BLEU 12\.35, perplexity –, ECE 0\.1000"
    figures = rf"test: {one}; other: {one}; 0\.0 min"
    assert re.fullmatch(
        rf"smoothing_0\.0_seed_1: {figures}; 1 of 2 done, about 0\.0 min left", lines[0]
    )
    assert re.fullmatch(rf"smoothing_0\.1_seed_1: {figures}", lines[1])


def test_the_time_left_goes_by_what_was_done_in_this_call(monkeypatch):
    now = iter([100.0, 160.0, 400.0, 460.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    pace = Pace(3)
    assert (pace.step(), pace.left()) == (60.0, "; 1 of 3 done, about 2.0 min left")
    assert (pace.step(), pace.left()) == (240.0, "; 2 of 3 done, about 2.5 min left")
    assert (pace.step(), pace.left()) == (60.0, "")


def test_a_foreign_run_is_refused_before_anything_is_trained(workshop, tmp_path):
    sweep(CONFIG, tmp_path, TWO._replace(smoothing=[0.1]))
    before = (tmp_path / "plan.json").read_bytes(), list(workshop.work)
    wider = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, width=512))
    with pytest.raises(UserError) as refused:
        sweep(wider, tmp_path, TWO)
    text = str(refused.value)
    assert "smoothing_0.1_seed_1 belongs to another configuration: model.width is 256 there" in text
    assert text.count("\n") == 1
    penalty = dataclasses.replace(CONFIG, loss=LossConfig(kind="confidence_penalty"))
    with pytest.raises(UserError, match="belongs to another configuration: loss.kind is 'label_"):
        sweep(penalty, tmp_path, TWO)
    (tmp_path / "smoothing_0.0_seed_1").mkdir()
    (tmp_path / "smoothing_0.0_seed_1" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="smoothing_0.0_seed_1 is not empty and has no config"):
        sweep(CONFIG, tmp_path, TWO)
    assert ((tmp_path / "plan.json").read_bytes(), workshop.work) == before
    assert (tmp_path / "smoothing_0.0_seed_1" / "notes.txt").read_text() == "mine"


def test_new_runs_are_not_trained_on_other_text_than_finished_ones(workshop, tmp_path):
    sweep(CONFIG, tmp_path, TWO)
    before = (tmp_path / "plan.json").read_bytes()
    workshop.text = "another text"
    assert sweep(CONFIG, tmp_path, TWO) == "the report"  # there is nothing to train
    with pytest.raises(UserError, match="smoothing_0.0_seed_1 was trained on other text"):
        sweep(CONFIG, tmp_path, TWO._replace(smoothing=[0.2]))
    assert (tmp_path / "plan.json").read_bytes() == before
    # A cell of the grid with data of its own has nothing to be compared with.
    sweep(CONFIG, tmp_path, TWO._replace(grid={"data.noise": (0.1,)}))


def test_a_run_without_a_checkpoint_is_begun_on_other_text(workshop, tmp_path):
    workshop.moments = 6
    with pytest.raises(Killed):
        sweep(CONFIG, tmp_path, TWO)
    begun = tmp_path / "smoothing_0.0_seed_1"
    assert (begun / "config.yaml").exists() and not (begun / "checkpoints").exists()
    workshop.text = "another text"
    assert sweep(CONFIG, tmp_path, TWO) == "the report"


def test_the_protocol_says_whose_subwords_they_are():
    files = dataclasses.replace(CONFIG.subwords, model_file="a.model")
    config = dataclasses.replace(CONFIG, subwords=files)
    assert kind_of_subwords(CONFIG) == "unigram"
    assert kind_of_subwords(config) == "of a.model"
    tuned = dataclasses.replace(CONFIG.training, init_from="runs/base")
    assert kind_of_subwords(dataclasses.replace(config, training=tuned)) == "of runs/base"
    as_it_is = dataclasses.replace(CONFIG.data, pretokenized=True)
    words = dataclasses.replace(CONFIG, data=as_it_is)
    assert kind_of_subwords(words) == "tokens of the text as it is"
    taught = dataclasses.replace(words, loss=LossConfig(kind="distillation", teacher_run="t"))
    assert kind_of_subwords(taught) == "of t"


def test_the_protocol_lists_what_differs_between_runs():
    configs = [
        dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, dropout=rate))
        for rate in (0.0, 0.3, 0.0)
    ]
    settings = [{"model.dropout": config.model.dropout} for config in configs]
    protocol = described(configs, settings, {})
    assert protocol["grid of model.dropout"] == "0.0; 0.3"
    assert protocol["model"]["dropout"] == "0.0; 0.3"
    assert protocol["model"]["width"] == 256
    assert protocol["steps"] == "3 steps for every ε, no early stopping"


@pytest.fixture
def reported(tmp_path, monkeypatch):
    """The folder of two seeds of two ε, finished, with no title in plan.json; a function that
    reports them and returns the names of the runs used; what `write_report` was given by name."""
    runs = only_numbers({(e, seed): 30.0 + e for e in (0.0, 0.1) for seed in (1, 2)})
    write_sweep(tmp_path, runs)
    for run in runs:
        save_config(CONFIG, tmp_path / run["run"] / "config.yaml")
        counts = {"pairs_kept": 9, "pairs_read": 10}
        (tmp_path / run["run"] / "data.json").write_text(json.dumps(counts))
    pieces = SimpleNamespace(fingerprint="", target_size=99)
    monkeypatch.setattr(sweep_module, "Subwords", SimpleNamespace(load=lambda _: pieces))
    monkeypatch.setattr(sweep_module, "truth_of", lambda *_: {})
    used, given = [], {}

    def write_report(path, comparison, runs, **named) -> None:
        used[:] = [run["run"] for run in runs]
        given.update(named)

    monkeypatch.setattr("nmt_ls.study.report.write_report", write_report)

    def report() -> list[str]:
        sweep_module.report(tmp_path)
        return used

    return tmp_path, report, given


BEAM = dataclasses.replace(CONFIG.decoding, beam=1)
LONGER = dataclasses.replace(CONFIG.training, max_steps=9)


@pytest.mark.parametrize(
    ("stored", "why"),
    [
        ({"decode": {"beam": 1}}, "test was evaluated with another decoding.beam"),
        ({"checkpoint": "3"}, "test was evaluated with checkpoint 3, not the average"),
        ({"translations_sha256": "0"}, "the translations of test are of another evaluation"),
    ],
    ids=["decoding", "checkpoint", "translations"],
)
def test_results_of_other_settings_are_left_out_and_named(reported, caplog, stored, why):
    folder, report, _ = reported
    path = folder / NAMED / "results.json"
    (folder / NAMED / "translations" / "test.txt").write_text("Text\n")
    results = json.loads(path.read_text())
    path.write_text(json.dumps({"test": results["test"] | stored}))
    caplog.set_level("WARNING")
    assert NAMED not in report() and len(report()) == 3
    assert f"{NAMED} is left out: {why}; `nmt-ls sweep` finishes it" in caplog.text


NAMED = "smoothing_0.1_seed_2"


def test_sets_of_ones_own_leave_no_run_out(reported):
    """As `nmt-ls evaluate RUN --source … --beam 1` stores them."""
    folder, report, _ = reported
    path = folder / NAMED / "results.json"
    results = json.loads(path.read_text())
    path.write_text(json.dumps(results | {"mine": {**results["test"], "decode": {"beam": 1}}}))
    assert NAMED in report()


def test_a_run_that_is_being_continued_is_left_out(reported, caplog):
    folder, report, _ = reported
    longer = dataclasses.replace(CONFIG, training=LONGER)
    save_config(longer, folder / NAMED / "config.yaml")
    (folder / NAMED / "checkpoints" / "3").mkdir(parents=True)
    assert NAMED not in report()
    assert "its training has not ended" in caplog.text


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"training": LONGER}, r"differ in training.max_steps: 3 and 9, so that"),
        (
            {"decoding": BEAM},
            r"_0.0_seed_1 and smoothing_0.1_seed_2 differ in decoding.beam: 5 and 1,",
        ),
        ({"training": LONGER, "decoding": BEAM}, r"max_steps: 3 and 9; decoding.beam: 5 and 1, so"),
    ],
    ids=["steps", "decoding", "both"],
)
def test_runs_that_were_treated_differently_are_not_compared(reported, changed, message):
    folder, report, _ = reported
    save_config(dataclasses.replace(CONFIG, **changed), folder / NAMED / "config.yaml")
    with pytest.raises(UserError, match=message):
        report()


def test_runs_that_were_searched_in_other_batches_are_compared(reported):
    folder, report, _ = reported
    path = folder / NAMED / "results.json"
    results = json.loads(path.read_text())
    decode = dataclasses.asdict(CONFIG.decoding) | {"batch_sentences": 1, "seed": 9}
    path.write_text(json.dumps({"test": results["test"] | {"decode": decode}}))
    few = dataclasses.replace(CONFIG.decoding, batch_sentences=8)
    save_config(dataclasses.replace(CONFIG, decoding=few), folder / NAMED / "config.yaml")
    assert NAMED in report()


def test_a_run_that_diverges_keeps_no_other_from_its_work(workshop, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    real = workshop.train

    def train(config: Config, run_dir: Path) -> int:
        if "seed_1" in run_dir.name and config.loss.label_smoothing == 0:
            run_dir.mkdir()
            raise Diverged("gradients have not been finite since step 1")
        return real(config, run_dir)

    monkeypatch.setattr(workshop, "train", train)
    monkeypatch.setattr(sweep_module, "load_runs", lambda _: ["some"])
    one_each = dataclasses.replace(CONFIG, sweep=dataclasses.replace(CONFIG.sweep, together=1))
    with pytest.raises(Diverged, match="since step 1"):
        sweep(one_each, tmp_path, TWO._replace(seeds=2))
    done = [name for name, _ in workshop.of("evaluation")]
    assert done == ["smoothing_0.1_seed_1", "smoothing_0.0_seed_2", "smoothing_0.1_seed_2"]
    assert (tmp_path / "report.html").exists() and "the others are compared" in caplog.text


def test_a_plan_without_a_title_is_reported_without_one(reported):
    folder, _, given = reported
    assert "On test, ε = 0.1 scored +0.10 BLEU" in sweep_module.report(folder)
    assert given["title"] == ""
    assert given["protocol"]["subwords"] == "99 unigram"
    assert given["protocol"]["checkpoint rule"].startswith("average of the last 1")


def test_the_truth_is_split_into_words_as_the_runs_are(reported, monkeypatch):
    folder, report, _ = reported
    key = "evaluation.bleu_tokenize"
    plan = json.loads((folder / "plan.json").read_text())
    for entry in plan["runs"]:
        name = "char" if entry["seed"] == 2 else "13a"
        entry["settings"] = {key: name}
        split = dataclasses.replace(CONFIG.evaluation, bleu_tokenize=name)
        save_config(
            dataclasses.replace(CONFIG, evaluation=split), folder / entry["run"] / "config.yaml"
        )
    (folder / "plan.json").write_text(json.dumps(plan))
    truths = {
        name: {"bleu_oracle": bleu, "sentences_in_all": 9}
        for name, bleu in (("13a", 80.0), ("char", 95.0))
    }
    monkeypatch.setattr(
        sweep_module, "truth_of", lambda config, _: {"test": truths[bleu_tokenizer(config)]}
    )
    given = []
    monkeypatch.setattr(
        "nmt_ls.study.report.write_report",
        lambda _, comparison, *__, **___: given.append(comparison),
    )
    report()
    found = {block["settings"][key]: block["truth"] for block in given[0]["tests"].values()}
    assert found == truths


def test_a_sweep_without_a_test_set_is_refused(workshop, tmp_path):
    config = dataclasses.replace(CONFIG, data=dataclasses.replace(CONFIG.data, tests={}))
    with pytest.raises(UserError, match=r"data\.tests is empty"):
        sweep(config, tmp_path / "sweep", TWO)
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--grid", "model.dropot=0"], "did you mean model.dropout?"),
        (["--grid", "model.dropout="], "--grid model.dropout=: no value"),
        (["--shard", "3/2"], "--shard 3/2: write 1/8"),
        (["--shard", "1/2", "--only", "x"], "--shard and --only exclude each other"),
        (["--smoothing", "1.5"], "--smoothing 1.5 is outside [0, 1]"),
        (["--smoothing", "-1", "--set", "loss.kind=confidence_penalty"], "is outside [0, inf]"),
        (["--smoothing", "nan"], "--smoothing nan is outside [0, 1]"),
    ],
)
def test_a_wrong_call_ends_in_plain_words(options, message, tmp_path, capsys):
    save_config(CONFIG, tmp_path / "config.yaml")
    call = ["sweep", str(tmp_path / "config.yaml"), "--run-dir", str(tmp_path / "sweep")]
    assert main([*call, *options]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") <= 2
    assert not (tmp_path / "sweep").exists()


# --- in earnest ----------------------------------------------------------------------------------

SETTINGS = {
    "data": {
        "train": {"source": "train.en", "target": "train.de"},
        "tests": {
            "test": {"source": "test.en", "target": "test.de"},
            "other": {"source": "train.en", "target": "train.de", "size": 20},
        },
        "max_length": 16,
        "pretokenized": True,
    },
    "model": {
        "encoder_layers": 1, "decoder_layers": 1, "width": 16, "heads": 2, "feed_forward": 32,
    },
    "loss": {"kind": "generalized_entropy"},
    "training": {
        "max_steps": 18, "batch_tokens": 64, "shapes": 1, "warmup_steps": 2, "devices": 1,
        "log_every": 1, "validate_every": 0, "checkpoint_every": 3, "keep_last": 2,
        "average_last": 2,
    },
    "decoding": {"beam": 1, "batch_sentences": 8},
    "evaluation": {"fit": False, "empty": False},
    # One after the other: what is killed in the second must leave the first alone.
    "sweep": {
        "smoothing": [0, 1.5], "seeds": 1, "grid": {"model.dropout": [0.2]}, "together": 1,
    },
}  # fmt: skip

NAMES = [f"model.dropout=0.2__smoothing_{beta}_seed_1" for beta in (0.0, 1.5)]


@pytest.fixture
def config_file(tmp_path):
    for name, count, seed in (("train", 80, 0), ("test", 8, 1)):
        texts = zip(*sentence_pairs(count, seed), strict=True)
        for language, text in zip(("en", "de"), texts, strict=True):
            (tmp_path / f"{name}.{language}").write_text("\n".join(text) + "\n")
    tree = {**SETTINGS, "data": {**SETTINGS["data"], "root": str(tmp_path)}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tree))
    return tmp_path / "config.yaml"


def kill_when(call: list[str], path: Path, pattern: str) -> None:
    """Start a sweep in a process of its own, and kill it once something of that name is there."""
    process = subprocess.Popen(
        [sys.executable, "-m", "nmt_ls.cli", *call],
        cwd=Path(__file__).parent.parent,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    limit = time.monotonic() + 1200
    while not list(path.glob(pattern)):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < limit
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def state_of(folders: list[Path]) -> dict[Path, int]:
    """When each of their files was last written."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return {path: path.stat().st_mtime_ns for path in files}


def test_a_sweep_of_beta_killed_twice_gives_the_same_results(config_file, tmp_path, capsys):
    """SIGKILL while the second run is trained, and while it is evaluated."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    call = ["sweep", str(config_file), "--run-dir"]
    assert main([*call, str(whole), "--shard", "1/1"]) == 0
    first, second = (broken / name for name in NAMES)

    kill_when([*call, str(broken)], broken, f"{NAMES[1]}/checkpoints/6")
    assert not (second / "results.json").exists()
    before = state_of([first])
    assert first / "results.json" in before

    kill_when([*call, str(broken)], second, "results.json")
    assert list(json.loads((second / "results.json").read_text())) == ["other"]
    trained = state_of([second / "checkpoints"])
    assert state_of([first]) == before

    capsys.readouterr()
    assert main([*call, str(broken)]) == 0
    told = capsys.readouterr().err
    assert NAMES[0] not in told and f"training {NAMES[1]}" not in told
    assert state_of([first]) == before
    assert state_of([second / "checkpoints"]) == trained
    assert (broken / "results.csv").read_text() == results_csv(load_runs(whole))
    assert read_plan(broken) == read_plan(whole)
    for name, beta in zip(NAMES, (0.0, 1.5), strict=True):
        lines = (broken / name / "metrics.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        assert [record["step"] for record in records] == list(range(1, 19))
        assert {record["beta"] for record in records} == {beta}
    report = (broken / "report.md").read_text()
    assert "| run | β | seed | settings | test set |" in report
    assert "| 1.5 | 1 | model.dropout=0.2 | test |" in report
    assert "| β | loss.beta of generalized_entropy |" in report
    texts = [p for p in broken.rglob("*") if p.suffix in (".md", ".html", ".tex", ".svg")]
    assert not [path.name for path in texts if "ε" in path.read_text()]
