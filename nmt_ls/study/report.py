"""A sweep's report: comparison.json, results.csv, report.md, report.html and figures/."""

import json
import os
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from nmt_ls.errors import UserError
from nmt_ls.study import figures
from nmt_ls.study.comparison import Run
from nmt_ls.study.grid import words_of
from nmt_ls.study.wording import key, number, results_csv, sentence, table, table_rows

TEMPLATES = Path(__file__).parent / "templates"


def load_runs(sweep_dir: Path) -> list[Run]:
    """The finished runs of a sweep, in the order of its plan.json.

    A run is finished when it has a results.json. In its `translations/`, a test set's `NAME.txt`
    (one line per sentence) is read where `NAME.references.json` (a list of references per
    sentence) stands beside it; `NAME.source.txt` is read too where it is there.

    Raises:
      UserError: no plan.json, or a file that is not what it should be.
    """
    runs = []
    for planned in _plan(sweep_dir):
        directory = sweep_dir / planned["run"]
        if not (directory / "results.json").exists():
            continue
        run: Run = {name: planned[name] for name in ("label_smoothing", "seed", "run")}
        run |= {"settings": planned.get("settings", {})}
        run |= {"results": _read_json(directory / "results.json")}
        run |= {"translations": {}, "references": {}, "sources": {}}
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
        if (directory / "environment.json").exists():
            run["environment"] = _read_json(directory / "environment.json")
        runs.append(run)
    return runs


def write_report(
    sweep_dir: Path, comparison: dict, runs: Sequence[Run], *, title: str, protocol: dict
) -> None:
    """Write everything a reader of the sweep needs; each file is whole or not there.

    Args:
      sweep_dir: where the files go; plan.json there says which runs are missing, and the runs'
        metrics.jsonl hold the learning curves.
      comparison: what `comparison.compare` made of `runs`.
      runs: the finished runs, as from `load_runs`.
      title: the experiment's name.
      protocol: how it was done (steps, checkpoint rule, devices, …), printed as it is; nested
        dicts print as `a.b`. Decoding, checkpoint and versions are added from the runs.
    """
    sweep_dir = Path(sweep_dir)
    curves: dict[str, list[list[dict]]] = {}
    for run in sorted(runs, key=lambda run: (run["label_smoothing"], run["seed"])):
        records = _records(sweep_dir / run["run"] / "metrics.jsonl")
        curves.setdefault(key(run["label_smoothing"]), []).append(records)
    pictures = []
    for name, (caption, figure) in figures.draw_all(comparison, curves).items():
        document = figures.svg(figure)
        _write(sweep_dir / "figures" / f"{name}.svg", document)
        _write(sweep_dir / "figures" / f"{name}.png", figures.png(figure))
        # What matplotlib wrote is markup; its texts were escaped there.
        inline = Markup(figures.inline(document, name, caption))
        pictures.append({"name": name, "caption": caption, "svg": inline})
    done = {run["run"] for run in runs}
    plan = _plan(sweep_dir) if (sweep_dir / "plan.json").exists() else []
    content = {
        "title": title or sweep_dir.resolve().name,
        "tests": [
            {
                "name": test,
                "sentence": sentence(comparison, test),
                "rows": table_rows(comparison, test),
                "markdown": table(comparison, test, "pipe"),
                "examples": _examples(comparison, runs, test),
            }
            for test in comparison["tests"]
        ],
        "pictures": pictures,
        "missing": [entry["run"] for entry in plan if entry["run"] not in done],
        "varied": _are_varied(runs),
        "runs": _runs_table(runs),
        "protocol": _protocol(comparison, runs, protocol),
        "command": f"nmt-ls report {shlex.quote(str(sweep_dir))}",
    }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=lambda name: name is not None and name.endswith(".html"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = _markdown_cell
    _write(
        sweep_dir / "comparison.json",
        json.dumps(comparison, indent=2, ensure_ascii=False, allow_nan=False) + "\n",
    )
    _write(sweep_dir / "results.csv", results_csv(runs))
    for name in ("report.md", "report.html"):
        _write(sweep_dir / name, environment.get_template(name).render(content))


def _examples(comparison: dict, runs: Sequence[Run], test: str) -> list[dict]:
    """The texts of the sentences that the comparison picked."""
    examples = []
    for chosen in comparison["tests"][test]["examples"]:
        i, outputs = chosen["sentence"], []
        of_seed = {
            key(run["label_smoothing"]): run for run in runs if run["seed"] == chosen["seed"]
        }
        for epsilon, chrf in chosen["chrf"].items():
            text = of_seed[epsilon]["translations"][test][i]
            outputs.append((f"ε = {float(epsilon):g}", text, f"{number(chrf, 1)}"))
        run = next(iter(of_seed.values()))
        source = run.get("sources", {}).get(test)
        examples.append(
            {
                "sentence": i + 1,
                "seed": chosen["seed"],
                "source": source[i] if source else None,
                "references": run["references"][test][i],
                "outputs": outputs,
            }
        )
    return examples


def _runs_table(runs: Sequence[Run]) -> list[list[str]]:
    """One row per run and test set; the settings of a grid after the seed, where there are any."""
    varied = _are_varied(runs)
    rows = []
    for run in sorted(runs, key=lambda run: (run["label_smoothing"], run["seed"])):
        for test, results in run["results"].items():
            cells = [run["run"], f"{run['label_smoothing']:g}", str(run["seed"])]
            cells += [words_of(run.get("settings", {}))] if varied else []
            cells.append(test)
            for measure in ("bleu", "chrf", "ter", "perplexity"):
                cells.append(number(results.get(measure)))
            cells += [number(results.get("ece"), 4), number(results.get("accuracy"), 4)]
            rows.append(cells)
    return rows


def _are_varied(runs: Sequence[Run]) -> bool:
    """Whether the sweep has a grid."""
    return any(run.get("settings") for run in runs)


def _protocol(comparison: dict, runs: Sequence[Run], protocol: dict) -> list[tuple[str, str]]:
    """What the caller says, then what the runs say of themselves; all that differs is listed."""
    rows = list(_flatten("", protocol))
    for name in ("checkpoint", "decode"):
        found = _distinct(
            results[name] for run in runs for results in run["results"].values() if name in results
        )
        if found and name not in protocol:
            rows.append((name, found))
    for metric in ("bleu", "chrf", "ter"):
        found = _distinct(
            signature
            for result in comparison["tests"].values()
            for signature in result["signatures"][metric]
            if signature
        )
        if found:
            rows.append((f"{metric} signature", found))
    environments = [run["environment"] for run in runs if "environment" in run]
    for name in dict.fromkeys(name for found in environments for name in found):
        rows.append((name, _distinct(found[name] for found in environments if name in found)))
    return rows


def _flatten(prefix: str, values: dict) -> Iterable[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flatten(f"{prefix}{name}.", value)
        else:
            yield f"{prefix}{name}", _plain(value)


def _distinct(values: Iterable[Any]) -> str:
    return "; ".join(dict.fromkeys(map(_plain, values)))


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(item)}" for name, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_plain, value))
    return str(value)


def _markdown_cell(text: str) -> str:
    """Text that a Markdown table shows as it is."""
    # An underscore inside a word is no emphasis, and names read better without the backslash.
    text = re.sub(r"([\\`*\[\]<>|]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", text)
    return " ".join(text.split())


def _plan(sweep_dir: Path) -> list[dict]:
    path = sweep_dir / "plan.json"
    if not path.exists():
        raise UserError(f"{sweep_dir} has no plan.json: it is not a sweep's directory")
    return _read_json(path)["runs"]


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error})") from error


def _lines(path: Path) -> list[str]:
    # Only a line feed ends a line: a translation may hold any other separator that Unicode knows.
    text = path.read_bytes().decode("utf-8")
    return text.removesuffix("\n").split("\n") if text else []


def _records(path: Path) -> list[dict]:
    """metrics.jsonl, without a last line that a killed run left unfinished."""
    if not path.exists():
        return []
    records = []
    for line in _lines(path):
        try:
            records.append(json.loads(line))
        except ValueError:
            continue
    return records


def _write(path: Path, content: str | bytes) -> None:
    """Beside, then renamed: a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    beside.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    beside.replace(path)
