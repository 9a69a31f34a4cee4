"""Pages in a real browser without a window: what they fetch, what they complain of, how wide."""

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path


def _found() -> str | None:
    """A browser that runs: some distributions have a stub of that name."""
    for name in ("chromium", "chromium-browser", "google-chrome", "chrome"):
        path = shutil.which(name)
        if path and subprocess.run([path, "--version"], capture_output=True).returncode == 0:
            return path
    return None


CHROMIUM = _found()

SWITCHES = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # What the browser itself would fetch shall not leave this machine either.
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--enable-logging=stderr",
    "--v=0",
)

_PROBE = """<script>addEventListener("load", () => {
  const paper = %s;
  if (paper) dispatchEvent(new Event("beforeprint"));
  const seen = (e) => e.checkVisibility();
  const d = document.documentElement;
  const wide = [...document.querySelectorAll("body *")].filter(
    (e) => e.getBoundingClientRect().right > d.clientWidth + 1
      && (paper || !e.closest(".scroll")) && !e.closest("svg") && seen(e));
  parent.postMessage(JSON.stringify({
    inner: innerWidth, client: d.clientWidth, scroll: d.scrollWidth,
    links: [...document.querySelectorAll("a")].filter(seen).length,
    folded: document.querySelectorAll("details:not([open])").length,
    shown: document.body.innerText.length,
    wide: wide.slice(0, 5).map((e) => e.outerHTML.slice(0, 80)),
  }), "*");
});</script></body>"""


def opened(page: Path, folder: Path, width: int = 1280) -> tuple[str, list[str], list[str]]:
    """(the document after its scripts, http requests of the page, its console's messages).

    Args:
      page: opened from disk.
      folder: an empty one for the browser's profile and its log.
      width: of the window, CSS pixels; browsers make none narrower than 500.
    """
    log = folder / "net.json"
    command = [
        str(CHROMIUM), *SWITCHES, f"--user-data-dir={folder / 'profile'}",
        f"--log-net-log={log}", f"--window-size={width},900", "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=True, env=_environment(folder)
    )
    console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    return done.stdout, _requests(log), console


def printed(page: Path, folder: Path) -> bytes:
    """The page as a PDF of A4 or letter sheets, as the browser's own print dialog makes it.

    Args:
      page: opened from disk.
      folder: an empty one for the browser's profile and the PDF.
    """
    command = [
        str(CHROMIUM), *SWITCHES, f"--user-data-dir={folder / 'profile'}",
        "--no-pdf-header-footer", f"--print-to-pdf={folder / 'page.pdf'}", page.as_uri(),
    ]  # fmt: skip
    subprocess.run(command, capture_output=True, timeout=120, check=True, env=_environment(folder))
    return (folder / "page.pdf").read_bytes()


def _environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "HOME": str(folder)}


def _requests(log: Path) -> list[str]:
    recorded = json.loads(log.read_text())
    start = recorded["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    params = [event.get("params", {}) for event in recorded["events"] if event["type"] == start]
    # The browser's own requests come from no page.
    return [
        found["url"]
        for found in params
        if re.match("(http|ws)s?:", found.get("url", ""))
        and found.get("initiator") != "not an origin"
    ]


def layout(page: Path, folder: Path, width: int, paper: bool = False) -> dict:
    """How a page lies in a view of that width, and what sticks out of it beside its scroll boxes.

    A copy of the page, without its content security policy and with a script that measures, in a
    frame: no window is as narrow as a telephone.

    Args:
      page: opened from disk.
      folder: an empty one.
      width: CSS pixels.
      paper: with the rules of printing, on which nothing scrolls; "beforeprint" has happened.

    Returns:
      `inner`, `client` and `scroll` widths in CSS pixels, `wide`: elements that stick out, `links`
      and `folded`: how many links and closed `details` are to be seen, `shown`: visible text.
    """
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text())
    assert text.count("</body>") == 1
    if paper:
        assert "@media print {" in text
        text = text.replace("@media print {", "@media all {")
    probe = _PROBE % ("true" if paper else "false")
    (folder / "page.html").write_text(text.replace("</body>", probe))
    (folder / "frame.html").write_text(
        "<!DOCTYPE html><title></title><script>"
        'addEventListener("message", (e) => { document.title = e.data; });</script>'
        f'<iframe src="page.html" width="{width}" height="900" style="border: 0"></iframe>'
    )
    document, requests, console = opened(folder / "frame.html", folder)
    title = re.search("<title>(.*?)</title>", document)
    assert title, document[:500]
    return {
        **json.loads(html.unescape(title[1])),
        "requests": requests,
        "console": console,
    }
