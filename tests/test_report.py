"""Reports of made-up sweeps: whole, self-contained files that say what comparison.json says."""

import csv
import html.parser
import json
import re

import pytest
from made_up import write_sweep
from test_comparison import made_up_sweep

from nmt_ls.errors import UserError
from nmt_ls.study.comparison import compare
from nmt_ls.study.report import _rows, write_report
from nmt_ls.study.stored import load_runs

VOID = {"meta", "br", "img", "link", "input", "hr"}
PROTOCOL = {"steps": 500, "checkpoint rule": "average of the last 5", "decode": {"beam": 5}}


class Page(html.parser.HTMLParser):
    """Checks that tags nest, that ids differ, and that nothing is fetched."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        self.look(attrs)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.look(attrs)

    def look(self, attrs):
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name.split(":")[-1] in ("src", "href", "action", "data"):
                self.links.append(value)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A sweep of 2 ε and 2 seeds with one run missing, its runs as loaded, and its comparison."""
    path = tmp_path_factory.mktemp("work") / "my sweep"
    runs = made_up_sweep((0.0, 0.1), (1, 2))
    runs[0]["translations"]["flickr"][3] = "<script>alert('ß')</script> | a & b\u2028c\x85d"
    missing = {"run": "smoothing_0.2_seed_1", "label_smoothing": 0.2, "seed": 1}
    write_sweep(path, runs, [missing])
    loaded = load_runs(path)
    truth = {"flickr": {"perplexity_floor": 4.5, "nll_floor": 1.504, "bleu_oracle": 80.0}}
    comparison = compare(loaded, truth=truth, samples=100)
    write_report(path, comparison, loaded, title="Smoothing & <more>", protocol=PROTOCOL)
    return path, loaded, comparison


def test_runs_are_read_as_they_were_written(sweep):
    _path, loaded, _ = sweep
    assert [run["run"] for run in loaded] == [
        f"smoothing_{e}_seed_{seed}" for e in (0.0, 0.1) for seed in (1, 2)
    ]
    text = loaded[0]["translations"]["flickr"]
    assert len(text) == 40 and text[3].endswith("\u2028c\x85d")
    assert loaded[0]["environment"]["jax"] == "0.10.2"


def test_page_is_well_formed_and_needs_no_network(sweep):
    path, _, _comparison = sweep
    text = (path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert page.tags.count("script") == 1 and "link" not in page.tags and "img" not in page.tags
    assert all(link.startswith("#") for link in page.links)
    assert {link[1:] for link in page.links} <= set(page.ids)
    assert not re.search(r"@import|url\((?!#)", text)
    assert "default-src 'none'" in text
    assert set(re.findall(r"url\(#([^)]*)\)", text)) <= set(page.ids)
    assert page.tags.count("svg") == 9
    assert "width=device-width" in text
    assert "Smoothing & <more>" in page.text
    assert "nmt-ls report '" in page.text


def test_figures_are_there_and_not_empty(sweep):
    path, _, _ = sweep
    kinds = ("bleu", "chrf", "difference", "nll", "ece", "gap", "reliability")
    expected = {f"{kind}_flickr" for kind in kinds} | {"curves_perplexity", "curves_bleu"}
    for ending, least in ((".svg", 5_000), (".png", 8_000)):
        found = {file.stem: file for file in (path / "figures").glob(f"*{ending}")}
        assert set(found) == expected
        assert all(file.stat().st_size > least for file in found.values())
    assert "the truth: 1.504" in (path / "figures" / "nll_flickr.svg").read_text()
    assert "likeliest translation: 80.0" in (path / "figures" / "bleu_flickr.svg").read_text()


def test_markdown_says_what_the_comparison_says(sweep):
    path, _, comparison = sweep
    text = (path / "report.md").read_text(encoding="utf-8")
    stored = json.loads((path / "comparison.json").read_text(encoding="utf-8"))
    assert stored == comparison
    for epsilon, setting in stored["tests"]["flickr"]["by_smoothing"].items():
        [row] = [
            line.split("|")
            for line in text.splitlines()
            if line.startswith(f"| {float(epsilon):g} ")
        ]
        for column, measure, digits in ((3, "bleu", 2), (4, "chrf", 2), (6, "ece", 4)):
            summary = setting["measures"][measure]
            expected = f"{summary['mean']:.{digits}f} ± {summary['sd']:.{digits}f}"
            assert row[column].strip() == expected
    bleu = stored["tests"]["flickr"]["by_smoothing"]["0.1"]["differences"]["bleu"]
    assert f"{bleu['mean']:+.2f}" in text
    for name in re.findall(r"\]\((figures/[^)]*)\)", text):
        assert (path / name).exists()
    assert "### Drawn by chance" in text and "### Where the models differ most" in text
    assert "Not measured in any run: likelihood and calibration after temperature" in text
    assert "--set 'evaluation.beams=[1,5,50]' --set 'evaluation.strategies=[sample,mbr]'" in text
    assert "paired t-test over seeds (3 at least), Holm’s correction over ε, α = 0.05" in text
    for fact in ("average of the last 5", "tok:13a", "0.10.2", "decode.beam", "| the truth"):
        assert fact in text
    assert "<script>" not in text.replace("\\<", "")


def test_latex_says_what_the_comparison_says(sweep):
    path, _, comparison = sweep
    text = (path / "table.tex").read_text(encoding="utf-8")
    text.encode("ascii")  # any engine, any input encoding
    summary = comparison["tests"]["flickr"]["by_smoothing"]["0.1"]["measures"]["bleu"]
    assert rf"0.1 & 2 & {summary['mean']:.2f} $\pm$ {summary['sd']:.2f} &" in text
    for name in ("table", "tabular"):
        assert text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}") == 1
    body = text.split(r"\toprule")[1].split(r"\bottomrule")[0]
    rows = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 4 and {line.count(" & ") for line in rows} == {7}


def test_missing_runs_are_named_and_not_counted(sweep):
    path, _, comparison = sweep
    assert comparison["smoothing"] == [0.0, 0.1]
    for name in ("report.md", "report.html"):
        text = (path / name).read_text(encoding="utf-8")
        assert "1 planned run(s) have no results yet" in text
        assert "smoothing_0.2_seed_1" in text


def test_csv_has_one_row_per_run(sweep):
    path, loaded, _ = sweep
    with open(path / "results.csv", encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == len(loaded) == 4


def test_rebuilding_changes_nothing_and_leaves_nothing_behind(sweep):
    path, loaded, comparison = sweep
    files = [file for file in path.rglob("*") if file.is_file()]
    before = {file: file.read_bytes() for file in files}
    write_report(path, comparison, loaded, title="Smoothing & <more>", protocol=PROTOCOL)
    after = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    assert after == before


def test_one_run_without_translations_or_curves(tmp_path):
    runs = made_up_sweep((0.1,), (1,))
    write_sweep(tmp_path, runs)
    directory = tmp_path / runs[0]["run"]
    for file in (directory / "translations").iterdir():
        file.unlink()
    (directory / "metrics.jsonl").unlink()
    loaded = load_runs(tmp_path)
    assert loaded[0]["translations"] == {}
    write_report(tmp_path, compare(loaded), loaded, title="", protocol={})
    assert "nothing to compare" in (tmp_path / "report.md").read_text(encoding="utf-8")
    Page((tmp_path / "report.html").read_text(encoding="utf-8"))


def test_broken_sweeps_are_refused_by_name(tmp_path):
    with pytest.raises(UserError, match=r"no plan\.json"):
        load_runs(tmp_path)
    write_sweep(tmp_path, made_up_sweep((0.1,), (1,)))
    text = tmp_path / "smoothing_0.1_seed_1" / "translations" / "flickr.txt"
    text.write_text("one line\n")
    with pytest.raises(UserError, match="1 lines but there are 40 references"):
        load_runs(tmp_path)
    (tmp_path / "smoothing_0.1_seed_1" / "results.json").write_text("{")
    with pytest.raises(
        UserError, match=r"results\.json is damaged; evaluate smoothing_0\.1_seed_1"
    ):
        load_runs(tmp_path)


@pytest.mark.parametrize("values", [("a/b", "a_b"), (f"{'long/' * 60}1", f"{'long/' * 60}2")])
def test_settings_of_any_text_have_pictures_of_their_own(tmp_path, values):
    runs = made_up_sweep((0.0, 0.1), (1, 2))
    for run in runs:
        run["settings"] = {"data.root": values[run["seed"] - 1]}
    write_report(tmp_path, compare(runs, samples=20), runs, title="", protocol={})
    drawn = {path.name for path in (tmp_path / "figures").glob("bleu_*.png")}
    assert len(drawn) == 2 and max(map(len, drawn)) < 130
    named = re.findall(r"\(figures/(bleu_[^)]*)\)", (tmp_path / "report.md").read_text())
    assert set(named) == drawn


def test_figures_of_each_test_set_are_apart_where_they_were_pooled():
    def picture(kind, label):
        return {"kind": kind, "label": label}

    labels = ("all", "a", "b")
    pictures = [picture("bleu", label) for label in labels]
    pictures += [picture("beam", label) for label in labels[1:]]
    found = _rows(pictures, {"all"})
    assert found["rows"] == [pictures[:1], pictures[3:]]
    assert found["apart"] == [pictures[1:3]]
    # Not pooled: every kind has its row. One test set: nothing to line up.
    assert _rows(pictures[1:], set()) == {"rows": [pictures[1:3], pictures[3:]], "apart": []}
    one = [picture("bleu", "a"), picture("beam", "a")]
    assert _rows(one, set()) == {"rows": [one], "apart": []}
