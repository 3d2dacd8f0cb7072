"""The links of a built site: which of them lead nowhere, and what would be loaded from elsewhere."""

from __future__ import annotations

from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src", "object": "data"}
_NOT_LOADED = ("canonical", "next", "prev", "alternate")


class _Page(HTMLParser):
    """Targets, links, and what the browser loads with the page."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.images_without_text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value or "" for key, value in attrs}
        self.ids |= {values[key] for key in ("id", "name") if values.get(key)}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag == "img" and not values.get("alt"):
            self.images_without_text.append(values.get("src", ""))
        if (key := _LOADED.get(tag)) in values and values.get("rel") not in _NOT_LOADED:
            assert key is not None
            self.loaded.append(values[key])


@cache
def read(path: Path) -> _Page:
    """The links and targets of an HTML file."""
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def broken_links(site: Path) -> list[str]:
    """Links and files of all pages that do not exist, anchors too; addresses of other sites are not looked at."""
    broken = []
    for path in sorted(site.rglob("*.html")):
        if path.name == "404.html":
            continue  # its links begin at the root of the server
        page = read(path)
        for link in [*page.links, *page.loaded]:
            address = urlsplit(link)
            if address.scheme or address.netloc:
                continue
            target = (path.parent / unquote(address.path)).resolve() if address.path else path
            if target.is_dir():
                target /= "index.html"
            is_missing = not target.is_relative_to(site.resolve()) or not target.is_file()
            if is_missing or (address.fragment and unquote(address.fragment) not in read(target).ids):
                broken.append(f"{path.relative_to(site)}: {link}")
    return broken


def loaded_from_elsewhere(site: Path) -> list[str]:
    """What pages load from other sites."""
    return [
        f"{path.relative_to(site)}: {address}"
        for path in sorted(site.rglob("*.html"))
        for address in read(path).loaded
        if urlsplit(address).netloc
    ]
