import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from d2tune.acceptance.predictions import CocoFile
from d2tune.annotations.geometry.masks import encode_mask, to_rle
from d2tune.errors import DataError
from tests.acceptance.world import HEIGHT, SQUARES, WIDTH, coco, write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world"))


def written(folder: Path, content: Any) -> Path:
    path = folder / "given.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_objects_of_an_image_in_the_order_of_their_scores(world: Path) -> None:
    file = CocoFile(world / "tool.json")
    assert (file.name, file.class_names, file.starting_score) == ("tool", ("cat", "dog"), 0.5)
    given = file.predict(world / "images" / "a.png")
    assert given.scores.tolist() == pytest.approx([0.95, 0.8, 0.3])
    assert given.class_ids.tolist() == [0, 1, 0]
    assert given.boxes_xyxy.tolist() == [[50, 40, 110, 100], [200, 100, 320, 220], [330, 20, 350, 40]]
    assert [int(mask.sum()) for mask in given.masks] == [3600, 14400, 400]
    assert len(file.predict(world / "images" / "deep" / "d.png")) == 0
    assert len(file.predict(world / "images" / "b.png")) == 1


def test_a_list_of_detections_takes_names_from_the_ground_truth(world: Path, tmp_path: Path) -> None:
    content = coco(SQUARES)
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[5:15, 7:27] = True
    rows = [{"image_id": 2, "category_id": 2, "score": 0.25, "segmentation": to_rle(encode_mask(mask)).to_coco()}]
    path = written(tmp_path, rows)
    with pytest.raises(DataError, match=r"names of the images are not known.*--truth"):
        CocoFile(path)
    file = CocoFile(path, names=world / "tool.json")
    given = file.predict(world / "images" / "b.png")
    assert given.masks[0].sum() == 200 and given.boxes_xyxy.tolist() == [[7, 5, 27, 15]]
    assert file.starting_score == 0.0, "with 0.5 nothing would be shown"
    assert content["categories"][given.class_ids[0]]["name"] == "dog"


def test_boxes_without_masks(world: Path, tmp_path: Path) -> None:
    content = coco(SQUARES)
    for row in content["annotations"]:
        del row["segmentation"]
    given = CocoFile(written(tmp_path, content)).predict(world / "images" / "b.png")
    assert given.rles is None and given.boxes_xyxy.tolist() == [[10, 10, 110, 110]]


def test_scores_and_boxes_that_are_not_numbers(world: Path, tmp_path: Path) -> None:
    content = coco(SQUARES)
    content["annotations"][0]["score"] = float("nan")
    for row in content["annotations"]:
        del row["segmentation"]
    content["annotations"][3]["bbox"] = [1, "x", 2, 3]
    file = CocoFile(written(tmp_path, content))
    assert file.predict(world / "images" / "a.png").scores.tolist() == pytest.approx([0.8, 0.3, 0.0])
    with pytest.raises(DataError, match="neither a mask nor a box; found bbox"):
        file.predict(world / "images" / "b.png")


def test_an_image_does_not_get_the_predictions_of_another_of_its_name(world: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    shutil.copytree(world / "images", images)
    shutil.copy(images / "b.png", images / "deep" / "b.png")
    file = CocoFile(world / "tool.json", images=images)
    assert len(file.predict(images / "b.png")) == 1
    assert len(file.predict(images / "deep" / "b.png")) == 0
    (images / "b.png").unlink()
    assert len(file.predict(images / "deep" / "b.png")) == 1, "the file names no folders"


def test_a_polygon_beyond_the_image_is_clipped(world: Path, tmp_path: Path) -> None:
    content = coco({name: rows[:1] for name, rows in SQUARES.items()})
    content["annotations"][1]["segmentation"] = [[-50, -50, 10, -50, 10, 20, -50, 20]]
    given = CocoFile(written(tmp_path, content)).predict(world / "images" / "b.png")
    assert given.masks[0].sum() == 200


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 9}, r"detection 1 of 6: a detection names an id that is not known; found image_id 9"),
        ({"category_id": "x"}, r"found category_id 'x'; expected an id of `categories`"),
    ],
)
def test_ids_that_are_not_known(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    content = coco(SQUARES)
    content["annotations"][0] |= change
    with pytest.raises(DataError, match=message):
        CocoFile(written(tmp_path, content))


def test_a_mask_of_another_size(world: Path, tmp_path: Path) -> None:
    content = coco(SQUARES)
    content["annotations"][0]["segmentation"] = {"size": [2, 2], "counts": [1, 3]}
    file = CocoFile(written(tmp_path, content))
    with pytest.raises(DataError, match=r"a.png: a segmentation does not fit the image; found .*\[2, 2\]"):
        file.predict(world / "images" / "a.png")


def test_a_file_without_detections_of_that_form(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a COCO results file"):
        CocoFile(written(tmp_path, {"hello": 1}))
