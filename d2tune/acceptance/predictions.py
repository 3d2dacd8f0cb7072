"""Where the page takes predictions from: a model, or a COCO file that any other tool wrote."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from d2tune.acceptance.objects import Prediction, polygon_rle
from d2tune.annotations.formats.coco.segmentations import is_nothing
from d2tune.annotations.geometry.masks import check_rle, encode_mask, rle_bbox_xywh, to_raw, to_rle
from d2tune.annotations.geometry.polygons import PointError, check_points, clip_polygon
from d2tune.annotations.io.images import read_header
from d2tune.annotations.model.types import Rle
from d2tune.errors import DataError
from d2tune.evaluation.from_files.files import Row, read_json, read_predictions
from d2tune.evaluation.from_files.loose import Reading
from d2tune.evaluation.from_files.matching import Ids, Names
from d2tune.files import sha256_file
from d2tune.inference.results import Detections
from d2tune.text import describe

STARTING_SCORE = 0.5
"""The lowest score of a file's detections that are shown at first."""


class Predictions(Protocol):
    """What predicts: a model that is served, or a file.

    Attributes:
        name: What the page calls it.
        sha256: What it is recognized by: judgments are about the predictions of this hash, so it is another one where
            weights, thresholds or windows are. It is asked for when it is needed first, and may wait until the model
            is loaded.
        class_names: All classes in the order of their ids.
        lowest_score: The score below which there are no objects, from 0 to 1.
        starting_score: The lowest score of the objects that the page shows at first, from 0 to 1.
        background: The class of a label map that has no objects; None for none.
        facts: What the report says of it, by name: hashes of weights and data, date of the training.
    """

    @property
    def name(self) -> str: ...
    @property
    def sha256(self) -> str: ...
    @property
    def class_names(self) -> tuple[str, ...]: ...
    @property
    def lowest_score(self) -> float: ...

    @property
    def starting_score(self) -> float: ...
    @property
    def background(self) -> str | None: ...
    @property
    def facts(self) -> Mapping[str, str]: ...

    def predict(self, image: Path) -> Prediction:
        """Predict on an image file. Several threads may call it.

        Raises:
            D2TuneError: There is no prediction; the message says why.
        """
        ...


class CocoFile:
    """The predictions of a file in COCO's results format, or of a COCO file whose annotations have scores.

    Args:
        path: The file.
        name: What it is called on the page; None takes the name of the file.
        names: The COCO file that has the names of images and classes by id, where ``path`` is a list of detections.
        images: The folder of images. A name of the file without folders also stands for an image in a folder below it,
            unless the file of exactly that name is there.

    Raises:
        DataError: The file cannot be read, or the names of its images or classes are not known.
    """

    def __init__(
        self, path: Path, *, name: str | None = None, names: Path | None = None, images: Path | None = None
    ) -> None:
        self.path = path
        self._root = images if images is not None and images.is_dir() else None
        content = read_predictions(path)
        tables_of_images, categories = content.images, content.categories
        if names is not None and (not tables_of_images or not categories):
            value = read_json(names)
            tables = value if isinstance(value, dict) else {}
            tables_of_images = tables_of_images or _rows(tables.get("images"))
            categories = categories or _rows(tables.get("categories"))
        for table, what, key in ((tables_of_images, "images", "file_name"), (categories, "classes", "name")):
            if not table or not all(isinstance(row.get(key), str) for row in table):
                raise DataError(
                    f"the names of the {what} are not known",
                    file=path,
                    expected=f"`{'images' if what == 'images' else 'categories'}` with `{key}`",
                    hint="Give the COCO file that has these ids with --truth.",
                )
        reading = Reading(path, "detection")
        self.name = name or path.stem
        self.background: str | None = None
        self.sha256 = sha256_file(path)
        self.facts: Mapping[str, str] = {"File of predictions": path.name}
        self.class_names = tuple(str(row["name"]) for row in categories)
        self._file_names = [str(row["file_name"]) for row in tables_of_images]
        self._images = Names(dict(enumerate(self._file_names)), are_paths=True)
        image_ids = {row["id"]: at for at, row in enumerate(tables_of_images)}
        image_of = Ids(image_ids, reading.notes, "the image_id of detections")
        class_of = Ids({row["id"]: at for at, row in enumerate(categories)}, reading.notes, "the category_id")
        self._rows: dict[int, list[tuple[int, Row]]] = {}
        for at, raw in enumerate(content.rows):
            image, category = image_of.get(raw.get("image_id"), at), class_of.get(raw.get("category_id"), at)
            if image is None or category is None:
                key = "image_id" if image is None else "category_id"
                raise DataError(
                    "a detection names an id that is not known",
                    file=path,
                    place=f"detection {at + 1} of {len(content.rows)}",
                    found=f"{key} {describe(raw.get(key))}",
                    expected=f"an id of `{'images' if image is None else 'categories'}`",
                )
            self._rows.setdefault(image, []).append((category, reading.row(raw, at)))
        scores = [_score(row) for rows in self._rows.values() for _, row in rows]
        self.lowest_score = 0.0
        self.starting_score = STARTING_SCORE if any(score >= STARTING_SCORE for score in scores) else 0.0

    def predict(self, image: Path) -> Detections:
        """The detections of the image of this name; none where the file has none.

        Raises:
            DataError: The size of a mask is not that of the image, or several images of the file have this name.
        """
        header = read_header(image)
        place = self._place(image)
        rows = [] if place is None else self._rows.get(place, [])
        rows = sorted(rows, key=lambda pair: -_score(pair[1]))
        size = {"width_px": header.width_px, "height_px": header.height_px}
        have_masks = bool(rows) and not any(is_nothing(row.get("segmentation")) for _, row in rows)
        rles = tuple(self._mask(row, image, size) for _, row in rows) if have_masks or not rows else None
        boxes = [_box(row, self.path) if rles is None else _around(rles[at]) for at, (_, row) in enumerate(rows)]
        return Detections(
            header.height_px,
            header.width_px,
            np.array(boxes, dtype=np.float32).reshape(-1, 4),
            np.array([_score(row) for _, row in rows], dtype=np.float32),
            np.array([category for category, _ in rows], dtype=np.int64),
            rles,
            self.class_names,
        )

    def _place(self, image: Path) -> int | None:
        """The place of an image in the file; None where the file does not have it."""
        name = image.as_posix()
        if self._root is not None and image.is_relative_to(self._root):
            name = image.relative_to(self._root).as_posix()
        hits = self._images.find(name)
        if len(hits) > 1:
            raise DataError("several images of the predictions have this name", file=self.path, found=image.name)
        if not hits or self._file_names[hits[0]] == name or self._root is None:
            return hits[0] if hits else None
        of_another = self._root / self._file_names[hits[0]]
        return None if of_another != image and of_another.is_file() else hits[0]

    def _mask(self, row: Row, image: Path, size: dict[str, int]) -> Rle:
        raw = row["segmentation"]
        try:
            if isinstance(raw, dict):
                return to_rle(check_rle(raw, **size))
            rings = [check_points(np.reshape(ring, (-1, 2)).tolist()) for ring in raw]
            pieces = [piece for ring in rings for piece in clip_polygon(ring, **size)]
            if pieces:
                return polygon_rle(pieces, **size)
            return to_rle(encode_mask(np.zeros((size["height_px"], size["width_px"]), bool)))
        except (PointError, ValueError, TypeError) as error:
            raise DataError(
                "a segmentation does not fit the image", file=self.path, place=image.name, found=str(error)
            ) from None


def _rows(value: Any) -> tuple[Row, ...]:
    return tuple(row for row in value if isinstance(row, dict)) if isinstance(value, list) else ()


def _score(row: Row) -> float:
    score = row.get("score", 1.0)
    return float(score) if isinstance(score, (int, float)) and math.isfinite(score) else 0.0


def _box(row: Row, path: Path) -> Sequence[float]:
    box = row.get("bbox")
    sides = box if isinstance(box, list) else []
    if len(sides) != 4 or not all(type(side) in (int, float) and math.isfinite(side) for side in sides):
        raise DataError("a detection has neither a mask nor a box", file=path, found=f"bbox {describe(box)}")
    x, y, width, height = (float(side) for side in sides)
    return x, y, x + width, y + height


def _around(rle: Rle) -> Sequence[float]:
    x, y, width, height = rle_bbox_xywh(to_raw(rle))
    return x, y, x + width, y + height
