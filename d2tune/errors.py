"""Errors that commands print as a line: place, condition, value, expected value and next step."""

from __future__ import annotations

import math
from pathlib import Path

from d2tune.text import nearest, printable, shortened

__all__ = [
    "D2TuneError",
    "DataError",
    "MachineError",
    "PackageError",
    "ProjectError",
    "RunError",
    "WeightsError",
    "check_path",
    "check_range",
    "nearest",
    "printable",
]

_LONGEST_LINE = 1000


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
        return printable(shortened(line, _LONGEST_LINE))


class ProjectError(D2TuneError):
    """A project file, an override or a profile is invalid."""


class DataError(D2TuneError):
    """Images, annotations or predictions cannot be used."""


class PackageError(D2TuneError):
    """A package cannot be read or written."""


class WeightsError(D2TuneError):
    """Weights cannot be downloaded, read or fitted to the model."""


class RunError(D2TuneError):
    """A run folder is missing, incomplete or cannot be written."""


class MachineError(D2TuneError):
    """Software or hardware that is needed is missing on this machine."""


def check_range(
    value: float,
    *,
    place: str,
    least: float = -math.inf,
    most: float = math.inf,
    above: float | None = None,
    hint: str | None = None,
) -> None:
    """Refuse a number outside of a range, and NaN.

    Args:
        value: The number.
        place: The option or argument that it was given for.
        least: The smallest valid number.
        most: The largest valid number.
        above: Instead of ``least``: the number that it must exceed.
        hint: The next step.

    Raises:
        ProjectError: The number is outside.
    """
    if least <= value <= most and (above is None or value > above):
        return
    if above is not None:
        valid = f"above {above:g}" + (f" and at most {most:g}" if math.isfinite(most) else "")
    elif math.isfinite(most):
        valid = f"between {least:g} and {most:g}"
    else:
        valid = f"{least:g} or more"
    raise ProjectError(f"must be {valid}", place=place, found=f"{value:g}", hint=hint)


def check_path(path: str | Path | None, *, place: str) -> None:
    """Refuse an empty path, which would stand for the working folder.

    Args:
        path: As it was given.
        place: The option or argument that it was given for.

    Raises:
        ProjectError: It is empty.
    """
    if isinstance(path, str) and not path.strip():
        raise ProjectError("the path is empty", place=place, hint="Name a file or folder; . is the working folder.")
