"""What a sweep's runs have stored: results, translations, how sure they were, learning curves."""

import json
import math
from pathlib import Path
from typing import Any

from nmt_ls.errors import UserError
from nmt_ls.evaluation.completeness import read_results
from nmt_ls.study.comparison import Run
from nmt_ls.study.plan_file import read_plan


def load_runs(sweep_dir: Path) -> list[Run]:
    """The finished runs of a sweep, in the order of its plan.json.

    A run is finished when it has a results.json. In its `translations/`, a test set's `NAME.txt`
    (one line per sentence) is read where `NAME.references.json` (a list of references per
    sentence) stands beside it; `NAME.source.txt` and, from `NAME.jsonl`, the confidences are read
    too where they are there.

    Returns:
      Of each run what `comparison.compare` takes, `sources` by test set and `environment`.

    Raises:
      UserError: no plan.json, or a file that is not what it should be.
    """
    runs = []
    for planned in planned_runs(sweep_dir):
        directory = sweep_dir / planned["run"]
        if not (directory / "results.json").exists():
            continue
        run: Run = {name: planned[name] for name in ("label_smoothing", "seed", "run")}
        run |= {"settings": planned.get("settings", {})}
        run |= {"results": read_results(directory)}
        run |= {"translations": {}, "references": {}, "sources": {}, "confidences": {}}
        for test in run["results"]:
            text = directory / "translations" / f"{test}.txt"
            references = directory / "translations" / f"{test}.references.json"
            source = directory / "translations" / f"{test}.source.txt"
            if not (text.exists() and references.exists()):
                continue
            run["translations"][test] = _lines(text)
            run["references"][test] = _read_json(references)
            counts = len(run["translations"][test]), len(run["references"][test])
            if counts[0] != counts[1]:
                raise UserError(
                    f"{text} has {counts[0]} lines but there are {counts[1]} references; "
                    f"evaluate {planned['run']} again"
                )
            if source.exists():
                run["sources"][test] = _lines(source)
            details = read_details(text.with_suffix(".jsonl"))
            found = _confidences(details, run["translations"][test])
            if found is not None:
                run["confidences"][test] = found
        if (directory / "environment.json").exists():
            run["environment"] = _read_json(directory / "environment.json")
        runs.append(run)
    return runs


def planned_runs(sweep_dir: Path) -> list[dict]:
    """The runs of plan.json.

    Raises:
      UserError: there is none, or it is not a plan.
    """
    if not (sweep_dir / "plan.json").exists():
        raise UserError(f"{sweep_dir} has no plan.json: it is not a sweep's directory")
    return read_plan(sweep_dir)


def read_details(path: Path) -> list[dict]:
    """What `evaluate` stored of each sentence, as `evaluation.results.store_results` writes it;
    nothing where there is no such file.

    Raises:
      UserError: it is no JSON.
    """
    if not path.exists():
        return []
    try:
        return [json.loads(line) for line in _lines(path) if line]
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON lines ({error}); evaluate again") from error


def records_of(run_dir: Path) -> list[dict]:
    """metrics.jsonl, without a last line that a killed run left unfinished; empty without it."""
    path = run_dir / "metrics.jsonl"
    if not path.exists():
        return []
    records = []
    for line in _lines(path):
        try:
            records.append(json.loads(line))
        except ValueError:
            continue
    return records


def _confidences(details: list[dict], translations: list[str]) -> list[float] | None:
    """log p per token of each translation, as risk and coverage take it (`evaluation.evaluate`);
    None where the details are of other translations, or lack it."""
    if len(details) != len(translations):
        return None
    found = []
    for one, text in zip(details, translations, strict=True):
        if not {"translation", "log_prob", "token_log_probs"} <= one.keys():
            return None
        if one["translation"].split() != text.split():
            return None
        log_prob = -math.inf if one["log_prob"] is None else one["log_prob"]
        found.append(log_prob / max(len(one["token_log_probs"]), 1))
    return found


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error})") from error


def _lines(path: Path) -> list[str]:
    # Only a line feed ends a line: a translation may hold any other separator that Unicode knows.
    text = path.read_bytes().decode("utf-8")
    return text.removesuffix("\n").split("\n") if text else []
