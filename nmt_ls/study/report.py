"""A sweep's report: comparison.json, results.csv, table.tex, report.md, report.html, figures/."""

import json
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from nmt_ls.study import figures
from nmt_ls.study.comparison import Run
from nmt_ls.study.examples import examples
from nmt_ls.study.figures.blocks import blocks_of, pooled_blocks
from nmt_ls.study.grid import words_of
from nmt_ls.study.latex import latex_table
from nmt_ls.study.protocol import not_measured, protocol_rows
from nmt_ls.study.sections import SECTIONS
from nmt_ls.study.stored import planned_runs, records_of
from nmt_ls.study.strength import losses_of, symbol_of
from nmt_ls.study.wording import number, results_csv, sentence, table, table_rows

TEMPLATES = Path(__file__).parent / "templates"

MOST_INLINE = 3_500_000
"""Characters of figures in the page; what is beyond is only in figures/, so that the page opens
on a telephone."""


def write_report(
    sweep_dir: Path, comparison: dict, runs: Sequence[Run], *, title: str, protocol: dict
) -> None:
    """Write everything a reader of the sweep needs; each file is whole or not there.

    Args:
      sweep_dir: where the files go; plan.json there says which runs are missing, and the runs'
        metrics.jsonl hold the learning curves.
      comparison: what `comparison.compare` made of `runs`.
      runs: the finished runs, as from `stored.load_runs`.
      title: the experiment's name.
      protocol: how it was done (steps, checkpoint rule, devices, …), printed as it is; nested
        dicts print as `a.b`. Decoding, checkpoint and versions are added from the runs.
    """
    sweep_dir = Path(sweep_dir)
    records = {run["run"]: records_of(sweep_dir / run["run"]) for run in runs}
    pictures = figures.draw_all(comparison, runs, records)
    shown = _written_figures(sweep_dir / "figures", pictures)
    done = {run["run"] for run in runs}
    plan = planned_runs(sweep_dir) if (sweep_dir / "plan.json").exists() else []
    blocks = blocks_of(comparison, runs)
    together = {block.label for block in pooled_blocks(comparison)}
    drawn = {block.label for block in figures.blocks_to_draw(comparison, runs) if block.runs}
    losses = list(losses_of(comparison).values())
    content = {
        "title": title or sweep_dir.resolve().name,
        "overview": _overview(comparison, runs, protocol),
        **_findings(comparison),
        "tests": [
            {
                "name": block.label,
                "rows": table_rows(comparison, block.label),
                "markdown": table(comparison, block.label, "pipe"),
                "sentence": sentence(comparison, block.label) if together else "",
                # Of a large grid as much as is drawn of it: a page that a telephone can open.
                "examples": examples(sweep_dir, block) if block.label in drawn else [],
                "drawn": examples(sweep_dir, block, "drawn") if block.label in drawn else [],
            }
            for block in blocks
        ],
        "sections": [
            {"name": name, "heading": heading, "lead": lead, **_rows(shown[name], together)}
            for name, (heading, lead) in SECTIONS.items()
            if shown.get(name)
        ],
        "not_drawn": len(blocks) - len(drawn),
        "missing": [entry["run"] for entry in plan if entry["run"] not in done],
        "left_out": [block for block in comparison["pooled"].values() if block["left_out"]],
        "losses": losses,
        "symbol": symbol_of(losses),
        "varied": _are_varied(runs),
        "runs": _runs_table(runs),
        "protocol": protocol_rows(comparison, runs, protocol),
        "not_measured": not_measured(runs),
        "command": f"nmt-ls report {shlex.quote(str(sweep_dir))}",
    }
    _write(
        sweep_dir / "comparison.json",
        json.dumps(comparison, indent=2, ensure_ascii=False, allow_nan=False) + "\n",
    )
    _write(sweep_dir / "results.csv", results_csv(runs))
    _write(sweep_dir / "table.tex", _latex(comparison, content["command"]))
    environment = _environment()
    for name in ("report.md", "report.html"):
        _write(sweep_dir / name, environment.get_template(name).render(content))


def _written_figures(folder: Path, pictures: Sequence[figures.Picture]) -> dict[str, list[dict]]:
    """Write the figures; per section what the page needs of each."""
    shown: dict[str, list[dict]] = {}
    inline = 0
    taken: set[str] = set()
    for picture in pictures:
        name = picture.name
        # Labels such as a/b and a_b have one name; some file systems know no capital letters.
        if name.casefold() in taken:
            name = figures.hashed(name, picture.label)
        taken.add(name.casefold())
        document = figures.svg(picture.figure)
        _write(folder / f"{name}.svg", document)
        _write(folder / f"{name}.png", figures.png(picture.figure))
        inline += len(document)
        # What matplotlib wrote is markup; its texts were escaped there.
        markup = Markup(figures.inline(document, name, picture.caption))
        entry = {key: getattr(picture, key) for key in ("kind", "label", "caption", "wide")}
        entry["name"] = name
        entry["svg"] = markup if inline <= MOST_INLINE else None
        shown.setdefault(picture.section, []).append(entry)
    return shown


def _rows(pictures: Sequence[dict], together: set[str]) -> dict[str, list[list[dict]]]:
    """A section's figures in rows of which each holds what is looked at together.

    Returns:
      `rows`: what is pooled over test sets, then each kind that is not; `apart`: what was pooled,
      of each test set on its own.
    """
    whole = [picture for picture in pictures if picture["label"] in together]
    pooled = {picture["kind"] for picture in whole}
    kinds: dict[str, list[dict]] = {}
    for picture in pictures:
        if picture["label"] not in together:
            kinds.setdefault(picture["kind"], []).append(picture)
    if all(len(row) == 1 for row in kinds.values()):  # one test set: nothing to line up
        return {"rows": [list(pictures)], "apart": []}
    rows = [row for kind, row in kinds.items() if kind not in pooled]
    apart = [row for kind, row in kinds.items() if kind in pooled]
    return {"rows": [whole, *rows] if whole else rows, "apart": apart}


def _findings(comparison: dict) -> dict[str, Any]:
    """The headlines: of all test sets together where the comparison pools them, else of each."""
    pooled = comparison.get("pooled")
    whole = {**comparison, "tests": pooled} if pooled else comparison
    together = pooled_blocks(comparison)
    return {
        "findings": [sentence(whole, label) for label in whole["tests"]],
        "pooled": [
            {
                "name": block.label,
                "rows": table_rows(whole, label),
                "markdown": table(whole, label, "pipe"),
                "sentence": "",
            }
            for label, block in zip(whole["tests"], together, strict=False)
        ],
    }


def _overview(comparison: dict, runs: Sequence[Run], protocol: dict) -> str:
    """What was compared, in a line."""
    seeds = len({run["seed"] for run in runs})
    tests = len({block.get("test", label) for label, block in comparison["tests"].items()})
    sentences = {
        block.get("test", label): block.get("sentences")
        for label, block in comparison["tests"].items()
    }
    symbol = symbol_of(losses_of(comparison).values())
    parts = [
        str(protocol["languages"]) if "languages" in protocol else "",
        f"{symbol} = " + ", ".join(f"{value:g}" for value in comparison["smoothing"]),
        _count(seeds, "seed"),
        _count(tests, "test set"),
    ]
    if all(sentences.values()):
        parts[-1] += f" of {_count(sum(sentences.values()), 'sentence')}"
    return " · ".join(part for part in parts if part)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _latex(comparison: dict, command: str) -> str:
    note = "Means ± standard deviations over seeds; 95 % intervals of differences."
    head = f"% Made by: {command}\n% Needs \\usepackage{{booktabs}}\n"
    return head + "\n".join(latex_table(comparison, label, note) for label in comparison["tests"])


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=lambda name: name is not None and name.endswith((".html", ".css", ".js")),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = _markdown_cell
    environment.filters["unbroken"] = _unbroken
    return environment


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


def _unbroken(text: str) -> str:
    """Text whose lines do not end between a symbol and its value."""
    return re.sub(r"\b([εβp]) ([=<]) ", "\\1\N{NO-BREAK SPACE}\\2\N{NO-BREAK SPACE}", text)


def _markdown_cell(text: str) -> str:
    """Text that a Markdown table shows as it is."""
    # An underscore inside a word is no emphasis, and names read better without the backslash.
    text = re.sub(r"([\\`*\[\]<>|]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", text)
    return " ".join(text.split())


def _write(path: Path, content: str | bytes) -> None:
    """Beside, then renamed: a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    beside.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    beside.replace(path)
