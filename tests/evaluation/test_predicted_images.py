"""Written predictions have the ids of the person's file, and belong to the images that they were made on."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PilImage
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from d2tune.annotations.convert import read_dataset
from d2tune.annotations.formats.coco import to_coco
from d2tune.annotations.model.dataset import Category, Dataset, Image, Instance
from d2tune.errors import RunError
from d2tune.evaluation.contact_sheet import instance_mask
from d2tune.evaluation.from_files.evaluate import evaluate_files
from d2tune.evaluation.instance import InstanceEvaluator
from tests.cases import on_demand
from tests.evaluation.from_files.test_matching import SIZE_PX, square
from tests.shared_files import SHARED

pytestmark = pytest.mark.usefixtures("without_plots")

Id = int | str


def dataset_of(folder: Path, image_ids: tuple[Id | None, ...], class_ids: tuple[Id | None, ...]) -> Dataset:
    """Two objects on each image, of the first and of the last class."""
    images, instances = [], []
    for number, source_id in enumerate(image_ids, start=1):
        path = folder / f"{number}.png"
        PilImage.new("RGB", (SIZE_PX, SIZE_PX), (number, 0, 0)).save(path)
        images.append(Image(number, path.name, SIZE_PX, SIZE_PX, path, source_id=source_id))
        for class_id, x in ((1, 2 * number), (len(class_ids), 2 * number + 3)):
            corners = np.array([(x, 5.0), (x + 15, 5), (x + 15, 25), (x, 25)])
            place = (float(x), 5.0, 15.0, 20.0)
            instances.append(Instance(len(instances) + 1, number, class_id, (corners,), place, 300.0))
    categories = tuple(
        Category(number, f"class {number}", source_id=source_id) for number, source_id in enumerate(class_ids, start=1)
    )
    return Dataset(tuple(images), categories, tuple(instances), image_root=folder)


def detections(dataset: Dataset) -> list[list[dict[str, Any]]]:
    """Every third object is missed, others are a little off, and some have the wrong class."""
    draw = np.random.default_rng(3)
    rows: list[list[dict[str, Any]]] = [[] for _ in dataset.images]
    for instance in dataset.instances:
        if instance.id % 3:
            x = int(instance.bbox_xywh[0]) + instance.id % 2
            class_id = instance.category_id if instance.id % 5 else 1
            row = {"image_id": instance.image_id, "category_id": class_id, "score": round(float(draw.random()), 3)}
            rows[instance.image_id - 1].append(row | square(x))
    return rows


def persons_file(dataset: Dataset) -> dict[str, Any]:
    """The COCO file that the dataset was read from, its images and categories in another order."""
    value = to_coco(dataset)
    images, classes = dataset.source_image_ids(), dataset.source_category_ids()
    value["images"] = [row | {"id": images[row["id"]]} for row in reversed(value["images"])]
    value["categories"] = [row | {"id": classes[row["id"]]} for row in value["categories"]]
    value["annotations"] = [
        row | {"image_id": images[row["image_id"]], "category_id": classes[row["category_id"]]}
        for row in value["annotations"]
    ]
    return value


def official_mask_ap(ground_truth: Path, predictions: Path) -> float:
    """pycocotools' mask AP of the files as they are."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(ground_truth))
        evaluation = COCOeval(truth, truth.loadRes(str(predictions)), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return 100 * float(evaluation.stats[0])


IDS: list[tuple[tuple[Id | None, ...], tuple[Id | None, ...]]] = [
    ((3, 1, 2, 4), (1, 2)),
    ((139, 285, 17, 90_000), (2, 1)),
    ((0, 1, 2, 3), (0, 90)),
    (("c", "a", "b", "10"), (1, 2)),
    (("4", "3", "2", "1"), ("cod", "eel")),
    ((None, None, None, None), (None, None)),
]


@pytest.mark.parametrize(("image_ids", "class_ids"), on_demand(IDS, IDS[1], IDS[4]))
def test_pycocotools_scores_the_file_on_the_persons_own(
    tmp_path: Path, image_ids: tuple[Id | None, ...], class_ids: tuple[Id | None, ...]
) -> None:
    dataset = dataset_of(tmp_path, image_ids, class_ids)
    evaluator, rows = InstanceEvaluator(dataset), detections(dataset)
    digest = evaluator.save(rows, tmp_path)
    own = tmp_path / "own.json"
    own.write_text(json.dumps(persons_file(dataset)))
    expected = official_mask_ap(own, tmp_path / "predictions.json")
    assert 10 < expected < 90
    assert evaluator.quick(rows).value == pytest.approx(expected, abs=1e-9)
    scored = evaluate_files(tmp_path / "predictions.json", own, out=tmp_path / "out")
    assert scored.metrics.segm["AP"].value == pytest.approx(expected, abs=1e-9)
    assert evaluator.load(tmp_path) == rows and evaluator.save(evaluator.load(tmp_path), tmp_path) == digest


def test_a_file_whose_images_are_not_in_the_order_of_their_ids(tmp_path: Path) -> None:
    """The photos have other sizes, and ids in the order in which they were annotated."""
    own = SHARED / "strangers" / "90_eval_own_coco_ids" / "val.json"
    dataset = read_dataset(own)
    assert [image.source_id for image in dataset.images] == [5, 1, 8, 2, 7, 3, 6, 4]
    evaluator = InstanceEvaluator(dataset)
    rows: list[list[dict[str, Any]]] = [[] for _ in dataset.images]
    for instance in dataset.instances:
        image = dataset.images[instance.image_id - 1]
        mask = np.roll(instance_mask(instance, image), instance.id % 7, axis=1)
        rle = mask_utils.encode(np.asfortranarray(mask.astype(np.uint8)))
        row = {"image_id": image.id, "category_id": 1, "score": 1 / (1 + instance.id % 9)}
        segmentation = {"size": rle["size"], "counts": rle["counts"].decode()}
        rows[image.id - 1].append(row | {"bbox": mask_utils.toBbox(rle).tolist(), "segmentation": segmentation})
    evaluator.save(rows, tmp_path)
    expected = official_mask_ap(own, tmp_path / "predictions.json")
    assert 20 < expected < 95
    scored = evaluate_files(tmp_path / "predictions.json", own, out=tmp_path / "out")
    assert scored.metrics.segm["AP"].value == pytest.approx(expected, abs=1e-9)
    # what `d2tune predict` writes for the folder has ids of its own, and the names
    folder = {
        "images": [{"id": image.id, "file_name": image.file_name} for image in dataset.images],
        "categories": [{"id": 1, "name": "balloon"}],
        "annotations": [row for of_image in rows for row in of_image],
    }
    (tmp_path / "folder.json").write_text(json.dumps(folder))
    scored = evaluate_files(tmp_path / "folder.json", own, out=tmp_path / "out")
    assert scored.metrics.segm["AP"].value == pytest.approx(expected, abs=1e-9)


def test_a_class_that_the_file_lacks_gets_the_next_id(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, (1, 2, 3, 4), (2, 1, None))
    InstanceEvaluator(dataset).save(detections(dataset), tmp_path)
    table = json.loads((tmp_path / "predicted_images.json").read_text())
    assert [row["id"] for row in table["categories"]] == [2, 1, 3]


def test_predictions_of_other_images_are_refused(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, (1, 2, 3, 4), (1, 2))
    evaluator = InstanceEvaluator(dataset)
    evaluator.save(detections(dataset), tmp_path)
    renamed = replace(dataset, images=(replace(dataset.images[0], file_name="new.png"), *dataset.images[1:]))
    fewer = dataset.subset([2, 3, 4])
    more = replace(dataset, images=(*dataset.images, Image(5, "5.png", 9, 9)))
    for changed, words in (
        (renamed, "'1.png' is missing now"),
        (fewer, "'1.png' is missing now"),
        (more, "'5.png' was added"),
    ):
        with pytest.raises(RunError, match=f"the predictions are of other images: {words}"):
            InstanceEvaluator(changed).load(tmp_path)
    PilImage.effect_noise((SIZE_PX, SIZE_PX), 50).convert("RGB").save(tmp_path / "2.png")
    with pytest.raises(RunError, match=r"'2\.png' has changed"):
        evaluator.load(tmp_path)


def test_predictions_of_an_earlier_version_have_the_ids_of_the_dataset(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, (30, 10, 20, 40), (7, 5))
    rows = detections(dataset)
    (tmp_path / "predictions.json").write_text(json.dumps([row for of_image in rows for row in of_image]))
    assert InstanceEvaluator(dataset).load(tmp_path) == rows
    (tmp_path / "predictions.json").write_text('[{"image_id": 9, "category_id": 1}]')
    with pytest.raises(RunError, match="the predictions are of other images or are damaged"):
        InstanceEvaluator(dataset).load(tmp_path)
