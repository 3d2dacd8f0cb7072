"""JSON files as annotators have them: with or without a byte order mark, in UTF-8 or in GB18030."""

from __future__ import annotations

import json
import re
from typing import Any


class JsonError(ValueError):
    """Bytes that are no JSON.

    Args:
        message: What is wrong.
        line: Line from 1, where known.
        column: Column from 1, where known.
    """

    def __init__(self, message: str, *, line: int | None = None, column: int | None = None) -> None:
        super().__init__(message)
        self.line = line
        self.column = column


def decode_text(content: bytes) -> tuple[str, bool]:
    """Text, and whether it was UTF-8.

    Raises:
        JsonError: It is neither UTF-8 nor GB18030.
    """
    try:
        return content.decode("utf-8-sig"), True
    except UnicodeDecodeError:
        pass
    try:
        return content.decode("gb18030"), False
    except UnicodeDecodeError as error:
        raise JsonError(f"the file is neither UTF-8 nor GB18030 (byte {error.start})") from error


def decode_json(content: bytes) -> tuple[Any, bool]:
    """The value of a JSON file, and whether the file was UTF-8.

    Numbers that JSON does not have (NaN, Infinity) are read as such, so that the shape they stand in can be named.

    Raises:
        JsonError: It is no JSON.
    """
    text, is_utf8 = decode_text(content)
    try:
        return json.loads(text), is_utf8
    except json.JSONDecodeError as error:
        raise JsonError(_in_words(error, text), line=error.lineno, column=error.colno) from error
    except (ValueError, RecursionError) as error:
        detail = "it is nested too deep" if isinstance(error, RecursionError) else "it holds an absurdly long number"
        raise JsonError(f"the file cannot be parsed: {detail}") from error


def _in_words(error: json.JSONDecodeError, text: str) -> str:
    if not text.strip():
        return "the file is empty"
    if not text[error.pos :].strip() or re.match(r"Unterminated", error.msg):
        return f"the file ends in the middle of the JSON (line {error.lineno}, column {error.colno})"
    return f"the file is no JSON: {error.msg} (line {error.lineno}, column {error.colno})"
