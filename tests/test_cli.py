"""The command line end to end on a tiny model: every verb, exit statuses, bad input."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tiny import sentence_pairs

from nmt_ls import cli
from nmt_ls.cli import _VERBS, main
from nmt_ls.study.jobs import JobFailed
from nmt_ls.training.runs import load_params

SETTINGS = {
    "name": "tiny",
    "data": {
        "train": {"source": "train.en", "target": "train.de"},
        "validation": {"source": "valid.en", "target": "valid.de"},
        "tests": {"valid": {"source": "valid.en", "target": "valid.de"}},
        "max_length": 16,
        "pretokenized": True,
    },
    "model": {
        "encoder_layers": 1,
        "decoder_layers": 1,
        "width": 16,
        "heads": 2,
        "feed_forward": 32,
    },
    "training": {
        "max_steps": 6,
        "batch_tokens": 64,
        "shapes": 1,
        "warmup_steps": 2,
        "devices": 2,
        "log_every": 2,
        "validate_every": 3,
        "checkpoint_every": 2,
        "keep_last": 2,
        "average_last": 2,
    },
    "decoding": {"beam": 2, "batch_sentences": 8},
    "sweep": {"smoothing": [0, 0.1], "seeds": 1},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    for name, count, seed in (("train", 80, 0), ("valid", 8, 1)):
        texts = zip(*sentence_pairs(count, seed), strict=True)
        for language, text in zip(("en", "de"), texts, strict=True):
            (folder / f"{name}.{language}").write_text("\n".join(text) + "\n")
    settings = {**SETTINGS, "data": {**SETTINGS["data"], "root": str(folder)}}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    return folder


@pytest.fixture(scope="module")
def sweep_dir(folder):
    assert main(["sweep", str(folder / "config.yaml"), "--run-dir", str(folder / "sweep")]) == 0
    return folder / "sweep"


@pytest.fixture(scope="module")
def run_dir(sweep_dir):
    return sweep_dir / "smoothing_0.1_seed_1"


def refused(arguments, capsys) -> str:
    """The message of a call that must end in one or two plain lines and status 2."""
    assert main([str(a) for a in arguments]) == 2
    message = capsys.readouterr().err
    lines = [line for line in message.split("\n") if line and "training pairs" not in line]
    assert len(lines) <= 2
    assert "Traceback" not in message
    return message


def test_a_sweep_writes_what_the_contract_says(sweep_dir, folder, capsys):
    names = {"plan.json", "results.csv", "comparison.json", "report.html", "report.md", "figures"}
    assert names <= {p.name for p in sweep_dir.iterdir()}
    runs = json.loads((sweep_dir / "plan.json").read_text())["runs"]
    assert [(r["label_smoothing"], r["seed"]) for r in runs] == [(0.0, 1), (0.1, 1)]
    for run in runs:
        here = {p.name for p in (sweep_dir / run["run"]).iterdir()}
        wanted = (
            "config.yaml environment.json subwords.model metrics.jsonl checkpoints results.json"
        )
        assert set(wanted.split()) <= here
        config = yaml.safe_load((sweep_dir / run["run"] / "config.yaml").read_text())
        assert config["loss"]["label_smoothing"] == run["label_smoothing"]
        assert config["format_version"] == 1


def test_a_sweep_run_again_does_only_what_is_missing(sweep_dir, folder, capsys):
    before = {p: p.stat().st_mtime_ns for p in sweep_dir.glob("*/checkpoints/*/state/_METADATA")}
    calls = ["sweep", str(folder / "config.yaml"), "--run-dir", str(sweep_dir)]
    assert main([*calls, "--smoothing", "0", "0.1", "0.3"]) == 0
    table = capsys.readouterr().out
    assert re.search(r"^0\.3 ", table, re.MULTILINE)
    for path, when in before.items():
        assert path.stat().st_mtime_ns == when
    assert (sweep_dir / "smoothing_0.3_seed_1" / "results.json").exists()


def test_metrics_have_every_logged_step_once(run_dir):
    records = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records] == [2, 3, 4, 6]
    logged = [r for r in records if "loss" in r]
    assert all(r["label_smoothing"] == 0.1 and 0 < r["real_share"] <= 1 for r in logged)
    assert logged[-1]["compilations"] <= 8
    assert "validation_perplexity" in records[1] and "validation_bleu" in records[3]


def test_evaluate_prints_a_table_and_writes_json(run_dir, tmp_path, capsys):
    out = tmp_path / "found.json"
    assert main(["evaluate", str(run_dir), "--split", "valid", "--output", str(out)]) == 0
    printed = capsys.readouterr().out
    found = json.loads(out.read_text())["valid"]
    assert f"{found['perplexity']:.4f}" in printed
    assert found["bleu_signature"] in printed
    assert found["checkpoint"] == "average of 4, 6"
    stored = json.loads((run_dir / "results.json").read_text())["valid"]
    assert stored["perplexity"] == found["perplexity"]


def test_evaluate_files_and_checkpoints(run_dir, folder, capsys):
    calls = ["evaluate", str(run_dir), "--source", str(folder / "valid.en")]
    assert main([*calls, "--reference", str(folder / "valid.de"), "--checkpoint", "last"]) == 0
    assert "checkpoint: 6" in capsys.readouterr().out
    assert "choose best, last" in refused([*calls, "--reference", folder / "valid.de",
                                           "--checkpoint", "newest"], capsys)  # fmt: skip
    assert "go together" in refused(calls, capsys)


def test_translate_files_in_order(run_dir, folder, tmp_path):
    source, out = tmp_path / "in.txt", tmp_path / "out.txt"
    source.write_text("w01 w02\n\nw03\nw01 w02\n")
    assert main(["translate", str(run_dir), "--input", str(source), "--output", str(out)]) == 0
    lines = out.read_text().split("\n")
    assert len(lines) == 5 and lines[4] == ""
    assert lines[1] == "" and lines[0] == lines[3]
    two = ["translate", str(run_dir), "--input", str(source), "--output", str(out)]
    assert main([*two, "--n-best", "2", "--format", "jsonl"]) == 0
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert [r["source"] for r in records] == ["w01 w02", "", "w03", "w01 w02"]
    assert records[0]["n_best"][0]["translation"] == records[0]["translation"] == lines[0]
    assert len(records[0]["n_best"]) == 2
    assert main([*two, "--n-best", "2"]) == 0
    assert len(out.read_text().split("\n")) == 9


def test_an_ensemble_translates(sweep_dir, run_dir, tmp_path):
    (tmp_path / "in.txt").write_text("w01\n")
    arguments = ["--input", str(tmp_path / "in.txt"), "--output", str(tmp_path / "out.txt")]
    other = sweep_dir / "smoothing_0.0_seed_1"
    assert main(["translate", str(run_dir), str(other), *arguments]) == 0
    assert len((tmp_path / "out.txt").read_text().splitlines()) == 1


def test_score_gives_the_evaluation_nll(run_dir, folder, tmp_path, capsys):
    out = tmp_path / "scores.jsonl"
    assert main(["evaluate", str(run_dir), "--split", "valid"]) == 0
    arguments = ["--source", str(folder / "valid.en"), "--target", str(folder / "valid.de")]
    assert main(["score", str(run_dir), *arguments, "--output", str(out)]) == 0
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(records) == 8
    assert all(r["tokens"] == len(r["token_log_probs"]) for r in records)
    results = json.loads((run_dir / "results.json").read_text())["valid"]
    assert -sum(r["log_prob"] for r in records) == pytest.approx(results["nll_total"], rel=1e-6)
    assert sum(r["tokens"] for r in records) == results["tokens"]
    assert main(["score", str(run_dir), *arguments, "--output", str(out), "--alignment"]) == 0
    for aligned, record in zip(map(json.loads, out.read_text().splitlines()), records, strict=True):
        assert aligned["log_prob"] == record["log_prob"]
        assert len(aligned["alignment"]) == len(aligned["target_pieces"]) == record["tokens"]
        assert set(aligned["alignment"]) <= set(range(len(aligned["source_pieces"])))
    os.mkfifo(tmp_path / "pipe")
    arguments[1] = str(tmp_path / "pipe")
    assert "is a pipe, and score reads it twice" in refused(
        ["score", str(run_dir), *arguments], capsys
    )
    arguments[1] = str(tmp_path)
    assert f"{tmp_path}: Is a directory" in refused(["score", str(run_dir), *arguments], capsys)
    nowhere = ["compare", "a", "b", "--output", str(tmp_path / "no" / "x.json")]
    assert f"there is no folder {tmp_path / 'no'}; make it first" in refused(nowhere, capsys)


def test_average_and_report(run_dir, sweep_dir, capsys):
    assert main(["average", str(run_dir), "--last", "1"]) == 0
    assert capsys.readouterr().out == "averaged 6\n"
    assert main(["average", str(run_dir), "--last", "2"]) == 0
    assert main(["report", str(sweep_dir)]) == 0
    assert "ΔBLEU" in capsys.readouterr().out


def test_a_fine_tuning_starts_from_a_run(run_dir, folder, tmp_path, capsys):
    new = tmp_path / "fine"
    arguments = ["train", str(folder / "config.yaml"), "--run-dir", str(new)]
    arguments += ["--set", f"training.init_from={run_dir}", "--set", "data.train.size=40"]
    assert main([*arguments, "--set", "training.learning_rate=1e-9"]) == 0
    start, _ = load_params(run_dir)
    end, _ = load_params(new, "last")
    for name, value in start.items():
        assert abs(value - end[name]).max() < 1e-6  # it began there, and hardly moved
    assert (new / "subwords.model").read_bytes() == (run_dir / "subwords.model").read_bytes()
    arguments[3] = str(tmp_path / "wide")
    capsys.readouterr()
    assert "keeps the model's shape" in refused([*arguments, "--set", "model.width=32"], capsys)
    assert not (tmp_path / "wide").exists()


def test_tensorboard_is_an_extra(folder, tmp_path, capsys, monkeypatch):
    arguments = ["train", folder / "config.yaml", "--run-dir", tmp_path / "run"]
    arguments += ["--set", "training.tensorboard=true"]
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    assert "pip install tensorboardX" in refused(arguments, capsys)


@pytest.mark.parametrize("verb", ["translate", "evaluate"])
def test_sigterm_ends_with_143(verb, capsys, monkeypatch):
    monkeypatch.setitem(cli._VERBS, verb, lambda _: os.kill(os.getpid(), signal.SIGTERM))
    assert main([verb, "run"]) == 143
    assert capsys.readouterr() == ("", "")


def test_help_lists_defaults(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["translate", "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert "((5+n)/6)^alpha" in text and "--n-best" in text
    assert "(default: 1)" in text and "None" not in text and "default: )" not in text
    with pytest.raises(SystemExit):
        main(["sweep", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "default: sweep.smoothing" in text and "default: sweep.grid" in text
    assert main(["settings"]) == 0
    assert "training.batch_tokens" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["training.max_stepz=3"], "did you mean training.max_steps"),
        (["model.dropout=1.5"], "model.dropout"),
        (["data.train.source=nowhere.en"], "nowhere.en"),
        (["training.batch_tokens=8"], "training.batch_tokens=8 cannot hold"),
        (["data.pretokenized=false", "subwords.vocab_size=100000"], "subwords.vocab_size=100000"),
    ],
)
def test_bad_settings_write_nothing(folder, tmp_path, capsys, settings, words):
    arguments = ["train", folder / "config.yaml", "--run-dir", tmp_path / "run"]
    for setting in settings:
        arguments += ["--set", setting]
    assert words in refused(arguments, capsys)
    assert not (tmp_path / "run").exists()


def test_text_that_cannot_be_used_is_named(folder, tmp_path, capsys):
    arguments = ["train", folder / "config.yaml", "--run-dir", tmp_path / "run"]
    (folder / "short.de").write_text("w01\n")
    assert "80" in refused([*arguments, "--set", "data.train.target=short.de"], capsys)
    (folder / "bad.de").write_bytes(b"w01\n" * 3 + b"\xff\n" + b"w01\n" * 76)
    message = refused([*arguments, "--set", "data.train.target=bad.de"], capsys)
    assert "bad.de" in message and "line 4" in message
    (folder / "empty.de").write_text("")
    assert "empty.de" in refused([*arguments, "--set", "data.train.target=empty.de"], capsys)


def test_a_run_of_another_configuration_is_refused(run_dir, folder, capsys):
    message = refused(
        ["train", folder / "config.yaml", "--run-dir", run_dir, "--set", "model.width=32"], capsys
    )
    assert "model.width is 16 there and 32 here" in message


def test_settings_without_effect_are_told_once(folder, tmp_path, capsys):
    unused = ["--set", "training.final_learning_rate=1e-5", "--set", "data.train.source=none.en"]
    told = "training.final_learning_rate=1e-05 has no effect with training.schedule=inverse_sqrt\n"
    for verb, more in (("train", []), ("sweep", ["--seeds", "2"])):
        call = [verb, folder / "config.yaml", *unused, *more, "--run-dir"]
        assert refused([*call, tmp_path / "run"], capsys).startswith(f"{told}nmt-ls: ")
    read = [*call, tmp_path / "grid", "--grid", "training.schedule=inverse_sqrt,linear"]
    assert "has no effect" not in refused(read, capsys)


TRAIN = ["train", "nowhere.yaml", "--run-dir", "x"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["translate", "nowhere"], "nowhere is not a run directory"),
        (["report", "nowhere"], "nowhere"),
        (
            ["evaluate", "x", "--split", "test", "--source", "a", "--reference", "b"],
            "--split is a test set of the run",
        ),
        (["train", "nowhere.yaml", "--run-dir", "x"], "nowhere.yaml"),
        (["dance"], "dance"),
        (["train"], "required"),
        ([*TRAIN, "--processes", "2", "--process", "1"], "need --coordinator"),
        ([*TRAIN, "--coordinator", "a:1", "--processes", "2"], "go together"),
        (
            [*TRAIN, "--coordinator", "a:1", "--processes", "2", "--process", "2"],
            "--process 2 of --processes 2: they count from 0",
        ),
        ([*TRAIN, "--coordinator", "nonsense"], "--coordinator nonsense: write host:port"),
    ],
)
def test_wrong_calls(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert words in refused(arguments, capsys)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("hosts", [["--distributed"], ["--coordinator", "localhost:1"]])
def test_hosts_that_nothing_names(hosts, folder, tmp_path, capsys):
    call = ["train", folder / "config.yaml", "--run-dir", tmp_path / "run", *hosts]
    assert "name --coordinator, --processes and --process on each" in refused(call, capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_said_in_a_line(number, monkeypatch, capsys):
    def settings(_):
        raise ValueError(f"RESOURCE_EXHAUSTED: Failed to write: {os.strerror(number)}")

    monkeypatch.setitem(_VERBS, "settings", settings)
    assert main(["settings"]) == 1
    assert capsys.readouterr().err.startswith("nmt-ls: no space left on the disk")


def test_a_bad_line_does_not_lose_the_others(run_dir, tmp_path, capsys):
    out = tmp_path / "out.txt"
    call = ["translate", run_dir, "--input", tmp_path / "in.txt", "--output", out]
    (tmp_path / "in.txt").write_bytes(b"w01\n  \nw02 \x00\x07w03\n\xff\xfe\nw02\n")
    assert "line 4: not UTF-8" in refused(call, capsys)
    found = out.read_text().split("\n")
    (tmp_path / "in.txt").write_bytes(b"w01\n\n\nw02\n")
    assert main([str(x) for x in call]) == 0
    alone = out.read_text().split("\n")
    assert len(found) == 6
    assert found[1] == found[3] == ""  # only spaces; not UTF-8
    assert [found[0], found[4]] == [alone[0], alone[3]]


def test_long_lines_are_counted(run_dir, tmp_path, capsys):
    (tmp_path / "in.txt").write_text("w01 " * 2500 + "\nw02\n")  # 10,000 characters
    out = tmp_path / "out.txt"
    call = ["translate", run_dir, "--input", tmp_path / "in.txt", "--output", out, "--beam", "1"]
    assert main([str(x) for x in [*call, "--set", "decoding.max_source_length=20"]]) == 0
    assert "1 longer than 20 tokens" in capsys.readouterr().err
    assert len(out.read_text().split("\n")) == 3


def test_as_a_program_reading_standard_input(run_dir):
    """The installed entry point: stdin to stdout, nothing else there."""
    done = subprocess.run(
        [sys.executable, "-m", "nmt_ls.cli", "translate", str(run_dir), "--beam", "1"],
        input="w01 w02\n\n",
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent,
        env={**os.environ, "PYTHONUTF8": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split("\n")) == 3
    assert done.stdout.split("\n")[1] == ""


def test_strategies_and_distributions(run_dir, tmp_path):
    (tmp_path / "in.txt").write_text("w01 w02\n\nw03 w04\n")
    out = tmp_path / "out.jsonl"
    call = ["translate", str(run_dir), "--input", str(tmp_path / "in.txt"), "--output", str(out)]
    found = {}
    for options in (
        ("--strategy", "sample", "--temperature", "0.9", "--set", "decoding.top_p=0.9"),
        ("--strategy", "mbr", "--set", "decoding.samples=4"),
        ("--unmix", "exact"),
        ("--prefix", "w05"),
    ):
        assert main([*call, "--format", "jsonl", *options]) == 0
        records = [json.loads(line) for line in out.read_text().splitlines()]
        assert [r["source"] for r in records] == ["w01 w02", "", "w03 w04"]
        assert records[0]["log_prob"] == pytest.approx(sum(records[0]["token_log_probs"]), 1e-4)
        found[options[1]] = records
    assert found["w05"][0]["translation"].startswith("w05")
    assert main([*call, "--format", "jsonl", "--unmix", "0.05"]) == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--unmix", "much"], "--unmix much"),
        (["--set", "model.width=32"], "only decoding and evaluation"),
        (["--set", "decoding.top_k=3"], "decoding.top_k=3 has no effect"),
        (["--strategy", "sample", "--prefix", "w01"], "a prefix is for beam search"),
        (["--strategy", "mbr", "--beam", "3"], "decoding.beam=3 has no effect"),
        (
            ["--set", "decoding.strategy=sample", "--set", "decoding.length_alpha=0.5"],
            "decoding.length_alpha=0.5 has no effect with decoding.strategy=sample",
        ),
        (["--temperature", "0"], "decoding.temperature"),
    ],
)
def test_decoding_settings_that_do_not_go_together(run_dir, options, words, capsys, tmp_path):
    (tmp_path / "in.txt").write_text("w01 w02\n")
    call = ["translate", run_dir, "--input", tmp_path / "in.txt"]
    assert words in refused([*call, *options], capsys)


def test_evaluate_fits_on_validation_and_breaks_down(run_dir, folder, capsys):
    call = ["evaluate", str(run_dir), "--frequencies", str(folder / "train.de")]
    assert main(call) == 0
    assert "Fitted on the validation set" in capsys.readouterr().out
    found = json.loads((run_dir / "results.json").read_text())["valid"]
    # The validation set is the test set here: no adjustment can be worse than none.
    for adjusted in found["adjusted"].values():
        assert adjusted["nll_per_token"] <= found["nll_per_token"] + 1e-6
    assert sum(b["sentences"] for b in found["by_source_length"]) == found["sentences"]
    assert found["by_word_frequency"]
    assert 0 <= found["risk_coverage"]["aurc"] <= 1
    assert 0 <= found["empty_better"] <= 1
    assert found["ece_ci95"][0] <= found["ece_ci95"][1]
    options = ["--set", "evaluation.fit=false", "--set", "evaluation.beams=[1, 8]"]
    assert main([*call[:2], *options]) == 0
    # The words of the run's own training text, where none other is named.
    again = json.loads((run_dir / "results.json").read_text())["valid"]
    assert again["by_word_frequency"] == found["by_word_frequency"]
    assert "Fitted" not in capsys.readouterr().out
    curve = json.loads((run_dir / "results.json").read_text())["valid"]["beam_curve"]
    assert [point["beam"] for point in curve] == [1, 8]
    assert curve[1]["mean_log_prob"] >= curve[0]["mean_log_prob"] - 1e-5


def test_a_sweep_in_several_processes(folder, tmp_path, capfd):
    sweep = tmp_path / "sweep"
    call = ["sweep", str(folder / "config.yaml"), "--run-dir", str(sweep), "--jobs", "2"]
    call += ["--set", "training.max_steps=2", "--set", "evaluation.fit=false"]
    assert main(call) == 0
    out, err = capfd.readouterr()
    assert re.search(r"^0\.1 ", out, re.MULTILINE)
    assert "[smoothing_0.1_seed_1] smoothing_0.1_seed_1: valid: BLEU " in err
    assert "is done; 1 of 2 done, about " in err
    written = {p.name for p in sweep.glob("smoothing_*")}
    assert written == {"smoothing_0.0_seed_1", "smoothing_0.1_seed_1"}
    # One that fails says why, once, and its status is the sweep's.
    wrong = [*call[:4], "--jobs", "2", "--set", "model.width=32"]
    assert main(wrong) == 2
    assert "belongs to another configuration" in capfd.readouterr().err


def test_one_run_of_a_sweep(sweep_dir, folder, capsys):
    call = ["sweep", folder / "config.yaml", "--run-dir", sweep_dir]
    assert main([*map(str, call), "--only", "smoothing_0.0_seed_1"]) == 0
    assert capsys.readouterr().out == ""
    assert "--only x: the plan has smoothing_0.0_seed_1" in refused([*call, "--only", "x"], capsys)
    assert "--jobs 0" in refused([*call, "--jobs", "0"], capsys)


@pytest.mark.parametrize(
    ("status", "ours"), [(1, 1), (2, 2), (143, 143), (-15, 143), (-2, 130), (-9, 1)]
)
def test_the_status_of_a_sweep_whose_job_ended_badly(status, ours, monkeypatch) -> None:
    def failed(_):
        raise JobFailed("a", status)

    monkeypatch.setitem(_VERBS, "settings", failed)
    assert main(["settings"]) == ours
