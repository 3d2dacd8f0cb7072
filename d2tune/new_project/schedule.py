"""Sizes and iterations that fit the number and the size of the images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from d2tune.project.traits import TaskName

_STEP_PX = 32
_BATCH = 4
_PATCH_PX = 256
_FEW, _SOME = 5, 10


@dataclass(frozen=True, slots=True, kw_only=True)
class _Limits:
    """For one task: largest short sides in pixels, and passes over the images."""

    gpu_px: int
    cpu_px: int
    gpu_epochs: int
    cpu_epochs: int


_LIMITS: dict[TaskName, _Limits] = {
    "instance": _Limits(gpu_px=800, cpu_px=480, gpu_epochs=40, cpu_epochs=24),
    "semantic": _Limits(gpu_px=640, cpu_px=256, gpu_epochs=40, cpu_epochs=12),
    "panoptic": _Limits(gpu_px=640, cpu_px=256, gpu_epochs=40, cpu_epochs=8),
}
_GPU_ITERATIONS = (300, 20_000)
_CPU_ITERATIONS = (100, 400)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How long and at which size is trained.

    Attributes:
        batch_size: Images a step.
        gpu_px: Short side in pixels on a GPU; ``original`` leaves images as they are.
        cpu_px: The same without one.
        gpu_iterations: Steps on a GPU.
        cpu_iterations: Steps without one: ten minutes or so on two cores.
        patch_px: Side in pixels of the squares to train on, None for whole images.
    """

    batch_size: int
    gpu_px: int | Literal["original"]
    cpu_px: int | Literal["original"]
    gpu_iterations: int
    cpu_iterations: int
    patch_px: int | None = None


def plan_schedule(task: TaskName, *, images: int, short_side_px: int, are_photos: bool) -> Schedule:
    """Choose sizes and iterations.

    Args:
        task: What the project is for.
        images: Images to train on.
        short_side_px: Median of their short sides.
        are_photos: Whether they are 8-bit gray or color images; rasters are not resized and are trained on in patches.
    """
    limits = _LIMITS[task]
    batch = max(1, min(_BATCH, images))
    gpu, cpu = limits.gpu_epochs * images // batch, limits.cpu_epochs * images // batch
    return Schedule(
        batch_size=batch,
        gpu_px=_size(short_side_px, limits.gpu_px) if are_photos else "original",
        cpu_px=_size(short_side_px, limits.cpu_px) if are_photos else "original",
        gpu_iterations=_clamp(gpu, *_GPU_ITERATIONS),
        cpu_iterations=_clamp(cpu, *_CPU_ITERATIONS),
        patch_px=None if are_photos else _size(short_side_px, _PATCH_PX),
    )


def val_fraction(images: int) -> float | None:
    """Share of the images to validate on; None where there is one image alone."""
    if images < 2:
        return None
    return 0.5 if images < _FEW else 0.3 if images < _SOME else 0.2


def _size(short_side_px: int, limit_px: int) -> int:
    return max(_STEP_PX, min(limit_px, short_side_px) // _STEP_PX * _STEP_PX)


def _clamp(value: int, low: int, high: int) -> int:
    return max(low, min(high, value))
