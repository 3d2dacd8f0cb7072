"""The blocks of code and commands in the pages of the documentation."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


class Block(NamedTuple):
    """A fenced block: its page, the line of its first line, its language and its text without indentation."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def written_pages() -> list[Path]:
    """README.md and the pages in ``docs``, which people write."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path, *languages: str) -> Iterator[Block]:
    """The blocks of a page, of some languages or of all."""
    text = page.read_text(encoding="utf-8")
    for match in _FENCE.finditer(text):
        if not languages or match["language"] in languages:
            indent = len(match["indent"])
            lines = [line[indent:] for line in match["text"].splitlines()]
            yield Block(page, text.count("\n", 0, match.start("text")) + 1, match["language"], "\n".join(lines) + "\n")


def inline_code(page: Path) -> Iterator[str]:
    """What stands between backticks outside of blocks."""
    yield from _INLINE.findall(_FENCE.sub("", page.read_text(encoding="utf-8")))


def commands(text: str) -> Iterator[str]:
    """The commands of a block of bash, lines that end in a backslash joined, comments removed."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words and not line.lstrip().startswith("#"):
            yield line.partition(" #")[0].strip()
