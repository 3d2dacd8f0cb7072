from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PilImage

from d2tune.annotations.convert import check, read_dataset
from d2tune.annotations.formats import label_images
from d2tune.annotations.geometry.masks import decode_mask
from d2tune.annotations.model.dataset import Dataset
from d2tune.annotations.model.options import LabelImageOptions, RasterOptions, ReadOptions
from d2tune.annotations.model.types import Rle
from d2tune.errors import DataError
from tests.shared_files import SHARED

CLASSES = ("forest", "water", "field")
VALUES = np.array([[0, 1, 1, 255], [2, 2, 0, 0]], np.uint8)


def photo(path: Path, shape: tuple[int, int] = (2, 4), channels: int = 3) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((*shape, channels), np.float32)
    if path.suffix == ".npy":
        np.save(path, pixels[..., 0])
    elif path.suffix == ".tif":
        tifffile.imwrite(path, pixels, photometric="minisblack", planarconfig="contig")
    else:
        PilImage.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def label(path: Path, values: Any = VALUES) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".tif":
        tifffile.imwrite(path, values)
    else:
        PilImage.fromarray(values.astype(np.uint16) if values.dtype == np.int32 else values).save(path)
    return path


def read(folder: Path, labels: Any = CLASSES, *, raster: RasterOptions | None = None, **options: Any) -> Dataset:
    own = {key: options.pop(key) for key in ("images", "values") if key in options}
    how = LabelImageOptions(raster=raster or RasterOptions(), **own)
    return label_images.read(folder, ReadOptions(labels=labels, label_images=how, **options))


def noted(dataset: Dataset) -> list[tuple[str, str, str]]:
    return [(finding.level, finding.code, finding.file) for finding in dataset.findings]


def painted(dataset: Dataset, image_id: int = 1) -> Any:
    """The labels that the instances say, painted by themselves."""
    image = dataset.images[image_id - 1]
    labels = np.full((image.height_px, image.width_px), 255)
    for instance in dataset.by_image()[image_id]:
        assert isinstance(instance.segmentation, Rle)
        mask = decode_mask(instance.segmentation)
        rows, columns = np.nonzero(mask)
        box = (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
        assert instance.bbox_xywh == box and instance.area_px2 == mask.sum()
        assert (labels[mask] == 255).all()
        labels[mask] = instance.category_id - 1
    return labels


@pytest.mark.parametrize("image_name", ["a.png", "a.tif", "a.npy"])
@pytest.mark.parametrize("ending", [".png", ".tif", ".npy"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_values_are_places_in_the_classes(tmp_path: Path, image_name: str, ending: str, dtype: Any) -> None:
    photo(tmp_path / "images" / "deep" / image_name)
    label(tmp_path / "labels" / "deep" / f"a{ending}", VALUES.astype(dtype))
    dataset = read(tmp_path)
    assert (dataset.class_names, dataset.findings) == (CLASSES, ())
    (image,) = dataset.images
    assert (image.file_name, image.annotation_file) == (f"images/deep/{image_name}", f"labels/deep/a{ending}")
    assert image.path == tmp_path / "images" / "deep" / image_name
    assert (image.width_px, image.height_px) == (4, 2)
    np.testing.assert_array_equal(painted(dataset), VALUES)
    assert [(row.file, row.fate, row.shape, row.label, row.instances) for row in dataset.ledger] == [
        (f"labels/deep/a{ending}", "kept", value, name, (value + 1,)) for value, name in enumerate(CLASSES)
    ]


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_any_values_and_any_names(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("labels")
    known = data.draw(st.lists(st.integers(0, 60000), min_size=1, max_size=6, unique=True))
    names = {value: data.draw(st.sampled_from(["one", "two", "three", None])) for value in known}
    height, width = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    places = data.draw(
        st.lists(st.integers(0, len(known) - 1), min_size=height * width, max_size=height * width), label="places"
    )
    values = np.array([known[place] for place in places]).reshape(height, width)
    photo(folder / "images" / "a.npy", (height, width))
    label(folder / "labels" / "a.npy", values.astype(np.int32))
    dataset = read(folder, None, values=names)
    in_order = list(dict.fromkeys(names[value] for value in sorted(known) if names[value] is not None))
    assert dataset.class_names == tuple(in_order)
    wanted = np.array(
        [255 if names[value] is None else in_order.index(names[value]) for value in values.reshape(-1).tolist()]
    )
    np.testing.assert_array_equal(painted(dataset), wanted.reshape(height, width))
    assert dataset.class_pixels() == tuple(int((wanted == place).sum()) for place in range(len(in_order)))


def test_the_order_of_the_classes_may_be_another_than_that_of_the_values(tmp_path: Path) -> None:
    photo(tmp_path / "images" / "a.png")
    label(tmp_path / "labels" / "a.png", np.array([[10, 20, 30, 0], [30, 30, 20, 10]], np.uint8))
    names = {10: "water", 20: "forest", 30: "water", 0: None}
    dataset = read(tmp_path, ("forest", "water"), values=names)
    np.testing.assert_array_equal(painted(dataset), [[1, 0, 1, 255], [1, 1, 0, 1]])
    assert [(instance.category_id, instance.shapes) for instance in dataset.instances] == [(2, (10, 30)), (1, (20,))]
    assert read(tmp_path, None, values=names).class_names == ("water", "forest")
    renamed = read(tmp_path, None, values=names, rename={"water": "wet", "forest": None})
    assert renamed.class_names == ("wet",)
    np.testing.assert_array_equal(painted(renamed), [[0, 255, 0, 255], [0, 0, 255, 0]])


def test_palettes_count_by_their_indices(tmp_path: Path) -> None:
    photo(tmp_path / "images" / "a.png")
    palette = PilImage.fromarray(VALUES).convert("P")
    palette.putpalette([7, 7, 7] * 256)
    for ending in (".png", ".tif"):
        path = tmp_path / "labels" / f"a{ending}"
        path.parent.mkdir(exist_ok=True)
        palette.save(path)
        np.testing.assert_array_equal(painted(read(tmp_path)), VALUES)
        path.unlink()


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_special_labels_and_the_no_data_of_a_tiff_are_ignored(tmp_path: Path) -> None:
    photo(tmp_path / "images" / "a.png")
    path = tmp_path / "labels" / "a.tif"
    path.parent.mkdir()
    how: dict[str, Any] = {"driver": "GTiff", "height": 2, "width": 4, "count": 1, "dtype": "uint8"}
    with rasterio.open(path, "w", nodata=9, **how) as out:
        out.write(np.array([[[0, 1, 9, 9], [1, 1, 0, 255]]], np.uint8))
    dataset = read(tmp_path, ("_background_", "water"))
    assert (dataset.class_names, dataset.findings) == (("water",), ())
    np.testing.assert_array_equal(painted(dataset), [[255, 0, 255, 255], [0, 0, 255, 255]])


def test_the_pixels_of_each_class_are_counted_while_reading(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    maps = [rng.choice([0, 1, 2, 255], (2, 4)).astype(np.uint8) for _ in range(3)]
    for name, values in zip("abc", maps, strict=True):
        photo(tmp_path / "images" / f"{name}.png")
        label(tmp_path / "labels" / f"{name}.png", values)
    dataset = read(tmp_path)
    counts = np.bincount(np.concatenate(maps).reshape(-1), minlength=256)
    assert dataset.class_pixels() == tuple(counts[:3].tolist()) and counts[:3].all()
    assert dataset.subset([2]).class_pixels() == tuple(int((maps[1] == place).sum()) for place in range(3))
    covered = replace(dataset, instances=(*dataset.instances, replace(dataset.instances[0], is_disjoint=False)))
    assert covered.class_pixels() is None


def test_a_folder_of_files_is_one_image(tmp_path: Path) -> None:
    for place in ("north/a", "north/b"):
        for month in ("1", "2", "10"):
            photo(tmp_path / "images" / place / f"{month}.tif", channels=5)
    label(tmp_path / "labels" / "north" / "a.png")
    dataset = read(tmp_path, raster=RasterOptions(stack=("1.tif", "10.tif")))
    assert [image.file_name for image in dataset.images] == ["images/north/a"]
    assert noted(dataset) == [("error", "label_missing", "images/north/b")]
    label(tmp_path / "labels" / "north" / "b.npy")
    assert [image.file_name for image in read(tmp_path).images] == ["images/north/a", "images/north/b"]
    broken = read(tmp_path, raster=RasterOptions(stack=("3.tif",)))
    assert noted(broken) == [
        ("error", "image_unreadable", "labels/north/a.png"),
        ("error", "image_unreadable", "labels/north/b.npy"),
    ]
    assert "the pattern '3.tif' matches no file; found 1.tif, 2.tif, 10.tif" in broken.findings[0].message


def test_images_in_another_folder(tmp_path: Path) -> None:
    photo(tmp_path / "photos" / "a.png")
    label(tmp_path / "part" / "labels" / "a.png")
    dataset = read(tmp_path / "part", image_root=tmp_path / "photos")
    assert [image.file_name for image in dataset.images] == ["a.png"]
    label(tmp_path / "here" / "labels" / "a.png")
    photo(tmp_path / "here" / "a.png")
    beside = read(tmp_path / "here", images=".")
    assert [image.file_name for image in beside.images] == ["a.png"] and not beside.findings


def test_the_land_cover_series(tmp_path: Path) -> None:
    source = SHARED / "data" / "landcover_timeseries"
    for folder, name in (("images", "data/NDVI.npy"), ("labels", "mask_timeless/LULC.npy")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "tile.npy").symlink_to((source / name).resolve())
    names = {0: None, 1: "cropland", 2: "forest", 3: "grassland", 4: "shrubland", 8: "artificial"}
    dataset = read(tmp_path, None, values=names)
    assert dataset.class_names == ("cropland", "forest", "grassland", "shrubland", "artificial")
    stored = np.load(source / "mask_timeless" / "LULC.npy")[..., 0]
    wanted = np.full(stored.shape, 255)
    for place, value in enumerate((1, 2, 3, 4, 8)):
        wanted[stored == value] = place
    np.testing.assert_array_equal(painted(dataset), wanted)
    assert (dataset.images[0].width_px, dataset.images[0].height_px) == (100, 101)


FLOATS = VALUES.astype(np.float32)
COLORS = np.zeros((2, 4, 3), np.uint8)
BAD_LABELS: dict[str, tuple[str, Any, str, str]] = {
    "unknown values": (
        "a.png",
        np.array([[7, 7, 9, 0], [0, 0, 0, 0]], np.uint8),
        "unknown_label_value",
        "values without a class: 7 (2 px), 9 (1 px), expected 0, 1, 2, 255",
    ),
    "negative values": (
        "a.npy",
        np.array([[-1, 0, 0, 0], [0, 0, 0, 0]], np.int16),
        "unknown_label_value",
        "values without a class: -1 (1 px), expected 0",
    ),
    "another size": (
        "a.png",
        np.zeros((4, 2), np.uint8),
        "size_mismatch",
        "the label has 2 x 4 px, images/a.png has 4",
    ),
    "another size than an array": (
        "array.npy",
        np.zeros((4, 2), np.uint8),
        "size_mismatch",
        "the label has 2 x 4 px, images/array.npy has 4 x 2",
    ),
    "colors": ("a.png", COLORS, "mask_undecodable", "the label has 3 channels, expected one"),
    "floats": ("a.npy", FLOATS, "mask_undecodable", "the label holds float32 values, expected whole numbers"),
    "complex": ("a.npy", VALUES * 1j, "mask_undecodable", "not real numbers; found complex128"),
    "jpeg": ("a.jpg", VALUES, "mask_undecodable", "a JPEG changes the values of a label"),
}


@pytest.mark.parametrize("case", BAD_LABELS)
def test_bad_labels(tmp_path: Path, case: str) -> None:
    name, values, code, message = BAD_LABELS[case]
    photo(tmp_path / "images" / ("array.npy" if name == "array.npy" else "a.png"))
    label(tmp_path / "labels" / name, values)
    photo(tmp_path / "images" / "good.png")
    label(tmp_path / "labels" / "good.png")
    dataset = read(tmp_path)
    assert noted(dataset) == [("error", code, f"labels/{name}")]
    assert message in dataset.findings[0].message
    with pytest.raises(DataError, match=f"labels/{name}: "):
        dataset.raise_on_errors()
    kept = read(tmp_path, skip_bad=True)
    assert [image.file_name for image in kept.images] == ["images/good.png"] and not kept.errors()


def test_the_ledger_has_values_without_a_class(tmp_path: Path) -> None:
    photo(tmp_path / "images" / "a.png")
    label(tmp_path / "labels" / "a.png", np.array([[7, 7, 9, 0], [0, 0, 0, 0]], np.uint8))
    assert [(row.fate, row.shape) for row in read(tmp_path).ledger] == [("dropped", 7), ("dropped", 9)]


def test_files_without_their_counterpart_and_with_two(tmp_path: Path) -> None:
    for name in ("alone.png", "both.png", "both.npy", "twice.png", "fine.png"):
        photo(tmp_path / "images" / name)
    for name in ("lost.png", "both.png", "twice.png", "twice.npy", "fine.png"):
        label(tmp_path / "labels" / name)
    (tmp_path / "labels" / "notes.txt").write_text("x")
    (tmp_path / "images" / "broken.tif").write_bytes(b"x")
    (tmp_path / "labels" / "broken.png").write_bytes(b"x")
    dataset = read(tmp_path)
    assert noted(dataset) == [
        ("error", "label_missing", "images/alone.png"),
        ("error", "duplicate_image", "labels/both.png"),
        ("error", "image_unreadable", "labels/broken.png"),
        ("error", "image_missing", "labels/lost.png"),
        ("error", "duplicate_image", "labels/twice.png"),
    ]
    (tmp_path / "images" / "broken.tif").unlink()
    photo(tmp_path / "images" / "broken.png")
    assert ("error", "mask_undecodable", "labels/broken.png") in noted(read(tmp_path))


def test_images_without_label_as_negatives(tmp_path: Path) -> None:
    photo(tmp_path / "images" / "a.png")
    photo(tmp_path / "images" / "b.png")
    label(tmp_path / "labels" / "a.png")
    dataset = read(tmp_path, include_unlabeled=True)
    assert noted(dataset) == [("info", "unlabeled_image", "images/b.png")]
    assert [len(dataset.by_image()[number]) for number in (1, 2)] == [3, 0]


def test_channels_that_differ(tmp_path: Path) -> None:
    for name, channels in (("a", 3), ("b", 4), ("c", 4)):
        photo(tmp_path / "images" / f"{name}.tif", channels=channels)
        label(tmp_path / "labels" / f"{name}.png")
    dataset = read(tmp_path)
    assert noted(dataset) == [("error", "channels_differ", "labels/a.png")]
    assert dataset.findings[0].message == ("images/a.tif has 3 channels, most images such as images/b.tif have 4")
    assert not read(tmp_path, raster=RasterOptions(channels=(0, 2))).findings


def test_labels_without_labeled_pixels(tmp_path: Path) -> None:
    empty = np.full((2, 4), 255, np.uint8)
    for name in ("a", "b"):
        photo(tmp_path / "images" / f"{name}.png")
        label(tmp_path / "labels" / f"{name}.png", empty if name == "a" else VALUES)
    assert noted(read(tmp_path)) == [("error", "all_left_out", "labels/a.png")]
    assert [image.file_name for image in read(tmp_path, skip_bad=True).images] == ["images/b.png"]
    label(tmp_path / "labels" / "b.png", empty)
    assert noted(read(tmp_path)) == [
        ("error", "all_left_out", "labels/a.png"),
        ("error", "nothing_labeled", "labels/a.png"),
        ("error", "all_left_out", "labels/b.png"),
    ]


def test_invalid_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"images: the folder of images does not exist"):
        read(tmp_path)
    photo(tmp_path / "images" / "a.png")
    with pytest.raises(DataError, match=r"labels: the folder of labels does not exist.*data\.label_images\.labels"):
        read(tmp_path)
    label(tmp_path / "labels" / "a.png")
    with pytest.raises(DataError, match="the label values have no names"):
        read(tmp_path, None)
    with pytest.raises(DataError, match=r"found 'forrest'; expected forest, water, field\. Did you mean 'forest'"):
        read(tmp_path, values={1: "forrest"})
    with pytest.raises(DataError, match="read from a folder"):
        read(tmp_path / "images" / "a.png")


def test_by_its_name_among_the_formats(tmp_path: Path) -> None:
    photo(tmp_path / "images" / "a.png")
    label(tmp_path / "labels" / "a.png")
    options = ReadOptions(labels=CLASSES)
    assert len(read_dataset(tmp_path, format="label_images", options=options).instances) == 3
    assert check(tmp_path, format="label_images", options=options).findings == ()
