"""The same scene with 8 and with more bits is the same to training, evaluation, prediction and every page."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
import torch
import yaml
from PIL import Image as PilImage

from d2tune.annotations.io.photos.reading import read_photo_of
from d2tune.checking import check
from d2tune.data.batches import SampleKey
from d2tune.data.catalog import detectron2_dicts
from d2tune.data.image_reader import ImageReader, image_reader
from d2tune.data.label_maps import read_label_map
from d2tune.data.mapper import LEAST_SIDE_PX, Resize, TrainingSamples, inference_sample, resized_shape
from d2tune.data.semantic_mapper import SemanticInput, SemanticSamples
from d2tune.data.splits import load_splits
from d2tune.errors import DataError
from d2tune.inference.images import InputSize, PredictionSamples
from d2tune.modeling.config import DataFacts, project_config, read_config
from d2tune.project import Project, load_project
from d2tune.report.thumbnails import jpeg
from tests.annotations.builders import SQUARE, labelme_file, labelme_value, shape
from tests.shared_files import SHARED

STRANGERS = SHARED / "strangers"
SCENE = cv2.GaussianBlur(np.random.default_rng(4).integers(0, 256, (48, 64), dtype=np.uint8), (5, 5), 0)
WRITERS = {
    "8-bit.png": lambda path: cv2.imwrite(str(path), SCENE),
    "16-bit.png": lambda path: cv2.imwrite(str(path), SCENE.astype(np.uint16) * 257),
    "16-bit.tif": lambda path: tifffile.imwrite(path, SCENE.astype(np.uint16) * 257, byteorder=">"),
    "colors.png": lambda path: cv2.imwrite(str(path), np.dstack([SCENE] * 3).astype(np.uint16) * 257),
    "float.tif": lambda path: tifffile.imwrite(path, (SCENE / 255).astype(np.float32)),
}


def project(folder: Path, **data: Any) -> Project:
    keys = {"data": {"root": str(folder), "train": ".", "val": 0.5} | data, "classes": ["cat"]}
    (folder / "p.yaml").write_text(yaml.safe_dump(keys), encoding="utf-8")
    return load_project(folder / "p.yaml").project


def annotated(folder: Path, name: str) -> Path:
    labelme_file(folder / f"{Path(name).stem}.json", shape(SQUARE), image=name, draw=False)
    WRITERS[name](folder / name)
    return folder / name


def instance_sample(dicts: list[dict[str, Any]], white: float | None) -> dict[str, Any]:
    options = {"mask_format": "polygon", "short_side_range_px": (20, 40), "max_side_px": 200}
    return TrainingSamples(dicts, channel_order="BGR", white=white, **options)[SampleKey(0, 30, 5)]


def semantic_sample(source: dict[str, Any], reader: ImageReader) -> dict[str, Any]:
    options = SemanticInput(
        reader=reader,
        max_side_px=200,
        largest_short_side_px=40,
        patch_px=0,
        patch_balance=0,
        augment="photo",
        classes=2,
    )
    return SemanticSamples([source], options, cache_bytes=0)[SampleKey(0, 30, 5)]


@pytest.mark.parametrize("name", [name for name in WRITERS if name != "8-bit.png"])
def test_every_reader_sees_the_scene_of_the_8_bit_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "deep").mkdir()
    labels = tmp_path / "labels.png"
    cv2.imwrite(str(labels), (SCENE > 100).astype(np.uint8))
    seen = []
    for folder, file in (("plain", "8-bit.png"), ("deep", name)):
        path = annotated(tmp_path / folder, file)
        dataset = check(tmp_path / folder)[0].dataset
        source = detectron2_dicts(dataset)[0]
        reader = ImageReader(order="BGR")
        predicted = PredictionSamples([path], reader=reader, size=InputSize(short_side_px=30, max_side_px=200))
        with reader.open(path) as opened:
            window = opened.read(4, 6, 20, 30)
        seen.append(
            {
                "instance training": instance_sample([source], None)["image"],
                "semantic training": semantic_sample(source | {"sem_seg_file_name": str(labels)}, reader)["image"],
                "prediction": predicted[0]["image"],
                "window": window,
                "contact sheet": read_photo_of(dataset.images[0]),
                "check page": np.asarray(
                    PilImage.open(io.BytesIO(jpeg(dataset.images[0], (0, 0, 64, 48), scale=1))).convert("RGB")
                ),
            }
        )
    for way, expected in seen[0].items():
        difference = np.abs(np.asarray(seen[1][way]).astype(int) - np.asarray(expected).astype(int))
        assert difference.max() <= (1 if way == "check page" else 0), way
        assert np.asarray(expected).std() > 10, way


def test_the_pair_of_a_public_report() -> None:
    folder = STRANGERS / "94_predict_mixed_folder"
    reader = ImageReader()
    np.testing.assert_array_equal(reader.read(folder / "nine16.png"), reader.read(folder / "nine8.png"))
    ramp = reader.read(STRANGERS / "40_gray16_instance" / "a.png")
    assert len(np.unique(ramp)) == 256
    assert abs(float(ramp.mean()) - 127.5) < 1
    np.testing.assert_array_equal(ramp, reader.read(STRANGERS / "40_gray16_instance" / "b.tif"))


def test_the_float_file_of_a_public_report() -> None:
    """0.5 of 1 is 127.5 of 255, rounded to the even 128."""
    assert np.unique(ImageReader().read(STRANGERS / "41_modes" / "float.tif")).tolist() == [128]


def test_both_splits_and_the_reader_of_the_run_have_one_white(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for split, most in (("train", 1023), ("val", 4095)):
        for number in range(2):
            labelme_file(tmp_path / split / f"{number}.json", shape(SQUARE), image=f"{number}.tif", draw=False)
            values = np.full((48, 64), most - number, np.uint16)
            tifffile.imwrite(tmp_path / split / f"{number}.tif", values, extratags=[(281, "H", 1, most, True)])
    splits = load_splits(project(tmp_path, train="train", val="val"))
    whites = {image.pixel_format.white for dataset in (splits.train, splits.val) for image in dataset.images}
    assert whites == {4095}
    assert "image_range_differs" in caplog.text
    assert read_photo_of(splits.train.images[0]).max() == round(1023 * 255 / 4095)
    train, val = check(tmp_path / "p.yaml")
    assert {image.pixel_format.white for image in (*train.dataset.images, *val.dataset.images)} == {4095}
    assert [finding.level for finding in train.findings if finding.code == "image_range_differs"] == ["warning"]
    sample = instance_sample(detectron2_dicts(splits.train), 4095)
    assert int(sample["image"].max()) == round(1023 * 255 / 4095)
    assert ImageReader(white=4095).read(splits.train.images[0].path).max() == round(1023 * 255 / 4095)


def test_cut_files_stop_check_and_training_alike(tmp_path: Path) -> None:
    train = tmp_path / "train"
    labelme_file(tmp_path / "val" / "other.json", shape(SQUARE), image="other.jpg")
    train.mkdir()
    for name in ("ok.jpg", "tail.jpg", "middle_cut.jpg"):
        (train / name).write_bytes((STRANGERS / "45_jpeg_damage" / name).read_bytes())
        document = labelme_value(shape(SQUARE), image=name, size=(256, 192))
        (train / name).with_suffix(".json").write_text(json.dumps(document))
    own = project(tmp_path, train="train", val="val")
    (finding,) = (finding for finding in check(tmp_path / "p.yaml")[0].findings if finding.level == "error")
    assert (finding.code, finding.file) == ("image_unreadable", "middle_cut.jpg")
    with pytest.raises(DataError, match="image_unreadable"):
        load_splits(own)
    splits = load_splits(project(tmp_path, train="train", val="val", skip_bad=True))
    assert [image.file_name for image in splits.train.images] == ["ok.jpg", "tail.jpg"]


THIN = [(2, 3000), (3000, 2), (1, 1), (1, 500), (4, 4000)]


@pytest.mark.parametrize("size_hw", THIN)
def test_thin_images_have_no_empty_and_no_giant_size(size_hw: tuple[int, int]) -> None:
    assert min(resized_shape(size_hw, short_side_px=320, max_side_px=533)) >= LEAST_SIDE_PX
    assert max(resized_shape(size_hw, short_side_px=320, max_side_px=533)) <= 533
    image = np.zeros((*size_hw, 3), np.uint8)
    sample = inference_sample(image, short_side_px=320, max_side_px=533)
    assert tuple(sample["image"].shape[1:]) == resized_shape(size_hw, short_side_px=320, max_side_px=533)
    assert (sample["height"], sample["width"]) == size_hw


@pytest.mark.parametrize("size_hw", [(480, 640), (640, 480), (100, 3300), (320, 320)])
def test_other_images_have_the_size_of_detectron2(size_hw: tuple[int, int]) -> None:
    from detectron2.data import transforms as T

    image = np.zeros((*size_hw, 3), np.uint8)
    for transform in (Resize(320, 533), T.ResizeShortestEdge(320, 533)):
        assert transform.get_transform(image).apply_image(image).shape[:2] == resized_shape(
            size_hw, short_side_px=320, max_side_px=533
        )


@pytest.mark.parametrize("size_hw", THIN)
def test_thin_images_are_trained_on(tmp_path: Path, size_hw: tuple[int, int]) -> None:
    height_px, width_px = size_hw
    PilImage.new("RGB", (width_px, height_px), (9, 9, 9)).save(tmp_path / "a.png")
    ring = [[0, 0], [width_px, 0], [width_px, height_px], [0, height_px]]
    labelme_file(tmp_path / "a.json", shape(ring), size=(width_px, height_px), draw=False)
    dataset = check(tmp_path, report=tmp_path / "page.html")[0].dataset
    sample = instance_sample(detectron2_dicts(dataset), None)
    height, width = sample["image"].shape[1:]
    assert LEAST_SIDE_PX <= min(height, width) <= max(height, width) <= 200
    # the object is the whole image
    assert sample["instances"].gt_boxes.tensor.tolist() == [[0, 0, width, height]]
    labels = tmp_path / "labels.png"
    cv2.imwrite(str(labels), np.ones(size_hw, np.uint8))
    source = detectron2_dicts(dataset)[0] | {"sem_seg_file_name": str(labels)}
    sample = semantic_sample(source, ImageReader())
    assert sample["sem_seg"].shape == sample["image"].shape[1:]
    assert torch.equal(sample["sem_seg"], torch.ones_like(sample["sem_seg"]))


@pytest.mark.parametrize("name", [b"caf\xe9", b"line\nfeed", b"\xed\xa0\x80"])
def test_names_that_are_not_text_are_trained_on(tmp_path: Path, name: bytes) -> None:
    folder = os.fsencode(tmp_path)
    path = Path(os.fsdecode(folder + b"/" + name + b".jpg"))
    with path.open("wb") as stream:
        PilImage.new("RGB", (64, 48), (9, 90, 9)).save(stream, "JPEG")
    document = labelme_value(shape(SQUARE), image=path.name)
    Path(os.fsdecode(folder + b"/" + name + b".json")).write_text(json.dumps(document), "ascii")
    (result,) = check(tmp_path, report=tmp_path / "page.html")
    assert [image.path for image in result.dataset.images] == [path]
    assert instance_sample(detectron2_dicts(result.dataset), None)["image"].shape == (3, 30, 40)
    labels = path.with_suffix(".png")
    labels.write_bytes(bytes(cv2.imencode(".png", np.full((48, 64), 7, np.uint8))[1]))
    assert read_label_map(labels).tolist() == np.full((48, 64), 7).tolist()
    (tmp_path / "page.html").read_bytes().decode("utf-8")


@pytest.mark.parametrize(("white", "read"), [(4095.0, 4095.0), (None, None)])
def test_the_white_of_the_training_images_is_kept_in_the_config(
    tmp_path: Path, white: float | None, read: float | None
) -> None:
    own = project(tmp_path)
    facts = DataFacts(class_names=("cat",), train_images=2, has_rle=False, train_name="t", val_name="v", white=white)
    cfg = project_config(own, facts, scratch=True, device="cpu")
    (tmp_path / "detectron2.yaml").write_text(cfg.dump())
    assert image_reader(own, read_config(tmp_path / "detectron2.yaml")).white == read


def test_a_config_from_before_takes_the_white_of_each_file(tmp_path: Path) -> None:
    own = project(tmp_path)
    facts = DataFacts(class_names=("cat",), train_images=2, has_rle=False, train_name="t", val_name="v")
    lines = project_config(own, facts, scratch=True, device="cpu").dump().splitlines(keepends=True)
    kept = [line for line in lines if line.strip() != "WHITE: 0.0"]
    assert len(kept) == len(lines) - 1
    (tmp_path / "detectron2.yaml").write_text("".join(kept))
    assert image_reader(own, read_config(tmp_path / "detectron2.yaml")).white is None
