"""Predictions and ground truth are matched by names where both have them; what disagrees is refused."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as mask_utils

from d2tune.errors import DataError
from d2tune.evaluation.from_files.evaluate import evaluate_files
from d2tune.evaluation.from_files.results import read_results

pytestmark = pytest.mark.usefixtures("without_plots")

SIZE_PX = 40
Rows = list[dict[str, Any]]


def square(x: int) -> dict[str, Any]:
    mask = np.zeros((SIZE_PX, SIZE_PX), np.uint8, order="F")
    mask[5:25, x : x + 15] = 1
    rle = mask_utils.encode(mask)
    return {"segmentation": {"size": rle["size"], "counts": rle["counts"].decode()}, "bbox": [x, 5, 15, 20]}


def ground_truth(ids: list[Any], classes: dict[Any, str]) -> dict[str, Any]:
    """An object of the first class on the images a.jpg, b.jpg, ...; each at another place."""
    names = [f"val/{letter}.jpg" for letter in "abcdefgh"[: len(ids)]]
    return {
        "images": [
            {"id": image_id, "file_name": name, "width": SIZE_PX, "height": SIZE_PX}
            for image_id, name in zip(ids, names, strict=True)
        ],
        "categories": [{"id": class_id, "name": name} for class_id, name in classes.items()],
        "annotations": [
            {"id": at + 1, "image_id": image_id, "category_id": next(iter(classes)), "iscrowd": 0, "area": 300}
            | square(3 * at)
            for at, image_id in enumerate(ids)
        ],
    }


def predicted_folder(letters: str, classes: dict[int, str]) -> dict[str, Any]:
    """What `d2tune predict` writes for these images: perfect detections, ids counted from 1."""
    return {
        "images": [
            {"id": number, "file_name": f"{letter}.jpg", "width": SIZE_PX, "height": SIZE_PX}
            for number, letter in enumerate(letters, start=1)
        ],
        "categories": [{"id": number, "name": name} for number, name in classes.items()],
        "annotations": [
            {"id": number, "image_id": number, "category_id": 1, "score": 0.9} | square(3 * "abcdefgh".index(letter))
            for number, letter in enumerate(letters, start=1)
        ],
    }


def files(folder: Path, predictions: Any, truth: Any) -> tuple[Path, Path]:
    paths = folder / "predictions.json", folder / "truth.json"
    for path, value in zip(paths, (predictions, truth), strict=True):
        path.write_text(json.dumps(value))
    return paths


def mask_ap(folder: Path, predictions: Any, truth: Any) -> float:
    result = evaluate_files(*files(folder, predictions, truth), out=folder / "out")
    value = result.metrics.segm["AP"].value
    assert value is not None
    return value


def refusal(folder: Path, predictions: Any, truth: Any) -> str:
    with pytest.raises(DataError) as caught:
        read_results(*files(folder, predictions, truth))
    line = caught.value.one_line()
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    ("ids", "classes"),
    [
        pytest.param([1, 2, 3, 4], {1: "cod", 2: "eel"}, marks=pytest.mark.extended),
        pytest.param([4, 3, 2, 1], {1: "cod", 2: "eel"}, marks=pytest.mark.extended),
        ([10, 500, 7, 0], {7: "cod", 1: "eel"}),
        (["a1", "b", "10", "9"], {"x": "cod", "y": "eel"}),
        ([2.0, 1.0, 3, 4], {7: "cod", 1: "eel"}),
        pytest.param([1, 2, 3, 4], {"x": "cod", "y": "eel"}, marks=pytest.mark.extended),
    ],
)
def test_a_predicted_folder_is_matched_by_name(tmp_path: Path, ids: list[Any], classes: dict[Any, str]) -> None:
    truth = ground_truth(ids, classes)
    assert mask_ap(tmp_path, predicted_folder("abcd", {1: "cod", 2: "eel"}), truth) == pytest.approx(100)


def test_a_missing_image_counts_as_without_detections_and_is_named(tmp_path: Path) -> None:
    truth, predictions = ground_truth([1, 2, 3, 4], {1: "cod"}), predicted_folder("acd", {1: "cod"})
    # three of four objects with precision 1: 76 of 101 recall points
    assert mask_ap(tmp_path, predictions, truth) == pytest.approx(100 * 76 / 101)
    (line,) = json.loads((tmp_path / "out" / "evaluation.json").read_text())["warnings"]
    assert "1 of 4 images of the ground truth is not among the predicted images" in line
    assert "'val/b.jpg'" in line and "1 object there count" in line


def test_an_image_that_only_the_predictions_have_is_ignored_and_named(tmp_path: Path) -> None:
    truth, predictions = ground_truth([1, 2, 3], {1: "cod"}), predicted_folder("dabc", {1: "cod"})
    assert mask_ap(tmp_path, predictions, truth) == pytest.approx(100)
    (line,) = json.loads((tmp_path / "out" / "evaluation.json").read_text())["warnings"]
    assert "1 predicted image is not in the ground truth (the first is 'd.jpg')" in line


def listed(truth: dict[str, Any], **keys: dict[Any, Any]) -> Rows:
    """Perfect detections as a list with the ids of the ground truth; ``keys`` adds a value by image id."""
    rows = []
    for row in truth["annotations"]:
        kept = {key: row[key] for key in ("image_id", "category_id", "bbox", "segmentation")}
        rows.append(kept | {"score": 0.9} | {key: values[row["image_id"]] for key, values in keys.items()})
    return rows


def test_a_list_with_ids_and_names_that_agree(tmp_path: Path) -> None:
    truth = ground_truth([30, 4, 5], {2: "cod"})
    names = {row["id"]: row["file_name"] for row in truth["images"]}
    rows = listed(truth, file_name=names, category_name=dict.fromkeys(names, "cod"))
    assert mask_ap(tmp_path, rows, truth) == pytest.approx(100)
    without_ids = [{key: value for key, value in row.items() if key not in ("image_id", "category_id")} for row in rows]
    assert mask_ap(tmp_path, without_ids, truth) == pytest.approx(100)


def test_ids_and_names_that_disagree_are_refused(tmp_path: Path) -> None:
    truth = ground_truth([1, 2], {1: "cod", 2: "eel"})
    swapped = listed(truth, file_name={1: "val/b.jpg", 2: "val/a.jpg"})
    line = refusal(tmp_path, swapped, truth)
    assert "result 1 of 2: image_id and file_name disagree; found image_id 1, which is 'val/a.jpg'" in line
    line = refusal(tmp_path, listed(truth, category_name={1: "eel", 2: "eel"}), truth)
    assert "result 1 of 2: category_id and category_name disagree; found category_id 1, which is 'cod'" in line
    line = refusal(tmp_path, listed(truth, file_name={1: "other.jpg", 2: "val/b.jpg"}), truth)
    assert "image_id and file_name disagree" in line and "'other.jpg'" in line


def test_other_images_and_classes_are_refused(tmp_path: Path) -> None:
    truth, predictions = ground_truth([1, 2], {1: "cod"}), predicted_folder("gh", {1: "cod"})
    line = refusal(tmp_path, predictions, truth)
    assert "none of the images is in the ground truth by its name; found 'g.jpg'" in line
    line = refusal(tmp_path, predicted_folder("ab", {1: "code"}), truth)
    assert "none of the classes is in the ground truth by its name; found 'code'" in line
    assert "Did you mean 'cod'?" in line
    some = predicted_folder("ab", {1: "eel", 2: "cod"})
    assert "the class is not in the ground truth; found 'eel'; expected one of 1 (cod)" in refusal(
        tmp_path, some, truth
    )


def test_equal_names_are_refused_where_ids_do_not_tell_them_apart(tmp_path: Path) -> None:
    truth, predictions = ground_truth([1, 2], {1: "cod"}), predicted_folder("ab", {1: "cod"})
    doubled = copy.deepcopy(truth)
    doubled["images"][1]["file_name"] = "test/a.jpg"
    predictions["images"][0]["id"] = predictions["annotations"][0]["image_id"] = 9
    assert "the name of the image is that of several in the ground truth" in refusal(tmp_path, predictions, doubled)
    twice = predicted_folder("ab", {1: "cod"})
    twice["images"][1]["file_name"] = "x/val/a.jpg"
    assert "two images of the predictions are the same image of the ground truth" in refusal(tmp_path, twice, truth)


def test_an_image_of_another_size_is_refused(tmp_path: Path) -> None:
    truth, predictions = ground_truth([1, 2], {1: "cod"}), predicted_folder("ab", {1: "cod"})
    predictions["images"][1]["width"] = 50
    line = refusal(tmp_path, predictions, truth)
    assert "'val/b.jpg': an image has another size in the ground truth; found 50 x 40 px; expected 40 x 40 px" in line


def test_text_ids_do_not_become_the_numbers_that_stand_for_them(tmp_path: Path) -> None:
    truth = ground_truth(["a", "b"], {1: "cod"})
    rows = listed(truth)
    rows[0]["image_id"] = 1
    assert "result 1 of 2: the image is not in the ground truth; found image_id 1" in refusal(tmp_path, rows, truth)


def test_windows_and_unicode_forms_of_names(tmp_path: Path) -> None:
    truth, predictions = ground_truth([5, 6], {1: "cod"}), predicted_folder("ab", {1: "cod"})
    truth["images"][0]["file_name"] = "C:\\photos\\Gro\u0308\u00dfe.jpg"
    predictions["images"][0]["file_name"] = "Gr\u00f6\u00dfe.jpg"
    assert mask_ap(tmp_path, predictions, truth) == pytest.approx(100)
