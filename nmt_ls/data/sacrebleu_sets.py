"""Test sets by the names that sacreBLEU knows them by, fetched and cached by sacreBLEU itself."""

import contextlib
import difflib
import errno
import http.client
import logging
import os
import re
from collections.abc import Iterator
from typing import Any
from urllib.error import URLError

from sacrebleu import utils
from sacrebleu.dataset import DATASETS

from nmt_ls.errors import UserError
from nmt_ls.file_lock import file_lock

_NETWORK = (URLError, http.client.HTTPException, ConnectionError, TimeoutError)
_FOLDER = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT),
    *(errno.ENOTDIR, errno.EEXIST),  # a file lies where the folder should be
)


def named_set(name: str, languages: tuple[str, str]) -> tuple[list[str], list[list[str]]]:
    """A test set that sacreBLEU knows, such as `wmt14/full` or `wmt20`.

    The first call downloads it to `$SACREBLEU`, else `~/.sacrebleu`; later ones read it there.
    sacreBLEU looks at that variable once, when it is imported.

    Args:
        name: As in `sacrebleu -t NAME`; `sacrebleu --list` lists them.
        languages: Codes of the source and the target language, such as `("en", "de")`.

    Returns:
        (N source sentences, for each of them its references), raw and in the order of the set:
        the lines that `sacrebleu -t NAME -l en-de --echo src ref` prints. What sacreBLEU leaves in
        them stays: entities such as `&amp;` in the sets before WMT21, and an empty reference where
        one of several translators left a sentence out.

    Raises:
        UserError: no such set or language pair, no network and no copy, a folder that cannot be
            written, or a copy that is not whole.
    """
    if name not in DATASETS:
        raise UserError(_unknown(name))
    dataset, pair = DATASETS[name], "-".join(languages)
    if pair not in dataset.langpairs:
        raise UserError(
            f"the test set {name!r} has no {pair}; it has {', '.join(sorted(dataset.langpairs))}"
        )
    folder = os.path.join(utils.SACREBLEU_DIR, name)
    said: list[str] = []
    try:
        with _alone(), _overheard(said):
            source = dataset.get_source_file(pair)
            # sacreBLEU lists the translators of later sets in the order of a Python set, which
            # differs from process to process; what is measured on the first reference must not.
            references = sorted(dataset.get_reference_files(pair))
        columns = [_lines(path) for path in (source, *references)]
    # sacreBLEU raises its readers' exceptions, and leaves by sys.exit at a wrong checksum.
    except (Exception, SystemExit) as error:
        raise UserError(_refusal(name, pair, folder, error, said)) from None
    if not references:
        raise UserError(f"sacreBLEU has no reference of {name!r} for {pair}: name another test set")
    counts = [len(lines) for lines in columns]
    if min(counts) != max(counts) or not counts[0]:
        reason = f"sources and references have {', '.join(map(str, counts))} lines"
        raise UserError(_not_whole(name, folder, reason))
    return columns[0], [list(row) for row in zip(*columns[1:], strict=True)]


def _unknown(name: str) -> str:
    # newstest2014 and wmt2014 are what others call wmt14.
    usual = re.sub(r"^(newstest|wmt)20(?=\d\d)", "wmt", name.strip().lower())
    near = difflib.get_close_matches(usual, DATASETS, 3)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"sacreBLEU has no test set {name!r}{hint}\n`sacrebleu --list` lists all of them"


def _lines(path: str) -> list[str]:
    with open(path, encoding="utf-8", newline="\n") as file:  # "\n" alone ends a line
        return [line.removesuffix("\n") for line in file]


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """One process at a time: sacreBLEU takes a file that another still writes for a whole one."""
    with contextlib.ExitStack() as stack:
        # Where there can be no lock sacreBLEU cannot write either; it may not have to.
        with contextlib.suppress(OSError):
            os.makedirs(utils.SACREBLEU_DIR, exist_ok=True)
            lock = os.path.join(utils.SACREBLEU_DIR, ".nmt_ls.lock")
            stack.enter_context(file_lock(lock, wait=True))
        yield


class _Ear(logging.Handler):
    def __init__(self, said: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.said = said

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


@contextlib.contextmanager
def _overheard(said: list[str]) -> Iterator[None]:
    """What sacreBLEU would log goes into the list: before it exits it says why only there."""
    logger = logging.getLogger("sacrebleu")
    before: tuple[list[Any], bool] = (logger.handlers[:], logger.propagate)
    logger.handlers[:], logger.propagate = [_Ear(said)], False
    try:
        yield
    finally:
        logger.handlers[:], logger.propagate = before


def _refusal(name: str, pair: str, folder: str, error: BaseException, said: list[str]) -> str:
    if isinstance(error, utils.portalocker.exceptions.BaseLockException):
        return (
            f"the test set {name!r} cannot be locked in {folder}: another process downloads it, or "
            "the file system has no locks\n"
            "Run again later, or name another folder in the environment variable SACREBLEU"
        )
    cause = error.reason if type(error) is URLError else error
    reason = " ".join((said[0] if said else str(cause)).split())[:300] or type(cause).__name__
    if isinstance(error, _NETWORK):
        return (
            f"the test set {name!r} is not in {folder} and cannot be downloaded: {reason}\n"
            f"Run `sacrebleu -t {name} -l {pair} --echo src` on a machine with network, and copy "
            f"its ~/.sacrebleu/{name} to {folder}"
        )
    if isinstance(error, OSError) and error.errno in _FOLDER:
        return (
            f"the test set {name!r} cannot be kept in {folder}: {reason}\n"
            "Name a folder that can be written in the environment variable SACREBLEU"
        )
    return _not_whole(name, folder, reason)


def _not_whole(name: str, folder: str, reason: str) -> str:
    return (
        f"the test set {name!r} is not whole: {reason}\n"
        f"Delete {folder} and run again: sacreBLEU will download it anew"
    )
