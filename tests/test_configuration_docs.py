"""docs/configuration.md is what `scripts/make_configuration_docs` makes of the code."""

import subprocess
import sys
from pathlib import Path

from nmt_ls.config_files import describe_settings

ROOT = Path(__file__).resolve().parents[1]


def test_the_page_is_up_to_date():
    checked = subprocess.run(
        [sys.executable, ROOT / "scripts" / "make_configuration_docs", "--check"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_setting_is_on_it():
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    for key, _, _, text in describe_settings():
        assert f"| `{key.rpartition('.')[2]}` |" in page or key == "data.tests.NAME"
        assert text, f"{key} has no help"
