"""Checkpoints: weights that Detectron2 users can load, and everything needed to go on training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from d2tune import files
from d2tune.errors import RunError


def save(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint whole or not at all."""
    with files.atomic_write(path) as stream:
        torch.save(content, stream)


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint without running anything in it.

    Raises:
        RunError: It is missing or damaged.
    """
    if not path.is_file():
        raise RunError("no such checkpoint", file=path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise RunError(f"the checkpoint is damaged: {str(error).splitlines()[0]}", file=path) from error
    if not isinstance(content, dict) or "model" not in content:
        raise RunError("is no checkpoint of d2tune", file=path, expected="an entry 'model'")
    return content


def plain_state(model: nn.Module) -> dict[str, Tensor]:
    """The model's tensors, detached, on the CPU."""
    return {key: value.detach().to("cpu", copy=True).contiguous() for key, value in model.state_dict().items()}


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a run's own weights, every tensor of them.

    Raises:
        RunError: They are another model's.
    """
    state = load(path)["model"]
    try:
        target = model.state_dict()
        missing = sorted(set(target) ^ set(state))
        if missing:
            raise RunError("the checkpoint is another model's", file=path, place=missing[0])
        state_with_versions = type(target)(state)
        state_with_versions._metadata = target._metadata  # type: ignore[attr-defined]
        model.load_state_dict(state_with_versions)
    except RuntimeError as error:
        raise RunError(f"the checkpoint is another model's: {str(error).splitlines()[-1].strip()}", file=path) from None
