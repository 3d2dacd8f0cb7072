"""Later shapes lie on top: semantic, separated and panoptic images against a painter of single pixels."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PilImage

from d2tune.annotations.convert import convert
from d2tune.annotations.model.options import ReadOptions
from tests.annotations.builders import labelme_file, png_base64, shape

LABELS = ["dog", "sky", "car", "road"]
STUFF = ["sky", "road"]


def painted(folder: Path, *shapes: Any, **options: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[Any]]:
    """Semantic labels, separated labels, panoptic ids, each ``(48, 64)``, and the segments of one image."""
    labelme_file(folder / "src" / "a.json", *shapes)
    read = ReadOptions(labels=LABELS, stuff=STUFF, **options)
    convert(folder / "src", to="semantic", out=folder / "semantic", options=read)
    convert(folder / "src", to="panoptic", out=folder / "panoptic", options=read)
    photos = []
    for name in ("semantic/a.png", "panoptic/stuff/a.png", "panoptic/panoptic/a.png"):
        with PilImage.open(folder / name) as photo:
            assert photo.mode == ("RGB" if len(photos) == 2 else "L")
            photos.append(np.asarray(photo).astype(int))
    (row,) = json.loads((folder / "panoptic" / "panoptic.json").read_text("utf-8"))["annotations"]
    ids = photos[2] @ np.array([1, 256, 65536])
    return photos[0], photos[1], ids, row["segments_info"]


def random_shape(rng: random.Random) -> tuple[dict[str, Any], np.ndarray]:
    """A rectangle or a mask somewhere, and its pixels ``(48, 64)`` by the rule that pixel i covers [i, i + 1)."""
    x, y, width, height = rng.randint(-10, 60), rng.randint(-10, 44), rng.randint(1, 30), rng.randint(1, 30)
    common: dict[str, Any] = {
        "group_id": rng.choice([None, 1, 2]),
        "flags": {"iscrowd": True} if rng.random() < 0.2 else {},
    }
    label = rng.choice(LABELS)
    patch = np.ones((height, width), dtype=bool)
    if rng.random() < 0.4:
        patch = np.array([[rng.random() < 0.6 for _ in range(width)] for _ in range(height)])
        corners = [[x, y], [x + width - 1, y + height - 1]]
        one = shape(corners, label, "mask", mask=png_base64(patch), **common)
    else:
        one = shape([[x, y], [x + width, y + height]], label, "rectangle", **common)
    pixels = np.zeros((48 + 100, 64 + 100), dtype=bool)
    pixels[y + 50 : y + 50 + height, x + 50 : x + 50 + width] = patch
    return one, pixels[50:98, 50:114]


@pytest.mark.parametrize("seed", range(12))
def test_every_pixel_belongs_to_the_last_shape_on_it(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    shapes, masks = zip(*(random_shape(rng) for _ in range(8)), strict=True)
    top = np.full((48, 64), -1)
    for index, mask in enumerate(masks):
        top[mask] = index
    semantic, separated, ids, segments = painted(tmp_path, *shapes)
    class_of = np.array([LABELS.index(row["label"]) for row in shapes] + [255])
    assert np.array_equal(semantic, class_of[top])
    of_stuff = np.array([{"sky": 1, "road": 2}.get(row["label"], 0) for row in shapes] + [255])
    assert np.array_equal(separated, of_stuff[top])
    # Things are told apart by their group, stuff is one segment for each class.
    keys = [
        (row["label"], None if row["label"] in STUFF else row["group_id"] or f"shape {index}")
        for index, row in enumerate(shapes)
    ]
    wanted = {key: sum(int((top == index).sum()) for index, other in enumerate(keys) if other == key) for key in keys}
    areas = sorted((LABELS[row["category_id"] - 1], row["area"]) for row in segments)
    assert areas == sorted((label, area) for (label, _), area in wanted.items() if area)
    assert all((ids == row["id"]).sum() == row["area"] for row in segments)
    assert (ids == 0).sum() == (top == -1).sum()


def test_shapes_between_the_parts_of_a_group_are_painted_between_them(tmp_path: Path) -> None:
    block = png_base64(np.ones((20, 20)))
    lower = shape([[0, 0], [19, 19]], "car", "mask", mask=block, group_id=1)
    between = shape([[10, 0], [30, 20]], "dog", "rectangle")
    upper = shape([[25, 0], [44, 19]], "car", "mask", mask=block, group_id=1)
    semantic, _, _, segments = painted(tmp_path, lower, between, upper)
    # Columns 0 to 9 are the car's, 10 to 24 the dog's, which lies on the first part and under the second.
    assert semantic[5, :45].tolist() == [2] * 10 + [0] * 15 + [2] * 20
    assert [(row["category_id"], row["area"]) for row in segments] == [(3, 20 * 30), (1, 20 * 15)]


def test_a_hole_shows_the_instance_below_and_its_ring_keeps_its_order(tmp_path: Path) -> None:
    ring = shape([[0, 0], [40, 40]], "car", "rectangle", group_id=1)
    between = shape([[0, 0], [5, 40]], "dog", "rectangle")
    hole = shape([[10, 10], [30, 30]], "car", "rectangle", group_id=1)
    semantic, _, _, _ = painted(tmp_path, ring, between, hole, nested_groups="hole")
    assert semantic[20, :41].tolist() == [0] * 5 + [2] * 5 + [255] * 20 + [2] * 10 + [255]
