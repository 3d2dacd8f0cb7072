from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image as PilImage
from pycocotools import mask as mask_utils

from d2tune.annotations.convert import read_dataset
from d2tune.annotations.model.options import ReadOptions
from d2tune.data.batches import SampleKey
from d2tune.data.catalog import detectron2_dicts
from d2tune.data.image_reader import ImageReader
from d2tune.data.mapper import TrainingSamples, read_image
from d2tune.errors import DataError
from d2tune.inference.images import InputSize, PredictionSamples
from tests.shared_files import SHARED


def image(folder: Path, *, annotations: list[dict]) -> dict:
    """A 200 x 100 image, black but for a white rectangle from (40, 20) to (120, 60)."""
    pixels = np.zeros((100, 200, 3), np.uint8)
    pixels[20:60, 40:120] = 255
    path = folder / "a.png"
    cv2.imwrite(str(path), pixels)
    return {"file_name": str(path), "image_id": 1, "height": 100, "width": 200, "annotations": annotations}


def polygon_annotation() -> dict:
    ring = [40.0, 20.0, 120.0, 20.0, 120.0, 60.0, 40.0, 60.0]
    return {"bbox": [40, 20, 80, 40], "bbox_mode": 1, "category_id": 0, "iscrowd": 0, "segmentation": [ring]}


def rle_annotation() -> dict:
    mask = np.zeros((100, 200), np.uint8)
    mask[20:60, 40:120] = 1
    rle = mask_utils.encode(np.asfortranarray(mask))
    return polygon_annotation() | {"segmentation": {"size": rle["size"], "counts": rle["counts"].decode()}}


def samples(dicts: list[dict], *, largest: int = 100, mask_format: str = "bitmask") -> TrainingSamples:
    return TrainingSamples(
        dicts,
        channel_order="RGB",
        mask_format=mask_format,
        short_side_range_px=(20, largest),
        max_side_px=10_000,
    )


@pytest.mark.parametrize("annotation", [polygon_annotation(), rle_annotation()], ids=["polygon", "rle"])
@pytest.mark.parametrize(("largest", "short_side"), [(100, 100), (50, 50), (50, 37), (200, 150)])
@pytest.mark.parametrize("seed", range(4))
def test_masks_and_boxes_lie_on_the_object(
    tmp_path: Path, annotation: dict, largest: int, short_side: int, seed: int
) -> None:
    data = samples([image(tmp_path, annotations=[annotation])], largest=largest)
    item = data[SampleKey(0, short_side, seed)]
    white = item["image"][0].numpy() > 127
    mask = item["instances"].gt_masks.tensor[0].numpy()
    assert item["image"].shape[1:] == white.shape == mask.shape == (short_side, 2 * short_side)
    assert (mask & white).sum() / (mask | white).sum() > 0.9
    x0, y0, x1, y1 = item["instances"].gt_boxes.tensor[0].tolist()
    rows, columns = np.flatnonzero(white.any(1)), np.flatnonzero(white.any(0))
    scale = short_side / 100
    assert abs(x0 - columns[0]) <= 1 + scale and abs(x1 - columns[-1] - 1) <= 1 + scale
    assert abs(y0 - rows[0]) <= 1 + scale and abs(y1 - rows[-1] - 1) <= 1 + scale


def test_both_flips_occur_and_follow_the_seed(tmp_path: Path) -> None:
    data = samples([image(tmp_path, annotations=[polygon_annotation()])])
    left = [float(data[SampleKey(0, 100, seed)]["instances"].gt_boxes.tensor[0, 0]) for seed in range(30)]
    assert set(left) == {40.0, 80.0}
    assert left == [float(data[SampleKey(0, 100, seed)]["instances"].gt_boxes.tensor[0, 0]) for seed in range(30)]


@pytest.mark.parametrize("mask_format", ["bitmask", "polygon"])
def test_an_image_without_instances_keeps_its_fields(tmp_path: Path, mask_format: str) -> None:
    item = samples([image(tmp_path, annotations=[])], mask_format=mask_format)[SampleKey(0, 50, 0)]
    assert len(item["instances"]) == 0
    assert item["instances"].has("gt_masks") and item["instances"].gt_boxes.tensor.shape == (0, 4)


def test_crowds_are_excluded(tmp_path: Path) -> None:
    crowd = polygon_annotation() | {"iscrowd": 1}
    item = samples([image(tmp_path, annotations=[crowd, polygon_annotation()])])[SampleKey(0, 50, 0)]
    assert len(item["instances"]) == 1


def test_a_changed_image_size_is_an_error(tmp_path: Path) -> None:
    source = image(tmp_path, annotations=[])
    cv2.imwrite(source["file_name"], np.zeros((50, 50, 3), np.uint8))
    with pytest.raises(DataError, match=r"the size of the image has changed.*found 50 x 50 px; expected 200 x 100 px"):
        samples([source])[SampleKey(0, 50, 0)]


def test_the_error_of_an_unreadable_image_has_its_name(tmp_path: Path) -> None:
    path = tmp_path / "broken.jpg"
    path.write_bytes(b"\xff\xd8\xff\xe0 not an image")
    with pytest.raises(DataError, match=r"broken\.jpg.*cannot be read"):
        read_image(str(path), "RGB")


def test_exif_rotated_photo_and_its_polygons_agree() -> None:
    dataset = read_dataset(SHARED / "conversion_cases" / "31_exif_rotated")
    (source,) = detectron2_dicts(dataset)
    assert (source["width"], source["height"]) == (48, 64)
    item = samples([source])[SampleKey(0, 48, 0)]
    assert tuple(item["image"].shape) == (3, 64, 48)


def test_evaluation_samples_keep_the_images_own_size(tmp_path: Path) -> None:
    source = image(tmp_path, annotations=[])
    size = InputSize(short_side_px=50, max_side_px=80)
    item = PredictionSamples([source["file_name"]], reader=ImageReader(3, "RGB"), size=size)[0]
    assert tuple(item["image"].shape) == (3, 40, 80)
    assert (item["height"], item["width"]) == (100, 200)


def test_channel_orders_are_each_others_reverse(tmp_path: Path) -> None:
    path = tmp_path / "red.png"
    PilImage.new("RGB", (8, 8), (255, 0, 0)).save(path)
    assert read_image(str(path), "RGB")[0, 0].tolist() == [255, 0, 0]
    assert read_image(str(path), "BGR")[0, 0].tolist() == [0, 0, 255]


def test_real_balloon_masks_have_the_polygons_areas() -> None:
    options = ReadOptions(labels=("balloon",), class_name="balloon")
    dataset = read_dataset(SHARED / "data" / "balloon" / "val", options=options)
    source = detectron2_dicts(dataset)[0]
    side = min(source["height"], source["width"])
    item = samples([source], largest=side)[SampleKey(0, side, 1)]
    areas = item["instances"].gt_masks.tensor.sum((1, 2)).to(torch.float64)
    expected = [instance.area_px2 for instance in dataset.by_image()[source["image_id"]]]
    assert np.allclose(areas.numpy(), expected, rtol=0.02)
