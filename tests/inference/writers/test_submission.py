from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from d2tune.annotations.convert import convert
from d2tune.annotations.formats import rle_csv
from d2tune.annotations.formats.from_masks import dataset_of_masks
from d2tune.annotations.geometry.masks import decode_mask, rasterize, union_rles
from d2tune.annotations.model.dataset import Dataset, Image
from d2tune.annotations.model.options import ReadOptions
from d2tune.annotations.model.types import Rle
from d2tune.errors import DataError
from d2tune.inference.writers.submission import dataset_of_maps, instances_of_map, write_submission
from d2tune.metrics.competitions import competition_score
from tests.annotations.builders import photo

CLASSES = {
    "carvana": ("background", "car"),
    "airbus": ("background", "ship"),
    "severstal": ("background", "1", "2", "3", "4"),
}


def options_of(preset: str, folder: Path) -> ReadOptions:
    classes = CLASSES[preset]
    named = None if preset == "severstal" else classes[1]
    return ReadOptions(preset=preset, class_name=named, labels=classes, image_root=folder)


def map_of(dataset: Dataset, image: Image) -> np.ndarray:
    """The label map of the instances on an image."""
    labels = np.zeros((image.height_px, image.width_px), np.uint8)
    for instance in dataset.by_image()[image.id]:
        if isinstance(instance.segmentation, Rle):
            mask = decode_mask(instance.segmentation)
        else:
            size = {"width_px": image.width_px, "height_px": image.height_px}
            mask = decode_mask(union_rles(rasterize(instance.segmentation, **size)))
        assert not labels[mask].any(), "two instances share a pixel"
        labels[mask] = instance.category_id - 1
    return labels


def predictions(preset: str, maps: dict[str, np.ndarray], **more: Any) -> Dataset:
    images = [
        Image(number, name, labels.shape[1], labels.shape[0]) for number, (name, labels) in enumerate(maps.items())
    ]
    kind = {"classes": CLASSES[preset], "background": "background", "preset": preset}
    return dataset_of_maps(images, maps.values(), **(kind | more))


def some_maps(preset: str, seed: int) -> dict[str, np.ndarray]:
    """Blocks with ragged edges, a map without anything, one that is full, and one of a single row."""
    rng = np.random.default_rng(seed)
    classes = len(CLASSES[preset])
    maps = {}
    for index in range(3):
        coarse = rng.integers(0, classes, (4, 5)) * (rng.random((4, 5)) < 0.5)
        ragged = coarse.repeat(7, axis=0).repeat(6, axis=1)[: 20 + index, : 29 - index]
        maps[f"{index}f_0{index}.jpg"] = np.where(rng.random(ragged.shape) < 0.03, 0, ragged).astype(np.uint8)
    maps["none.jpg"] = np.zeros((9, 14), np.uint8)
    maps["full.jpg"] = np.full((5, 8), classes - 1, np.uint8)
    maps["row.jpg"] = rng.integers(0, classes, (1, 31)).astype(np.uint8)
    return maps


@pytest.mark.parametrize("preset", CLASSES)
def test_a_submission_reads_back_to_the_same_masks(tmp_path: Path, preset: str) -> None:
    maps = some_maps(preset, seed=3)
    for name, labels in maps.items():
        photo(tmp_path / "photos" / "test" / name, labels.shape[1], labels.shape[0])
    path = write_submission(predictions(preset, maps), tmp_path / "out", preset=preset, background="background")
    assert path == tmp_path / "out" / "submission.csv"
    again = rle_csv.read(path, options_of(preset, tmp_path / "photos"))
    assert not again.errors()
    assert {image.file_name.split("/")[-1] for image in again.images} == set(maps)
    for image in again.images:
        assert np.array_equal(map_of(again, image), maps[image.file_name.split("/")[-1]])
    score = competition_score(preset, again, predictions(preset, maps), background="background")
    assert score.value == 1


@pytest.mark.parametrize("preset", CLASSES)
def test_the_converter_reads_a_submission_and_writes_it_again(tmp_path: Path, preset: str) -> None:
    maps = some_maps(preset, seed=4)
    for name, labels in maps.items():
        photo(tmp_path / "photos" / name, labels.shape[1], labels.shape[0])
    written = predictions(preset, maps)
    path = write_submission(written, tmp_path / "mine.csv", preset=preset, background="background")
    options = options_of(preset, tmp_path / "photos")
    convert(path, to="rle", out=tmp_path / "again.csv", format="rle", options=options)
    convert(path, to="coco", out=tmp_path / "coco.json", format="rle", options=options)
    for back in (
        rle_csv.read(tmp_path / "again.csv", options),
        convert(tmp_path / "coco.json", to="rle", out=tmp_path / "c.csv", options=options).dataset,
    ):
        assert len(back.instances) == len(written.instances)
        for image in back.images:
            assert np.array_equal(map_of(back, image), maps[image.file_name])


def test_each_dialect_writes_the_format_of_its_competition(tmp_path: Path) -> None:
    labels = np.zeros((3, 4), np.uint8)
    labels[0, 0] = labels[2, 1] = labels[2, 2] = 1
    maps = {"b.jpg": labels, "a.jpg": np.zeros((3, 4), np.uint8)}
    texts = {}
    for preset in CLASSES:
        path = tmp_path / f"{preset}.csv"
        write_submission(predictions(preset, maps), path, preset=preset, background="background")
        texts[preset] = path.read_text("utf-8")
    # along rows the pixels are numbers 1, 10 and 11; down columns 1, 6 and 9
    assert texts["carvana"] == "img,rle_mask\na.jpg,\nb.jpg,1 1 10 2\n"
    assert texts["airbus"] == "ImageId,EncodedPixels\na.jpg,\nb.jpg,1 1\nb.jpg,6 1 9 1\n"
    rows = ["a.jpg_1,", "a.jpg_2,", "a.jpg_3,", "a.jpg_4,", "b.jpg_1,1 1 6 1 9 1", "b.jpg_2,", "b.jpg_3,", "b.jpg_4,"]
    assert texts["severstal"] == "\n".join(["ImageId_ClassId,EncodedPixels", *rows, ""])


def test_pixels_that_touch_at_a_corner_are_connected() -> None:
    labels = np.array([[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 0, 0], [2, 255, 1, 0]], np.uint8)
    classes = ("sea", "ship", "buoy")
    whole = instances_of_map(labels, classes=classes, background="sea", connected=False)
    assert [(class_id, int(mask.sum())) for class_id, mask in whole] == [(1, 5), (2, 1)]
    regions = instances_of_map(labels, classes=classes, background="sea", connected=True)
    positions = [(class_id, np.argwhere(mask).tolist()) for class_id, mask in regions]
    assert positions == [(1, [[0, 0], [1, 1]]), (1, [[0, 3], [1, 3]]), (1, [[3, 2]]), (2, [[3, 0]])]
    everything = instances_of_map(labels, classes=classes, background=None, connected=False)
    assert [class_id for class_id, _ in everything] == [0, 1, 2]
    with pytest.raises(DataError, match="found 2; expected 0 to 1, or 255"):
        instances_of_map(labels, classes=("sea", "ship"), background="sea", connected=False)


@settings(deadline=None, max_examples=60)
@given(
    hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.sampled_from([0, 1, 2, 255]))
)
def test_masks_add_up_to_the_map(labels: np.ndarray) -> None:
    for connected in (False, True):
        again = np.where(labels == 255, 255, 0)
        for class_id, mask in instances_of_map(labels, classes=("a", "b", "c"), background="a", connected=connected):
            assert mask.any() and not again[mask].any()
            again[mask] = class_id
        assert np.array_equal(again, labels)


def test_images_of_one_name_are_refused(tmp_path: Path) -> None:
    maps = {"x/a.jpg": np.zeros((3, 4), np.uint8), "y/a.jpg": np.zeros((3, 4), np.uint8)}
    with pytest.raises(DataError, match=r"y/a\.jpg: two images have the same base name.*found also x/a\.jpg"):
        write_submission(predictions("airbus", maps), tmp_path / "out.csv", preset="airbus")


def test_an_existing_file_is_overwritten_only_with_force(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("mine", "utf-8")
    predicted = predictions("airbus", {"a.jpg": np.ones((2, 2), np.uint8)})
    for force in (False, True):
        with pytest.raises(DataError, match="d2tune did not write it"):
            write_submission(predicted, path, preset="airbus", force=force)
    assert path.read_text("utf-8") == "mine"
    own = tmp_path / "own.csv"
    write_submission(predictions("airbus", {"b.jpg": np.ones((2, 2), np.uint8)}), own, preset="airbus")
    with pytest.raises(DataError, match="--force"):
        write_submission(predicted, own, preset="airbus")
    write_submission(predicted, own, preset="airbus", force=True)
    assert own.read_text("utf-8") == "ImageId,EncodedPixels\na.jpg,1 4\n"


def test_a_dialect_without_classes_takes_one(tmp_path: Path) -> None:
    two = dataset_of_masks([Image(1, "a.jpg", 2, 2)], [[(0, np.ones((2, 2), bool)), (1, np.eye(2) > 0)]], ("x", "y"))
    with pytest.raises(DataError, match="names no class"):
        write_submission(two, tmp_path / "out.csv", preset="carvana")
    path = write_submission(two, tmp_path / "out.csv", preset="carvana", background="x")
    assert path.read_text("utf-8") == "img,rle_mask\na.jpg,1 1 4 1\n"
    with pytest.raises(DataError, match="Did you mean 'carvana'"):
        write_submission(two, tmp_path / "new.csv", preset="carvanna")
