"""Values, counts and names in words, for messages."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from unicodedata import category

_CONSONANT_SOUND = re.compile(r"(?:uni(?!n)|us[aei]|eu|one\b|once\b)", re.IGNORECASE)
_VOWEL_SOUND = re.compile(r"(?:[aeiou]|8|11\b|18\b)", re.IGNORECASE)


def describe(value: object, *, limit: int = 40) -> str:
    """A short rendering of ``value`` for a message."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 256:
        return "a number of hundreds of digits"
    try:
        text = repr(value[: limit + 1]) if isinstance(value, (str, list)) else repr(value)
    except RecursionError:
        return "a value nested hundreds of levels deep"
    return text if len(text) <= limit else text[: limit - 3] + "..."


def printable(text: str) -> str:
    """``text`` with line ends, control characters and lone surrogates as escapes, so that a terminal shows them.

    Direction marks, which could reorder what stands beside them, are among the control characters.
    """
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or category(letter) == "Zs" else letter.encode("unicode_escape").decode()
        for letter in text
    )


def printable_lines(text: str) -> str:
    """``text`` with each of its lines `printable`; line feeds and tabs stay."""
    if text.isprintable():
        return text
    return "\n".join("\t".join(map(printable, line.split("\t"))) for line in text.split("\n"))


def counted(count: int, noun: str) -> str:
    """``1 image``, ``2 images``, ``3 classes``, ``1,200 boxes``, ``2 categories``.

    Args:
        count: How many.
        noun: In the singular; only its last word changes.
    """
    if count == 1:
        return f"1 {noun}"
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{count:,} {noun[:-1]}ies"
    return f"{count:,} {noun}{'es' if noun.endswith(('s', 'x', 'ch', 'sh')) else 's'}"


def a_or_an(noun: str) -> str:
    """The noun with its article: ``an instance run``, ``a semantic run``."""
    vowel = _VOWEL_SOUND.match(noun) and not _CONSONANT_SOUND.match(noun)
    return f"{'an' if vowel else 'a'} {noun}"


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known name that is most similar to ``word``; None if no name is similar."""
    names = list(known)
    by_lower = {name.lower(): name for name in reversed(names)}
    hits = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.5)
    return by_lower[hits[0]] if hits else None


def nearest_hint(word: str, known: Iterable[str], *, otherwise: str | None = None) -> str | None:
    """``Did you mean 'balloon'?``, where a known name is similar to ``word``.

    Args:
        word: What was written.
        known: The names that are valid.
        otherwise: The hint where no name is similar.
    """
    like = nearest(word, known)
    return otherwise if like is None else f"Did you mean {like!r}?"


def shortened(text: str, limit: int = 300) -> str:
    """``text`` on one line of at most ``limit`` characters, without its middle where it is longer."""
    line = " ".join(text.split())
    if len(line) <= limit:
        return line
    head = limit * 2 // 3
    return f"{line[:head]} ... {line[len(line) - (limit - head - 5) :]}"


def reason_of(error: BaseException) -> str:
    """What an error says on its first line, without a full stop; its kind where it says nothing."""
    lines = str(error).strip().splitlines()
    return shortened(lines[0]).rstrip(".:") if lines else type(error).__name__


def duration(seconds: float) -> str:
    """``75`` seconds as ``1 min 15 s``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def in_bytes(size: float) -> str:
    """``145913719`` bytes as ``146 MB``; the units are powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if round(size) < 1000:
            return f"{size:.0f} {unit}" if size >= 10 or unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
