"""Names of projects: they name run folders, so they hold letters, digits, ``.``, ``_`` and ``-``."""

from __future__ import annotations

import re
from unicodedata import normalize

NAME_PATTERN = r"^[^\W_][\w.-]*$"
"""A letter or digit of any script, then more of them, ``.``, ``_`` and ``-``."""

_OTHER = re.compile(r"[^\w.-]+")
_LONGEST = 80


def is_name(text: str) -> bool:
    """Whether a text can name a project."""
    return re.fullmatch(NAME_PATTERN, text) is not None


def safe_name(text: str) -> str:
    """The name of a project that comes nearest to a text, such as the name of a file.

    >>> safe_name("My Balloons"), safe_name("_x"), safe_name("...")
    ('My_Balloons', 'x', 'project')
    """
    name = _OTHER.sub("_", normalize("NFC", text)).strip("._-")[:_LONGEST].rstrip("._-")
    return name or "project"
