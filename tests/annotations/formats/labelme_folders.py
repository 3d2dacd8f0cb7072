"""Labelme folders as the tests of their reader read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from d2tune.annotations.formats import labelme
from d2tune.annotations.geometry.masks import decode_mask, rasterize, union_rles
from d2tune.annotations.model.dataset import Dataset
from d2tune.annotations.model.options import ReadOptions
from d2tune.annotations.model.types import Rle
from tests.annotations.builders import labelme_file


def read(folder: Path, **options: Any) -> Dataset:
    return labelme.read(folder, ReadOptions(**options))


def read_shapes(folder: Path, *shapes: Any, **options: Any) -> Dataset:
    labelme_file(folder / "a.json", *shapes)
    return read(folder, **options)


def mask_of(dataset: Dataset, index: int = 0) -> np.ndarray:
    instance, image = dataset.instances[index], dataset.images[0]
    if isinstance(instance.segmentation, Rle):
        return decode_mask(instance.segmentation)
    size = {"width_px": image.width_px, "height_px": image.height_px}
    return decode_mask(union_rles(rasterize(instance.segmentation, **size)))
