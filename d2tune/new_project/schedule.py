"""Sizes and iterations that fit the number and the size of the images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from d2tune.project import fitting_length
from d2tune.project.traits import TaskName

_STEP_PX = 32
_BATCH = 4
_PATCH_PX = 256
_FEW, _SOME = 5, 10

_LARGEST_PX: dict[TaskName, tuple[int, int]] = {
    "instance": (800, 480),
    "semantic": (640, 256),
    "panoptic": (640, 256),
    "tracking": (480, 480),
}
"""Largest short sides in pixels, with and without a GPU."""

_CPU_JITTER: dict[TaskName, tuple[float, float]] = {"instance": (0.5, 1.0)}
"""Sizes of training relative to those of evaluation, where a step on whole images takes long without a GPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How long and at which size is trained.

    Attributes:
        batch_size: Images a step.
        gpu_px: Short side in pixels on a GPU; ``original`` leaves images as they are.
        cpu_px: The same without one.
        gpu_iterations: Steps on a GPU.
        cpu_iterations: Steps without one: ten minutes or so on two cores for up to some hundred images.
        cpu_jitter: Sizes of training without a GPU, relative to `cpu_px`; None for the default.
        patch_px: Side in pixels of the squares to train on, None for whole images.
    """

    batch_size: int
    gpu_px: int | Literal["original"]
    cpu_px: int | Literal["original"]
    gpu_iterations: int
    cpu_iterations: int
    cpu_jitter: tuple[float, float] | None = None
    patch_px: int | None = None


def plan_schedule(task: TaskName, *, images: int, short_side_px: int, are_photos: bool) -> Schedule:
    """Choose sizes and iterations.

    Args:
        task: What the project is for.
        images: Images to train on.
        short_side_px: Median of their short sides.
        are_photos: Whether they are 8-bit gray or color images; rasters are not resized and are trained on in patches.
    """
    batch = max(1, min(_BATCH, images))
    gpu_px, cpu_px = _LARGEST_PX[task]
    gpu, cpu = (fitting_length(task, images=images, batch_size=batch, on_gpu=on_gpu) for on_gpu in (True, False))
    return Schedule(
        batch_size=batch,
        gpu_px=_size(short_side_px, gpu_px) if are_photos else "original",
        cpu_px=_size(short_side_px, cpu_px) if are_photos else "original",
        gpu_iterations=gpu.iterations,
        cpu_iterations=cpu.iterations,
        cpu_jitter=_CPU_JITTER.get(task) if are_photos else None,
        patch_px=None if are_photos else _size(short_side_px, _PATCH_PX),
    )


def val_fraction(images: int) -> float:
    """Share of the images to validate on."""
    return 0.5 if images < _FEW else 0.3 if images < _SOME else 0.2


def _size(short_side_px: int, limit_px: int) -> int:
    return max(_STEP_PX, min(limit_px, short_side_px) // _STEP_PX * _STEP_PX)
