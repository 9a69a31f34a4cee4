"""A report with everything in a real browser: no network, no complaint, no sideways scrolling."""

import json
import re

import numpy as np
import pytest
from browser import CHROMIUM, layout, opened, printed
from made_up import everything_sweep, write_sweep

from nmt_ls.study.comparison import compare
from nmt_ls.study.report import write_report
from nmt_ls.study.stored import load_runs

needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium to open the report in: apt-get install chromium"
)
LONG = "ein_sehr_langes_Wort_ohne_jede_Lücke_" * 4


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A sweep with everything, details of its translations too, and its report."""
    path = tmp_path_factory.mktemp("work") / "sweep"
    runs = everything_sweep(smoothing=(0.0, 0.1), seeds=(1, 2))
    write_sweep(path, runs)
    random = np.random.default_rng(0)
    for run in runs[:-1]:
        lines = []
        for text in run["translations"]["flickr"]:
            pieces = [*("▁" + word for word in text.split()), "</s>"]
            log_probs = np.log(random.uniform(size=len(pieces))).tolist()
            details = {"translation": text, "pieces": pieces, "token_log_probs": log_probs}
            lines.append(json.dumps({**details, "score": -1.0, "log_prob": sum(log_probs)}))
        file = path / run["run"] / "translations" / "flickr.jsonl"
        file.write_text("\n".join(lines) + "\n")
    loaded = load_runs(path)
    comparison = compare(loaded, samples=100)
    protocol = {"languages": "en → de", "a name": LONG}
    write_report(path, comparison, loaded, title="Smoothing", protocol=protocol)
    return path


@pytest.fixture(scope="module")
def text(sweep):
    return (sweep / "report.html").read_text(encoding="utf-8")


def test_every_section_has_its_figures(text):
    found = set(re.findall(r'<svg role="img" aria-label="([^"]*)"', text))
    starts = (
        "BLEU on flickr", "chrF on flickr", "Difference in BLEU", "Negative log-likelihood",
        "Entropy of", "Calibration error", "Signed gap", "Reliability on", "Risk (1",
        "BLEU against beam size", "Length ratio against", "BLEU of other search",
        "chrF of other search", "Sentences of flickr whose empty", "BLEU by sentence length",
        "Word F1", "Hidden states", "Validation perplexity", "Validation BLEU",
    )  # fmt: skip
    for start in starts:
        assert sum(label.startswith(start) for label in found) == 1, start
    assert len(found) == len(starts)


def test_everything_was_measured_and_examples_are_not_only_extremes(text):
    assert "Not measured" not in text
    assert text.count("<h4>Drawn by chance</h4>") == 1
    chosen = text.split("<h4>Drawn by chance</h4>")[1]
    drawn, extremes = chosen.split("<h4>Where the models differ most")
    assert (drawn.count('<dl class="example">'), extremes.count('<dl class="example">')) == (4, 6)


def test_every_file_opens_on_a_telephone(sweep):
    sizes = {file.name: file.stat().st_size for file in sweep.rglob("*") if file.is_file()}
    assert max(sizes.values()) <= 5_000_000, sizes


def test_confidence_is_shaded_where_it_is_stored(text):
    shades = re.findall(r'class="token s(\d)[^"]*" title="p = ([\d.]+)"', text)
    assert len(shades) > 50
    for level, probability in shades:
        low, high = {"1": (0.7, 0.9), "2": (0.5, 0.7), "3": (0.3, 0.5), "4": (0.1, 0.3),
                     "5": (0, 0.1)}[level]  # fmt: skip
        assert low - 0.006 <= float(probability) <= high + 0.006
    assert 'title="end of the sentence, p = ' in text
    assert "The darker a token" in text


@needs_browser
def test_the_browser_is_watched(tmp_path):
    """A page that fetches, fails and sticks out is caught: else the next test shows nothing."""
    page = tmp_path / "page.html"
    page.write_text(
        '<!DOCTYPE html><title>a</title><img src="https://example.org/x.png">'
        '<p style="width: 700px">b</p><script>nothing()</script></body>'
    )
    found = layout(page, tmp_path, 390)
    assert found["requests"] == ["https://example.org/x.png"]
    assert len(found["console"]) == 1 and "nothing is not defined" in found["console"][0]
    assert found["inner"] == 390 and found["scroll"] > 690 and "700px" in found["wide"][0]


@needs_browser
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fetches_nothing_and_fits(sweep, tmp_path, width):
    found = layout(sweep / "report.html", tmp_path, width)
    assert found["requests"] == []
    assert found["console"] == []
    assert found["inner"] == width
    assert found["scroll"] <= found["client"] and found["wide"] == []


@needs_browser
def test_paper_has_everything_and_nothing_to_click_on(sweep, tmp_path):
    for name in ("pdf", "paper", "screen"):
        (tmp_path / name).mkdir()
    pdf = printed(sweep / "report.html", tmp_path / "pdf")
    assert pdf.startswith(b"%PDF-")
    assert len(re.findall(rb"/Type /Page\b", pdf)) > 3
    assert not re.search(rb"/(Link|Widget|AcroForm)\b", pdf)
    # Between the margins of A4, at 96 pixels per inch.
    paper = layout(sweep / "report.html", tmp_path / "paper", 688, paper=True)
    screen = layout(sweep / "report.html", tmp_path / "screen", 688)
    assert (screen["links"] > 5, screen["folded"] > 0) == (True, True)
    assert (paper["links"], paper["folded"], paper["wide"]) == (0, 0, [])
    assert paper["scroll"] <= paper["client"]
    assert paper["shown"] > screen["shown"] and paper["console"] == []


@needs_browser
def test_the_page_as_it_is_runs_its_script_and_nothing_complains(sweep, tmp_path):
    document, requests, console = opened(sweep / "report.html", tmp_path)
    assert requests == [] and console == []
    headers = re.findall(r'<th scope="col"><button type="button">(.*?)</button>', document)
    assert headers[0] == "run" and "BLEU" in headers


@needs_browser
def test_the_table_of_runs_sorts_by_number(sweep, tmp_path):
    page = (sweep / "report.html").read_text()
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    click = """<script>
      const table = document.querySelector("#runs + .scroll table");
      const column = [...table.tHead.rows[0].cells].findIndex((c) => c.textContent === "BLEU");
      table.tBodies[0].rows[0].cells[column].textContent = "9.5";
      table.tBodies[0].rows[1].cells[column].textContent = "–";
      const order = () => [...table.tBodies[0].rows].map((r) => r.cells[column].textContent);
      const seen = [];
      for (let i = 0; i < 2; i++) {
        table.tHead.rows[0].cells[column].querySelector("button").click();
        seen.push(order());
      }
      document.title = JSON.stringify(seen);
    </script></body>"""
    copy = tmp_path / "sorted.html"
    copy.write_text(page.replace("</body>", click))
    document, _, console = opened(copy, tmp_path)
    assert console == []
    up, down = json.loads(re.search("<title>(.*?)</title>", document)[1])
    numbers = [float(cell) for cell in up[:-1]]
    assert len(numbers) == 3 and numbers[0] == 9.5 and numbers == sorted(numbers)
    assert down == [*up[:-1][::-1], "–"]  # what was not measured stays last
