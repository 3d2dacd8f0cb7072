"""Errors that commands print as a line: place, condition, value, expected value and next step."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from unicodedata import category


class D2TuneError(Exception):
    """A mistake that the user can fix; commands print it as a line and exit with 1.

    Args:
        message: The condition, as a sentence without a full stop.
        file: The file or folder that the error is about.
        place: The place inside the file: a key, a shape, a line.
        found: The value.
        expected: The valid values.
        hint: The next step, as a sentence with a full stop.
    """

    def __init__(
        self,
        message: str,
        *,
        file: str | Path | None = None,
        place: str | None = None,
        found: str | None = None,
        expected: str | None = None,
        hint: str | None = None,
    ) -> None:
        self.message = message
        self.file = None if file is None else str(file)
        self.place = place
        self.found = found
        self.expected = expected
        self.hint = hint
        super().__init__(self.one_line())

    def one_line(self) -> str:
        """The whole error on a line, in the order file, place, message, found, expected, hint."""
        where = ": ".join(text for text in (self.file, self.place) if text)
        line = f"{where}: {self.message}" if where else self.message
        if self.found is not None:
            line += f"; found {self.found}"
        if self.expected is not None:
            line += f"; expected {self.expected}"
        if self.hint is not None:
            line += f". {self.hint}"
        return printable(" ".join(line.split()))


class ProjectError(D2TuneError):
    """A project file, an override or a profile is invalid."""


class DataError(D2TuneError):
    """Images, annotations or predictions cannot be used."""


class WeightsError(D2TuneError):
    """Weights cannot be downloaded, read or fitted to the model."""


class RunError(D2TuneError):
    """A run folder is missing, incomplete or cannot be written."""


class MachineError(D2TuneError):
    """Software or hardware that is needed is missing on this machine."""


def printable(text: str) -> str:
    """``text`` with line ends, control characters and lone surrogates as escapes, so that a terminal shows them."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or category(letter) == "Zs" else letter.encode("unicode_escape").decode()
        for letter in text
    )


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known name that is most similar to ``word``; None if no name is similar."""
    names = list(known)
    by_lower = {name.lower(): name for name in reversed(names)}
    hits = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.5)
    return by_lower[hits[0]] if hits else None
