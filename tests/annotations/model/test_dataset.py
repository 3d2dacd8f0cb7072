"""The content hash: the same bytes as ever, serialized once."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2tune.annotations.model.dataset import Category, Dataset, Image, Instance
from d2tune.annotations.model.types import Rle

numbers = st.floats(-1e20, 1e20) | st.floats(-1e-3, 1e-3) | st.integers(-5, 2000).map(float) | st.just(-0.0)
outlines = st.lists(st.tuples(numbers, numbers), min_size=3, max_size=6).map(np.array)
segmentations = st.lists(outlines, min_size=1, max_size=3).map(tuple) | st.text("0123\\\\ab`", min_size=1).map(
    lambda counts: Rle(48, 64, counts)
)


def dataset_of(*segmentations: object, path: Path | None = None, iscrowd: bool = False) -> Dataset:
    instances = [
        Instance(number, 1, 2, segmentation, (0, 0, 1, 1), 1.0, iscrowd=iscrowd)  # type: ignore[arg-type]
        for number, segmentation in enumerate(segmentations, start=1)
    ]
    images = (Image(1, "b/ö.png", 64, 48, path),)
    return Dataset(images, (Category(1, "dög"), Category(2, "sky\udc80", isthing=False)), tuple(instances))


def by_json(dataset: Dataset) -> str:
    """The definition of the hash, which run folders rely on."""
    text = "".join(f"c{category.id}\t{category.name}\t{category.isthing}\n" for category in dataset.categories)
    for image in dataset.images:
        size_bytes = -1 if image.path is None or not image.path.is_file() else len(image.path.read_bytes())
        text += f"i{image.id}\t{image.file_name}\t{image.width_px}\t{image.height_px}\t{size_bytes}\n"
    for instance in dataset.instances:
        text += json.dumps([instance.image_id, instance.category_id, instance.iscrowd, instance.coco_segmentation()])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@given(st.lists(segmentations, max_size=4), st.booleans())
def test_the_hash_is_that_of_the_json_text(segmentations: list[object], iscrowd: bool) -> None:
    dataset = dataset_of(*segmentations, iscrowd=iscrowd)
    assert dataset.content_hash() == by_json(dataset)


def test_the_hash_is_that_of_earlier_versions() -> None:
    outlines = [[0.1, 1e-5], [1e16, 2], [3, -0.0]], [[1.0, 2.5], [3, 4], [5.123456789012345, 6]]
    dataset = Dataset(
        images=(Image(1, "a.png", 64, 48), Image(2, "b/ö.png", 10, 10)),
        categories=(Category(1, "dög"), Category(2, "sky\udc80", isthing=False)),
        instances=(
            Instance(1, 1, 1, tuple(np.array(outline) for outline in outlines), (0, 0, 1, 1), 3.0),
            Instance(2, 1, 2, Rle(48, 64, "012\\3"), (0, 0, 1, 1), 3.0, iscrowd=True),
            Instance(3, 2, 1, (np.array([[1, 2], [3, 4], [5, 6.5]]),), (0, 0, 1, 1), 3.0),
        ),
    )
    assert dataset.content_hash() == "ca71d1bf6c63e30ddafb2662229f6961f12342e1d0342794fd9e225d28138122"


@pytest.mark.parametrize(
    "outline",
    [
        np.array([[1, 2], [3, 4], [5, 6]]),
        np.array([[0.1, 2], [3, 4], [5, 6]], dtype=np.float32),
        np.array([[0.1, 0.2, 9], [3, 4, 9], [5, 6, 9]])[:, :2],
        np.array([[0.1, np.nan], [3, np.inf], [5, 6]]),
    ],
    ids=["whole", "single precision", "strided", "not finite"],
)
def test_arrays_of_any_kind_are_hashed_by_their_values(outline: np.ndarray) -> None:
    dataset = dataset_of((outline,))
    assert dataset.content_hash() == by_json(dataset)


def test_instances_are_serialized_once_and_file_sizes_are_read_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"12345")
    dataset = dataset_of((np.array([[1.5, 2], [3, 4], [5, 6]]),), path=path)
    serialized: list[object] = []
    dumps = orjson.dumps
    monkeypatch.setattr(orjson, "dumps", lambda *given, **options: serialized.append(given) or dumps(*given, **options))
    first = dataset.content_hash()
    assert (dataset.content_hash(), len(serialized)) == (first, 1)
    path.write_bytes(b"123456")
    assert first != dataset.content_hash() == by_json(dataset)
    path.unlink()
    assert dataset.content_hash() == by_json(dataset)
    assert len(serialized) == 3


def test_a_subset_and_a_copy_have_their_own_hash() -> None:
    dataset = dataset_of((np.array([[1.5, 2], [3, 4], [5, 6]]),))
    whole = dataset.content_hash()
    assert dataset.subset([]).content_hash() == by_json(dataset.subset([])) != whole
    assert pickle.loads(pickle.dumps(dataset)).content_hash() == whole
