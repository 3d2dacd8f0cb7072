"""Docstrings of Google's style as Markdown."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

SECTIONS = ("Args", "Attributes", "Returns", "Yields", "Raises")
_NAMED = ("Args", "Attributes", "Raises")
_HEADING = re.compile(rf"^({'|'.join(SECTIONS)}):$")
_ENTRY = re.compile(r"^ {4}(\*{0,2}[\w.]+)(?: \([^)]*\))?: ?(.*)$")


@dataclass
class Docstring:
    """The pieces of a docstring.

    Attributes:
        text: What comes before the first section.
        entries: By section, the text by name; sections without names have their text under an empty name.
    """

    text: str = ""
    entries: dict[str, dict[str, str]] = field(default_factory=dict)


def parse(docstring: str) -> Docstring:
    """Divide a docstring into its text and its sections.

    Raises:
        ValueError: A line of a section with names belongs to no name.
    """
    parsed, section, name = Docstring(), "", ""
    for line in inspect.cleandoc(docstring).splitlines():
        if heading := _HEADING.match(line):
            section, name = heading[1], ""
            parsed.entries[section] = {}
        elif section and line and not line.startswith(" "):
            section = ""
            parsed.text += f"\n{line}\n"
        elif not section:
            parsed.text += f"{line}\n"
        elif section in _NAMED and (entry := _ENTRY.match(line)):
            name = entry[1]
            parsed.entries[section][name] = entry[2]
        elif section in _NAMED and not name and line.strip():
            raise ValueError(f"{line.strip()!r} in {section} belongs to no name")
        else:
            text = parsed.entries[section].get(name, "")
            parsed.entries[section][name] = f"{text} {line.strip()}".strip()
    parsed.text = parsed.text.strip()
    return parsed


def described_attributes(docstring: str) -> Mapping[str, str]:
    """The text of each attribute."""
    return parse(docstring).entries.get("Attributes", {})


def first_paragraph(docstring: str) -> str:
    """All before the sections, as Markdown."""
    return to_markdown(parse(docstring).text)


def to_markdown(text: str) -> str:
    """A text of a docstring as Markdown: literals have single backticks."""
    return re.sub(r"``(.+?)``", r"`\1`", text, flags=re.DOTALL)
