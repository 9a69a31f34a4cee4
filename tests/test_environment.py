"""scripts/environment.sh: whose .venv it is."""

import subprocess
from pathlib import Path

SCRIPT = Path(__file__).parent.parent / "scripts" / "environment.sh"


def test_an_environment_of_the_users_own_is_left_alone(tmp_path: Path) -> None:
    mine = tmp_path / ".venv" / "pyvenv.cfg"
    mine.parent.mkdir()
    mine.write_text("home = /usr/bin\n")
    command = ["bash", "-euc", f"source {SCRIPT}; ensure_environment test"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, mine.exists()) == (2, True)
    assert ".venv is there and was not made by this script; move it away" in done.stderr
