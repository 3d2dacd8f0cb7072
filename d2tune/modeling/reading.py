"""Reading files of torch without running anything in them, and what is wrong with those that cannot be read."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from d2tune.text import reason_of, shortened

_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")
_CUT_OFF = ("central directory", "unexpected end", "failed reading", "Ran out of input")


class UnreadableError(Exception):
    """A file is not one of torch; the message says why, without torch's advice to run what is in it."""


def read_file(path: Path) -> Any:
    """What ``torch.save`` wrote, with its tensors on the CPU.

    Raises:
        UnreadableError: The file is missing, damaged, of another kind, or refers to more than tensors.
    """
    if path.is_dir():
        raise UnreadableError("it is a folder")
    try:
        if path.stat().st_size == 0:
            raise UnreadableError("the file is empty")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch asks to report files of other pickle protocols
            return torch.load(path, map_location="cpu", weights_only=True)
    except UnreadableError:
        raise
    except Exception as error:
        raise UnreadableError(_reason(error)) from error


def _reason(error: Exception) -> str:
    text = str(error)
    named = _GLOBAL.search(text)
    if named:
        return f"it refers to {named[1]}, which weights do not need"
    if isinstance(error, OSError):
        return error.strerror or reason_of(error)
    if any(words in text for words in _CUT_OFF):
        return "it is cut off or damaged"
    if "not in a subdirectory" in text:
        return "it is a ZIP file with other entries than those of torch"
    if isinstance(error, RuntimeError) and "weights_only" not in text:
        return f"it is damaged ({shortened(reason_of(error), 120)})"
    return "it is damaged, or not a file of torch"


def first_not_finite(state: Mapping[str, Any]) -> str | None:
    """The name of the first tensor of floating point numbers that holds NaN or an infinite number."""
    for name, value in state.items():
        if isinstance(value, Tensor) and value.is_floating_point() and not bool(torch.isfinite(value).all()):
            return name
    return None
