"""What a sweep's runs have stored, whole or not."""

import json
import math

import pytest
from made_up import write_sweep
from test_comparison import made_up_sweep

from nmt_ls.errors import UserError
from nmt_ls.study.comparison import compare
from nmt_ls.study.stored import load_runs, read_details, records_of


def details_of(run: dict, test: str) -> list[dict]:
    """What `evaluate` writes of each sentence; the n-th has n + 1 tokens and −n nats."""
    return [
        {"translation": text, "log_prob": -float(n), "token_log_probs": [-0.1] * (n + 1)}
        for n, text in enumerate(run["translations"][test])
    ]


def write_details(path, run: dict, test: str, details: list[dict]) -> None:
    file = path / run["run"] / "translations" / f"{test}.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in details))


def test_confidences_are_log_probabilities_per_token(tmp_path):
    (run,) = made_up_sweep((0.1,), (1,))
    write_sweep(tmp_path, [run])
    details = details_of(run, "flickr")
    details[1]["log_prob"] = None  # −inf, which JSON lacks
    details[2]["token_log_probs"] = []
    write_details(tmp_path, run, "flickr", details)
    found = load_runs(tmp_path)[0]["confidences"]["flickr"]
    assert found[:4] == [0, -math.inf, -2.0, pytest.approx(-0.75)]
    assert len(found) == 40


@pytest.mark.parametrize("spoil", ["fewer", "another text", "no probability"])
def test_confidences_of_other_translations_are_none(tmp_path, spoil):
    (run,) = made_up_sweep((0.1,), (1,))
    write_sweep(tmp_path, [run])
    details = details_of(run, "flickr")
    if spoil == "fewer":
        details.pop()
    elif spoil == "another text":
        details[7]["translation"] += " und mehr"
    else:
        del details[7]["log_prob"]
    write_details(tmp_path, run, "flickr", details)
    assert load_runs(tmp_path)[0]["confidences"] == {}


def test_the_aurc_of_several_test_sets_is_in_the_comparison(tmp_path):
    runs = made_up_sweep((0.0, 0.1), (1, 2), tests=("flickr", "coco"))
    write_sweep(tmp_path, runs)
    for run in runs:
        for test in run["results"]:
            write_details(tmp_path, run, test, details_of(run, test))
    pooled = compare(load_runs(tmp_path), samples=20)["pooled"][""]
    for setting in pooled["by_smoothing"].values():
        assert setting["measures"]["aurc"]["n"] == 2
        assert 0 < setting["measures"]["aurc"]["mean"] < 1
    (tmp_path / runs[0]["run"] / "translations" / "coco.jsonl").unlink()
    pooled = compare(load_runs(tmp_path), samples=20)["pooled"][""]
    assert [s["measures"]["aurc"]["n"] for s in pooled["by_smoothing"].values()] == [1, 2]


def test_what_is_broken_is_named(tmp_path):
    assert read_details(tmp_path / "none.jsonl") == []
    (tmp_path / "a.jsonl").write_text('{"translation": ')
    with pytest.raises(UserError, match=r"a\.jsonl is not valid JSON lines .* evaluate again"):
        read_details(tmp_path / "a.jsonl")


@pytest.mark.parametrize("text", ["{}", "[]", '{"runs": [{"run": "a", "seed": 1}]}', "{"])
def test_a_plan_that_is_none_is_refused_by_name(tmp_path, text):
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(UserError, match=r"plan\.json is not a sweep's plan"):
        load_runs(tmp_path)


def test_a_line_that_was_not_finished_is_left_out(tmp_path):
    assert records_of(tmp_path) == []
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2, "lo')
    assert records_of(tmp_path) == [{"step": 1}]
