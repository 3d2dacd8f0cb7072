"""The site is built offline without a warning, and none of its links leads nowhere."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.browser import browser
from tests.docs import links
from tests.docs.blocks import ROOT, written_pages

LONGEST_BUILD_S = 30.0


class Built:
    """The built site, and how long that took."""

    def __init__(self, folder: Path) -> None:
        start = time.monotonic()
        words = [sys.executable, "-m", "tools.docs_site", "--folder", str(folder)]
        self.done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
        self.seconds = time.monotonic() - start
        self.site = folder / "build" / "site"
        self.pages = folder / "build" / "docs"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return Built(tmp_path_factory.mktemp("site"))


def test_the_site_is_built_without_a_warning_in_half_a_minute(built: Built) -> None:
    assert built.done.returncode == 0, built.done.stdout + built.done.stderr
    assert "warning" not in (built.done.stdout + built.done.stderr).lower()
    assert built.seconds < LONGEST_BUILD_S


def test_every_page_is_built(built: Built) -> None:
    pages = {page.relative_to(built.pages).with_suffix("") for page in built.pages.rglob("*.md")}
    html = {page.relative_to(built.site).with_suffix("") for page in built.site.rglob("*.html")}
    assert pages and pages == html - {Path("404")}


def test_no_link_and_no_anchor_leads_nowhere(built: Built) -> None:
    broken = links.broken_links(built.site)
    assert not broken, "\n".join(broken)


def test_nothing_is_loaded_from_elsewhere_and_every_image_has_a_text(built: Built) -> None:
    assert not links.loaded_from_elsewhere(built.site)
    pages = sorted(built.site.rglob("*.html"))
    assert not [path for path in pages if links.read(path).images_without_text]
    assert sum(len(links.read(path).loaded) for path in pages) > len(pages)


def test_every_page_in_docs_is_in_the_navigation() -> None:
    def files(entries: list[object]) -> Iterator[str]:
        for entry in entries:
            value = next(iter(entry.values())) if isinstance(entry, dict) else entry
            yield from files(value) if isinstance(value, list) else [str(value)]

    navigation = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    named = list(files(navigation))
    assert len(named) == len(set(named))
    written = {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").glob("*.md")}
    assert written <= set(named), "add them to nav in mkdocs.yml"


def test_links_between_files_of_the_repository_lead_somewhere() -> None:
    """Where the pages are read without the site; generated pages are in the site alone."""
    generated = ("reference/", "drawings/", "benchmarks.md", "changelog.md", "tour.md")
    broken = []
    for page in [*written_pages(), ROOT / "CHANGELOG.md", ROOT / "benchmarks" / "README.md"]:
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            path = link.partition("#")[0]
            is_elsewhere = "://" in path or not path or path.startswith(generated)
            if not is_elsewhere and not (page.parent / path).exists():
                broken.append(f"{page.relative_to(ROOT)}: {link}")
    assert not broken


def test_a_broken_link_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<a href="b.html#c">x</a><a href="d.html"></a><a href="#e"></a><img src="f.png">')
    (tmp_path / "b.html").write_text('<h1 id="c"></h1><script src="https://example.org/a.js"></script>')
    assert links.broken_links(tmp_path) == ["a.html: d.html", "a.html: #e", "a.html: f.png"]
    assert links.loaded_from_elsewhere(tmp_path) == ["b.html: https://example.org/a.js"]


@pytest.mark.slow
def test_the_site_works_as_files_in_a_browser_without_a_network(built: Built, tmp_path: Path) -> None:
    with browser(tmp_path / "profile") as tab:
        for width_px in (1280, 390):
            for name in ("index", "evaluation_explained", "reference/commands"):
                tab.look(width_px=width_px)
                tab.open(built.site / f"{name}.html")
                assert tab.evaluate("document.documentElement.scrollWidth") <= width_px, f"{name} at {width_px} px"
                assert tab.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
                assert all(address.startswith("file:") for address in tab.requests())
                assert not tab.complaints()
        tab.look(width_px=1280)
        tab.evaluate("document.querySelector('.md-search__button').click()")
        tab.evaluate("new Promise(done => setTimeout(done, 500))")
        tab.call("Input.insertText", text="sliver")  # a word of one page
        roots = "[...document.querySelectorAll('*')].flatMap(element => element.shadowRoot ?? [])"
        result = f"{roots}.some(root => root.querySelector('a[href*=large_images]'))"
        looks = f"const look = () => {result} ? done(true) : setTimeout(look, 100); setTimeout(() => done(false), 9000)"
        assert tab.evaluate(f"new Promise(done => {{ {looks}; look(); }})")
