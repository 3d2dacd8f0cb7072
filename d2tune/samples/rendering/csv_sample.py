"""Samples in the layout of Kaggle's competitions: a folder of photos, a CSV of run lengths, and photos to predict."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image as PilImage

from d2tune.annotations.formats import rle_csv
from d2tune.annotations.formats.from_masks import dataset_of_masks
from d2tune.annotations.model.dataset import Image
from d2tune.files import write_bytes

_JPEG_QUALITY = 92
_MOST_IMAGES = 4096  # an earlier sample has no more than this

Drawing = tuple[np.ndarray, list[tuple[int, np.ndarray]]]
"""An image (H, W, 3) uint8, and the class's place and the pixels (H, W) bool of everything annotated in it."""


@dataclass(frozen=True)
class Layout:
    """The names of a competition's files and folders.

    Attributes:
        preset: The dialect of its CSV.
        table: The CSV.
        train: The folder of the photos that the CSV lists.
        test: The folder of the photos without annotations.
        labels: The classes as the CSV names them; a name that it does not write where it names none.
    """

    preset: str
    table: str
    train: str
    test: str
    labels: tuple[str, ...]


def hex_name(kind: str, index: int, digits: int) -> str:
    """A name like those of the public files: hexadecimal digits that do not follow the order."""
    return hashlib.sha256(f"{kind} {index}".encode()).hexdigest()[:digits]


def write_csv_sample(
    folder: Path,
    layout: Layout,
    draw: Callable[[int], Drawing],
    *,
    images: int,
    name_of: Callable[[int], str],
    is_test: Callable[[int], bool],
) -> dict[str, int]:
    """Draw images number 0, 1, ... into ``folder``; images of an earlier sample go, other files stay.

    Args:
        folder: Where to write, made if missing.
        layout: The competition's.
        draw: The image of a number.
        images: How many.
        name_of: The file name of a number.
        is_test: Whether a number is one of those without annotations.

    Returns:
        How many images each split has.
    """
    earlier = {name_of(index) for index in range(_MOST_IMAGES)}
    for split in (layout.train, layout.test):
        (folder / split).mkdir(parents=True, exist_ok=True)
        for path in (folder / split).iterdir():
            if path.name in earlier:
                path.unlink()
    listed: list[Image] = []
    masks: list[Sequence[tuple[int, np.ndarray]]] = []
    for index in range(images):
        image_rgb, annotated = draw(index)
        name = name_of(index)
        _write_jpeg(folder / (layout.test if is_test(index) else layout.train) / name, image_rgb)
        if not is_test(index):
            height_px, width_px = image_rgb.shape[:2]
            listed.append(Image(len(listed) + 1, name, width_px, height_px))
            masks.append(annotated)
    dataset = dataset_of_masks(listed, masks, layout.labels)
    rle_csv.write(dataset, folder / layout.table, preset=layout.preset, force=True)
    return {"train": len(listed), "test": images - len(listed)}


def _write_jpeg(path: Path, image_rgb: np.ndarray) -> None:
    stream = io.BytesIO()
    PilImage.fromarray(image_rgb).save(stream, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    write_bytes(path, stream.getvalue())
