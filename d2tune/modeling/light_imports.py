"""Imports of a process that predicts, without libraries that only training or compiling needs."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from types import ModuleType
from typing import Any

from d2tune.hardware import yield_idle_cores

_COMPILER = "torch._dynamo"
_KNOWN = ("0.26.",)
"""Versions of torchvision whose import needs one function of torch's compiler."""


@contextmanager
def light_imports() -> Iterator[None]:
    """Import what prediction needs within this context, before anything has imported torch, to get a mask soon.

    Threads that wait sleep (see `hardware.yield_idle_cores`), torchvision is imported without torch's compiler, and
    memory is not searched for garbage, of which imports leave none.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield_idle_cores()
        import_torchvision()
        yield
    finally:
        if was_enabled:
            if not gc.get_freeze_count():
                # what was imported becomes old without being searched, and is searched with all else that is old
                gc.freeze()
                gc.unfreeze()
            gc.enable()


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
