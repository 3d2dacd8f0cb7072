"""Parts of Detectron2's projects (PointRend, DeepLab, Panoptic-DeepLab), without the rest of the project.

Importing ``detectron2.projects.NAME`` runs the project's ``__init__``, which imports all of its modules. That of
Panoptic-DeepLab imports a dataset mapper that d2tune has no use for and that needs panopticapi, which is not on PyPI.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

from d2tune.errors import MachineError

_PARENT = "detectron2.projects"


def project_module(name: str) -> Any:
    """Import one module of a project without running the project's ``__init__``.

    The project's package runs its ``__init__`` later, when somebody imports a name from it that none of its modules
    imported here defines. So code that imports the package as usual works before and after.

    Args:
        name: Below ``detectron2.projects``, for example ``panoptic_deeplab.panoptic_seg``.

    Raises:
        MachineError: The installed Detectron2 does not have the project.
    """
    project, _, _ = name.partition(".")
    package = sys.modules.get(f"{_PARENT}.{project}") or _deferred_package(project)
    module = importlib.import_module(f"{_PARENT}.{name}")
    if isinstance(package, _DeferredPackage):
        own = {key: value for key, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__}
        vars(package).update(own)
    return module


class _DeferredPackage(ModuleType):
    """A package whose ``__init__`` runs when a name is asked for that is not there yet."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        # its __init__ imports its own modules, which must not run it again
        self.__class__ = ModuleType  # type: ignore[assignment]
        try:
            assert self.__spec__ is not None and self.__spec__.loader is not None
            self.__spec__.loader.exec_module(self)
        except BaseException:
            self.__class__ = _DeferredPackage
            raise
        return getattr(self, name)


def _deferred_package(project: str) -> ModuleType:
    name = f"{_PARENT}.{project}"
    spec = importlib.util.find_spec(name)
    if spec is None:
        raise MachineError(f"the installed Detectron2 does not have {name}", hint="Run: d2tune doctor")
    package = importlib.util.module_from_spec(spec)
    package.__class__ = _DeferredPackage
    sys.modules[name] = package
    setattr(sys.modules[_PARENT], project, package)
    return package
