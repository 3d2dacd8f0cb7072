"""Evaluation files with values of other types give pycocotools' numbers of the file as it is meant, or are refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PilImage

from d2tune.annotations.formats import coco
from d2tune.annotations.model.options import ReadOptions
from d2tune.errors import DataError
from d2tune.evaluation.from_files.results import read_results
from d2tune.metrics.coco.scorer import score_coco
from d2tune.metrics.coco.summary import metrics_of
from tests.cases import on_demand
from tests.metrics.coco.oracle import official
from tests.metrics.coco.random_sets import random_set

pytestmark = pytest.mark.usefixtures("without_plots")

Rows = list[dict[str, Any]]
Side = tuple[dict[str, Any], Rows]
Mutation = Callable[[dict[str, Any], Rows, np.random.Generator], None]


def named_set(seed: int) -> Side:
    truth, results = random_set(seed)
    for row in truth["images"]:
        row["file_name"] = f"{row['id']}.jpg"
    return truth, results


def ids_as(convert: Callable[[int], Any], *, where: str) -> Mutation:
    """Ids of another type, in the rows of one side, or in the tables of the ground truth."""

    def mutate(truth: dict[str, Any], results: Rows, draw: np.random.Generator) -> None:
        if where == "tables":
            rows, keys = [*truth["images"], *truth["categories"]], ("id",)
        else:
            rows, keys = (truth["annotations"] if where == "truth" else results), ("image_id", "category_id")
        for row in rows:
            for key in keys:
                row[key] = convert(row[key])

    return mutate


def each(where: str, **changes: Callable[[Any], Any]) -> Mutation:
    """Values of rows of one side that are written in another way, in every other row."""

    def mutate(truth: dict[str, Any], results: Rows, draw: np.random.Generator) -> None:
        for row in truth["annotations"] if where == "truth" else results:
            for key, change in changes.items():
                if key in row and draw.random() < 0.5:
                    row[key] = change(row[key])

    return mutate


def as_bytes_text(segmentation: Any) -> Any:
    if not isinstance(segmentation, dict) or not isinstance(segmentation["counts"], str):
        return segmentation
    return segmentation | {"counts": repr(segmentation["counts"].encode())}


SAME: dict[str, Mutation] = {
    "text ids of images and classes": ids_as(str, where="tables"),
    "float ids of images and classes": ids_as(float, where="tables"),
    "text ids of annotations": ids_as(str, where="truth"),
    "float ids of annotations": ids_as(float, where="truth"),
    "text ids of results": ids_as(str, where="results"),
    "float ids of results": ids_as(float, where="results"),
    "ids of results with zeros": ids_as(lambda value: f" {value:03d}.0", where="results"),
    "scores as text": each("results", score=str),
    "boxes as text": each("results", bbox=lambda box: [str(side) for side in box]),
    "boxes as one text": each("truth", bbox=lambda box: ", ".join(map(str, box))),
    "areas as text": each("truth", area=str),
    "crowds as text": each("truth", iscrowd=str),
    "crowds as truth values": each("truth", iscrowd=bool),
    "masks as JSON text": each("results", segmentation=json.dumps),
    "masks as text of bytes": each("results", segmentation=as_bytes_text),
    "masks in a list": each("results", segmentation=lambda mask: [mask] if isinstance(mask, dict) else mask),
}


def files(folder: Path, truth: Any, results: Any) -> tuple[Path, Path]:
    paths = folder / "results.json", folder / "truth.json"
    for path, value in zip(paths, (results, truth), strict=True):
        path.write_text(json.dumps(value))
    return paths


def scores(folder: Path, truth: Any, results: Any) -> list[float | None]:
    both = read_results(*files(folder, truth, results))
    metrics = metrics_of(score_coco(both.truth, both.results, kinds=("bbox", "segm"))).metrics
    return [metrics[kind][name].value for kind in ("bbox", "segm") for name in ("AP", "AP50", "APs", "APm", "AR100")]


def reference(truth: Any, results: Any) -> list[float | None]:
    """pycocotools' numbers; -1 stands for none."""
    stats = [official((truth, results), kind).stats[at] for kind in ("bbox", "segm") for at in (0, 1, 3, 4, 8)]
    return [None if value == -1 else 100 * float(value) for value in stats]


@pytest.mark.parametrize("name", SAME)
@pytest.mark.parametrize("seed", on_demand([0, 3], 0))
def test_another_type_changes_nothing(tmp_path: Path, name: str, seed: int) -> None:
    truth, results = named_set(seed)
    expected = reference(truth, results)
    changed = copy.deepcopy((truth, results))
    SAME[name](*changed, np.random.default_rng(seed))
    actual = scores(tmp_path, *changed)
    assert [value is None for value in actual] == [value is None for value in expected]
    assert [value or 0 for value in actual] == pytest.approx([value or 0 for value in expected], abs=1e-9)


WRONG: tuple[Any, ...] = (None, [], {}, "x", "", -1, 0, 1.5, 10**30, True, [1, 2], "1e400", float("nan"), "nan")


@pytest.mark.parametrize("seed", range(40))
def test_a_wrong_value_is_refused_or_makes_no_difference(tmp_path: Path, seed: int) -> None:
    """One value of one row is replaced; ids that still stand for an image or a class give pycocotools' numbers."""
    draw = np.random.default_rng(seed)
    truth, results = named_set(seed % 5)
    expected = scores(tmp_path, truth, results)
    wrong = copy.deepcopy(WRONG[int(draw.integers(len(WRONG)))])
    sides = [truth["annotations"], truth["images"], truth["categories"], results]
    rows = sides[int(draw.integers(len(sides)))]
    row = rows[int(draw.integers(len(rows)))]
    key = str(draw.choice(sorted(row)))
    earlier, row[key] = row[key], wrong
    try:
        actual = scores(tmp_path, truth, results)
    except DataError as error:
        assert "\n" not in error.one_line()
        return
    usual = {"image_id", "category_id", "score", "bbox", "area", "iscrowd", "segmentation", "width", "height"}
    if key not in usual or wrong == earlier:
        assert actual == expected
    else:
        assert all(value is None or 0 <= value <= 100 for value in actual)


@pytest.mark.parametrize("form", [int, str, float, lambda value: f"{value:05d}", lambda value: f"img-{value}"])
def test_training_and_evaluation_read_the_same_objects(tmp_path: Path, form: Callable[[int], Any]) -> None:
    """Ids in the tables are of one form, those in the annotations of another where both are numbers."""
    ids = [30, 7, 12]
    references = [str, float, int] if not isinstance(form(7), str) or form(7).strip("0").isdigit() else [form] * 3
    for image_id in ids:
        PilImage.new("RGB", (40, 40)).save(tmp_path / f"{image_id}.png")
    truth = {
        "images": [{"id": form(image_id), "file_name": f"{image_id}.png"} for image_id in ids],
        "categories": [{"id": form(4), "name": "cod"}, {"id": form(2), "name": "eel"}],
        "annotations": [
            {
                "id": at,
                "image_id": refer(image_id),
                "category_id": refer(4 if at % 2 else 2),
                "bbox": [at, at, 10, 10],
                "iscrowd": "0",
                "segmentation": [at, at, at + 10, at, at + 10, at + 10],
            }
            for at, (image_id, refer) in enumerate(zip(ids, references, strict=True), start=1)
        ],
    }
    for row in truth["images"]:
        row |= {"width": 40, "height": 40}
    results, path = files(tmp_path, truth, [])
    dataset = coco.read(path, ReadOptions())
    names = {image.id: image.file_name for image in dataset.images}
    classes = {category.id: category.name for category in dataset.categories}
    trained = {(names[one.image_id], classes[one.category_id], tuple(one.bbox_xywh)) for one in dataset.instances}
    evaluated = read_results(results, path).truth
    names = {row["id"]: row["file_name"] for row in evaluated["images"]}
    classes = {row["id"]: row["name"] for row in evaluated["categories"]}
    scored = {
        (names[row["image_id"]], classes[row["category_id"]], tuple(row["bbox"])) for row in evaluated["annotations"]
    }
    assert trained == scored and len(scored) == 3
