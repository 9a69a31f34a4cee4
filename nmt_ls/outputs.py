"""Where results go: files that are whole or not there, and what is no file."""

import contextlib
import os
import sys
from pathlib import Path

from nmt_ls.errors import UserError


def destination(path: Path) -> Path:
    """Where an output really goes: a link is followed, so that it stays one.

    Raises:
      UserError: a folder, or in a folder that is not there.
    """
    path = _followed(path)
    if path.is_dir():
        raise UserError(f"--output {path} is a folder; name a file")
    if not path.parent.is_dir():
        raise UserError(f"--output {path}: there is no folder {path.parent}; make it first")
    return path


def is_stream(path: Path) -> bool:
    """Whether it is a pipe or a device: written as it is, for a rename would put a file there."""
    return path.exists() and not path.is_file() and not path.is_dir()


def write_beside(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path = _followed(path)
    if is_stream(path):
        path.write_text(text, encoding="utf-8")
        return
    beside = path.with_name(path.name + ".tmp")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)


def begin_streams() -> None:
    """Standard output as files are, in UTF-8 with LF, whatever the locale says.

    A stream that was closed (`>&-`), which Python has as None, takes and gives nothing; above all
    its number is not that of the next file that is opened.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(encoding="utf-8", errors=sys.stdout.errors, newline="\n")


def end_stdout() -> None:
    """Write what is left; what cannot be written is not tried again at exit, another error."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _followed(path: Path) -> Path:
    """The file behind links. What /dev/fd/63 links to, `pipe:[123]`, is a name of nothing."""
    path = Path(path)
    return path if is_stream(path) else path.resolve()
