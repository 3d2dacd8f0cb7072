"""What is varied in training images, against values that were computed by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image as PilImage

from d2tune.data.augmentation.crops import LEAST_CROP_SHARE, whole_crop
from d2tune.data.augmentation.options import Augmentations
from d2tune.data.augmentation.pasting import CutOut, cut_outs, paste, paste_class
from d2tune.data.augmentation.photometric import blurred, grayed
from d2tune.data.batches import SampleKey, TrainingBatches
from d2tune.data.image_reader import ImageReader
from d2tune.data.mapper import TrainingSamples
from d2tune.data.panoptic_mapper import PanopticSamples
from d2tune.data.semantic_mapper import SemanticInput, SemanticSamples
from d2tune.errors import ProjectError
from d2tune.modeling.config import DataFacts, project_config
from d2tune.project import load_project
from tests.data.test_mapper import image, polygon_annotation, rle_annotation


def rectangle(left: int, top: int, right: int, bottom: int, *, category: int = 0) -> dict[str, Any]:
    ring = [float(value) for value in (left, top, right, top, right, bottom, left, bottom)]
    box = [float(left), float(top), float(right), float(bottom)]
    return {"bbox": box, "bbox_mode": 0, "category_id": category, "iscrowd": 0, "segmentation": [ring]}


def colored(folder: Path, name: str, color: int, *annotations: dict[str, Any]) -> dict[str, Any]:
    """A black image of 200 x 100 px whose rectangles have a gray value."""
    pixels = np.zeros((100, 200, 3), np.uint8)
    for one in annotations:
        left, top, right, bottom = map(int, one["bbox"])
        pixels[top:bottom, left:right] = color
    cv2.imwrite(str(folder / name), pixels)
    fields = {"file_name": str(folder / name), "image_id": 1, "height": 100, "width": 200}
    return fields | {"annotations": list(annotations)}


def samples(dicts: list[dict[str, Any]], chosen: Augmentations, **more: Any) -> TrainingSamples:
    options: dict[str, Any] = {"channel_order": "RGB", "mask_format": "polygon", "short_side_range_px": (100, 100)}
    return TrainingSamples(dicts, augmentations=chosen, **(options | {"max_side_px": 10_000} | more))


def test_gray_is_the_brightness_of_each_color_in_both_orders() -> None:
    red = np.zeros((1, 2, 3), np.uint8)
    red[0, 0] = (200, 0, 0)
    red[0, 1] = (10, 20, 30)
    assert grayed(red, "RGB").tolist() == [[[60] * 3, [18] * 3]]  # 0.299 * 200; 2.99 + 11.74 + 3.42
    assert grayed(red[:, :, ::-1], "BGR").tolist() == grayed(red, "RGB").tolist()


def test_a_blurred_edge_is_the_normal_distribution() -> None:
    edge = np.zeros((21, 40, 3), np.uint8)
    edge[:, 20:] = 200
    soft = blurred(edge, sigma_px=2.0)[10, :, 0].astype(float)
    # the middle of pixel 20 is half a pixel behind the edge: 200 times the integral up to 0.5 px
    expected = [100 * (1 + torch.erf(torch.tensor((x + 0.5 - 20) / (2.0 * 2**0.5))).item()) for x in range(40)]
    assert np.abs(soft - expected).max() < 2.5
    assert np.array_equal(soft[10:30], np.sort(soft[10:30])) and soft[0] == 0 and soft[39] == 200


def test_a_crop_cuts_no_box_and_has_every_place() -> None:
    annotations = [rectangle(10, 10, 40, 30), rectangle(150, 60, 190, 95), rectangle(35, 25, 60, 50)]
    sizes, sides = set(), []
    for seed in range(300):
        place = whole_crop(annotations, (100, 200), rng=np.random.default_rng(seed))
        right, bottom = place.left_px + place.width_px, place.top_px + place.height_px
        assert 0 <= place.left_px < right <= 200 and 0 <= place.top_px < bottom <= 100
        inside = 0
        for one in annotations:
            x0, y0, x1, y1 = one["bbox"]
            whole = place.left_px <= x0 and place.top_px <= y0 and x1 <= right and y1 <= bottom
            apart = x1 <= place.left_px or right <= x0 or y1 <= place.top_px or bottom <= y0
            assert whole or apart
            inside += whole
        assert inside >= 1
        sizes.add(inside)
        sides.append(place.width_px)
    assert sizes == {1, 2, 3}, "the two that touch are together"
    assert min(sides) >= LEAST_CROP_SHARE * 200 - 1 and max(sides) == 200 and len(set(sides)) > 60


def test_a_crop_of_an_image_without_instances_lies_anywhere() -> None:
    places = [whole_crop([], (100, 200), rng=np.random.default_rng(seed)) for seed in range(200)]
    assert min(place.left_px for place in places) < 5 and max(place.left_px for place in places) > 80


@pytest.mark.parametrize("annotation", [polygon_annotation(), rle_annotation()], ids=["polygon", "rle"])
def test_cropped_images_keep_the_whole_instance(tmp_path: Path, annotation: dict[str, Any]) -> None:
    data = samples([image(tmp_path, annotations=[annotation])], Augmentations(crop=1.0), mask_format="bitmask")
    shapes = set()
    for seed in range(20):
        item = data[SampleKey(0, 100, seed)]
        white = item["image"][0].numpy() > 127
        assert white.sum() == 80 * 40 and np.array_equal(item["instances"].gt_masks.tensor[0].numpy(), white)
        rows, columns = np.nonzero(white)
        box = item["instances"].gt_boxes.tensor[0].tolist()
        assert box == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        shapes.add(white.shape)
    assert len(shapes) > 10


def test_pasted_pixels_masks_and_boxes() -> None:
    """A square of 4 px is pasted over the left half of one of 8 x 4 px; a third object is hidden by it."""
    rng = np.random.default_rng(3)
    black = np.zeros((12, 12, 3), np.uint8)
    below, hidden = rectangle(2, 4, 10, 8), rectangle(3, 5, 5, 7, category=2)
    pixels = np.full((4, 4, 3), 250, np.uint8)
    given = CutOut(pixels, np.ones((4, 4), dtype=bool), 1)

    class At:
        """Draws the center (6, 4), so that the square covers rows 4 to 7 and columns 2 to 5."""

        def __init__(self) -> None:
            self.places = iter((6, 4))

        def integers(self, _: int) -> int:
            return next(self.places)

    result = paste(black, [below, hidden], [given], rng=At())  # type: ignore[arg-type]
    assert [one["category_id"] for one in result.annotations] == [0, 1]
    assert [one["bbox"] for one in result.annotations] == [[6, 4, 10, 8], [2, 4, 6, 8]]
    expected = np.zeros((12, 12), dtype=bool)
    expected[4:8, 2:6] = True
    assert np.array_equal(result.masks[0], expected) and np.array_equal(result.annotations[1]["segmentation"], expected)
    assert result.annotations[0]["segmentation"].sum() == 16 and not black.any(), "the image is not changed"
    assert (result.image[4:8, 2:6] == 250).all() and not result.image[~expected].any()
    assert cut_outs(result.image, [], rng=rng) == []


def test_an_edge_is_blended_over_a_few_pixels() -> None:
    source = np.full((60, 60, 3), 200, np.uint8)
    (given,) = cut_outs(source, [rectangle(20, 20, 40, 40)], rng=np.random.default_rng(0))
    assert given.pixels.shape == (28, 28, 3) and given.mask.sum() == 400
    result = paste(np.zeros((120, 120, 3), np.uint8), [], [given], rng=np.random.default_rng(0))
    rows, columns = np.nonzero(result.masks[0])
    line = result.image[(rows.min() + rows.max()) // 2, columns.min() - 4 : columns.min() + 4, 0].astype(int)
    assert np.all(np.diff(line) >= 0) and line[0] == 0 and line[-1] >= 199
    assert 55 <= line[3] <= 75 and 125 <= line[4] <= 145, "31 % and 69 % of 200 half a pixel from the edge"


def test_pasting_takes_instances_of_other_images_and_is_repeatable(tmp_path: Path) -> None:
    dicts = [colored(tmp_path, "a.png", 90, rectangle(10, 10, 60, 50)), colored(tmp_path, "empty.png", 0)]
    dicts += [colored(tmp_path, "b.png", 200, rectangle(120, 40, 160, 80, category=1))]
    data = samples(dicts, Augmentations(copy_paste=1.0))
    classes = []
    for seed in range(24):
        item, again = (
            data[SampleKey(1, 100, seed)],
            samples(dicts, Augmentations(copy_paste=1.0))[SampleKey(1, 100, seed)],
        )
        assert torch.equal(item["image"], again["image"]) and item["instances"].gt_boxes.tensor.tolist()
        (mask,), (number,) = item["instances"].gt_masks.tensor.numpy(), item["instances"].gt_classes.tolist()
        padded = np.pad(mask.astype(np.uint8), 3)
        inner = cv2.erode(padded, np.ones((7, 7), np.uint8))[3:-3, 3:-3].astype(bool)
        if inner.any():
            assert np.abs(item["image"][0].numpy()[inner].astype(int) - (200 if number else 90)).max() <= 1
        assert (
            not item["image"][0]
            .numpy()[~cv2.dilate(mask.astype(np.uint8), np.ones((11, 11), np.uint8)).astype(bool)]
            .any()
        )
        classes.append(number)
    assert set(classes) == {0, 1}
    plain = samples(dicts, Augmentations())[SampleKey(1, 100, 0)]
    assert len(plain["instances"]) == 0 and not plain["image"].any()


def test_a_share_of_the_images_is_augmented(tmp_path: Path) -> None:
    dicts = [colored(tmp_path, "a.png", 200, rectangle(40, 20, 120, 60))]
    data = samples(dicts, Augmentations(blur=0.25))
    sharp = sum(set(np.unique(data[SampleKey(0, 100, seed)]["image"])) == {0, 200} for seed in range(200))
    assert 130 <= sharp <= 170


def test_large_scales_are_cut_to_the_size_of_evaluations(tmp_path: Path) -> None:
    data = samples(
        [image(tmp_path, annotations=[polygon_annotation()])],
        Augmentations(largest=(100, 150)),
        short_side_range_px=(10, 200),
    )
    for side_px, shape in ((20, (20, 40)), (75, (75, 150)), (100, (75, 150)), (200, (75, 150))):
        item = data[SampleKey(0, side_px, 4)]
        assert item["image"].shape[1:] == shape, "evaluations have 75 x 150 px, because the long side is limited"
        mask = item["instances"].gt_masks.tensor.any(dim=0).numpy() if len(item["instances"]) else False
        assert ((item["image"][0].numpy() > 127) != mask).sum() <= 2 * sum(shape)


def test_each_image_of_a_batch_has_its_own_size_and_resuming_finds_them_again() -> None:
    options: dict[str, Any] = {"batch_size": 4, "short_side_range_px": (10, 200), "seed": 7, "most_short_side_px": 100}
    keys = TrainingBatches([False] * 10, **options).batch(5)
    assert len({key.short_side_px for key in keys}) == 4
    assert next(iter(TrainingBatches([False] * 10, start=5, **options))) == keys
    sides = [
        key.short_side_px for number in range(500) for key in TrainingBatches([False] * 10, **options).batch(number)
    ]
    assert min(sides) == 10 and max(sides) == 200 and 100 < np.mean(sides) < 110
    side_px = TrainingBatches([False] * 10, **options).typical()[0].short_side_px
    assert side_px == round(np.sqrt(np.mean(np.minimum(np.arange(10, 201), 100) ** 2)))
    without = options | {"most_short_side_px": None}
    assert len({key.short_side_px for key in TrainingBatches([False] * 10, **without).batch(5)}) == 1


@pytest.mark.parametrize("with_centers", [False, True])
def test_pasted_things_are_in_label_maps(tmp_path: Path, with_centers: bool) -> None:
    from detectron2.projects.panoptic_deeplab.target_generator import PanopticDeepLabTargetGenerator

    source = colored(tmp_path, "a.png", 200, rectangle(40, 20, 120, 60))
    labels = np.full((100, 200), 2, np.uint8)  # class 2 of the network is the stuff
    labels[20:60, 40:120] = 0
    PilImage.fromarray(labels).save(tmp_path / "labels.png")
    segments = np.zeros((100, 200, 3), np.uint8)
    segments[:] = (9, 0, 0)
    segments[20:60, 40:120] = (1, 1, 0)
    PilImage.fromarray(segments).save(tmp_path / "segments.png")
    source |= {"sem_seg_file_name": str(tmp_path / "labels.png"), "pan_seg_file_name": str(tmp_path / "segments.png")}
    source["segments_info"] = [{"id": 9, "category_id": 2}, {"id": 257, "category_id": 0}]
    targets = PanopticDeepLabTargetGenerator(255, [0, 1], sigma=2) if with_centers else None
    options: dict[str, Any] = {"channel_order": "RGB", "mask_format": "bitmask", "short_side_range_px": (100, 100)}
    data = PanopticSamples(
        [source], center_targets=targets, augmentations=Augmentations(copy_paste=1.0), max_side_px=999, **options
    )
    for seed in range(6):
        item = data[SampleKey(0, 100, seed)]
        things = item["instances"].gt_masks.tensor.any(dim=0)
        assert torch.equal(item["sem_seg"] == 0, things) and set(item["sem_seg"].unique().tolist()) == {0, 2}
        if with_centers:
            peaks = int((item["center"] == 1).sum())
            assert peaks == len(item["instances"]) and source["segments_info"][-1]["id"] == 257
        assert len(item["instances"]) == 2


def test_the_pixels_of_a_class_are_pasted(tmp_path: Path) -> None:
    image_of = np.zeros((20, 30, 3), np.uint8)
    labels = np.zeros((20, 30), np.uint8)
    given, given_labels = np.full((16, 40, 3), 240, np.uint8), np.zeros((16, 40), np.uint8)
    given_labels[4:12, 6:20] = 3
    given_labels[0, 0] = 255
    rng = np.random.default_rng(0)
    mixed, mixed_labels = paste_class(image_of, labels, given, given_labels, background=0, rng=rng)
    assert mixed.shape == (20, 30, 3) and np.array_equal(mixed_labels[:16] == 3, given_labels[:, :30] == 3)
    assert mixed[8, 13, 0] == 240 and mixed[18, 13, 0] == 0 and 0 < mixed[3, 13, 0] < 120 and not image_of.any()
    floats = (image_of.astype(np.float32), labels, given.astype(np.float32), given_labels)
    hard, _ = paste_class(*floats, background=0, rng=rng)
    assert set(np.unique(hard)) == {0.0, 240.0}
    assert paste_class(image_of, labels, given, np.zeros((16, 40), np.uint8), background=0, rng=rng)[0] is image_of


def test_semantic_samples_paste_and_cut(tmp_path: Path) -> None:
    dicts = []
    for name, value in (("a", 1), ("b", 2)):
        source = colored(tmp_path, f"{name}.png", 100 * value, rectangle(40, 20, 120, 60))
        labels = np.zeros((100, 200), np.uint8)
        labels[20:60, 40:120] = value
        PilImage.fromarray(labels).save(tmp_path / f"{name}-labels.png")
        dicts.append(source | {"sem_seg_file_name": str(tmp_path / f"{name}-labels.png")})
    options = SemanticInput(
        reader=ImageReader(),
        max_side_px=999,
        largest_short_side_px=100,
        patch_px=0,
        patch_balance=0,
        augment="photo",
        classes=3,
        augmentations=Augmentations(copy_paste=1.0),
        short_side_range_px=(100, 100),
        background=0,
    )
    items = [SemanticSamples(dicts, options, cache_bytes=0)[SampleKey(0, 100, seed)] for seed in range(12)]
    assert {tuple(item["sem_seg"].unique().tolist()) for item in items} == {(0, 1), (0, 2)}
    for item in items:
        inside = item["sem_seg"][21:59].max()
        assert item["image"][0, 40].max() == 100 * inside
    cut = replace(options, augmentations=Augmentations(largest=(50, 90)), largest_short_side_px=100)
    item = SemanticSamples(dicts, cut, cache_bytes=0)[SampleKey(1, 80, 3)]
    assert item["image"].shape[1:] == item["sem_seg"].shape == (45, 90)
    bright = item["image"][0] > 100
    assert torch.equal(bright, item["sem_seg"] == 2) or (bright != (item["sem_seg"] == 2)).sum() < 90


FACTS = DataFacts(class_names=("a",), train_images=10, has_rle=False, train_name="t", val_name="v")


def project(folder: Path, text: str, task: str = "instance", more: str = "") -> Any:
    value = f"task: {task}\ndata: {{root: .}}\n{more or 'classes: [a, b]'}\ntrain: {{{text}}}\n"
    (folder / "p.yaml").write_text(value, "utf-8")
    return load_project(folder / "p.yaml").project


def test_keys_of_the_project_file(tmp_path: Path) -> None:
    given = project(tmp_path, "large_scale_jitter: true, crop: 0.1, copy_paste: 0.5, gray: 0.2, blur: 0.3, color: 0")
    assert given.train.scale_jitter == (0.1, 2.0)
    cfg = project_config(given, FACTS, scratch=True, device="cpu")
    assert (cfg.INPUT.BLUR, cfg.INPUT.GRAY, cfg.INPUT.WHOLE_CROP, cfg.INPUT.COPY_PASTE) == (0.3, 0.2, 0.1, 0.5)
    assert cfg.INPUT.LARGE_SCALE_JITTER and cfg.INPUT.COLOR_JITTER == 0 and cfg.INPUT.MASK_FORMAT == "bitmask"
    assert cfg.INPUT.MIN_SIZE_TRAIN == (64, 1280)
    own = project(tmp_path, "large_scale_jitter: true, scale_jitter: [0.5, 1]")
    assert own.train.scale_jitter == (0.5, 1.0)
    plain = project(tmp_path, "seed: 0")
    assert plain.train.scale_jitter == (0.6, 1.2) and plain.train.copy_paste == 0
    again = tmp_path / "again.yaml"
    again.write_text(given.to_yaml(), "utf-8")
    assert load_project(again).project == given


@pytest.mark.parametrize(
    ("text", "task", "more", "expected"),
    [
        ("copy_paste: 1.5", "instance", "", "train.copy_paste"),
        ("large_scale_jitter: true, image_size: original, patch_size: 64", "instance", "", "image_size in pixels"),
        ("crop: 0.5", "semantic", "model: {preset: unet}", "train.crop is for instance and panoptic tasks"),
        ("blur: 0.5", "tracking", "model: {preset: siammask_r50}", "train.blur is for instance, semantic and panoptic"),
    ],
)
def test_keys_that_do_not_fit(tmp_path: Path, text: str, task: str, more: str, expected: str) -> None:
    with pytest.raises(ProjectError) as caught:
        project(tmp_path, text, task, more)
    assert expected in caught.value.one_line() and "\n" not in caught.value.one_line()
    assert json.dumps(caught.value.one_line())
