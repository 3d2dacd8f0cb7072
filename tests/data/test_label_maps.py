"""Label maps: their content, their cache, and that incomplete ones are never used."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PilImage

from d2tune.annotations.convert import read_dataset
from d2tune.annotations.geometry.masks import encode_mask
from d2tune.annotations.model.dataset import Category, Dataset, Image, Instance
from d2tune.annotations.model.options import ReadOptions
from d2tune.annotations.model.types import Rle
from d2tune.data import label_maps
from d2tune.data.label_maps import decode_png, encode_png, label_files, read_label_map, with_background
from d2tune.errors import DataError
from d2tune.files import cache_folder
from tests.annotations.builders import labelme_value, photo, shape

CAR, PERSON, SKY, ROAD = 1, 2, 3, 4
CATEGORIES = (
    Category(CAR, "car"),
    Category(PERSON, "person"),
    Category(SKY, "sky", False),
    Category(ROAD, "road", False),
)
HEIGHT_PX, WIDTH_PX = 6, 8


def box(left: int, top: int, right: int, bottom: int) -> tuple[np.ndarray]:
    return (np.array([[left, top], [right, top], [right, bottom], [left, bottom]], float),)


def annotated(*shapes: tuple[int, tuple[int, int, int, int]], names: tuple[str, ...] = ("a.jpg",)) -> Dataset:
    """Images of 8 x 6 px with the same boxes on each, in the order of painting."""
    images = tuple(Image(number, name, WIDTH_PX, HEIGHT_PX) for number, name in enumerate(names, start=1))
    instances = [
        Instance(0, image.id, category, box(*sides), (0.0, 0.0, 1.0, 1.0), 1.0, shapes=(at,), part_shapes=(at,))
        for image in images
        for at, (category, sides) in enumerate(shapes)
    ]
    return Dataset(
        images, CATEGORIES, tuple(replace(instance, id=at) for at, instance in enumerate(instances, start=1))
    )


def gray(path: Path) -> np.ndarray:
    with PilImage.open(path) as image:
        assert image.mode == "L"
        return np.asarray(image)


STREET = (
    (SKY, (0, 0, 8, 3)),
    (CAR, (1, 1, 4, 5)),
    (CAR, (3, 2, 6, 4)),
    (SKY, (7, 3, 8, 6)),
)
"""Sky, a car on it, another car on the first, and more sky; the rest has no shape."""

SHOWN = np.array(
    [
        [2, 2, 2, 2, 2, 2, 2, 2],
        [2, 0, 0, 0, 2, 2, 2, 2],
        [2, 0, 0, 0, 0, 0, 2, 2],
        [255, 0, 0, 0, 0, 0, 255, 2],
        [255, 0, 0, 0, 255, 255, 255, 2],
        [255, 255, 255, 255, 255, 255, 255, 2],
    ]
)


def test_later_shapes_lie_on_earlier_ones() -> None:
    under = label_files(annotated((SKY, (0, 0, 8, 6)), (CAR, (2, 1, 5, 4))))
    above = label_files(annotated((CAR, (2, 1, 5, 4)), (SKY, (0, 0, 8, 6))))
    expected = np.full((HEIGHT_PX, WIDTH_PX), 2)
    assert np.array_equal(gray(above.semantic[0]), expected)
    expected[1:4, 2:5] = 0
    assert np.array_equal(gray(under.semantic[0]), expected)
    assert under.separated == under.segments == under.infos == ()


def test_a_street_as_labels_and_as_segments() -> None:
    files = label_files(annotated(*STREET), with_segments=True)
    assert np.array_equal(gray(files.semantic[0]), SHOWN)
    assert np.array_equal(gray(files.separated[0]), np.select([SHOWN == 2, SHOWN == 0], [1, 0], 255))
    with PilImage.open(files.segments[0]) as image:
        assert image.mode == "RGB"
        colors = np.asarray(image).astype(int)
    ids = colors[..., 0] + 256 * colors[..., 1] + 65536 * colors[..., 2]
    second = np.zeros_like(SHOWN, dtype=bool)
    second[2:4, 3:6] = True
    rows = {row["id"]: row for row in files.infos[0]}
    assert len(rows) == 3, "all sky is one segment, each car is one"
    assert np.array_equal(ids == 0, SHOWN == 255)
    assert {rows[segment_id]["category_id"] for segment_id in np.unique(ids[SHOWN == 2])} == {SKY}
    (top,) = np.unique(ids[second])
    (bottom,) = np.unique(ids[(SHOWN == 0) & ~second])
    (sky,) = np.unique(ids[SHOWN == 2])
    assert rows[top] == {
        "id": top,
        "category_id": CAR,
        "isthing": 1,
        "iscrowd": 0,
        "area": 6,
        "bbox": [3, 2, 3, 2],
    }
    assert (rows[bottom]["area"], rows[bottom]["bbox"]) == (10, [1, 1, 3, 4])
    assert (rows[sky]["area"], rows[sky]["isthing"], rows[sky]["bbox"]) == (int((SHOWN == 2).sum()), 0, [0, 0, 8, 6])
    table = json.loads(files.panoptic_json.read_text("utf-8"))
    (row,) = table["annotations"]
    assert (files.segments_folder / row["file_name"]) == files.segments[0]
    assert row["segments_info"] == files.infos[0]
    assert [category["isthing"] for category in table["categories"]] == [1, 1, 0, 0]


def test_more_segments_than_one_byte_counts_keep_their_numbers() -> None:
    boxes = [(CAR, (at % 20, at // 20, at % 20 + 1, at // 20 + 1)) for at in range(300)]
    dataset = annotated(*boxes)
    dataset = replace(dataset, images=(Image(1, "a.jpg", 20, 15),))
    files = label_files(dataset, with_segments=True)
    colors = np.asarray(PilImage.open(files.segments[0])).astype(int)
    assert np.array_equal(colors[..., 0] + 256 * colors[..., 1], np.arange(1, 301).reshape(15, 20))


def test_the_background_lies_under_everything() -> None:
    files = label_files(with_background(annotated(*STREET), "road"))
    assert np.array_equal(gray(files.semantic[0]), np.where(SHOWN == 255, 3, SHOWN))
    empty = with_background(annotated(names=("a.jpg", "b.jpg")), "road")
    assert [instance.id for instance in empty.instances] == [1, 2]
    assert all((gray(path) == 3).all() for path in label_files(empty).semantic)
    assert with_background(empty, None) is empty
    with pytest.raises(DataError, match=r"data\.background.*'moon'"):
        with_background(empty, "moon")


def test_annotated_background_and_pixels_without_a_shape_are_one_segment() -> None:
    files = label_files(
        with_background(annotated((CAR, (2, 1, 5, 4)), (ROAD, (3, 2, 6, 6))), "road"), with_segments=True
    )
    assert sorted((row["category_id"], row["area"]) for row in files.infos[0]) == [(CAR, 5), (ROAD, 43)]


def test_they_are_cached_and_change_with_the_shapes() -> None:
    first = label_files(annotated(*STREET))
    before = first.semantic[0].stat()
    assert label_files(annotated(*STREET)) == first
    after = first.semantic[0].stat()
    assert (before.st_mtime_ns, before.st_ino) == (after.st_mtime_ns, after.st_ino), "painted once"
    moved = label_files(annotated((SKY, (0, 0, 8, 2)), *STREET[1:]))
    turned = label_files(annotated(STREET[1], STREET[0], *STREET[2:]))
    assert (
        len({first.folder, moved.folder, turned.folder, label_files(annotated(*STREET), with_segments=True).folder})
        == 4
    )


def test_another_order_of_overlapping_shapes_paints_new_ones_even_for_equal_objects() -> None:
    def layered(orders: tuple[int, int]) -> Dataset:
        """A car of two parts; a person is painted between them, or after both."""
        (first,), (second,) = box(0, 0, 4, 6), box(4, 0, 8, 6)
        car = Instance(
            1, 1, CAR, (first, second), (0.0, 0.0, 8.0, 6.0), 48.0, shapes=(0, orders[1]), part_shapes=(0, orders[1])
        )
        person = Instance(
            2, 1, PERSON, box(2, 2, 6, 4), (2.0, 2.0, 4.0, 2.0), 8.0, shapes=(orders[0],), part_shapes=(orders[0],)
        )
        return Dataset((Image(1, "a.jpg", WIDTH_PX, HEIGHT_PX),), CATEGORIES, (car, person))

    between, after = layered((1, 2)), layered((2, 1))
    assert between.content_hash() == after.content_hash()
    maps = [gray(label_files(dataset).semantic[0]) for dataset in (between, after)]
    assert [int((labels == 1).sum()) for labels in maps] == [4, 8]
    assert (maps[0][2:4, 2:4] == 1).all() and (maps[1][2:4, 2:6] == 1).all()


def test_names_with_any_suffix_and_equal_names_in_two_folders() -> None:
    names = ("x/a.tif", "x/b.JPEG", "y/a.png", "y/a.jpg", "z.webp")
    dataset = annotated(names=names)
    instances = tuple(
        Instance(at, at, CAR, box(0, 0, at, 1), (0.0, 0.0, 1.0, 1.0), 1.0, shapes=(0,), part_shapes=(0,))
        for at in range(1, 6)
    )
    files = label_files(replace(dataset, instances=instances), with_segments=True)
    assert len(set(files.semantic)) == len(set(files.segments)) == 5
    assert [int((gray(path) == 0).sum()) for path in files.semantic] == [1, 2, 3, 4, 5]
    assert [int((gray(path) == 0).sum()) for path in files.separated] == [1, 2, 3, 4, 5]
    assert [infos[0]["area"] for infos in files.infos] == [1, 2, 3, 4, 5]
    assert all(path.suffix == ".png" and path.is_relative_to(files.folder) for path in files.semantic)


def paint_concurrently(barrier: Any, answers: Any) -> None:
    barrier.wait()
    files = label_files(annotated(*STREET, names=tuple(f"{at}.jpg" for at in range(60))), with_segments=True)
    answers.put((str(files.folder), [path.is_file() for path in (*files.semantic, *files.separated, *files.segments)]))


def test_processes_that_paint_at_once() -> None:
    fork = multiprocessing.get_context("fork")
    barrier, answers = fork.Barrier(3), fork.Queue()
    painters = [fork.Process(target=paint_concurrently, args=(barrier, answers)) for _ in range(3)]
    for painter in painters:
        painter.start()
    painted = [answers.get(timeout=60) for _ in painters]
    for painter in painters:
        painter.join()
    (folder,) = {path for path, _ in painted}
    assert [painter.exitcode for painter in painters] == [0, 0, 0]
    assert all(all(exist) and len(exist) == 180 for _, exist in painted)
    assert [path.name for path in Path(folder).parent.iterdir()] == [Path(folder).name], "no temporary folder remains"


def test_incomplete_label_maps_are_never_used(monkeypatch: pytest.MonkeyPatch) -> None:
    names = tuple(f"{at}.jpg" for at in range(3))
    broken = annotated(*STREET, names=names)
    bad = replace(broken.instances[-1], segmentation=Rle(9, 9, encode_mask(np.eye(9) > 0)["counts"].decode()))
    with pytest.raises(IndexError):
        label_files(replace(broken, instances=(*broken.instances[:-1], bad)), with_segments=True)
    assert list((cache_folder() / "labels").iterdir()) == []
    left = cache_folder() / "labels" / ".painting-of-a-process-that-was-killed"
    (left / "labels" / "semantic").mkdir(parents=True)
    (left / "labels" / "semantic" / "0.png").write_bytes(b"half")
    files = label_files(broken, with_segments=True)
    assert all(np.array_equal(gray(path), SHOWN) for path in files.semantic)


def test_other_users_may_read_them() -> None:
    files = label_files(annotated(*STREET))
    mask = os.umask(0)
    os.umask(mask)
    assert files.folder.stat().st_mode & 0o777 == 0o777 & ~mask
    assert files.semantic[0].stat().st_mode & 0o777 == 0o666 & ~mask


def test_label_maps_of_a_faster_process_are_kept(tmp_path: Path) -> None:
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    for folder in (mine, theirs):
        folder.mkdir()
        (folder / "a.png").write_text(folder.name)
    label_maps._move(mine, theirs)
    assert (theirs / "a.png").read_text() == "theirs"
    with pytest.raises(OSError, match="gone"):
        label_maps._move(tmp_path / "gone", tmp_path / "nowhere")


@pytest.mark.parametrize("damage", ["missing", "cut off"])
def test_the_error_of_a_missing_or_damaged_one_says_that_it_will_be_painted_again(damage: str) -> None:
    files = label_files(annotated(*STREET, names=("deep/er/a.jpg",)))
    path = files.semantic[0]
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(DataError, match=re.escape(str(path)) + ".*Repeat the command, which paints it again"):
        read_label_map(str(path))
    assert label_files(annotated(*STREET, names=("deep/er/a.jpg",))) == files
    assert np.array_equal(read_label_map(path), SHOWN)


def test_the_error_of_a_missing_one_outside_the_cache_has_its_path(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"mine\.png: the label map cannot be read$"):
        read_label_map(tmp_path / "mine.png")


def test_more_classes_than_a_byte_holds_are_refused() -> None:
    many = tuple(Category(at, f"c{at}") for at in range(1, 257))
    with pytest.raises(DataError, match="at most 255 classes; found 256"):
        label_files(replace(annotated((256, (0, 0, 2, 2))), categories=many))
    most = label_files(replace(annotated((255, (0, 0, 2, 2))), categories=many[:255]))
    assert set(np.unique(gray(most.semantic[0]))) == {254, 255}


@pytest.mark.parametrize("size", [(5, 7), (5, 7, 3), (1, 1), (1, 1, 3)])
def test_decoded_pngs_are_equal(size: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    assert np.array_equal(decode_png(encode_png(pixels)), pixels)


def test_labelme_polygons_of_a_turned_photo_are_painted_in_its_exif_orientation(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg", 64, 48, orientation=6)
    value = labelme_value(
        shape([[2, 3], [40, 3], [40, 60], [2, 60]], "road"), shape([[10, 10], [20, 10], [20, 30], [10, 30]], "car")
    )
    value |= {"imagePath": "a.jpg", "imageWidth": 48, "imageHeight": 64}
    (tmp_path / "a.json").write_text(json.dumps(value), encoding="utf-8")
    dataset = read_dataset(tmp_path, options=ReadOptions(labels=("car", "road")))
    assert not dataset.errors()
    files = label_files(dataset)
    expected = np.full((64, 48), 255)
    expected[3:60, 2:40] = 1
    expected[10:30, 10:20] = 0
    assert np.array_equal(gray(files.semantic[0]), expected)
