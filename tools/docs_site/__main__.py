"""``python -m tools.docs_site``: generate the pages and build the site."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tools.docs_site.pages import ROOT, write_pages

WORKER = Path(__file__).parent / "file_worker.js"
_REMOTE_WORKER = "https://unpkg.com/iframe-worker/shim"
"""What the plugin `offline` puts into the pages, in spite of its name."""

_COLORS = re.compile(r"\x1b\[[0-9;]*m")
"""Codes for terminals, which Zensical writes everywhere."""


def main(arguments: list[str] | None = None) -> int:
    """Write the Markdown of the site to ``FOLDER/build/docs`` and build ``FOLDER/build/site``.

    Returns:
        The exit status: 1 after any warning of Zensical.
    """
    parser = argparse.ArgumentParser(prog="python -m tools.docs_site", description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT, help="folder of build/ (default: the checkout)")
    parser.add_argument("--pages-only", action="store_true", help="write the Markdown, and build no site")
    options = parser.parse_args(arguments)
    folder: Path = options.folder.resolve()
    write_pages(folder / "build" / "docs")
    if options.pages_only:
        return 0
    if folder != ROOT:
        shutil.copyfile(ROOT / "mkdocs.yml", folder / "mkdocs.yml")
    site = folder / "build" / "site"
    shutil.rmtree(site, ignore_errors=True)
    words = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    if done.returncode:
        print(_COLORS.sub("", done.stdout + done.stderr.partition("Traceback")[0]), file=sys.stderr)
        return 1
    _use_own_worker(site)
    print(f"the site: {site / 'index.html'}")
    return 0


def _use_own_worker(site: Path) -> None:
    """Replace the one script that the pages would load from another site, with which the search works in files."""
    place = Path("assets", "javascripts", WORKER.name)
    shutil.copyfile(WORKER, site / place)
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        base = "/" if page.name == "404.html" else "../" * (len(page.relative_to(site).parts) - 1)
        page.write_text(text.replace(_REMOTE_WORKER, f"{base}{place.as_posix()}"), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
