"""JSON annotation files: with or without a byte order mark, in UTF-8 or GB18030."""

from __future__ import annotations

import codecs
import json
import re
import stat
from pathlib import Path
from typing import Any

import numpy as np
import orjson

FILE_LIMIT_BYTES = 2_000_000_000
"""Larger annotation files are not read."""

DEPTH_LIMIT = 100
"""The deepest nesting of values that a writer copies; Python fails at about a thousand levels."""

_EMBEDDED_IMAGE_KEY = b'"imageData"'
_EMBEDDED_IMAGE = re.compile(_EMBEDDED_IMAGE_KEY + rb'\s*:\s*"')
_LONG_NUMBER_DIGITS = 19
_BLOCK_BYTES = 1 << 16


class JsonError(ValueError):
    """Content that is not valid JSON.

    Args:
        message: What is wrong.
        line: Line from 1, where known.
        column: Column from 1, where known.
    """

    def __init__(self, message: str, *, line: int | None = None, column: int | None = None) -> None:
        super().__init__(message)
        self.line = line
        self.column = column


def read_bytes(path: Path) -> bytes:
    """The content of an annotation file.

    Raises:
        JsonError: It is a pipe or a device, or larger than `FILE_LIMIT_BYTES`.
        OSError: It cannot be read.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise JsonError("it is not a regular file")
    size_bytes = status.st_size
    if size_bytes > FILE_LIMIT_BYTES:
        limit = f"{FILE_LIMIT_BYTES / 1e9:.0f} GB"
        raise JsonError(f"the file has {size_bytes / 1e9:.1f} GB, the limit is {limit}")
    return path.read_bytes()


def is_nested_deeper(value: object, levels: int) -> bool:
    """Whether lists and objects are nested more than ``levels`` deep."""
    nodes = [value]
    for _ in range(levels):
        nodes = [
            member
            for node in nodes
            for member in (node.values() if isinstance(node, dict) else node if isinstance(node, list) else ())
            if isinstance(member, (dict, list))
        ]
        if not nodes:
            return False
    return True


def decode_text(content: bytes) -> tuple[str, bool]:
    """Text, and whether it is UTF-8.

    Raises:
        JsonError: The content is neither UTF-8 nor GB18030.
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
    """The value of a JSON file, and whether the file is UTF-8.

    Numbers that JSON does not have (NaN, Infinity) are read, so that a finding can name their shape.

    Raises:
        JsonError: The content is not valid JSON.
    """
    if not _may_hold_long_numbers(content):
        try:
            return orjson.loads(content.removeprefix(codecs.BOM_UTF8)), True
        except orjson.JSONDecodeError:
            pass  # the standard library accepts more (NaN, GB18030) and has better error messages
    text, is_utf8 = decode_text(content)
    try:
        return json.loads(text), is_utf8
    except json.JSONDecodeError as error:
        raise JsonError(_in_words(error, text), line=error.lineno, column=error.colno) from error
    except (ValueError, RecursionError) as error:
        detail = "it is nested too deep" if isinstance(error, RecursionError) else "a number has too many digits"
        raise JsonError(f"the file cannot be parsed: {detail}") from error


def _may_hold_long_numbers(content: bytes) -> bool:
    """Whether there are so many digits in a row, outside an embedded image, that orjson might round a whole number."""
    at = content.find(_EMBEDDED_IMAGE_KEY)
    while at >= 0:
        if image := _EMBEDDED_IMAGE.match(content, at):
            content = content[: image.end()] + content[content.find(b'"', image.end()) :]
            break
        at = content.find(_EMBEDDED_IMAGE_KEY, at + 1)
    return any(_has_long_number(content, start) for start in range(0, len(content), _BLOCK_BYTES))


def _has_long_number(content: bytes, start: int) -> bool:
    """Whether 19 digits in a row begin in the block at ``start``."""
    count = min(_BLOCK_BYTES + _LONG_NUMBER_DIGITS - 1, len(content) - start)
    run = np.frombuffer(content, np.uint8, count, start) - ord("0") < 10
    for step in (1, 2, 4, 8, _LONG_NUMBER_DIGITS - 16):  # digits in a row: 2, 4, 8, 16, 19
        run = run[:-step] & run[step:]
    return bool(run.any())


def _in_words(error: json.JSONDecodeError, text: str) -> str:
    if not text.strip():
        return "the file is empty"
    if not text[error.pos :].strip() or re.match(r"Unterminated", error.msg):
        return f"the file ends in the middle of the JSON (line {error.lineno}, column {error.colno})"
    return f"the file is not valid JSON: {error.msg} (line {error.lineno}, column {error.colno})"
