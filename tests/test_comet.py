"""COMET's command, played by a script that takes the same options (unbabel-comet 2.2.7)."""

import sys

import pytest

from nmt_ls.config import EvaluationConfig
from nmt_ls.errors import UserError
from nmt_ls.evaluation.comet import comet_score

_COMMAND = """
import argparse, json, sys
parser = argparse.ArgumentParser()
parser.add_argument("-s", "--sources")
parser.add_argument("-t", "--translations", nargs="+")
parser.add_argument("-r", "--references")
parser.add_argument("--model")
parser.add_argument("--gpus", type=int)
parser.add_argument("--quiet", action="store_true")
parser.add_argument("--only_system", action="store_true")
parser.add_argument("--to_json")
given = parser.parse_args()
if open(given.model).read() == "broken":
    sys.exit("RuntimeError: invalid checkpoint")
lines = [
    [line.strip() for line in open(path, encoding="utf-8").readlines()]
    for path in (given.sources, *given.translations, given.references)
]
scored = [
    {"src": s, "mt": t, "ref": r, "COMET": float(t == r) + len(s) / 100}
    for s, t, r in zip(*lines, strict=True)
]
json.dump({given.translations[0]: scored}, open(given.to_json, "w"))
"""


def config(tmp_path, text="", name="model.ckpt"):
    script = tmp_path / "comet_score.py"
    script.write_text(_COMMAND)
    (tmp_path / name).write_text(text)
    return EvaluationConfig(comet=str(tmp_path / name), comet_command=f"{sys.executable} {script}")


def test_scores_of_each_sentence_and_their_mean(tmp_path):
    found = comet_score(config(tmp_path), ["ab", "abcd"], ["x\u2028y", "z"], [["x y", "w"], ["q"]])
    assert found == {
        "comet": pytest.approx((1.02 + 0.04) / 2),
        "comet_model": "model.ckpt",
        "comet_scores": [pytest.approx(1.02), pytest.approx(0.04)],
    }


def test_what_is_wrong_is_named(tmp_path):
    texts = (["a"], ["b"], [["c"]])
    with pytest.raises(UserError, match=r"failed \(1\): RuntimeError: invalid checkpoint"):
        comet_score(config(tmp_path, "broken"), *texts)
    with pytest.raises(UserError, match="no checkpoint"):
        comet_score(EvaluationConfig(comet="Unbabel/wmt22-comet-da"), *texts)
    (tmp_path / "m.ckpt").touch()
    absent = EvaluationConfig(comet=str(tmp_path / "m.ckpt"), comet_command="no-such-command")
    with pytest.raises(UserError, match="no-such-command: not found"):
        comet_score(absent, *texts)
