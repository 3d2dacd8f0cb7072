"""Checkpoints: weights that Detectron2 users can load, and everything needed to resume training."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping
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
        raise RunError("the checkpoint does not exist", file=path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise RunError(f"the checkpoint is damaged: {str(error).splitlines()[0]}", file=path) from error
    if not isinstance(content, dict) or "model" not in content:
        raise RunError("is not a checkpoint of d2tune", file=path, expected="an entry 'model'")
    return content


def plain_state(model: nn.Module) -> dict[str, Tensor]:
    """The model's tensors, detached, on the CPU."""
    return {key: value.detach().to("cpu", copy=True).contiguous() for key, value in model.state_dict().items()}


def detached(value: Any) -> Any:
    """A deep copy of a state dict with its tensors on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: detached(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(detached(item) for item in value)
    return copy.deepcopy(value)


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a run's own weights, every tensor of them.

    Raises:
        RunError: The file cannot be read, or its weights are those of another model.
    """
    put_weights(model, load(path)["model"], file=path)


def put_weights(model: nn.Module, state: Mapping[str, Tensor], *, file: Path) -> None:
    """Give the model all its tensors.

    Args:
        model: The model.
        state: Its tensors by name.
        file: Where they come from.

    Raises:
        RunError: They are those of another model.
    """
    target = model.state_dict()
    different = sorted(set(target) ^ set(state))
    if different:
        raise RunError("the checkpoint is that of another model", file=file, place=different[0])
    versioned = OrderedDict(state)
    versioned._metadata = target._metadata  # type: ignore[attr-defined]
    try:
        model.load_state_dict(versioned)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise RunError(f"the checkpoint is that of another model: {reason}", file=file) from None
