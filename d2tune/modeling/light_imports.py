"""Imports of a process that predicts, without libraries that only training or compiling needs."""

from __future__ import annotations

import sys
from importlib import metadata
from types import ModuleType
from typing import Any

_COMPILER = "torch._dynamo"
_KNOWN = ("0.26.",)
"""Versions of torchvision whose import needs one function of torch's compiler."""


def import_torchvision() -> None:
    """Import torchvision without torch's compiler, which takes as long to import as torch itself.

    torchvision 0.26 imports one function of the compiler, which it calls where `torch.use_deterministic_algorithms` is
    on. While torchvision is imported, a module with that function alone stands for the compiler; the function imports
    the compiler when it is called. Later imports of the compiler find the compiler. Other versions of torchvision are
    imported as usual, by whoever needs them.
    """
    if _COMPILER in sys.modules or "torchvision" in sys.modules:
        return
    if not metadata.version("torchvision").startswith(_KNOWN):
        return
    import torch  # noqa: F401

    compiler, utils = ModuleType(_COMPILER), ModuleType(f"{_COMPILER}.utils")
    compiler.__path__ = []
    utils.is_compile_supported = _is_compile_supported  # type: ignore[attr-defined]
    sys.modules |= {one.__name__: one for one in (compiler, utils)}
    try:
        import torchvision  # noqa: F401
    finally:
        for one in (compiler, utils):
            sys.modules.pop(one.__name__, None)


def _is_compile_supported(device_type: str) -> Any:
    from torch._dynamo.utils import is_compile_supported

    return is_compile_supported(device_type)
