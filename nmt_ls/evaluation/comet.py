"""COMET (Rei et al. 2020) by the command of unbabel-comet, where it is installed.

Its package asks for numpy below 2 and protobuf below 5, so it cannot live in our environment; and
its checkpoints are pickles, which only its own process reads. Give it a virtual environment and
name the command there: `evaluation.comet_command: /opt/comet/bin/comet-score`.
"""

import json
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nmt_ls.config import EvaluationConfig
from nmt_ls.errors import UserError


def comet_score(
    config: EvaluationConfig,
    sources: Sequence[str],
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
) -> dict[str, Any]:
    """`comet` (mean over sentences), `comet_model`, and `comet_scores` of each sentence.

    Against the first reference, as COMET's own command takes one.

    Raises:
      UserError: no such checkpoint or command, or the command failed.
    """
    model = Path(config.comet)
    # Without a file of that ending comet-score would ask a model hub for it.
    if not (model.suffix == ".ckpt" and model.is_file()):
        raise UserError(f"evaluation.comet={model}: no checkpoint (….ckpt) there")
    command = shlex.split(config.comet_command)
    if not command or shutil.which(command[0]) is None:
        raise UserError(
            f"evaluation.comet_command={config.comet_command}: not found; install unbabel-comet in"
            " an environment of its own and name its comet-score"
        )
    with tempfile.TemporaryDirectory() as folder:
        texts = {"-s": sources, "-t": hypotheses, "-r": [r[0] for r in references]}
        for flag, lines in texts.items():
            path = Path(folder) / flag[1:]
            # comet-score reads with universal newlines, and a line may hold none of them.
            text = "".join(" ".join(line.splitlines()) + "\n" for line in lines)
            path.write_text(text, encoding="utf-8")
            command += [flag, str(path)]
        scored = Path(folder) / "scores.json"
        command += ["--model", str(model), "--gpus", "0", "--quiet", "--only_system"]
        command += ["--to_json", str(scored)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not scored.exists():
            lines = done.stderr.strip().splitlines() or ["it said nothing"]
            raise UserError(f"{config.comet_command} failed ({done.returncode}): {lines[-1][:300]}")
        (segments,) = json.loads(scored.read_text(encoding="utf-8")).values()
    scores = [float(segment["COMET"]) for segment in segments]
    if len(scores) != len(sources):
        raise UserError(f"{config.comet_command} scored {len(scores)} of {len(sources)} sentences")
    return {
        "comet": sum(scores) / len(scores),
        "comet_model": model.name,
        "comet_scores": [round(score, 6) for score in scores],
    }
