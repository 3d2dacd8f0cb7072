"""Rendered clips: objects that move over a textured ground, with the exact mask of every frame."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage

from d2tune.annotations.formats import labelme
from d2tune.annotations.geometry.masks import decode_mask, union_segmentations
from d2tune.annotations.geometry.tracing import mask_outlines
from d2tune.annotations.model.options import ReadOptions

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Mover:
    """A disc that moves in a straight line.

    Attributes:
        color: RGB.
        radius_px: Its radius.
        starts_px: Center on frame 0.
        step_px: Movement from frame to frame.
        hidden: Frames on which it is not there.
    """

    color: tuple[int, int, int]
    radius_px: int
    starts_px: tuple[int, int]
    step_px: tuple[float, float]
    hidden: range = range(0)


RED = Mover((210, 50, 40), 10, (24, 30), (4, 1))
GREEN = Mover((40, 190, 70), 8, (90, 50), (-3, -1))


@dataclass(frozen=True, slots=True)
class Clip:
    """Rendered frames in a folder.

    Attributes:
        folder: Where they are.
        paths: The frames.
        masks: The mask of each mover, by frame.
    """

    folder: Path
    paths: list[Path]
    masks: list[list[Mask]]


def texture(width_px: int, height_px: int) -> NDArray[np.uint8]:
    """A smooth random ground ``(H, W, 3)``, the same on every call."""
    noise = np.random.default_rng(3).uniform(0, 255, (height_px, width_px, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    stretched = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    return np.asarray(60 + 120 * stretched, np.uint8)


def render(
    folder: Path,
    movers: Sequence[Mover],
    *,
    count: int = 8,
    size: tuple[int, int] = (128, 80),
    names: Sequence[str] | None = None,
    gray: bool = False,
) -> Clip:
    """Write a clip of PNG files, of one channel where it is gray."""
    folder.mkdir(parents=True)
    ground = texture(*size)
    rows, columns = np.mgrid[: size[1], : size[0]]
    clip = Clip(folder, [], [])
    for index in range(count):
        image = ground.copy()
        masks: list[Mask] = []
        for mover in movers:
            x, y = (start + index * step for start, step in zip(mover.starts_px, mover.step_px, strict=True))
            mask = (columns - x) ** 2 + (rows - y) ** 2 <= mover.radius_px**2
            mask &= index not in mover.hidden
            image[mask] = mover.color
            image[mask & ((columns - x + rows - y) > 0)] //= 2
            masks = [one & ~mask for one in masks] + [mask]
        path = folder / (names[index] if names else f"{index:03d}.png")
        PilImage.fromarray(image).convert("L" if gray else "RGB").save(path)
        clip.paths.append(path)
        clip.masks.append(masks)
    return clip


def labelme_shapes(
    mask: Mask, label: str, group_id: int | None = None, flags: Mapping[str, bool] | None = None
) -> list[dict[str, Any]]:
    """The outlines of a mask as shapes of Labelme."""
    outer, _ = mask_outlines(mask)
    common = {"label": label, "group_id": group_id, "shape_type": "polygon", "flags": dict(flags or {})}
    return [common | {"points": outline.tolist()} for outline in outer]


def write_labelme(
    path: Path, shapes: Sequence[dict[str, Any]], *, image: str, size: tuple[int, int] = (128, 80), **more: Any
) -> Path:
    """Write a Labelme file as a person saves it."""
    value: dict[str, Any] = {
        "version": "6.3.0",
        "flags": {},
        "shapes": list(shapes),
        "imagePath": image,
        "imageData": None,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value | {"imageHeight": size[1], "imageWidth": size[0]} | more), encoding="utf-8")
    return path


def label(clip: Clip, index: int, path: Path, labels: Sequence[tuple[str, int | None]]) -> Path:
    """Write the Labelme file of a frame with the masks of all movers that it shows."""
    shapes = [
        shape
        for mask, (name, group_id) in zip(clip.masks[index], labels, strict=True)
        for shape in labelme_shapes(mask, name, group_id)
    ]
    height, width = clip.masks[index][0].shape
    return write_labelme(path, shapes, image=str(clip.paths[index]), size=(width, height))


def read_json(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value


def mask_in(path: Path, name: str, shape: tuple[int, ...]) -> Mask:
    """The pixels of a class in a Labelme file, as the reader of annotations has them."""
    dataset = labelme.read(path, ReadOptions(allow_outside=True))
    ids = [one.id for one in dataset.categories if one.name == name]
    segmentations = [one.segmentation for one in dataset.instances if one.category_id in ids]
    if not segmentations:
        return np.zeros(shape, bool)
    return decode_mask(union_segmentations(segmentations, width_px=shape[1], height_px=shape[0]))


def iou(a: Mask, b: Mask) -> float:
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 1.0
