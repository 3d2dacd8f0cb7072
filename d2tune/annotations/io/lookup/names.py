"""The names that a text in an annotation file can stand for: paths of other machines, URLs, names of media servers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from unicodedata import normalize
from urllib.parse import unquote

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/+")
_START = re.compile(rf"[A-Za-z]:(?=/|$)|{_SCHEME.pattern}")
_HASHED = re.compile(r"[0-9a-f]{8}-(?=.)")
_UPLOADED = re.compile(r"[0-9a-f]{4,40}-(?=.)", re.IGNORECASE)
"""The prefix that Label Studio gives to uploaded files."""


def spellings(text: str) -> Iterator[str]:
    """The paths that a text can mean, with forward slashes, the most literal first.

    A query is dropped, but for ``?d=PATH`` of Label Studio's local files, which is the path; escapes are decoded.
    """
    path = text.strip().replace("\\", "/")
    yield path
    base, _, query = path.partition("?")
    locals_ = [value for key, _, value in (pair.partition("=") for pair in query.split("&")) if key == "d" and value]
    if _SCHEME.match(base):
        base = base.partition("#")[0]
    for plain in (*locals_, base):
        decoded = unquote(plain).replace("\\", "/")
        if plain != path:
            yield plain
        if decoded != plain:
            yield decoded


def steps_of(path: str) -> tuple[str, ...]:
    """The folders and the name in a path, without a drive, a scheme, ``.`` and ``..``."""
    inner = _START.sub("", path, count=1) if _START.match(path) else path
    return tuple(step for step in inner.split("/") if step not in ("", ".", ".."))


def base_names(text: str) -> list[str]:
    """The base names that a text can mean, the most literal first.

    Those without the hash that Label Studio puts before uploaded files come last.
    """
    paths = [steps for steps in map(steps_of, spellings(text)) if steps]
    names = [steps[-1] for steps in paths]
    for *folders, name in paths:
        prefix = (_UPLOADED if "upload" in folders else _HASHED).match(name)
        names += [name[prefix.end() :]] if prefix else []
    return list(dict.fromkeys(names))


_MOST_STEPS = 100
"""Steps of the longest end of a path that is looked for: one of thousands would take seconds."""


def path_ends(text: str) -> Iterator[tuple[str, ...]]:
    """The ends of the paths that a text can mean, of two to `_MOST_STEPS` steps, the longest first."""
    for steps in dict.fromkeys(map(steps_of, spellings(text))):
        for start in range(max(0, len(steps) - _MOST_STEPS), len(steps) - 1):
            yield steps[start:]


def stem_of(name: str) -> str:
    """A base name without its suffix."""
    stem, dot, _ = name.rpartition(".")
    return stem if dot and stem else name


def folded(name: str) -> str:
    """The same text for names that differ by case and Unicode form alone."""
    return normalize("NFC", normalize("NFC", name).casefold())
