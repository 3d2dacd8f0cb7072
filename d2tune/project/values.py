"""Types of values that project files hold, read as leniently as their meaning is certain."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PlainSerializer

from d2tune.project.overrides import number

_UNITS_S = {"s": 1, "min": 60, "h": 3600}
_TIME = re.compile(r"(\d{1,7}(?:\.\d{1,6})?)\s*(s|min|h)")

_FRACTION = re.compile(r"[-+]?(\d+\.\d*|\.\d+)([eE][-+]?\d+)?|\d+(\.\d+)?\s*%")


def _number(value: object) -> object:
    """A text that reads as a number as that number: YAML 1.1 takes ``1e-3`` for text."""
    return number(value) if isinstance(value, str) else value


def _whole(value: object) -> object:
    """A number without a fraction as an integer: ``5e2`` is 500."""
    value = _number(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _stripped(value: object) -> object:
    """A class name without blanks around it, as labels are read."""
    return value.strip() if isinstance(value, str) else value


def _one_line(value: str) -> str:
    if not value:
        raise ValueError("the name is empty; remove it, or write the name of a class")
    if any(letter in value for letter in "\n\r\t\x0b\x0c\x85\u2028\u2029"):
        raise ValueError(f"the name {value!r} must be on one line, without tabs")
    return value


def _no_fraction(value: object) -> object:
    """Refuse a fraction that is text, which would be looked for as a folder."""
    if isinstance(value, str) and _FRACTION.fullmatch(value.strip()):
        text = value.strip()
        share = float(text.rstrip("% ")) / (100 if text.endswith("%") else 1)
        valid = 0 < share < 1
        fraction = f"write {share:g}, without quotes, for a fraction of the images" if valid else "write a fraction"
        raise ValueError(
            f"must be a folder or file, or a number between 0 and 1; found the text {value!r}: {fraction}"
            f"{'' if valid else ' such as 0.2, without quotes'}; a folder of this name is ./{text}"
        )
    return value


def _seconds(value: object) -> object:
    """A time with its unit in seconds, to the millisecond."""
    matched = _TIME.fullmatch(value.strip()) if isinstance(value, str) else None
    if matched is None:
        if isinstance(value, int | float | str) and not isinstance(value, bool) and _is_number(value):
            raise ValueError(f"must have a unit; found {value}. Write {value} s, {value} min or {value} h")
        return value if value is None else str(value)  # refused as text
    seconds = round(float(matched[1]) * _UNITS_S[matched[2]], 3)
    if not seconds:
        raise ValueError(f"must be a time above 0; found {value}")
    return seconds


def _is_number(value: float | str) -> bool:
    read = _number(value)
    return isinstance(read, int | float) and 0 < read < math.inf


def time_text(seconds: float) -> str:
    """A time as project files have it, in the largest unit that divides it: 5400 seconds are ``90 min``."""
    unit = next(unit for unit in ("h", "min", "s") if seconds % _UNITS_S[unit] == 0 or unit == "s")
    return f"{round(seconds / _UNITS_S[unit], 3):.12g} {unit}"


TimeSpan = Annotated[
    float,
    Field(description="a time such as 90 s, 20 min or 1.5 h"),
    BeforeValidator(_seconds),
    PlainSerializer(time_text, when_used="json"),
]
"""A time in seconds, which is written with its unit."""

Number = Annotated[float, BeforeValidator(_number)]
"""A number; texts that read as one are numbers."""

AnyNumber = Annotated[float, Field(allow_inf_nan=True), BeforeValidator(_number)]
"""A number, NaN or infinity."""

Whole = Annotated[int, BeforeValidator(_whole)]
"""A whole number; texts that read as one and floats without a fraction are whole numbers."""

PathText = Annotated[str, Field(min_length=1, description="a folder or file")]
"""A path that is not empty, which would stand for the folder that it is relative to."""

SplitFolders = dict[Literal["train", "val"], PathText]
"""A path for each split."""

SplitText = Annotated[PathText, BeforeValidator(_no_fraction)]
"""A path; a fraction as text is refused."""


def class_name(value: object) -> object:
    """A class name as it is written, or null, without blanks around it."""
    return value if value is None else _checked(value)


def class_names(value: object) -> object:
    """A list of class names as it is written."""
    return tuple(map(_checked, value)) if isinstance(value, (list, tuple)) else value


def refuse_repeated(names: Iterable[object]) -> None:
    """Refuse a name that is in a list twice.

    Raises:
        ValueError: One is.
    """
    seen: set[object] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{name!r} is named twice")
        seen.add(name)


def _checked(value: object) -> object:
    value = _stripped(value)
    return _one_line(value) if isinstance(value, str) else value
