"""Checkpoints: weights that Detectron2 users can load, and everything needed to resume training."""

from __future__ import annotations

import copy
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import Tensor, nn

from d2tune import files
from d2tune.errors import RunError
from d2tune.modeling.reading import UnreadableError, first_not_finite, read_file


def save(path: Path, content: dict[str, Any], *, keep: Path | None = None) -> None:
    """Write a checkpoint whole or not at all.

    Args:
        path: The file.
        content: What is in it, with checksums that `load` verifies.
        keep: Where the checkpoint that is replaced is kept, in the same folder; None does not keep it.

    Raises:
        RunError: It cannot be written, for example because the disk is full; an earlier one stays as it is.
    """
    failed: list[OSError] = []
    try:
        if keep is not None and path.is_file():
            files.put_second_name(path, keep)
        with files.atomic_write(path) as stream:
            torch.save(content, cast(IO[bytes], _Noting(stream, failed)))
            if failed:
                raise failed[0]
    except (OSError, RuntimeError) as error:
        # torch reports that writing failed, not why
        reason = next(iter(failed), error)
        if not isinstance(reason, OSError):
            raise
        raise RunError(
            f"the checkpoint cannot be written: {reason.strerror or reason}", file=path, hint=_WRITE_HINT
        ) from error


_WRITE_HINT = "Make room, or allow larger files."


class _Noting:
    """A stream that keeps the errors of writing, which torch replaces by its own.

    Args:
        stream: What is written to.
        errors: Gets the errors.
    """

    def __init__(self, stream: IO[bytes], errors: list[OSError]) -> None:
        self._stream = stream
        self._errors = errors

    def write(self, content: Any) -> int:
        try:
            return self._stream.write(content)
        except OSError as error:
            self._errors.append(error)
            raise

    def flush(self) -> None:
        self._stream.flush()


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint without running anything in it.

    Raises:
        RunError: It is missing or damaged.
    """
    if not path.exists():
        raise RunError("the checkpoint does not exist", file=path)
    try:
        content = read_file(path)
    except UnreadableError as error:
        raise RunError(f"the checkpoint cannot be read: {error}", file=path, hint=_READ_HINT) from error
    damaged = _damaged_entry(path)
    if damaged is not None:
        raise RunError("the checkpoint is damaged: a checksum is wrong", file=path, place=damaged, hint=_READ_HINT)
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in model.items()
    ):
        expected = "an entry 'model' with tensors by name"
        raise RunError("is not a checkpoint of d2tune", file=path, expected=expected, hint=_READ_HINT)
    return dict(content)


def _damaged_entry(path: Path) -> str | None:
    """The first entry of a ZIP file whose content is not that of its checksum (CRC-32), which torch does not verify."""
    if not zipfile.is_zipfile(path):
        return None  # a file of a torch before 1.6
    with zipfile.ZipFile(path) as archive:
        return archive.testzip()


_READ_HINT = "Use another checkpoint of the run, in its folder checkpoints."


def load_training(path: Path) -> dict[str, Any]:
    """Read a checkpoint that training can be resumed from.

    Raises:
        RunError: It is missing or damaged, or has weights alone.
    """
    content = load(path)
    trainer: Any = content.get("trainer")
    if not isinstance(trainer, dict):
        trainer = {}
    iteration = trainer.get("iteration")
    if not isinstance(trainer.get("optimizer"), dict) or not isinstance(iteration, int) or iteration < 0:
        expected = "an entry 'trainer' with the iteration and the state of the optimizer"
        raise RunError("the checkpoint has no state to resume from", file=path, expected=expected)
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
        RunError: They are those of another model, or some are not finite.
    """
    target = model.state_dict()
    different = sorted(set(target) ^ set(state))
    if different:
        raise RunError("the checkpoint is that of another model", file=file, place=different[0])
    not_finite = first_not_finite(state)
    if not_finite is not None:
        raise RunError(
            "the weights hold NaN or infinite numbers: their training has diverged",
            file=file,
            place=not_finite,
            hint="Use another checkpoint, or train again with a lower train.learning_rate.",
        )
    versioned = OrderedDict(state)
    versioned._metadata = target._metadata  # type: ignore[attr-defined]
    try:
        model.load_state_dict(versioned)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise RunError(f"the checkpoint is that of another model: {reason}", file=file) from None
