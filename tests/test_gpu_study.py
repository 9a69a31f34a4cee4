"""The GPU study in pieces: one stage with the real command line, the rest with made-up results."""

import importlib.util
import json
from importlib.machinery import SourceFileLoader
from pathlib import Path

import pytest

from nmt_ls.bench.gpu import study as gpu
from nmt_ls.bench.gpu.device import device_of
from nmt_ls.bench.gpu.stages import Step, StepFailed
from nmt_ls.bench.gpu.targets import Row
from nmt_ls.config_files import load_config

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "gpu_study"


@pytest.fixture
def script(monkeypatch):
    loader = SourceFileLoader("gpu_study", str(SCRIPT))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    # Called here and not in a process of its own, it leaves ours as it was.
    monkeypatch.setattr(module.signal, "signal", lambda *_: None)
    monkeypatch.setattr(module, "device_of", lambda *_: ("gpu", "made-up GPU"))
    monkeypatch.chdir(SCRIPT.parents[1])
    return module


def test_one_stage_from_the_command_line_to_its_rows(script, tmp_path, capsys) -> None:
    arguments = ["--tiny", "--out", str(tmp_path), "--only", "reproduction", "--seconds", "600"]
    assert script.main(arguments) == 0, (tmp_path / "logs" / "reproduction.log").read_text()
    stored = json.loads((tmp_path / "reproduction.json").read_text())
    (row,) = stored["rows"]
    assert row["what"] == "BLEU of 2 seeds"
    assert row["met"] in (True, False)
    assert stored["tiny"]
    text = capsys.readouterr().out
    assert "reproduction" in text and text.count("unmeasured") == len(script.STAGES) - 1
    assert "its figures mean nothing" in text and "On: made-up GPU" in text
    # A stage that has its result is not begun again.
    (tmp_path / "steps" / "reproduction.json").unlink()
    assert script.main(arguments) == 0
    assert not (tmp_path / "steps" / "reproduction.json").exists()


def made_up(script, monkeypatch, **commands):
    """Each stage with one step that runs this Python code."""
    stages = {
        name: gpu.Stage(
            name,
            lambda study, name=name, code=code: [Step(name, [script.sys.executable, "-c", code])],
            lambda study, name=name: [Row(name, "1")],
        )
        for name, code in commands.items()
    }
    monkeypatch.setattr(script, "STAGES", stages)


def test_a_stage_that_fails_stops_no_other(script, tmp_path, monkeypatch, capsys) -> None:
    made_up(script, monkeypatch, first="1/0", second="")
    assert script.main(["--out", str(tmp_path)]) == 1
    told = capsys.readouterr()
    assert "first: status 1" in told.err
    assert "| first" in told.out and "unmeasured" in told.out
    assert not (tmp_path / "first.json").exists()
    assert (tmp_path / "second.json").exists()
    assert "ZeroDivisionError" in (tmp_path / "logs" / "first.log").read_text()
    assert "status 1" in (tmp_path / "first.failed").read_text()
    made_up(script, monkeypatch, first="", second="1/0")  # the second is not run again
    assert script.main(["--out", str(tmp_path)]) == 0
    assert not (tmp_path / "first.failed").exists()


def test_one_bench_that_fails_leaves_the_others(script, tmp_path, monkeypatch) -> None:
    codes = {"torch": "1/0", "marian": "", "training": "1/0", "after": ""}
    steps = [
        Step(name, [script.sys.executable, "-c", code], continues=name == "training")
        for name, code in codes.items()
    ]
    monkeypatch.setattr(script, "STAGES", {"a": gpu.Stage("a", lambda _: steps, lambda _: [])})
    assert script.main(["--out", str(tmp_path)]) == 1
    # What others build on is another matter.
    assert {path.stem for path in (tmp_path / "logs").iterdir()} == {"torch", "marian", "training"}


def one_step_a_call(script, monkeypatch) -> None:
    """Each call has time for one step."""
    run = script.Pieces.run

    def one_a_call(self, step):
        if self.begun and not self.is_done(step.name):
            raise script.OutOfTime
        run(self, step)

    monkeypatch.setattr(script.Pieces, "run", one_a_call)


def test_a_bench_that_fails_late_keeps_no_other_waiting(script, tmp_path, monkeypatch) -> None:
    """The loop of the documentation comes to its end."""
    codes = {"slow": "1/0", "torch": "1/0", "marian": ""}
    steps = [Step(name, [script.sys.executable, "-c", code]) for name, code in codes.items()]
    rows = [Row("what", "so far")]
    monkeypatch.setattr(script, "STAGES", {"a": gpu.Stage("a", lambda _: steps, lambda _: rows)})
    one_step_a_call(script, monkeypatch)
    statuses = [script.main(["--out", str(tmp_path)]) for _ in range(4)]
    assert statuses == [3, 3, 3, 1]
    assert "slow: status 1" in (tmp_path / "a.failed").read_text()
    assert not (tmp_path / "a.json").exists()
    assert "| a (unfinished)" in (tmp_path / "summary.md").read_text()


def test_a_step_that_never_ran_waits_for_no_other_stages_retry(
    script, tmp_path, monkeypatch
) -> None:
    stages = {}
    for name in ("base", "big"):
        steps = [
            Step(f"{name}_{peer}", [script.sys.executable, "-c", code])
            for peer, code in (("torch", "1/0"), ("marian", ""))
        ]
        stages[name] = gpu.Stage(name, lambda _, steps=steps: steps, lambda _: [])
    stages["unknown"] = gpu.Stage("", gpu.strategies_steps, gpu.strategies_rows)  # without a plan
    monkeypatch.setattr(script, "STAGES", stages)
    one_step_a_call(script, monkeypatch)
    statuses = [script.main(["--out", str(tmp_path)]) for _ in range(5)]
    assert statuses == [3, 3, 3, 3, 1]
    records = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "steps").iterdir()}
    assert {name for name, record in records.items() if record["done"]} == {
        "base_marian", "big_marian",
    }  # fmt: skip


def test_the_devices_of_a_stage_are_those_of_all_its_calls(script, tmp_path, monkeypatch) -> None:
    steps = [Step(name, [script.sys.executable, "-c", ""]) for name in ("first", "second")]
    monkeypatch.setattr(script, "STAGES", {"a": gpu.Stage("a", lambda _: steps, lambda _: [])})
    run = script.Pieces.run
    monkeypatch.setattr(script.Pieces, "run", _out_of_time(script, run, "second"))
    assert script.main(["--out", str(tmp_path)]) == 3
    monkeypatch.setattr(script.Pieces, "run", run)
    monkeypatch.setattr(script, "device_of", lambda *_: ("gpu", "another"))
    assert script.main(["--out", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "a.json").read_text())["device"] == "made-up GPU and another"


def test_a_peer_that_was_left_out_is_not_measured(tmp_path) -> None:
    study = gpu.Study(tmp_path, tiny=False)
    study.json_of("decode").write_text(json.dumps({"left_out": {"CTranslate2": "no cuBLAS"}}))
    (row,) = gpu.decode_rows("decode")(study)
    assert row.found == "left out: no cuBLAS" and row.met is False


def test_each_peer_of_training_in_a_step_of_its_own(script, tmp_path, monkeypatch) -> None:
    study = gpu.Study(tmp_path, tiny=False)
    monkeypatch.setattr(gpu, "installed", lambda: ["torch", "marian"])
    steps = list(gpu.train_steps("base")(study))
    assert [step.name for step in steps] == ["train_base_torch", "train_base_marian"]
    for step, peer in zip(steps, ("torch", "marian"), strict=True):
        assert step.command[step.command.index("--peers") + 1] == peer
        sides = [{"name": peer, "tokens_per_second": 2.0}]
        ratio = {"beside": peer, "ratio": 2.0, "wanted": 1.8}
        result = {"sides": sides, "ratios": [ratio], "products": {"efficiency": 0.5}}
        study.json_of(step.name).write_text(json.dumps(result))
        assert step.variables["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / "compiled")
    rows = list(gpu.train_rows("base")(study))
    assert [row.met for row in rows] == [None, True, None, True, False]
    study.json_of("train_base_marian").unlink()  # what there is is shown all the same
    rows = list(gpu.train_rows("base")(study))
    assert [row.met for row in rows] == [None, True, False, False]
    assert rows[2].what == "beside marian" and rows[2].found == "unmeasured"
    monkeypatch.setattr(gpu, "installed", list)
    (step,) = gpu.train_steps("base")(study)
    assert step.name == "train_base_alone" and step.command[-3] == "--peers"


def test_the_summary_has_what_is_measured_so_far(script, tmp_path) -> None:
    study = gpu.Study(tmp_path, tiny=False)
    pieces = script.Pieces(tmp_path, 60)

    def done(name, result):
        (tmp_path / "steps" / f"{name}.json").write_text('{"done": true}')
        study.json_of(name).write_text(json.dumps(result))

    def found(name):
        rows = script.rows_so_far(script.STAGES[name], study, pieces)
        return rows and [(row.what, row.found) for row in rows]

    assert found("loss") is None
    done("loss_big", {"ratios": [{"beside": "torch", "ratio": 0.5, "wanted": 1.0}]})
    assert found("loss") == [("base", "unmeasured"), ("big: ours / torch", "0.50")]
    assert found("strategies") is None  # without a plan
    entries = [
        {"run": run, "label_smoothing": 0, "seed": 1, "settings": {"model.dropout": 0.3}}
        for run in ("a", "b")
    ]
    study.study.mkdir()
    (study.study / "plan.json").write_text(json.dumps({"title": "", "runs": entries}))
    done("strategies_b", {"test": {"bleu": 2, "strategies": {"mbr": {"bleu": 1}}}})
    assert found("strategies") == [
        ("a", "unmeasured"),
        ("b, test: BLEU by mbr, by search", "1.00, 2.00"),
    ]
    study.tatoeba.mkdir()
    record = {"step": 10, "seconds": 5.0, "steps": 10, "target_tokens": 100}
    (study.tatoeba / "metrics.jsonl").write_text(json.dumps(record) + "\n")
    (tmp_path / "steps" / "tatoeba_train.json").write_text('{"done": true}')  # not evaluated yet
    assert found("tatoeba")[0] == ("steps until no better", "10") and len(found("tatoeba")) == 3


def test_one_gpu_and_no_cpu(script, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert script.one_gpu()["CUDA_VISIBLE_DEVICES"] == "0"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    assert script.one_gpu()["CUDA_VISIBLE_DEVICES"] == "3"
    monkeypatch.setattr(script, "device_of", device_of)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert script.main(["--out", str(tmp_path / "none")]) == 2
    assert "on the CPU here" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_what_has_failed_comes_last_in_the_next_call(script, tmp_path, monkeypatch) -> None:
    log = tmp_path / "log"
    note = f"open({str(log)!r}, 'a').write"
    made_up(script, monkeypatch, first=f"{note}('1'); 1/0", second=f"{note}('2'); 1/0")
    (tmp_path / "steps").mkdir()
    (tmp_path / "steps" / "first.json").write_text('{"failed": true}')
    assert script.main(["--out", str(tmp_path)]) == 1
    assert log.read_text() == "21"
    # Time that is over before the rest is done counts more than a failure …
    made_up(script, monkeypatch, first="1/0", third="")
    monkeypatch.setattr(script.Pieces, "run", _out_of_time(script, script.Pieces.run, "third"))
    assert script.main(["--out", str(tmp_path)]) == 3
    # … and one that is over while only failures are tried again does not, unless they get further.
    made_up(script, monkeypatch, first="1/0")
    monkeypatch.setattr(script.Pieces, "run", _out_of_time(script, script.Pieces.run, "first"))
    assert script.main(["--out", str(tmp_path)]) == 1
    stopped = script.Pieces.run

    def further(self, step):
        self.progressed = True
        stopped(self, step)

    monkeypatch.setattr(script.Pieces, "run", further)
    assert script.main(["--out", str(tmp_path)]) == 3


def test_a_call_whose_time_is_over_says_so(script, tmp_path, monkeypatch) -> None:
    made_up(script, monkeypatch, first="", second="import time; time.sleep(30)")
    monkeypatch.setattr(script.Pieces, "run", _out_of_time(script, script.Pieces.run, "second"))
    assert script.main(["--out", str(tmp_path)]) == 3
    assert (tmp_path / "first.json").exists()
    assert not (tmp_path / "second.json").exists()


def _out_of_time(script, run, name):
    def stopped(self, step):
        if step.name == name:
            raise script.OutOfTime
        run(self, step)

    return stopped


def test_a_rehearsal_is_not_taken_for_a_measurement(script, tmp_path, monkeypatch, capsys) -> None:
    rehearsed, measured = tmp_path / "rehearsed", tmp_path / "measured"
    made_up(script, monkeypatch, first="", second="1/0")
    assert script.main(["--out", str(rehearsed), "--tiny"]) == 1
    assert script.main(["--out", str(measured)]) == 1
    made_up(script, monkeypatch, first="", second="")
    assert script.main(["--out", str(rehearsed)]) == 2
    assert "rehearsal (--tiny)" in capsys.readouterr().err
    assert script.main(["--out", str(measured), "--tiny"]) == 2
    assert "holds measurements" in capsys.readouterr().err
    assert not (measured / "tiny.yaml").exists()
    for folder in (rehearsed, measured):  # nothing was run
        assert not (folder / "second.json").exists()
    (rehearsed / "first.json").unlink()  # only the steps are left
    assert script.main(["--out", str(rehearsed)]) == 2
    assert script.main(["--out", str(rehearsed), "--tiny"]) == 0
    assert script.main(["--out", str(measured)]) == 0


def test_a_bench_that_is_not_there_is_the_stages_error(script, tmp_path, monkeypatch) -> None:
    stage = script.STAGES["decode"]._replace(
        steps=lambda study: [study.bench("decode", "nothing", ())]
    )
    monkeypatch.setattr(script, "STAGES", {"decode": stage})
    assert script.main(["--out", str(tmp_path)]) == 1
    assert "nothing" in (tmp_path / "logs" / "decode.log").read_text()


def test_strategies_are_of_two_values_and_two_seeds(script, tmp_path) -> None:
    study = gpu.Study(tmp_path, tiny=False)
    with pytest.raises(StepFailed, match="study"):
        list(gpu.strategies_steps(study))
    entries = [
        {"run": f"e{e}_s{s}_d{d}", "label_smoothing": e, "seed": s,
         "settings": {"model.dropout": d}}
        for e in (0, 0.05, 0.1, 0.2) for s in (1, 2, 3) for d in (0, 0.3)
    ]  # fmt: skip
    study.study.mkdir()
    (study.study / "plan.json").write_text(json.dumps({"title": "", "runs": entries}))
    names = [step.name for step in gpu.strategies_steps(study)]
    assert names == [f"strategies_e{e}_s{s}_d0.3" for e in (0, 0.1) for s in (1, 2)]


def test_commands_name_configurations_that_load(script, tmp_path) -> None:
    study = gpu.Study(tmp_path, tiny=False)
    for path in study.configs.values():
        assert path.is_file()
    for stage in ("study", "reproduction", "time_to_quality", "tatoeba"):
        for step in script.STAGES[stage].steps(study):
            words = list(step.command)
            if words[3] not in ("train", "sweep"):
                continue
            overrides = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
            assert load_config(Path(words[4]), overrides).data.tests
            assert step.continues


def test_the_study_trains_what_hugging_face_can_hold(script, tmp_path) -> None:
    (train, _) = gpu.tatoeba_steps(gpu.Study(tmp_path, tiny=False))
    assert "model.norm=post" in train.command


def test_what_training_on_tatoeba_took(script, tmp_path) -> None:
    study = gpu.Study(tmp_path, tiny=False)
    study.tatoeba.mkdir()
    records = [
        {"step": 10, "seconds": 5.0, "steps": 10, "target_tokens": 100, "loss": None},
        {"step": 10, "validation_perplexity": None},
        {"step": 20, "seconds": 2.0, "steps": 5, "target_tokens": 40},
    ]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (study.tatoeba / "metrics.jsonl").write_text(lines)
    study.json_of("tatoeba").write_text('{"test": {"bleu": 1, "perplexity": 2}}')
    found = {row.what: row.found for row in gpu.tatoeba_rows(study)}
    assert found["seconds of training"] == "9"
    assert found["real target tokens/s of training"] == "20"


def test_the_list_and_wrong_calls(script, capsys) -> None:
    assert script.main(["--list"]) == 0
    assert "newstest2014" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        script.main([])
