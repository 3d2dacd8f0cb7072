"""COCO's panoptic format: a JSON with ``segments_info``, and a PNG of segment ids for each image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as PilImage
from tqdm import tqdm

from d2tune.annotations.formats.panoptic import from_colors
from d2tune.annotations.io.json_files import JsonError, decode_json
from d2tune.annotations.model.dataset import Category
from d2tune.errors import DataError
from d2tune.evaluation.from_files.matching import Names
from d2tune.metrics.panoptic import PanopticScorer
from d2tune.text import nearest_hint


@dataclass(frozen=True, slots=True)
class PanopticFile:
    """A parsed COCO panoptic JSON.

    Attributes:
        path: The JSON file.
        folder: The folder of its PNGs; None searches the folder with the name of the JSON, ``panoptic``, and the
            folder of the JSON.
        categories: The classes; empty if the file has none, as files of predictions may.
        rows: The annotations by image id, in the order of the file; ids are compared as text.
        names: The names of the images by id, as far as the file has them.
    """

    path: Path
    folder: Path | None
    categories: tuple[Category, ...]
    rows: dict[str, dict[str, Any]]
    names: dict[str, str] = field(default_factory=dict)

    def png(self, image_id: str) -> Path:
        """The PNG of an image.

        Raises:
            DataError: The annotation has no valid file name, or the PNG is missing.
        """
        name = self.rows[image_id].get("file_name")
        relative = PurePosixPath(name.replace("\\", "/")) if isinstance(name, str) and name else None
        if relative is None or relative.is_absolute() or ".." in relative.parts:
            raise DataError(
                "the file name of an annotation is not valid",
                file=self.path,
                place=f"image {image_id}",
                found=repr(name),
                expected="a path relative to the folder of the PNGs",
            )
        usual = [self.path.with_suffix(""), self.path.parent / "panoptic", self.path.parent]
        paths = [folder / relative for folder in ([self.folder] if self.folder else usual)]
        png = next((path for path in paths if path.is_file()), None)
        if png is None:
            folders = ", ".join(str(path.parent) for path in paths)
            raise DataError("the PNG does not exist", file=paths[0].name, hint=f"Put it into one of: {folders}.")
        return png

    def segment_ids(self, image_id: str) -> NDArray[np.int32]:
        """The segment ids ``(H, W)`` in the PNG of an image: R + 256 G + 65536 B.

        Raises:
            DataError: The annotation has no valid file name, or the PNG is missing or cannot be read.
        """
        png = self.png(image_id)
        try:
            with PilImage.open(png) as image:
                return from_colors(np.asarray(image.convert("RGB")))
        except Exception as error:  # Pillow raises a dozen types for damaged PNGs
            raise DataError(f"the PNG cannot be read ({error})", file=png) from error


def read_panoptic(path: str | Path, *, folder: str | Path | None = None) -> PanopticFile:
    """Read the JSON of panoptic ground truth or predictions.

    Args:
        path: The JSON file.
        folder: The folder of its PNGs; None searches as `PanopticFile` says.

    Raises:
        DataError: The file is missing, is not valid JSON, is not a COCO panoptic file, or has an image twice.
    """
    path = Path(path)
    try:
        value, _ = decode_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"the file cannot be read ({error.strerror})", file=path) from error
    except JsonError as error:
        raise DataError(str(error), file=path) from error
    rows = value.get("annotations") if isinstance(value, dict) else None
    if not isinstance(rows, list) or not all(_is_row(row) for row in rows):
        raise DataError(
            "the file is not a COCO panoptic file",
            file=path,
            expected="annotations with image_id, file_name and segments_info",
        )
    by_image: dict[str, dict[str, Any]] = {}
    for row in rows:
        if by_image.setdefault(str(row["image_id"]), row) is not row:
            raise DataError("an image has two annotations", file=path, found=f"image_id {row['image_id']!r} twice")
    names = {
        str(row["id"]): row["file_name"]
        for row in value.get("images") or ()
        if isinstance(row, dict)
        and "id" in row
        and isinstance(row.get("file_name"), str)
        and str(row["id"]) in by_image
    }
    return PanopticFile(path, None if folder is None else Path(folder), _categories(value, path), by_image, names)


def score_panoptic_files(
    predictions: PanopticFile, ground_truth: PanopticFile, *, device: str | torch.device = "cpu"
) -> PanopticScorer:
    """Add all images of the ground truth to a scorer, in their order; predictions of other images are ignored.

    Images and classes are matched by their names where both files have names, else by their ids.

    Args:
        predictions: Predictions of any model.
        ground_truth: A file with categories.
        device: The device on which pixels are counted.

    Raises:
        DataError: An image has no prediction, the ground truth has no categories, or `PanopticScorer.add` refuses an
            image.
    """
    if not ground_truth.categories:
        raise DataError("the ground truth has no categories", file=ground_truth.path, expected="categories")
    predicted_ids = _matched_images(predictions, ground_truth)
    category_ids = _matched_classes(predictions, ground_truth)
    missing = [image_id for image_id in ground_truth.rows if image_id not in predicted_ids]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(ground_truth.rows)} images have no prediction",
            file=predictions.path,
            place=f"image {ground_truth.names.get(missing[0], missing[0])}",
            hint="For an image without segments, add a black PNG and an empty segments_info.",
        )
    scorer = PanopticScorer(ground_truth.categories, device=device)
    for image_id, row in tqdm(ground_truth.rows.items(), desc="panoptic", unit=" images", disable=None):
        predicted = predicted_ids[image_id]
        infos = predictions.rows[predicted]["segments_info"]
        scorer.add(
            predictions.segment_ids(predicted),
            [_with_class(info, category_ids) for info in infos],
            ground_truth.segment_ids(image_id),
            row["segments_info"],
            str(row["file_name"]),
        )
    return scorer


def _with_class(info: dict[str, Any], category_ids: Mapping[Any, int]) -> dict[str, Any]:
    """A segment with the id of its class in the ground truth."""
    category_id = info.get("category_id")
    is_known = isinstance(category_id, (int, str)) and category_id in category_ids
    return info | {"category_id": category_ids[category_id]} if is_known else info


def _matched_images(predictions: PanopticFile, ground_truth: PanopticFile) -> dict[str, str]:
    """The id in the predictions of each image of the ground truth that they have."""
    if len(predictions.names) < len(predictions.rows) or len(ground_truth.names) < len(ground_truth.rows):
        return {image_id: image_id for image_id in ground_truth.rows if image_id in predictions.rows}
    ids = list(predictions.names)
    index = Names(dict(enumerate(predictions.names.values())), are_paths=True)
    matched = {}
    for image_id, name in ground_truth.names.items():
        hits = index.find(name)
        same_id = [hit for hit in hits if ids[hit] == image_id]
        if len(hits) > 1 and not same_id:
            raise DataError(
                "the name of the image is that of several in the predictions", file=predictions.path, found=repr(name)
            )
        if hits:
            matched[image_id] = ids[(same_id or hits)[0]]
    return matched


def _matched_classes(predictions: PanopticFile, ground_truth: PanopticFile) -> dict[Any, int]:
    """The id in the ground truth of each class of the predictions; empty where they have no classes of their own."""
    ids: dict[str, list[int]] = {}
    for category in ground_truth.categories:
        ids.setdefault(category.name, []).append(category.id)
    infos = [info for row in predictions.rows.values() for info in row["segments_info"]]
    used = {info["category_id"] for info in infos if isinstance(info.get("category_id"), (int, str))}
    matched: dict[Any, int] = {}
    for category in predictions.categories:
        known = ids.get(category.name, [])
        if category.id in known or len(known) == 1:
            matched[category.id] = category.id if category.id in known else known[0]
        elif category.id in used:
            several = "the name of the class is that of several in the ground truth"
            raise DataError(
                several if known else "the class is not in the ground truth",
                file=predictions.path,
                found=repr(category.name),
                expected=", ".join(list(ids)[:5]),
                hint=nearest_hint(category.name, ids),
            )
    return matched


def _is_row(row: object) -> bool:
    if not isinstance(row, dict) or "image_id" not in row:
        return False
    infos = row.get("segments_info")
    return isinstance(infos, list) and all(isinstance(info, dict) for info in infos)


def _categories(value: dict[str, Any], path: Path) -> tuple[Category, ...]:
    rows = value.get("categories") or []
    try:
        return tuple(Category(row["id"], str(row["name"]), bool(row["isthing"])) for row in rows)
    except (TypeError, KeyError) as error:
        raise DataError("a category has no id, name or isthing", file=path, found=repr(rows)[:200]) from error
