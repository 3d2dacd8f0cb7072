"""Squares of training images: where they lie, and that masks lie on the objects in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PilImage

from d2tune.data.batches import SampleKey
from d2tune.data.mapper import TrainingSamples
from d2tune.data.rectangles import patch_place
from tests.data.test_mapper import image, polygon_annotation, rle_annotation


def samples(dicts: list[dict[str, Any]], *, balance: float, patch_px: int = 48) -> TrainingSamples:
    return TrainingSamples(
        dicts,
        channel_order="RGB",
        mask_format="polygon",
        short_side_range_px=(50, 100),
        max_side_px=10_000,
        patch_px=patch_px,
        patch_balance=balance,
    )


@pytest.mark.parametrize("annotation", [polygon_annotation(), rle_annotation()], ids=["polygon", "rle"])
@pytest.mark.parametrize("short_side", [0, 50, 80, 100])
def test_masks_and_boxes_are_those_of_the_visible_pixels(tmp_path: Path, annotation: Any, short_side: int) -> None:
    """The object is the white rectangle of a black image."""
    data = samples([image(tmp_path, annotations=[annotation])], balance=0.5)
    seen = set()
    for seed in range(40):
        item = data[SampleKey(0, short_side, seed)]
        pixels = item["image"].numpy()
        assert pixels.shape == (3, 48, 48) and item["height"] == 100 and item["width"] == 200
        white = pixels[0] >= 128
        seen.add((len(item["instances"]), bool(white.all())))
        if not len(item["instances"]):
            assert white.sum() <= 48  # a line of pixels at the border, by the rounding of polygons
            continue
        mask = item["instances"].gt_masks.tensor[0].numpy()
        assert (mask != white).sum() <= 96, "within a pixel along the borders"
        rows, columns = np.nonzero(mask)
        left, top, right, bottom = item["instances"].gt_boxes.tensor[0].tolist()
        assert (left, top, right, bottom) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert {count for count, _ in seen} == ({1} if short_side == 50 else {0, 1}), "with the object and without"


def test_a_patch_is_as_small_as_its_image(tmp_path: Path) -> None:
    data = samples([image(tmp_path, annotations=[polygon_annotation()])], balance=1.0, patch_px=160)
    assert data[SampleKey(0, 100, 1)]["image"].shape == (3, 100, 160)
    assert data[SampleKey(0, 60, 1)]["image"].shape == (3, 60, 120)


def boxes(*rows: tuple[int, float, float, float, float]) -> list[dict[str, Any]]:
    return [{"category_id": number, "bbox": list(box)} for number, *box in rows]


def test_rare_classes_are_as_often_in_the_middle_of_patches_as_others() -> None:
    many = [(0, 10.0 * at, 5.0, 10.0 * at + 4, 9.0) for at in range(9)]
    rare = (1, 900.0, 900.0, 910.0, 910.0)
    rng = np.random.default_rng(0)
    places = [
        patch_place(boxes(*many, rare), (1000, 1000), patch_hw=(100, 100), balance=1.0, rng=rng) for _ in range(600)
    ]
    with_rare = [p for p in places if p.left_px <= 905 <= p.left_px + 100 and p.top_px <= 905 <= p.top_px + 100]
    assert 250 < len(with_rare) < 350
    assert len({(place.top_px, place.left_px) for place in with_rare}) > 150, "not always in the same place"
    anywhere = [patch_place(boxes(rare), (1000, 1000), patch_hw=(100, 100), balance=0.0, rng=rng) for _ in range(600)]
    assert 800 < max(place.left_px for place in anywhere) <= 900 and min(place.left_px for place in anywhere) < 50
    assert 410 < np.mean([place.top_px for place in anywhere]) < 490


def test_label_maps_are_cut_with_their_images(tmp_path: Path) -> None:
    from d2tune.data.panoptic_mapper import PanopticSamples

    source = image(tmp_path, annotations=[polygon_annotation()])
    labels = np.zeros((100, 200), np.uint8)
    labels[20:60, 40:120] = 3
    PilImage.fromarray(labels).save(tmp_path / "labels.png")
    data = PanopticSamples(
        [source | {"sem_seg_file_name": str(tmp_path / "labels.png")}],
        channel_order="RGB",
        mask_format="bitmask",
        short_side_range_px=(100, 100),
        max_side_px=10_000,
        patch_px=40,
    )
    for seed in range(10):
        item = data[SampleKey(0, 100, seed)]
        assert item["sem_seg"].shape == (40, 40)
        assert np.array_equal(item["sem_seg"].numpy() == 3, item["image"].numpy()[0] == 255)
