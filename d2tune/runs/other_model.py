"""The predictions of a model of another tool, on the images of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2tune.annotations.formats.coco import to_coco
from d2tune.annotations.model.dataset import Dataset
from d2tune.errors import DataError
from d2tune.evaluation.comparison import InstanceSide
from d2tune.evaluation.from_files.results import kinds_of, read_results
from d2tune.runs.evaluated import Evaluated


@dataclass(frozen=True, slots=True)
class OtherPredictions:
    """COCO results with the ids of a dataset.

    Attributes:
        truth: The dataset as a COCO instances dict.
        rows: The results.
        warnings: What is unusual about the file, a line each.
    """

    truth: dict[str, Any]
    rows: list[dict[str, Any]]
    warnings: tuple[str, ...]


def read_other(path: Path, dataset: Dataset, *, name: str | None = None) -> OtherPredictions:
    """Read COCO results of any tool on the images of a dataset; see `read_results` for how they are matched.

    Args:
        path: The file.
        dataset: The ground truth.
        name: What people call the model.

    Raises:
        DataError: The file cannot be read, or has no prediction on an image of the dataset.
    """
    both = read_results(path, Path("the ground truth of the run"), content=_with_source_ids(dataset))
    truth = to_coco(dataset)
    image_of = {row["id"]: image.id for row, image in zip(both.truth["images"], dataset.images, strict=True)}
    class_of = {row["id"]: one["id"] for row, one in zip(both.truth["categories"], truth["categories"], strict=True)}
    rows = [
        row | {"image_id": image_of[row["image_id"]], "category_id": class_of[row["category_id"]]}
        for row in both.results
    ]
    if not rows:
        raise DataError("no prediction is of an image of the run", file=path, place=name)
    return OtherPredictions(truth, rows, both.warnings)


def other_side(path: Path, beside: Evaluated) -> tuple[InstanceSide, tuple[str, ...]]:
    """COCO results of any tool as a side of a comparison with an evaluation, and what is unusual about the file.

    Raises:
        DataError: See `read_other`.
    """
    read = read_other(path, beside.dataset)
    kinds = kinds_of(read.truth, read.rows, path)
    return InstanceSide(str(path), beside.content["data_sha256"], read.truth, read.rows, kinds), read.warnings


def _with_source_ids(dataset: Dataset) -> dict[str, Any]:
    """The ground truth as COCO, with the ids of images and classes of the file that it was read from."""
    truth = to_coco(dataset)
    image_ids, category_ids = dataset.source_image_ids(), dataset.source_category_ids()
    return {
        **truth,
        "images": [row | {"id": image_ids[row["id"]]} for row in truth["images"]],
        "categories": [row | {"id": category_ids[row["id"]]} for row in truth["categories"]],
        "annotations": [
            row | {"image_id": image_ids[row["image_id"]], "category_id": category_ids[row["category_id"]]}
            for row in truth["annotations"]
        ],
    }
