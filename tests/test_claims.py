"""docs/claims.md: its configurations, and the tables that scripts/claims makes of their sweeps."""

import csv
import importlib.machinery
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from nmt_ls.config_files import load_config
from nmt_ls.study.grid import combinations, run_name

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "configs" / "claims").glob("*.yaml"))


def load(name: str) -> ModuleType:
    """A script of ours as a module."""
    loader = importlib.machinery.SourceFileLoader(name, str(ROOT / "scripts" / name))
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where its named tuples look their annotations up
    loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def claims() -> ModuleType:
    return load("claims")


def cells_of(path: Path) -> set[tuple[float, tuple[tuple[str, str], ...], str]]:
    """(ε or β, the grid's settings, the run's name) of each run of a configuration's sweep."""
    config = load_config(path)
    return {
        (strength, tuple(sorted((k, str(v)) for k, v in settings.items())),
         run_name(strength, seed, settings))
        for settings in combinations(config, config.sweep.grid)
        for strength in config.sweep.smoothing
        for seed in range(1, config.sweep.seeds + 1)
    }  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_configuration_says_what_it_is_and_favours_no_epsilon(path):
    config = load_config(path)
    header = path.read_text(encoding="utf-8").split("\nname:")[0]
    for part in ("Claim", "Data:", "Expected:", "Cost:", "How sure:"):
        assert part in header, part
    assert f"configs/claims/{path.name} --run-dir checkpoints/claims/{path.stem}" in header
    assert config.training.patience == 0
    average = config.training.average_last * config.training.checkpoint_every
    assert 0 < average <= config.training.max_steps / 2
    assert cells_of(path)


def test_every_question_is_about_runs_that_a_configuration_makes(claims, tmp_path):
    asked = claims.rows()
    assert {row.claim for row in asked} == set(range(1, 16)) - {13}  # 13: nmt-ls bench loss
    for row in asked:
        path = ROOT / "configs" / "claims" / f"{row.sweep}.yaml"
        table = tmp_path / f"{row.sweep}.csv"
        if not table.exists():
            write_results(table, cells_of(path), ("bleu",))
        values = claims.read(table)
        pairs = [row.system, row.baseline, *(row.less[1:] if row.less else ())]
        for cell in pairs:
            assert set(values.get(cell, {})) == {1, 2, 3}, (row, cell)


def test_every_configuration_answers_a_question(claims):
    assert {path.stem for path in FILES} == {row.sweep for row in claims.rows()}


def write_results(path: Path, cells, measures, value=lambda strength, settings, seed: 1.0) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        keys = sorted({key for _, settings, _ in cells for key, _ in settings})
        writer = csv.DictWriter(file, ["label_smoothing", "seed", *keys, *measures])
        writer.writeheader()
        for strength, settings, name in sorted(cells):
            seed = int(name.rpartition("_")[2])
            row = {"label_smoothing": strength, "seed": seed, **dict(settings)}
            writer.writerow(row | {m: value(strength, dict(settings), seed) for m in measures})


def test_differences_and_verdicts_by_hand(claims, tmp_path):
    def bleu(strength, settings, seed):
        # Each width gains 1, 2 or 3 by smoothing, give or take 0.1 by the seed.
        gain = {"32": 1, "64": 2, "128": 3}[settings["model.width"]]
        return 20 + seed + bool(strength) * (gain + 0.1 * (seed - 2))

    path = ROOT / "configs" / "claims" / "size.yaml"
    (tmp_path / "size").mkdir()
    write_results(tmp_path / "size" / "results.csv", cells_of(path), ("bleu",), bleu)
    values = claims.read(tmp_path / "size" / "results.csv")
    asked = [row for row in claims.rows() if row.claim == 8]
    found = [claims.difference(row, values) for row in asked]
    assert [d["mean"] for d in found] == pytest.approx([1, 2, 3, 2])
    assert [d["n"] for d in found] == [3] * 4
    assert found[3]["sd"] == pytest.approx(0, abs=1e-12)  # the seeds' parts cancel
    # t = 1 / (0.1/√3), 2 degrees of freedom: p = 0.00331 (a table of Student's t).
    assert found[0]["p"] == pytest.approx(0.00331, abs=2e-5)
    text = claims.all_tables(tmp_path)
    section = text.split("### Claim 8")[1].split("### Claim 9")[0]
    assert "| +1.00 | +0.75 … +1.25 |" in section.replace("  ", " ").replace("  ", " ")
    # The claim has it that the small model loses.
    verdicts = [line.rsplit("|", 2)[1].strip() for line in section.splitlines() if "bleu" in line]
    assert verdicts == ["does not hold", "", "holds", "not resolved"]
    assert "`configs/claims/noise.yaml` has not been run." in text


def test_tables_are_put_in_their_place_and_nowhere_else(claims, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{claims.BEGIN}\nold\n{claims.END}\nafter\n", encoding="utf-8")
    script = [sys.executable, ROOT / "scripts" / "claims", tmp_path, "--write"]
    subprocess.run([*script, page], check=True)
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n") and text.endswith("\nafter\n")
    assert "old" not in text and "has not been run" in text
    page.write_text("no place\n", encoding="utf-8")
    done = subprocess.run([*script, page], capture_output=True, text=True)
    assert done.returncode == 1 and "no place for the tables" in done.stderr
    assert page.read_text(encoding="utf-8") == "no place\n"


def test_the_built_in_corpus_as_files(tmp_path, monkeypatch, capsys):
    script = load("write_phrasebook")

    def write(size: str) -> None:
        monkeypatch.setattr(sys, "argv", ["", str(tmp_path / "d" / "t"), "--size", size])
        script.main()

    for wrong in ("0", "-1", "1000000000000000"):
        with pytest.raises(SystemExit, match="2"):
            write(wrong)
    assert "at most" in capsys.readouterr().err
    assert not (tmp_path / "d").exists()
    write("20")
    lines = [(tmp_path / "d" / f"t.{side}").read_text(encoding="utf-8") for side in ("en", "de")]
    assert [text.count("\n") for text in lines] == [20, 20]
