"""Render a labeled image set into a folder, such as photos with outlines in Labelme files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from d2tune.errors import DataError, nearest
from d2tune.files import write_text
from d2tune.samples import balloon, carvana, cells, chipset, clips, crops, face, membrane, ships, steel, street
from d2tune.samples.rendering.canvas import develop
from d2tune.samples.rendering.labelme_files import write_labelme_pair
from d2tune.samples.rendering.scene import SampleInstance
from d2tune.text import counted

_MODULES = {"balloon": balloon, "chipset": chipset, "face": face}
_WRITERS = {
    "carvana": carvana,
    "ships": ships,
    "steel": steel,
    "crops": crops,
    "membrane": membrane,
    "cells": cells,
    "street": street,
    "clips": clips,
}
PHOTO_KINDS = tuple(_MODULES)
"""The image sets that are written as photos beside Labelme files."""
KINDS = (*PHOTO_KINDS, *_WRITERS)
"""The image sets that :func:`render_sample` knows; the others have the layout of public data."""

_SIZES = ((384, 288), (384, 288), (400, 300), (384, 256), (360, 288), (320, 320), (288, 384))
_NEGATIVE_EVERY, _NEGATIVE_AT = 16, 11
_VAL_EVERY, _VAL_AT = 5, 2
_OUR_NAME = re.compile(rf"({'|'.join(PHOTO_KINDS)})_\d{{4,}}\.(jpg|json)")


@dataclass(frozen=True)
class SampleResult:
    """What was written: ``images`` and ``instances`` are counts by split, ``"train"`` and ``"val"`` of photo sets."""

    folder: Path
    class_names: tuple[str, ...]
    images: MappingProxyType[str, int]
    instances: MappingProxyType[str, int]

    def summary(self) -> str:
        """One line: what was written where."""
        shown = {split: f" with {counted(count, 'instance')}" for split, count in self.instances.items()}
        sizes = {split: counted(count, f"{split} image") for split, count in self.images.items()}
        splits = ", ".join(f"{size}{shown.get(split, '')}" for split, size in sizes.items())
        return f"{splits} of {', '.join(self.class_names)}: {self.folder}"


@dataclass(frozen=True)
class SampleImage:
    """One rendered image: ``image_rgb`` (H, W, 3) uint8 and its annotated objects, back to front."""

    image_rgb: np.ndarray
    instances: tuple[SampleInstance, ...]


def render_sample(kind: str, out: str | Path, *, images: int = 80, seed: int = 0, force: bool = False) -> SampleResult:
    """Render ``images`` labeled images into ``out``; the same kind and seed give the same bytes.

    Photo sets have ``train/``, ``val/`` and ``labels.txt``, every image a JPEG beside its Labelme JSON. Image
    number i does not depend on ``images``. Numbers 2, 7, 12, ... go to ``val`` (with two images, the second), one in
    sixteen shows none of the classes. All other sets have the layout of the public data that they stand in for.

    Args:
        kind: One of :data:`KINDS`.
        out: The folder to write, made if missing.
        images: How many images, at least 2.
        seed: Chooses the images; 0 or more.
        force: Write into a folder that is not empty: images of an earlier sample go, other files stay.

    Raises:
        DataError: An unknown kind, too few images, a negative seed, or ``out`` is a file or not empty.
    """
    folder = Path(out)
    _check(kind, folder, images=images, seed=seed, force=force)
    if kind in _WRITERS:
        written = _WRITERS[kind].write(folder, images=images, seed=seed)
        return SampleResult(folder, class_names(kind), MappingProxyType(written), MappingProxyType({}))
    counts = {split: [0, 0] for split in ("train", "val")}
    for split in counts:
        (folder / split).mkdir(parents=True, exist_ok=True)
        for old in (folder / split).iterdir():
            if _OUR_NAME.fullmatch(old.name):
                old.unlink()
    for index in range(images):
        image = render_image(kind, index, seed=seed)
        split = "val" if index % _VAL_EVERY == _VAL_AT or (images == 2 and index == 1) else "train"
        objects = [(one.label, one.polygons) for one in image.instances]
        write_labelme_pair(folder / split / f"{kind}_{index:04d}.jpg", image.image_rgb, objects)
        counts[split][0] += 1
        counts[split][1] += len(image.instances)
    write_text(folder / "labels.txt", "".join(f"{name}\n" for name in class_names(kind)))
    return SampleResult(
        folder=folder,
        class_names=class_names(kind),
        images=MappingProxyType({split: n[0] for split, n in counts.items()}),
        instances=MappingProxyType({split: n[1] for split, n in counts.items()}),
    )


def class_names(kind: str) -> tuple[str, ...]:
    """The classes of a kind of sample, in the order of their ids."""
    return tuple({**_MODULES, **_WRITERS}[kind].CLASS_NAMES)


def render_image(kind: str, index: int, *, seed: int = 0) -> SampleImage:
    """Image number ``index`` of a set, with the renderer's own masks and the outlines that are written."""
    module = _MODULES[kind]
    rng = np.random.default_rng([seed, index, *kind.encode()])
    width, height = _SIZES[rng.integers(len(_SIZES))]
    wanted = 1 + int(rng.choice(len(module.COUNT_WEIGHTS), p=module.COUNT_WEIGHTS))
    if index % _NEGATIVE_EVERY == _NEGATIVE_AT:
        wanted = 0
    first_class = module.CLASS_NAMES[index % len(module.CLASS_NAMES)]
    scene = module.draw(rng, (height, width), instances=wanted, first_class=first_class)
    return SampleImage(develop(rng, scene.image), scene.instances())


def _check(kind: str, folder: Path, *, images: int, seed: int, force: bool) -> None:
    if kind not in KINDS:
        like = nearest(kind, KINDS)
        raise DataError(
            "unknown sample",
            found=repr(kind),
            expected=f"one of {', '.join(KINDS)}",
            hint=f"Did you mean {like}?" if like else None,
        )
    if images < 2:
        raise DataError(
            "a sample needs an image to train on and one to validate on",
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
