"""Two fixed systems: sacreBLEU's own numbers, and plain words where they cannot be compared."""

import json
from pathlib import Path

import pytest
from sacrebleu.metrics import BLEU, CHRF, TER
from sacrebleu.significance import PairedTest
from test_significance import made_up

from nmt_ls.cli import main
from nmt_ls.errors import UserError
from nmt_ls.evaluation.pair import (
    Outputs,
    compare_pair,
    outputs_of_runs,
    pair_sentence,
    pair_table,
)
from nmt_ls.evaluation.translation import translation_metrics


@pytest.fixture(scope="module")
def outputs() -> Outputs:
    """System b is wrong in fewer words; the first ten sentences have a second reference."""
    (a, b), references = made_up([0.3, 0.2], sentences=80)
    references = [
        [*lines, f"{lines[0]} heute"] if i < 10 else lines for i, lines in enumerate(references)
    ]
    return Outputs(references, a, b, [" ".join("x" * (1 + i % 12)) for i in range(80)])


@pytest.fixture(scope="module")
def found(outputs) -> dict:
    return compare_pair(outputs, samples=200, trials=300)


def test_scores_and_p_values_are_sacrebleus(outputs, found):
    streams = [
        [lines[0] for lines in outputs.references],
        [lines[1] if len(lines) > 1 else None for lines in outputs.references],
    ]
    systems = [("a", outputs.a), ("b", outputs.b)]
    metrics = {"BLEU": BLEU(), "CHRF": CHRF(), "TER": TER()}
    for kind, count, ours in (("bs", 200, "bootstrap"), ("ar", 300, "randomisation")):
        test = PairedTest(systems, metrics, streams, test_type=kind, n_samples=count)
        signatures, scores = test()
        for metric, theirs in (("bleu", "BLEU"), ("chrf", "chrF2"), ("ter", "TER")):
            r = found["metrics"][metric]
            assert [r["a"], r["b"]] == [s.score for s in scores[theirs]]
            assert r[f"p_{ours}"] == scores[theirs][1].p_value
            assert r[f"signature_{ours}"] == str(signatures[theirs])
    for name, texts in systems:
        alone = translation_metrics(texts, outputs.references)
        for metric in ("bleu", "chrf", "ter"):
            r = found["metrics"][metric]
            assert r[name] == pytest.approx(alone[metric], rel=1e-12)
            assert r["signature"] == alone[f"{metric}_signature"]


def test_differences_are_b_minus_a_with_their_interval(found):
    bleu, ter = found["metrics"]["bleu"], found["metrics"]["ter"]
    assert found["label"] == "this pair of models"
    assert bleu["difference"] == bleu["b"] - bleu["a"] > 0 > ter["difference"]
    for r in (bleu, ter):
        assert r["ci95"][0] < r["difference"] < r["ci95"][1]
    assert "B is better than A in BLEU" in pair_sentence(found)
    assert sum(row["sentences"] for row in found["by_source_length"]["a"]) == 80


def test_the_same_outputs_do_not_differ(outputs):
    same = Outputs(outputs.references, outputs.a, list(outputs.a))
    found = compare_pair(same, samples=20, trials=20)
    for r in found["metrics"].values():
        assert (r["difference"], r["ci95"], r["p_bootstrap"], r["p_randomisation"]) == (
            0.0, [0.0, 0.0], 1.0, 1.0,
        )  # fmt: skip
    assert found["same_outputs"] == 80 and "by_source_length" not in found
    assert "same output for every sentence" in pair_sentence(found)


def test_one_sentence_tells_nothing_apart():
    found = compare_pair(Outputs([["eins zwei drei vier"]], ["eins"], ["eins zwei drei vier"]))
    for r in found["metrics"].values():
        assert r["difference"] != 0
        assert (r["ci95"], r["p_bootstrap"], r["p_randomisation"]) == (None, None, None)
    assert pair_sentence(found) == "One sentence: too few to tell the two apart."
    row = pair_table(found, "test", "a", "b").splitlines()[4]
    assert row.split()[-3:] == ["[–]", "–", "–"]


def test_false_alarms_of_randomisation_are_about_five_percent():
    alarms = 0
    for seed in range(60):
        (a, b), references = made_up([0.2, 0.2], sentences=30, seed=seed)
        found = compare_pair(Outputs(references, a, b), samples=20, trials=100)
        alarms += found["metrics"]["bleu"]["p_randomisation"] < 0.05
    assert alarms <= 9  # binomial(60, 0.05) exceeds 9 with probability 0.1 %


def write_run(run: Path, sets: dict[str, tuple[list[str], list[list[str]]]]) -> Path:
    folder = run / "translations"
    folder.mkdir(parents=True)
    for name, (texts, references) in sets.items():
        (folder / f"{name}.txt").write_text("".join(f"{t}\n" for t in texts), encoding="utf-8")
        (folder / f"{name}.references.json").write_text(json.dumps(references), encoding="utf-8")
    return run


@pytest.fixture(scope="module")
def runs(tmp_path_factory, outputs) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("runs")
    sets = [
        {
            "flickr": (texts[:30], outputs.references[:30]),
            "coco": (texts[30:60], outputs.references[30:60]),
            "validation": (texts[60:], outputs.references[60:]),
        }
        for texts in (outputs.a, outputs.b)
    ]
    return write_run(folder / "a", sets[0]), write_run(folder / "b", sets[1])


def test_runs_are_compared_on_what_both_have(runs, outputs):
    found = outputs_of_runs(*runs)
    assert list(found) == ["coco", "flickr", "all together"]
    assert found["flickr"] == Outputs(outputs.references[:30], outputs.a[:30], outputs.b[:30])
    together = found["all together"]
    assert together.a == outputs.a[30:60] + outputs.a[:30] and len(together.references) == 60
    assert list(outputs_of_runs(*runs, "validation")) == ["validation"]


def test_the_verb_on_runs(runs, tmp_path, capsys):
    a, b = map(str, runs)
    out = tmp_path / "pair.json"
    assert main(["compare", a, b, "--split", "flickr", "--output", str(out)]) == 0
    printed = capsys.readouterr().out
    assert f"A = {a}, B = {b}" in printed and "flickr: 30 sentences" in printed
    stored = json.loads(out.read_text())
    assert list(stored["tests"]) == ["flickr"]
    bleu = stored["tests"]["flickr"]["metrics"]["bleu"]
    assert f"{bleu['difference']:+.2f}" in printed and bleu["signature"] in printed
    assert "ar:10000" in bleu["signature_randomisation"]
    assert "bs:1000" in bleu["signature_bootstrap"]
    assert "this pair of models" in printed


@pytest.fixture(scope="module")
def files(tmp_path_factory, outputs) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("files")
    texts = {
        "a": outputs.a[:20],
        "b": outputs.b[:20],
        "r": [lines[0] for lines in outputs.references[:20]],
        "r2": [lines[-1] for lines in outputs.references[:20]],
        "s": outputs.sources[:20],
        "short": outputs.a[:19],
        "empty": [],
    }
    for name, lines in texts.items():
        (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    (folder / "latin").write_bytes(b"H\xe4\n")
    return {name: str(folder / name) for name in [*texts, "latin", "missing"]}


def test_the_verb_on_files(files, capsys, tmp_path):
    call = ["compare", files["a"], files["b"], "--reference", files["r"], "--reference"]
    out = tmp_path / "pair.json"
    assert main([*call, files["r2"], "--source", files["s"], "--output", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "r: 20 sentences" in printed and "nrefs:2" in printed and "source words" in printed
    assert set(json.loads(out.read_text())["tests"]["r"]["by_source_length"]) == {"a", "b"}


def refused(arguments, capsys) -> str:
    """The message of a call that must end in one or two plain lines and status 2."""
    assert main([str(a) for a in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and len(captured.err.strip().splitlines()) <= 2
    assert "Traceback" not in captured.err
    return captured.err


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (("short", "b"), ("--reference", "r"), "short has 19 lines"),
        (("a", "b"), ("--reference", "r", "--source", "short"), "short has 19 lines"),
        (("a", "missing"), ("--reference", "r"), "missing: No such file"),
        (("a", "empty"), ("--reference", "r"), "empty is empty"),
        (("a", "latin"), ("--reference", "r"), "latin, line 1: not UTF-8"),
        (("a", "b"), (), "is a file; give --reference too"),
        (("missing", "b"), (), "is no run directory"),
        (("a", "b"), ("--source", "s"), "--source goes with --reference"),
    ],
)
def test_files_that_cannot_be_compared_are_refused(files, names, options, message, capsys):
    options = [files.get(option, option) for option in options]
    assert message in refused(["compare", *(files[n] for n in names), *options], capsys)


def test_runs_that_cannot_be_compared_are_refused(runs, tmp_path, capsys, outputs):
    a, b = runs
    call = ["compare", a, b]
    assert "--split nope" in refused([*call, "--split", "nope"], capsys)
    assert "--split is a test set" in refused([*call, "--split", "coco", "--reference", a], capsys)
    bare = tmp_path / "bare"
    bare.mkdir()
    assert "`nmt-ls evaluate" in refused(["compare", a, bare], capsys)
    lines = outputs.references[:30]
    other = write_run(tmp_path / "other", {"flickr": (outputs.a[:30], lines[::-1])})
    assert "different references of flickr" in refused(["compare", a, other], capsys)
    short = write_run(tmp_path / "short", {"flickr": (outputs.a[:29], lines)})
    assert "29 lines but there are 30" in refused(["compare", a, short], capsys)
    apart = write_run(tmp_path / "apart", {"wmt": (outputs.a[:30], lines)})
    assert "no test set was evaluated with both" in refused(["compare", a, apart], capsys)
    (short / "translations" / "flickr.references.json").write_text("[")
    assert "not valid JSON" in refused(["compare", a, short], capsys)
    assert "SYSTEM" in refused(["compare", a], capsys)


def test_words_are_split_as_they_were_evaluated(tmp_path: Path) -> None:
    texts = ["一个男人骑自行车。", "两只狗在草地上跑。"]
    references = [["一名男子骑自行车。"], ["两只狗在草地上奔跑。"]]
    a, b = (write_run(tmp_path / name, {"t": (texts, references)}) for name in ("a", "b"))
    for run in (a, b):
        said = translation_metrics(texts, references, tokenize="zh")["bleu_signature"]
        (run / "results.json").write_text(json.dumps({"t": {"bleu_signature": said}}))
    outputs = outputs_of_runs(a, b)["t"]
    bleu = compare_pair(outputs, samples=20, trials=20)["metrics"]["bleu"]
    assert "tok:zh" in bleu["signature"] and bleu["a"] > 40
    (b / "results.json").unlink()
    with pytest.raises(UserError, match=f"split by zh in {a} and by 13a in {b}; evaluate both"):
        outputs_of_runs(a, b)


def test_the_verb_on_files_of_a_language_without_spaces(tmp_path: Path, capsys) -> None:
    for name, line in (
        ("a", "一个男人骑自行车。"),
        ("b", "男人骑车。"),
        ("r", "一名男子骑自行车。"),
    ):
        (tmp_path / name).write_text(f"{line}\n", encoding="utf-8")
    a, b, r = (str(tmp_path / name) for name in "abr")
    assert main(["compare", a, b, "--reference", r, "--tokenize", "zh"]) == 0
    assert "tok:zh" in capsys.readouterr().out
    assert main(["compare", a, b, "--reference", r, "--tokenize", "kana"]) == 2
    assert "does not split words by 'kana'" in capsys.readouterr().err
    assert main(["compare", a, b, "--tokenize", "zh"]) == 2
    assert "--tokenize goes with --reference" in capsys.readouterr().err
