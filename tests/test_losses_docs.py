"""docs/losses.md, its example and the examples in the losses' docstrings do what they say."""

import contextlib
import doctest
import importlib
import importlib.machinery
import importlib.util
import io
import pkgutil
import re
import runpy
import sys
from dataclasses import fields
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import nmt_ls.losses
from nmt_ls.config import LossConfig
from nmt_ls.config_files import describe_settings

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "losses.md"
MODULES = [
    nmt_ls.losses.__name__,
    *(f"{nmt_ls.losses.__name__}.{m.name}" for m in pkgutil.iter_modules(nmt_ls.losses.__path__)),
]


def failures_of(tests: list[doctest.DocTest], options: int = 0) -> str:
    """What doctest says of the examples that fail."""
    runner, said = doctest.DocTestRunner(verbose=False, optionflags=options), []
    for test in tests:
        runner.run(test, out=said.append)
    return "".join(said)


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name: str) -> None:
    module = importlib.import_module(name)
    found = doctest.DocTestFinder().find(module, extraglobs={"jax": jax, "jnp": jnp})
    said = failures_of(found)
    assert not said, said


def test_the_page_runs() -> None:
    # A fence right after an output would count as a part of it.
    text = re.sub(r"^```.*$", "", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    names = {"jax": jax, "jnp": jnp}
    test = doctest.DocTestParser().get_doctest(text, names, PAGE.name, str(PAGE), 0)
    assert len(test.examples) > 20, "the page has lost its examples"
    said = failures_of([test], doctest.ELLIPSIS)
    assert not said, said


def test_the_table_is_up_to_date(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    script = load_script("make_loss_docs")
    assert script.main(["--check"]) == 0, capsys.readouterr().out
    # And it would notice.
    stale = tmp_path / "losses.md"
    stale.write_text(re.sub(r"\d\.\d{5,}", "1.00000", PAGE.read_text("utf-8")), "utf-8")
    monkeypatch.setattr(script, "PAGE", stale)
    assert script.main(["--check"]) == 1
    assert "run scripts/make_loss_docs" in capsys.readouterr().out


def load_script(name: str):
    """A script as a module; it has no ending to import it by."""
    loader = importlib.machinery.SourceFileLoader(name, str(ROOT / "scripts" / name))
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "dont_write_bytecode", True)  # nothing beside the script
        loader.exec_module(module)
    return module


def test_settings_on_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:loss|model)\.\w+)", page))
    known = {key for key, *_ in describe_settings()}
    assert named <= known
    assert {f"loss.{field.name}" for field in fields(LossConfig)} <= named


def test_links_and_images_of_the_page() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE.read_text(encoding="utf-8")):
        assert (PAGE.parent / target).is_file(), target


def test_the_example_learns() -> None:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        runpy.run_path(str(ROOT / "docs" / "examples" / "plain_optax_loop.py"), run_name="__main__")
    lines = re.findall(r"smoothed loss ([\d.]+)  perplexity ([\d.]+)", printed.getvalue())
    losses, perplexities = ([float(x) for x in column] for column in zip(*lines, strict=True))
    assert len(losses) > 2
    assert losses == sorted(losses, reverse=True)
    assert perplexities == sorted(perplexities, reverse=True)
    assert perplexities[-1] < perplexities[0] / 4
