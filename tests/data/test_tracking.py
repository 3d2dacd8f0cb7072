"""Pairs, crops and sequences that a tracker is trained on."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as PilImage

from d2tune.annotations.model.dataset import Category, Dataset, Image, Instance
from d2tune.data.batches import SampleKey
from d2tune.data.tracking_crops import EXEMPLAR_PX, SEARCH_PX, ObjectBox, Square, box_of
from d2tune.data.tracking_pairs import PairOptions, TrackingPairs
from d2tune.data.tracking_sequences import instance_mask, tracks_of

OPTIONS = PairOptions(
    channel_order="RGB",
    short_side_px=120,
    rendered=0.0,
    negatives=0.0,
    shift_px=32,
    scale=0.1,
    color_jitter=0.0,
    are_frames=False,
)


def square(left: float, top: float, side: float) -> tuple[np.ndarray, ...]:
    return (np.array([[left, top], [left + side, top], [left + side, top + side], [left, top + side]], float),)


def dataset(folder: Path, frames: dict[str, list[tuple[float, float, float, int]]]) -> Dataset:
    """Gray images of 160 x 120 px with pink squares: left, top, side and class."""
    images, instances = [], []
    for number, (name, squares) in enumerate(frames.items(), start=1):
        pixels = np.full((120, 160, 3), 90, np.uint8)
        for left, top, side, category in squares:
            pixels[int(top) : int(top + side), int(left) : int(left + side)] = (250, 40, 200)
            box = (left, top, side, side)
            instances.append(Instance(len(instances) + 1, number, category, square(left, top, side), box, side * side))
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        PilImage.fromarray(pixels).save(path)
        images.append(Image(number, name, 160, 120, path))
    return Dataset(tuple(images), (Category(1, "a"), Category(2, "b")), tuple(instances), image_root=folder)


def test_the_square_of_an_exemplar_is_that_of_the_paper() -> None:
    # 60 x 40 px with a margin of (60 + 40) / 2: the root of 110 x 90
    box = ObjectBox(100, 80, 60, 40)
    assert box.exemplar_side_px == pytest.approx(math.sqrt(110 * 90))
    search = Square.around(box, side_px=SEARCH_PX)
    assert search.scale == pytest.approx((EXEMPLAR_PX / math.sqrt(9900),) * 2)
    assert search.point(127, 127) == (100, 80)


@pytest.mark.parametrize("side", [8, 40, 300], ids=["enlarged", "as it is", "reduced"])
def test_an_object_is_in_the_middle_of_its_square_and_goes_back_to_its_place(side: int) -> None:
    mask = np.zeros((800, 900), bool)
    mask[200 : 200 + side, 320 : 320 + side] = True
    image = np.where(mask[..., None], np.uint8([240, 10, 10]), np.uint8([20, 60, 90]))
    box = box_of(mask)
    assert box == ObjectBox(320 + side / 2, 200 + side / 2, side, side)
    cut = Square.around(box, side_px=EXEMPLAR_PX)
    own = cut.cut_mask(mask)
    seen = box_of(own)
    assert seen is not None
    # half the side of the exemplar, around the middle of pixel 63
    assert (seen.x, seen.y) == pytest.approx((63.5, 63.5), abs=0.51)
    assert (seen.width_px, seen.height_px) == pytest.approx((EXEMPLAR_PX / 2,) * 2, abs=1.01)
    red = cut.cut(image, (0, 0, 0))[..., 0] > 128
    assert np.count_nonzero(red ^ own) <= 0.04 * np.count_nonzero(own)
    back = cut.back(own.astype(np.float32), mask.shape) > 0.5
    assert np.count_nonzero(back & mask) / np.count_nonzero(back | mask) > 0.93


def test_outside_of_the_image_is_the_border_color() -> None:
    image = np.full((50, 50, 3), 200, np.uint8)
    cut = Square(-500, -500, (1.0, 1.0), 31).cut(image, (1.0, 2.0, 3.0))
    assert cut.reshape(-1, 3).tolist() == [[1, 2, 3]] * 31 * 31
    reduced = Square(-5000, -5000, (0.2, 0.2), 31).cut(image, (1.0, 2.0, 3.0))
    assert reduced.reshape(-1, 3).tolist() == [[1, 2, 3]] * 31 * 31


def test_photos_give_an_object_each_and_frames_follow_it(tmp_path: Path) -> None:
    frames = {
        "a/2.png": [(20, 20, 20, 1), (90, 60, 20, 1)],
        "a/10.png": [(94, 62, 20, 1), (24, 22, 20, 1)],
        "b/1.png": [(20, 20, 20, 2)],
        "b/2.png": [(120, 80, 20, 2)],
    }
    data = dataset(tmp_path, frames)
    assert [len(track) for track in tracks_of(data, are_frames=False)] == [1] * 6
    tracks = tracks_of(data, are_frames=True)
    ids = sorted([data.instances[one.instance].id for one in track] for track in tracks)
    # 2.png comes before 10.png; the only objects of a class in b are one object, however far it went
    assert ids == [[1, 4], [2, 3], [5, 6]]


def test_an_object_that_comes_later_is_a_new_one(tmp_path: Path) -> None:
    frames = {"a/0.png": [(20, 20, 20, 1)], "a/1.png": [(22, 20, 20, 1), (100, 80, 20, 1)]}
    tracks = tracks_of(dataset(tmp_path, frames), are_frames=True)
    assert sorted(len(track) for track in tracks) == [1, 2]


@pytest.mark.parametrize("are_frames", [False, True], ids=["photos", "frames"])
def test_pairs_show_the_object_where_they_say(tmp_path: Path, are_frames: bool) -> None:
    data = dataset(tmp_path, {"a/0.png": [(30, 30, 30, 1)], "a/1.png": [(80, 60, 30, 1)]})
    pairs = TrackingPairs(data, replace(OPTIONS, are_frames=are_frames), cache_bytes=1 << 20)
    assert len(pairs) == 2
    for seed in range(8):
        pair = pairs[SampleKey(seed % 2, 0, seed)]
        assert pair["exemplar"].shape == (3, 127, 127) and pair["image"].shape == (3, 255, 255)
        x, y, width, height = pair["box"].tolist()
        rows, columns = np.nonzero(pair["mask"].numpy())
        assert (columns.min(), columns.max()) == (x - (width - 1) / 2, x + (width - 1) / 2)
        assert (rows.min(), rows.max()) == (y - (height - 1) / 2, y + (height - 1) / 2)
        image = pair["image"].numpy().astype(int)
        color = image[:, pair["mask"].numpy()].mean(axis=1) - image[:, ~pair["mask"].numpy()].mean(axis=1)
        assert abs(color).max() > 20
        # the object is nearer to the center than it may be moved, and half of the exemplar
        assert math.hypot(x - 127, y - 127) < 32 * math.sqrt(2) + 3
        middle = pair["exemplar"][:, 60:67, 60:67].float().mean(dim=(1, 2))
        corner = pair["exemplar"][:, :8, :8].float().mean(dim=(1, 2))
        assert float((middle - corner).abs().max()) > 20


def test_a_pair_follows_from_its_key(tmp_path: Path) -> None:
    data = dataset(tmp_path, {"0.png": [(30, 30, 30, 1)]})
    options = replace(OPTIONS, rendered=0.5, negatives=0.3, color_jitter=1.0)
    for seed in range(4):
        first, second = (TrackingPairs(data, options, cache_bytes=0)[SampleKey(0, 0, seed)] for _ in range(2))
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_negative_pairs_have_no_object(tmp_path: Path) -> None:
    data = dataset(tmp_path, {"0.png": [(30, 30, 30, 1)], "1.png": []})
    pairs = TrackingPairs(data, replace(OPTIONS, negatives=1.0), cache_bytes=1 << 20)
    for index in (0, 1):  # the second image has no object: its pair is rendered
        pair: Any = pairs[SampleKey(index, 0, 3)]
        assert not pair["mask"].any() and len(pair["box"]) == 0


def test_an_instance_is_filled_as_it_is_outlined(tmp_path: Path) -> None:
    data = dataset(tmp_path, {"0.png": [(30, 40, 20, 1)]})
    mask = instance_mask(data.instances[0], data.images[0])
    assert mask.shape == (120, 160) and np.count_nonzero(mask) == 400 and mask[40:60, 30:50].all()
