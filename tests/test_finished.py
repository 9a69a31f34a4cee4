"""Which runs are finished, by what lies in their directories."""

import contextlib
import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from nmt_ls.config import Config, CorpusConfig, DataConfig, TrainingConfig
from nmt_ls.config_files import save_config
from nmt_ls.errors import UserError
from nmt_ls.evaluation.completeness import is_complete
from nmt_ls.evaluation.evaluate import validation_fingerprint
from nmt_ls.study import finished as finished_module
from nmt_ls.study import runs as runs_module
from nmt_ls.study.finished import is_evaluated, is_trained, outdated, to_average
from nmt_ls.study.runs import evaluate_run
from nmt_ls.training.checkpoints import Checkpoints, save_average
from nmt_ls.training.opening import is_over
from nmt_ls.training.progress import Progress
from nmt_ls.training.runs import average_of, load_params
from nmt_ls.training.trainer import finish

BOOK = CorpusConfig(kind="phrasebook", size=10)
CONFIG = Config(
    data=DataConfig(train=BOOK, tests={"test": BOOK, "other": BOOK}),
    training=TrainingConfig(max_steps=3, keep_last=1, average_last=1),
)

PIECES = SimpleNamespace(fingerprint="")


def checkpointed(
    run_dir: Path, config: Config, *steps: int, stopped: bool = False, best: int = 0
) -> None:
    """A run directory with checkpoints whose only parameter is the step; `best` validated best."""
    run_dir.mkdir()
    save_config(config, run_dir / "config.yaml")
    with contextlib.closing(Checkpoints(run_dir / "checkpoints")) as checkpoints:
        for step in steps:
            state = {"params": {"a": jnp.full(1, step, jnp.float32)}}
            progress = Progress(step=step, stopped=stopped, validations_without_best=int(stopped))
            if best:
                progress.validated = {str(s): 1.0 + (s != best) for s in steps if s <= step}
            checkpoints.save(step, state, progress.as_dict())


def averaging(last: int, max_steps: int = 6) -> Config:
    """Of runs with a checkpoint every third step."""
    training = dataclasses.replace(
        CONFIG.training, max_steps=max_steps, checkpoint_every=3, keep_last=5, average_last=last
    )
    return dataclasses.replace(CONFIG, training=training)


def store_average(run_dir: Path, steps: list[int]) -> None:
    """The mean of checkpoints made by `checkpointed`."""
    save_average(run_dir / "checkpoints", {"a": np.full(1, np.mean(steps), np.float32)}, steps)


@pytest.mark.parametrize("stopped", [False, True])
def test_early_stopping_ends_a_run(stopped, tmp_path):
    training = dataclasses.replace(
        CONFIG.training, max_steps=9, patience=1, validate_every=1, average_last=0
    )
    data = dataclasses.replace(CONFIG.data, validation=BOOK)
    config = dataclasses.replace(CONFIG, training=training, data=data)
    checkpointed(tmp_path / "run", config, 3, stopped=stopped)
    assert is_trained(tmp_path / "run", config) is stopped
    patient = dataclasses.replace(training, patience=2)
    assert not is_trained(tmp_path / "run", dataclasses.replace(config, training=patient))


@pytest.mark.parametrize(
    ("averaged", "average_last", "trained"),
    [
        ([], 2, False),
        ([3], 2, False),  # killed after step 6 and before it averaged
        ([3], 0, False),
        ([3, 6], 2, True),
        ([6], 2, True),  # by `nmt-ls average --last 1`
        ([3, 6], 0, True),
        ([], 0, True),
    ],
)
def test_training_ends_with_an_average_of_the_last(averaged, average_last, trained, tmp_path):
    run_dir, config = tmp_path / "run", averaging(average_last)
    checkpointed(run_dir, config, 3, 6)
    if averaged:
        store_average(run_dir, averaged)
    assert is_trained(run_dir, config) is trained
    finish(config, run_dir, moved=False)
    assert is_trained(run_dir, config)
    params, name = load_params(run_dir)
    expected = averaged if trained else [3, 6][:average_last]
    assert name == ("average of " + ", ".join(map(str, expected)) if expected else "6")
    assert params["a"] == (np.mean(expected) if expected else 6)
    aside = [p.name for p in (run_dir / "checkpoints").iterdir() if p.name.startswith("average-")]
    assert aside == (["average-of-3"] if averaged == [3] and not average_last else [])


def test_an_average_that_cannot_be_read_is_made_anew(tmp_path, caplog):
    training = dataclasses.replace(CONFIG.training, checkpoint_every=1)
    config = dataclasses.replace(CONFIG, training=training)
    checkpointed(tmp_path / "run", config, 2, 3)
    finish(config, tmp_path / "run", moved=False)
    (record,) = (tmp_path / "run" / "checkpoints" / "average" / "host").glob("metadata")
    record.write_bytes(record.read_bytes()[:5])
    assert not is_trained(tmp_path / "run", config)
    assert "average is damaged" in caplog.text
    finish(config, tmp_path / "run", moved=False)
    assert load_params(tmp_path / "run")[1] == "average of 3"


@pytest.fixture
def measured(monkeypatch):
    """Whatever was measured has all that is asked for; stores a checkpoint as that of all sets."""
    monkeypatch.setattr(finished_module, "Subwords", SimpleNamespace(load=lambda _: PIECES))
    monkeypatch.setattr(finished_module, "fingerprint_now", lambda *_: "now")
    monkeypatch.setattr(finished_module, "is_complete", lambda *_: True)

    def store(run_dir: Path, checkpoint: str, **more: object) -> None:
        found = {name: {"checkpoint": checkpoint, **more} for name in CONFIG.data.tests}
        (run_dir / "results.json").write_text(json.dumps(found))

    return store


def test_every_run_has_the_checkpoint_rule_of_its_configuration(measured, tmp_path, monkeypatch):
    """Whatever `nmt-ls average` or `nmt-ls evaluate` has made of one of them since."""
    run_dir, config = tmp_path / "run", averaging(2)
    checkpointed(run_dir, config, 3, 6)
    store_average(run_dir, [3, 6])
    for stored, right in (("average of 3, 6", True), ("average of 6", False), ("6", False)):
        measured(run_dir, stored)
        assert is_evaluated(run_dir, config) == right

    store_average(run_dir, [6])
    made = []
    monkeypatch.setattr(runs_module, "average_run", lambda _, last: made.append(last))
    monkeypatch.setattr(runs_module, "load_run", lambda _, checkpoint: made.append(checkpoint))
    monkeypatch.setattr(runs_module, "fitted_on_validation", lambda _: None)
    monkeypatch.setattr(runs_module, "training_sample", lambda _: None)
    monkeypatch.setattr(runs_module, "training_word_counts", lambda _: None)
    monkeypatch.setattr(runs_module, "test_sets", lambda _: [])
    evaluate_run(run_dir)
    assert made == [2, "average"]


def test_a_validation_text_that_is_gone_is_not_fitted_on_again(measured, tmp_path, monkeypatch):
    run_dir = tmp_path / "run"
    gone = CorpusConfig(source=str(tmp_path / "gone.en"), target=str(tmp_path / "gone.de"))
    data = dataclasses.replace(CONFIG.data, validation=gone)
    config = dataclasses.replace(averaging(0), data=data)
    checkpointed(run_dir, config, 6)
    with pytest.raises(UserError, match="gone.en"):
        validation_fingerprint(config, PIECES)
    monkeypatch.setattr(finished_module, "is_complete", is_complete)
    decode = dataclasses.asdict(config.decoding)
    held = {"decode": decode, "fingerprint": "now", "empty_better": 0, "by_word_frequency": {}}
    for fitted, whole in (({"adjusted": {}, "fitted_on": "then"}, True), ({}, False)):
        measured(run_dir, "6", **held, **fitted)
        assert is_evaluated(run_dir, config) is whole


@pytest.mark.parametrize(
    ("steps", "averaged", "last", "wanted"),
    [
        ([9], [3, 6, 9], 3, [3, 6, 9]),
        ([3, 9], [6, 9], 2, [6, 9]),  # in the middle
        ([6, 9], [6, 9], 3, [6, 9]),  # by `nmt-ls average --last 2`, but a third is gone
        ([3, 6, 9], [6, 9], 3, [3, 6, 9]),
        ([3, 6, 9], [3, 6, 9], 2, [6, 9]),
        ([3, 6, 9], [3, 6], 2, [6, 9]),  # continued
        ([3, 6, 9], [5, 7, 9], 3, [3, 6, 9]),  # not every third
        ([6, 9], [5, 7, 9], 3, [5, 7, 9]),
    ],
)
def test_an_average_stays_when_its_checkpoints_are_deleted(
    measured, tmp_path, steps, averaged, last, wanted
):
    run_dir, config = tmp_path / "run", averaging(last, max_steps=9)
    checkpointed(run_dir, config, 3, 6, 9)
    store_average(run_dir, averaged)
    for step in {3, 6, 9} - set(steps):
        # A damaged one is as good as deleted.
        (run_dir / "checkpoints" / str(step)).rename(run_dir / "checkpoints" / f"damaged-{step}")
    measured(run_dir, average_of(averaged))
    assert to_average(run_dir, config) == wanted
    assert is_evaluated(run_dir, config) is (averaged == wanted)


def test_translations_of_another_evaluation_are_measured_again(measured, tmp_path):
    run_dir, config = tmp_path / "run", averaging(2)
    checkpointed(run_dir, config, 3, 6)
    store_average(run_dir, [3, 6])
    measured(run_dir, "average of 3, 6", translations_sha256="0")
    assert is_evaluated(run_dir, config)
    (run_dir / "translations").mkdir()
    (run_dir / "translations" / "test.txt").write_text("Of another evaluation\n")
    assert not is_evaluated(run_dir, config)


@pytest.mark.parametrize("content", [b"", b'{"test": {', b"[]", b'{"test": 1}', b"\xff", b"\0" * 9])
def test_damaged_results_are_measured_again_and_named(measured, tmp_path, content):
    run_dir, config = tmp_path / "run", averaging(0)
    checkpointed(run_dir, config, 3, 6)
    measured(run_dir, "6")
    assert is_evaluated(run_dir, config)
    (run_dir / "results.json").write_bytes(content)
    assert not is_evaluated(run_dir, config)
    assert outdated(run_dir, config) == "results.json is damaged"


AVERAGE = "average of 3, 6"


@pytest.mark.parametrize(
    ("last", "stored", "right"),
    [(0, "6", "3"), (0, AVERAGE, "3"), (2, "average of 6", AVERAGE), (2, "6", AVERAGE)],
)
def test_what_was_measured_of_another_checkpoint_is_named(measured, tmp_path, last, stored, right):
    """By hand: `nmt-ls evaluate RUN --checkpoint 6`, or after `nmt-ls average RUN --last 1`."""
    run_dir, config = tmp_path / "run", averaging(last)
    checkpointed(run_dir, config, 3, 6, best=3)
    if last:
        store_average(run_dir, [3, 6])
    measured(run_dir, right)
    assert is_evaluated(run_dir, config) and outdated(run_dir, config) == ""
    measured(run_dir, stored)
    why = f"test was evaluated with checkpoint {stored}, not {right}"
    assert not is_evaluated(run_dir, config) and outdated(run_dir, config) == why


def test_a_best_checkpoint_that_was_deleted_stays_the_best(measured, tmp_path):
    run_dir, config = tmp_path / "run", averaging(0)
    checkpointed(run_dir, config, 3, 6, best=3)
    (run_dir / "checkpoints" / "3").rename(tmp_path / "3")
    # 6 is the best of what is there; 2 was never validated.
    for stored, right in (("3", True), ("6", True), ("2", False)):
        measured(run_dir, stored)
        assert is_evaluated(run_dir, config) is right
        assert (outdated(run_dir, config) == "") is right


def test_a_damaged_last_checkpoint_is_named(measured, tmp_path):
    run_dir, config = tmp_path / "run", averaging(0)
    checkpointed(run_dir, config, 3, 6, best=3)
    measured(run_dir, "3")
    for file in (run_dir / "checkpoints" / "6" / "host").iterdir():
        file.write_bytes(b"")
    assert "6 is damaged; `nmt-ls train` goes on" in outdated(run_dir, config)
    training = dataclasses.replace(config.training, patience=1, max_steps=9)
    stopping = dataclasses.replace(config, training=training)
    assert not is_over(run_dir, stopping)


@pytest.mark.parametrize(("last", "right", "wrong"), [(0, "3", AVERAGE), (2, AVERAGE, "3")])
def test_results_are_taken_without_checkpoints_to_compare(measured, tmp_path, last, right, wrong):
    checkpointed(tmp_path / "run", averaging(last))
    measured(tmp_path / "run", right)
    assert outdated(tmp_path / "run", averaging(last)) == ""
    measured(tmp_path / "run", wrong)
    assert f"checkpoint {wrong}, not the " in outdated(tmp_path / "run", averaging(last))
