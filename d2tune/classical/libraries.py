"""The libraries of the extra ``classical``."""

from __future__ import annotations

from importlib.util import find_spec

from d2tune.errors import MachineError

_PACKAGES = {"skimage": "scikit-image", "sklearn": "scikit-learn"}


def check_libraries() -> None:
    """Refuse to go on where a library of the extra ``classical`` is missing.

    Raises:
        MachineError: One is.
    """
    for module, package in _PACKAGES.items():
        if find_spec(module) is None:
            hint = "Install what classical methods need: pip install 'd2tune[classical]'."
            raise MachineError(f"the library {package} is not installed", hint=hint)
