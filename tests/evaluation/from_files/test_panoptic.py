"""Panoptic quality of COCO panoptic files, including a real sample."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from d2tune.annotations.formats.panoptic import to_colors
from d2tune.errors import DataError
from d2tune.evaluation.from_files.panoptic import PanopticFile, read_panoptic, score_panoptic_files
from tests.metrics.grids import seeds
from tests.metrics.test_panoptic import CATEGORIES, Side, random_pair, reference, score, values
from tests.shared_files import SHARED

SAMPLE = SHARED / "data" / "panoptic_coco_sample"


def sample_images(file: PanopticFile) -> list[Side]:
    return [(file.segment_ids(image_id), row["segments_info"]) for image_id, row in file.rows.items()]


@pytest.fixture(scope="module")
def sample() -> PanopticFile:
    return read_panoptic(SAMPLE / "panoptic_examples.json")


def test_the_ground_truth_scores_100_against_itself(sample: PanopticFile) -> None:
    result = score_panoptic_files(sample, sample).result()
    assert result.images == 2
    assert values(result) == dict.fromkeys(values(result), 100.0)
    crowds = sum(info["iscrowd"] for _, infos in sample_images(sample) for info in infos)
    assert crowds == 3 and sum(row.fp + row.fn for row in result.classes) == 0
    assert sum(row.tp for row in result.classes) == sum(len(infos) for _, infos in sample_images(sample)) - crowds


@pytest.mark.parametrize("seed", seeds(3, few=(0,)))
def test_disturbed_real_images_score_as_sets_of_pixels_do(sample: PanopticFile, seed: int) -> None:
    draw = np.random.default_rng(seed)
    things = [category.id for category in sample.categories if category.isthing]
    images = []
    for truth, segments in sample_images(sample):
        prediction = np.roll(truth, draw.integers(-6, 7, 2), axis=(0, 1))
        predicted = [{"id": info["id"], "category_id": info["category_id"]} for info in segments]
        for info in predicted[:6]:
            info["category_id"] = int(draw.choice(things))
        for info in predicted[-4:]:
            prediction[prediction == info["id"]] = 0
        predicted = [info for info in predicted if (prediction == info["id"]).any()]
        images.append(((prediction, predicted), (truth, segments)))
    expected = reference(images, sample.categories)
    assert values(score(images, sample.categories).result()) == pytest.approx(expected, abs=1e-9)
    assert 5 < expected["PQ"] < 95


def write_panoptic(folder: Path, name: str, images: list[Side], **more: object) -> Path:
    """A COCO panoptic JSON with its PNGs, as any other tool would write it."""
    rows = []
    for number, (image, infos) in enumerate(images):
        png = folder / name / f"{number}.png"
        png.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(to_colors(image)).save(png)
        rows.append({"image_id": number, "file_name": png.name, "segments_info": infos})
    categories = [
        {"id": category.id, "name": category.name, "isthing": int(category.isthing)} for category in CATEGORIES
    ]
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"annotations": rows, "categories": categories} | more), encoding="utf-8")
    return path


@pytest.mark.parametrize("area", [1, 10**9])
def test_wrong_areas_in_the_json_change_nothing(tmp_path: Path, area: int) -> None:
    draw = np.random.default_rng(1)
    pairs = [random_pair(draw) for _ in range(3)]
    expected = values(score(pairs).result())
    for name, side in (("predictions", 0), ("truth", 1)):
        images = [(pair[side][0], [info | {"area": area} for info in pair[side][1]]) for pair in pairs]
        write_panoptic(tmp_path, name, images)
    predictions, truth = (read_panoptic(tmp_path / f"{name}.json") for name in ("predictions", "truth"))
    assert values(score_panoptic_files(predictions, truth).result()) == expected
    assert values(score_panoptic_files(truth, truth).result())["PQ"] == 100


def test_errors_of_a_missing_prediction_or_png_have_its_name(tmp_path: Path) -> None:
    pair = random_pair(np.random.default_rng(0))
    truth = read_panoptic(write_panoptic(tmp_path, "truth", [pair[1], pair[1]]))
    predictions = read_panoptic(write_panoptic(tmp_path, "predictions", [pair[0]]))
    with pytest.raises(DataError, match="1 of 2 images have no prediction"):
        score_panoptic_files(predictions, truth)
    (tmp_path / "truth" / "1.png").unlink()
    with pytest.raises(DataError, match=r"1\.png: the PNG does not exist"):
        score_panoptic_files(truth, truth)
    (tmp_path / "truth" / "1.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="the PNG cannot be read"):
        score_panoptic_files(truth, truth)
    with pytest.raises(DataError, match="the ground truth has no categories"):
        score_panoptic_files(predictions, read_panoptic(write_panoptic(tmp_path, "bare", [pair[1]], categories=[])))


def test_the_folder_of_the_pngs_can_be_named(tmp_path: Path, sample: PanopticFile) -> None:
    copy = tmp_path / "elsewhere.json"
    copy.write_bytes((SAMPLE / "panoptic_examples.json").read_bytes())
    moved = read_panoptic(copy, folder=SAMPLE / "panoptic_examples")
    assert values(score_panoptic_files(moved, sample).result())["PQ"] == 100


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1]", "not a COCO panoptic file"),
        ('{"annotations": [{"image_id": 1}]}', "not a COCO panoptic file"),
        ('{"annotations": [{"image_id": 1, "segments_info": [3]}]}', "not a COCO panoptic file"),
        ("{", "ends in the middle"),
        ('{"annotations": [], "categories": [{"id": 1}]}', "a category has no id"),
        ('{"annotations": [{"image_id": 1, "segments_info": []}, {"image_id": 1, "segments_info": []}]}', "twice"),
    ],
)
def test_errors_of_invalid_files(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_panoptic(path)


def test_a_missing_file_and_a_png_outside_the_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_panoptic(tmp_path / "none.json")
    path = tmp_path / "a.json"
    rows = [{"image_id": 1, "file_name": "../b.png", "segments_info": []}]
    path.write_text(json.dumps({"annotations": rows}), encoding="utf-8")
    with pytest.raises(DataError, match="the file name of an annotation is not valid"):
        read_panoptic(path).segment_ids("1")


def renumbered(path: Path, names: list[str], ids: list[int], classes: dict[int, int]) -> None:
    """Give the images of a file these names and ids, and the classes other ids."""
    value = json.loads(path.read_text("utf-8"))
    value["images"] = [{"id": image_id, "file_name": name} for image_id, name in zip(ids, names, strict=True)]
    for row, image_id in zip(value["annotations"], ids, strict=True):
        row["image_id"] = image_id
        row["segments_info"] = [
            info | {"category_id": classes.get(info["category_id"], info["category_id"])}
            for info in row["segments_info"]
        ]
    value["categories"] = [row | {"id": classes.get(row["id"], row["id"])} for row in value["categories"]]
    path.write_text(json.dumps(value), encoding="utf-8")


def test_images_and_classes_are_matched_by_name(tmp_path: Path) -> None:
    draw = np.random.default_rng(4)
    pairs = [random_pair(draw) for _ in range(3)]
    expected = values(score(pairs).result())
    truth = write_panoptic(tmp_path, "truth", [pair[1] for pair in pairs])
    predictions = write_panoptic(tmp_path, "predictions", [pair[0] for pair in reversed(pairs)])
    renumbered(truth, ["x/a.jpg", "x/b.jpg", "x/c.jpg"], [7, 2, 1], {})
    first, second = (category.id for category in CATEGORIES[:2])
    renumbered(predictions, ["c.jpg", "b.jpg", "a.jpg"], [1, 2, 3], {first: second, second: first})
    assert values(score_panoptic_files(read_panoptic(predictions), read_panoptic(truth)).result()) == expected
    renumbered(predictions, ["c.jpg", "b.jpg", "d.jpg"], [1, 2, 3], {})
    with pytest.raises(DataError, match=r"image x/a\.jpg: 1 of 3 images have no prediction"):
        score_panoptic_files(read_panoptic(predictions), read_panoptic(truth))
    value = json.loads(predictions.read_text("utf-8"))
    value["categories"][0]["name"] = "other"
    predictions.write_text(json.dumps(value), encoding="utf-8")
    with pytest.raises(DataError, match="the class is not in the ground truth; found 'other'"):
        score_panoptic_files(read_panoptic(predictions), read_panoptic(truth))
