"""Render a labelled picture set into a folder, as if somebody had taken photos and outlined things in Labelme."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from PIL import Image

from d2tune.errors import DataError, nearest
from d2tune.files import write_bytes, write_text
from d2tune.samples import balloon, chipset, face
from d2tune.samples.canvas import develop
from d2tune.samples.scene import SampleInstance

_MODULES = {"balloon": balloon, "chipset": chipset, "face": face}
KINDS = tuple(_MODULES)
"""The picture sets that :func:`render_sample` knows."""

LABELME_VERSION = "7.1.0"
_SIZES = ((384, 288), (384, 288), (400, 300), (384, 256), (360, 288), (320, 320), (288, 384))
_NEGATIVE_EVERY, _NEGATIVE_AT = 16, 11
_VAL_EVERY, _VAL_AT = 5, 2
_JPEG_QUALITY = 92
_OUR_NAME = re.compile(rf"({'|'.join(KINDS)})_\d{{4,}}\.(jpg|json)")


@dataclass(frozen=True)
class SampleResult:
    """What was written: ``images`` and ``instances`` are counts by part, ``"train"`` and ``"val"``."""

    folder: Path
    class_names: tuple[str, ...]
    images: MappingProxyType[str, int]
    instances: MappingProxyType[str, int]

    def summary(self) -> str:
        """One line: what was written where."""
        parts = ", ".join(
            f"{count} {part} images with {self.instances[part]} instances" for part, count in self.images.items()
        )
        return f"{parts} of {', '.join(self.class_names)}: {self.folder}"


@dataclass(frozen=True)
class SamplePicture:
    """One rendered picture: ``image_rgb`` (H, W, 3) uint8 and its annotated objects, back to front."""

    image_rgb: np.ndarray
    instances: tuple[SampleInstance, ...]


def render_sample(kind: str, out: str | Path, *, images: int = 60, seed: int = 0, force: bool = False) -> SampleResult:
    """Render ``images`` labelled pictures into ``out``: ``train/``, ``val/`` and ``labels.txt``.

    Every picture is a JPEG beside its Labelme JSON. The same kind and seed give the same bytes; picture number i
    does not depend on ``images``. Numbers 2, 7, 12, ... go to ``val`` (with two pictures, the second), one in
    sixteen shows none of the classes.

    Args:
        kind: One of :data:`KINDS`.
        out: The folder to write, made if missing.
        images: How many pictures, at least 2.
        seed: Chooses the pictures; 0 or more.
        force: Write into a folder that is not empty: pictures of an earlier sample go, other files stay.

    Raises:
        DataError: An unknown kind, too few images, a negative seed, or ``out`` is a file or not empty.
    """
    folder = Path(out)
    _check(kind, folder, images=images, seed=seed, force=force)
    class_names = _MODULES[kind].CLASS_NAMES
    counts = {part: [0, 0] for part in ("train", "val")}
    for part in counts:
        (folder / part).mkdir(parents=True, exist_ok=True)
        for old in (folder / part).iterdir():
            if _OUR_NAME.fullmatch(old.name):
                old.unlink()
    for index in range(images):
        picture = render_picture(kind, index, seed=seed)
        part = "val" if index % _VAL_EVERY == _VAL_AT or (images == 2 and index == 1) else "train"
        _write_pair(folder / part / f"{kind}_{index:04d}.jpg", picture)
        counts[part][0] += 1
        counts[part][1] += len(picture.instances)
    write_text(folder / "labels.txt", "".join(f"{name}\n" for name in class_names))
    return SampleResult(
        folder=folder,
        class_names=class_names,
        images=MappingProxyType({part: n[0] for part, n in counts.items()}),
        instances=MappingProxyType({part: n[1] for part, n in counts.items()}),
    )


def class_names(kind: str) -> tuple[str, ...]:
    """The classes of a kind of sample, in the order of their ids."""
    return tuple(_MODULES[kind].CLASS_NAMES)


def render_picture(kind: str, index: int, *, seed: int = 0) -> SamplePicture:
    """Picture number ``index`` of a set, with the renderer's own masks and the outlines that are written."""
    module = _MODULES[kind]
    rng = np.random.default_rng([seed, index, *kind.encode()])
    width, height = _SIZES[rng.integers(len(_SIZES))]
    wanted = 1 + int(rng.choice(len(module.COUNT_WEIGHTS), p=module.COUNT_WEIGHTS))
    if index % _NEGATIVE_EVERY == _NEGATIVE_AT:
        wanted = 0
    first_class = module.CLASS_NAMES[index % len(module.CLASS_NAMES)]
    scene = module.draw(rng, (height, width), instances=wanted, first_class=first_class)
    return SamplePicture(develop(rng, scene.picture), scene.instances())


def labelme_document(image_name: str, shape: tuple[int, int], instances: Sequence[SampleInstance]) -> dict[str, Any]:
    """What Labelme 7 writes for a picture of ``shape`` (height, width); the pieces of a split object share a group."""
    shapes, group = [], 0
    for instance in instances:
        split = len(instance.polygons) > 1
        group += split
        shapes += [
            {
                "label": instance.label,
                "points": polygon.round(3).tolist(),
                "group_id": group if split else None,
                "description": "",
                "shape_type": "polygon",
                "flags": {},
                "mask": None,
            }
            for polygon in instance.polygons
        ]
    return {
        "version": LABELME_VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": image_name,
        "imageData": None,
        "imageHeight": shape[0],
        "imageWidth": shape[1],
    }


def _write_pair(path: Path, picture: SamplePicture) -> None:
    jpeg = io.BytesIO()
    Image.fromarray(picture.image_rgb).save(jpeg, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    write_bytes(path, jpeg.getvalue())
    height, width = picture.image_rgb.shape[:2]
    document = labelme_document(path.name, (height, width), picture.instances)
    write_text(path.with_suffix(".json"), json.dumps(document, ensure_ascii=False, indent=2))


def _check(kind: str, folder: Path, *, images: int, seed: int, force: bool) -> None:
    if kind not in _MODULES:
        like = nearest(kind, KINDS)
        raise DataError(
            "unknown sample",
            found=repr(kind),
            expected=f"one of {', '.join(KINDS)}",
            hint=f"Did you mean {like}?" if like else None,
        )
    if images < 2:
        raise DataError(
            "a sample needs a picture to train on and one to validate on",
            found=str(images),
            expected="2 or more images",
        )
    if seed < 0:
        raise DataError("the seed cannot be negative", found=str(seed), expected="0 or more")
    if folder.exists() and not folder.is_dir():
        raise DataError("the output is a file", file=folder, expected="a folder", hint="Name another folder")
    if not force and folder.is_dir() and any(folder.iterdir()):
        raise DataError(
            "the output folder is not empty",
            file=folder,
            hint="Name another folder, or pass --force to replace the sample in it",
        )
