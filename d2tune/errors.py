"""What a user did wrong, told in one line: where, what was found, what was expected, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from unicodedata import category


class D2TuneError(Exception):
    """A mistake that the user can mend; commands print it as one line and exit with 1.

    Args:
        message: What is wrong, in one sentence without a closing full stop.
        file: The file (or folder) that it is about.
        place: Where inside the file: a key, a shape, a line.
        found: What stands there.
        expected: What should stand there.
        hint: The next step to take.
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
        """The whole error on one line, in the order file, place, message, found, expected, hint."""
        where = ": ".join(part for part in (self.file, self.place) if part)
        line = f"{where}: {self.message}" if where else self.message
        if self.found is not None:
            line += f"; found {self.found}"
        if self.expected is not None:
            line += f"; expected {self.expected}"
        if self.hint is not None:
            line += f". {self.hint}"
        return printable(" ".join(line.split()))


class ProjectError(D2TuneError):
    """A project file, an override or a profile says something that cannot be meant."""


class DataError(D2TuneError):
    """Images or annotations that cannot be trained on."""


class WeightsError(D2TuneError):
    """Weights that cannot be had, read or fitted to the model."""


class RunError(D2TuneError):
    """A run folder that is missing, incomplete or cannot be written."""


class MachineError(D2TuneError):
    """Something that must be installed or present on the machine is not."""


def printable(text: str) -> str:
    """``text`` with line ends, control characters and lone surrogates written out, so that a terminal shows them."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or category(letter) == "Zs" else letter.encode("unicode_escape").decode()
        for letter in text
    )


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known name most like ``word``, or None where none is at all like it."""
    names = list(known)
    by_lower = {name.lower(): name for name in reversed(names)}
    hits = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.5)
    return by_lower[hits[0]] if hits else None
