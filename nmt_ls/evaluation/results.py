"""What an evaluation leaves behind: results.json, outputs for others to test again, a table."""

import contextlib
import hashlib
import json
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from nmt_ls.data.evaluation_sets import EvaluationSet
from nmt_ls.data.subwords import Subwords
from nmt_ls.errors import UserError
from nmt_ls.evaluation.completeness import read_results
from nmt_ls.evaluation.evaluate import Evaluation
from nmt_ls.file_lock import file_lock
from nmt_ls.outputs import write_beside
from nmt_ls.training.lock import RESULTS_LOCK

log = logging.getLogger("nmt_ls")


def store_results(
    run_dir: Path, data: EvaluationSet, evaluation: Evaluation, subwords: Subwords
) -> None:
    """Merge a test set's results into results.json; its outputs go to `translations/`.

    A results.json that is damaged is put aside.

    There `NAME.txt` has the translations, `NAME.source.txt` the sources, `NAME.references.json` a
    list of references per sentence, and `NAME.jsonl` per sentence what tests of significance and
    pictures need: `translation`, `score`, `log_prob`, its `pieces` with their `token_log_probs`,
    and of the first reference `reference_nll` (Σ, nats) and `reference_tokens`.
    """
    results, translations, statistics = evaluation
    records = [
        {
            "translation": t.text,
            "score": t.score,
            "log_prob": t.log_prob,
            "pieces": subwords.target_pieces(t.tokens),
            "token_log_probs": [round(p, 6) for p in t.token_log_probs],
            "reference_nll": float(s.nll.sum(dtype=np.float64)),
            "reference_tokens": len(s.nll),
        }
        for t, s in zip(translations, statistics, strict=True)
    ]
    lines = [json.dumps(finite(record), ensure_ascii=False) + "\n" for record in records]
    outputs = {
        "txt": _lines([t.text for t in translations]),
        "source.txt": _lines(data.sources),
        "references.json": json.dumps(data.references, ensure_ascii=False) + "\n",
        "jsonl": "".join(lines),
    }
    # Files are replaced one by one; this says whether the translations are those of the results.
    # Not of the file, which where there are no locks may already be another evaluation's.
    digest = hashlib.sha256(outputs["txt"].encode("utf-8")).hexdigest()
    folder = run_dir / "translations"
    folder.mkdir(exist_ok=True)
    path = run_dir / "results.json"
    with contextlib.ExitStack() as stack:
        # Of two evaluations that end together neither loses its entry, nor are files of both left;
        # where the file system has no locks that may happen.
        with contextlib.suppress(OSError):
            stack.enter_context(file_lock(run_dir / RESULTS_LOCK, wait=True))
        for ending, text in outputs.items():
            write_beside(folder / f"{data.name}.{ending}", text)
        stored = _stored(run_dir) if path.exists() else {}
        stored[data.name] = finite(results) | {"translations_sha256": digest}
        write_beside(path, json.dumps(stored, indent=1, ensure_ascii=False) + "\n")


def _stored(run_dir: Path) -> dict[str, Any]:
    """results.json as it is; a damaged one is put aside and must not cost what was measured now."""
    try:
        return read_results(run_dir)
    except UserError:
        path = run_dir / "results.json"
        aside = path.replace(path.with_name("results.json.damaged"))
        log.warning("%s was damaged and is %s now; it is begun anew", path, aside.name)
        return {}


def digest_of(path: Path) -> str:
    """Of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _lines(texts: list[str]) -> str:
    return "".join(" ".join(t.replace("\r", "\n").split("\n")) + "\n" for t in texts)


def finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: null."""
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value


def results_table(found: dict[str, dict[str, Any]]) -> str:
    """The main figures of each test set, a row each, and the sacreBLEU signatures."""
    columns = {
        "bleu": ".2f", "chrf": ".2f", "ter": ".2f", "perplexity": ".4f", "nll_per_token": ".4f",
        "ece": ".4f", "mean_confidence": ".4f", "accuracy": ".4f", "sentences": "d",
    }  # fmt: skip
    rows = [
        [name, *("–" if r[c] is None else format(r[c], form) for c, form in columns.items())]
        for name, r in found.items()
    ]
    signatures = dict.fromkeys(r["bleu_signature"] for r in found.values())
    table = tabulate(rows, ["test set", *columns], disable_numparse=True)
    return f"{table}\nsacreBLEU: {'; '.join(signatures)}{_adjusted_table(found)}"


def _adjusted_table(found: dict[str, dict[str, Any]]) -> str:
    rows = []
    for name, results in found.items():
        adjusted = results.get("adjusted")
        for kind, r in ({"raw": results, **adjusted} if adjusted else {}).items():
            settings = [r.get("temperature", 1.0), r.get("delta", 0.0)]
            figures = [r["perplexity"], r["nll_per_token"], r["ece"], r["gap"]]
            shown = ["–" if x is None else f"{x:.4f}" for x in figures]
            rows.append([name, kind, *(f"{x:.3f}" for x in settings), *shown])
    if not rows:
        return ""
    headers = ["test set", "distribution", "temperature", "δ", "perplexity", "nll_per_token"]
    table = tabulate(rows, [*headers, "ece", "gap"], disable_numparse=True)
    return f"\n\nFitted on the validation set:\n{table}"
