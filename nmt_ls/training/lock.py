"""One process at a time trains in a run directory."""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from nmt_ls.errors import UserError
from nmt_ls.file_lock import HeldElsewhere, file_lock
from nmt_ls.parallel import is_main

log = logging.getLogger("nmt_ls")

RESULTS_LOCK = ".results.lock"
"""In a run directory. Who changes results.json or translations/ holds it."""

LOCK = ".lock"
"""In a run directory. Who trains holds a lock on it; a file that was left there does not matter."""


@contextlib.contextmanager
def alone_in(run_dirs: Sequence[Path]) -> Iterator[None]:
    """Lock run directories, which are made where they are missing, while the block runs.

    Only the main host locks. Where the file system knows no locks, a line in the log says so.

    Raises:
      UserError: another process is training in one of them.
    """
    with contextlib.ExitStack() as stack:
        for run_dir in run_dirs if is_main() else ():
            run_dir.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(file_lock(run_dir / LOCK, wait=False))
            except HeldElsewhere:
                raise UserError(
                    f"another process is training in {run_dir}; wait for it, or choose another"
                    " --run-dir"
                ) from None
            except OSError as error:
                log.info("%s cannot be locked (%s); let nothing else train there", run_dir, error)
        yield
