"""Reading a project file with the settings of a command line laid over it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from d2tune.project.loading import OWN_KEYS, LoadedProject, load_project
from d2tune.project.overrides import parse_overrides

_PROJECT_KEYS = {"MODEL.WEIGHTS": "weights", **OWN_KEYS}
"""Detectron2's keys on a command line that a project has keys of its own for."""


def load_overridden(
    path: str | Path, *, profile: str | None, words: Sequence[str], wandb: bool, has_gpu: bool
) -> LoadedProject:
    """Read a project file with the profile of the hardware and the settings of a command line.

    Args:
        path: The project file.
        profile: Name of the profile instead of the hardware's.
        words: ``key=value``, project keys and raw Detectron2 keys; a file named in ``weights=`` is relative to the
            working folder.
        wandb: Set ``tracking`` to ``wandb``.
        has_gpu: Whether the machine has a GPU that may be used.

    Raises:
        ProjectError: The file or a setting is invalid.
    """
    keys, raw = parse_overrides(words)
    keys |= {_PROJECT_KEYS[key]: raw.pop(key) for key in list(raw) if key in _PROJECT_KEYS}
    if Path(str(keys.get("weights", ""))).suffix and "://" not in str(keys["weights"]):
        keys["weights"] = str(Path(keys["weights"]).expanduser().resolve())
    if wandb:
        keys["tracking"] = "wandb"
    on_cpu = not has_gpu or raw.get("MODEL.DEVICE") == "cpu"
    hardware: Literal["gpu", "cpu"] = "cpu" if on_cpu else "gpu"
    return load_project(path, profile=profile, hardware=hardware, overrides=keys).with_detectron2(raw)
