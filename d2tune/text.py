"""Values and counts in words, for messages."""

from __future__ import annotations


def describe(value: object, *, limit: int = 40) -> str:
    """A short rendering of ``value`` for a message."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 256:
        return "a number of hundreds of digits"
    try:
        text = repr(value[: limit + 1]) if isinstance(value, (str, list)) else repr(value)
    except RecursionError:
        return "a value nested hundreds of levels deep"
    return text if len(text) <= limit else text[: limit - 3] + "..."
