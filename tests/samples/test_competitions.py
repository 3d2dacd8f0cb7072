"""The samples that stand in for Kaggle's data: their files, their CSV, and what is drawn."""

from __future__ import annotations

import csv
import hashlib
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image as PilImage

from d2tune.annotations.formats import rle_csv
from d2tune.annotations.geometry.masks import decode_mask, union_segmentations
from d2tune.annotations.io import output_record
from d2tune.annotations.model.dataset import Dataset, Instance
from d2tune.annotations.model.options import ReadOptions
from d2tune.annotations.model.types import RawRle
from d2tune.data.splits import load_splits
from d2tune.errors import DataError
from d2tune.project import load_project
from d2tune.samples import class_names, render_sample

PROJECTS = Path(__file__).parents[2] / "projects"


@dataclass(frozen=True)
class Public:
    """What the public data look like."""

    table: str
    header: list[str]
    train: str
    test: str
    name: str
    size: tuple[int, int]
    by_rows: bool
    preset: str


PUBLIC = {
    "carvana": Public(
        *("train_masks.csv", ["img", "rle_mask"], "train", "test"),
        *(r"[0-9a-f]{12}_(0[1-9]|1[0-6])\.jpg", (320, 214), True, "carvana"),
    ),
    "ships": Public(
        *("train_ship_segmentations_v2.csv", ["ImageId", "EncodedPixels"], "train_v2", "test_v2"),
        *(r"[0-9a-f]{9}\.jpg", (256, 256), False, "airbus"),
    ),
    "steel": Public(
        *("train.csv", ["ImageId", "ClassId", "EncodedPixels"], "train_images", "test_images"),
        *(r"[0-9a-f]{9}\.jpg", (400, 64), False, "severstal"),
    ),
}


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A sample of 40 images of a kind, rendered once."""
    folder = tmp_path_factory.mktemp("samples")

    def rendered(kind: str) -> Path:
        return folder / kind if (folder / kind).exists() else render_sample(kind, folder / kind, images=40).folder

    return rendered


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 by name of all files but the record of outputs."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != output_record.NAME)
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def read(kind: str, folder: Path, **more: bool) -> Dataset:
    public = PUBLIC[kind]
    name = None if kind == "steel" else class_names(kind)[1]
    options = ReadOptions(preset=public.preset, class_name=name, image_root=folder / public.train, **more)
    return rle_csv.read(folder / public.table, options)


def pixels_by_loops(runs: str, size: tuple[int, int], *, by_rows: bool) -> np.ndarray:
    """A mask from the competitions' own words: pairs of start and length, counted from 1."""
    width, height = size
    mask = np.zeros((height, width), bool)
    numbers = [int(word) for word in runs.split()]
    for start, length in zip(numbers[::2], numbers[1::2], strict=True):
        for pixel in range(start - 1, start - 1 + length):
            mask[divmod(pixel, width) if by_rows else divmod(pixel, height)[::-1]] = True
    return mask


@pytest.mark.slow
@pytest.mark.parametrize("kind", PUBLIC)
def test_files_are_laid_out_as_the_public_ones(sample: Callable[[str], Path], kind: str) -> None:
    public, folder = PUBLIC[kind], sample(kind)
    train, test = ({path.name for path in (folder / split).iterdir()} for split in (public.train, public.test))
    names = {path.name for path in folder.iterdir()} - {output_record.NAME}
    assert names == {public.table, public.train, public.test}
    assert (len(train), len(test)) == ((40, 0) if kind == "carvana" else (36, 4))
    assert all(re.fullmatch(public.name, name) for name in train | test) and not train & test
    for name in train:
        with PilImage.open(folder / public.train / name) as photo:
            assert (photo.format, photo.mode, photo.size) == ("JPEG", "RGB", public.size)
    with (folder / public.table).open(newline="") as stream:
        header, *rows = csv.reader(stream)
    assert header == public.header
    listed = {row[0] for row in rows}
    assert listed < train if kind == "steel" else listed == train
    dataset = read(kind, folder, include_unlabeled=True)
    assert not dataset.errors() and {image.file_name for image in dataset.images} == train
    wanted = defaultdict(list)
    for row in rows:
        if row[-1]:
            wanted[row[0]].append(pixels_by_loops(row[-1], public.size, by_rows=public.by_rows))
    for image in dataset.images:
        masks = [united(one, public.size) for one in dataset.by_image()[image.id]]
        for one, other in zip(masks, wanted[image.file_name], strict=True):
            assert np.array_equal(decode_mask(one), other)


def united(instance: Instance, size: tuple[int, int]) -> RawRle:
    return union_segmentations([instance.segmentation], width_px=size[0], height_px=size[1])


@pytest.mark.slow
def test_what_the_samples_show(sample: Callable[[str], Path]) -> None:
    cars = read("carvana", sample("carvana"))
    shares = np.array([one.area_px2 for one in cars.instances]) / (320 * 214)
    assert len(cars.instances) == len(cars.images) == 40 and 0.08 < shares.min() < shares.max() < 0.45
    ships = read("ships", sample("ships"))
    counts = [len(ones) for ones in ships.by_image().values()]
    assert 0.2 < np.mean(np.array(counts) == 0) < 0.7 and max(counts) >= 3
    assert min(one.area_px2 for one in ships.instances) >= 12
    steel = read("steel", sample("steel"), include_unlabeled=True)
    counts = [len(ones) for ones in steel.by_image().values()]
    assert 0.3 < np.mean(np.array(counts) == 0) < 0.75 and min(steel.counts().values()) >= 2
    assert steel.class_names == ("1", "2", "3", "4") == class_names("steel")[1:]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["carvana", "ships"])
def test_masks_end_where_the_images_show_an_edge(sample: Callable[[str], Path], kind: str) -> None:
    """Along a mask's rim the image changes more than elsewhere, and less one mask's width away."""
    public, folder = PUBLIC[kind], sample(kind)
    dataset = read(kind, folder)
    at_rim, shifted = [], []
    for image in dataset.images:
        gray = cv2.imread(str(folder / public.train / image.file_name), cv2.IMREAD_GRAYSCALE).astype(np.float32)
        slope = np.hypot(cv2.Sobel(gray, cv2.CV_32F, 1, 0), cv2.Sobel(gray, cv2.CV_32F, 0, 1))
        for one in dataset.by_image()[image.id]:
            mask = decode_mask(united(one, public.size)).astype(np.uint8)
            rim = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)).astype(bool)
            at_rim.append(slope[rim].mean())
            shifted.append(slope[np.roll(rim, (-12, 12), (0, 1))].mean())
    assert np.mean(at_rim) > 2 * np.mean(shifted)


@pytest.mark.parametrize("kind", PUBLIC)
def test_the_seed_chooses_the_images_and_their_number_changes_none(tmp_path: Path, kind: str) -> None:
    for name, images, seed in (("a", 3, 5), ("b", 3, 5), ("more", 5, 5), ("other", 3, 6)):
        render_sample(kind, tmp_path / name, images=images, seed=seed)
    first, again, more, other = (hashes(tmp_path / name) for name in ("a", "b", "more", "other"))
    assert first == again and len(first) == 4
    photos = {name for name in first if name.endswith(".jpg")}
    assert {name: more[name] for name in photos} == {name: first[name] for name in photos}
    assert first.keys() == other.keys() and not set(first.values()) & set(other.values())


def test_force_replaces_an_earlier_sample_and_nothing_else(tmp_path: Path) -> None:
    render_sample("steel", tmp_path, images=12, seed=1)
    mine = tmp_path / "train_images" / "mine.jpg"
    mine.write_bytes(b"my own")
    result = render_sample("steel", tmp_path, images=3, seed=2, force=True)
    assert mine.read_bytes() == b"my own"
    mine.unlink()
    render_sample("steel", tmp_path / "fresh", images=3, seed=2)
    fresh = {f"fresh/{name}": digest for name, digest in hashes(tmp_path / "fresh").items()}
    both = hashes(tmp_path)
    assert {name.removeprefix("fresh/"): digest for name, digest in fresh.items()} | fresh == both
    assert (dict(result.images), dict(result.instances)) == ({"train": 3, "test": 0}, {})
    assert result.summary() == f"3 train images, 0 test images of background, 1, 2, 3, 4: {tmp_path}"


@pytest.mark.slow
def test_every_sixth_car_is_for_testing(tmp_path: Path) -> None:
    result = render_sample("carvana", tmp_path, images=82)
    assert dict(result.images) == {"train": 80, "test": 2}
    cars = {path.name[:12] for path in (tmp_path / "train").iterdir()}
    assert len(cars) == 5 and not cars & {path.name[:12] for path in (tmp_path / "test").iterdir()}


@pytest.mark.parametrize("kind", PUBLIC)
def test_the_project_reads_its_sample(tmp_path: Path, kind: str) -> None:
    overrides = {"data.root": str(tmp_path / "data"), "data.sample": kind, "data.sample_images": 24}
    splits = load_splits(load_project(PROJECTS / f"{kind}.yaml", overrides=overrides).project)
    listed = len(list((tmp_path / "data-sample" / PUBLIC[kind].train).iterdir()))
    assert splits.rendered and len(splits.train.images) + len(splits.val.images) == listed
    assert splits.train.class_names == splits.val.class_names == class_names(kind)


@pytest.mark.parametrize("kind", PUBLIC)
def test_a_csv_that_names_a_missing_image(tmp_path: Path, kind: str) -> None:
    public = PUBLIC[kind]
    render_sample(kind, tmp_path / "data", images=8)
    rows = (tmp_path / "data" / public.table).read_text().splitlines()
    gone = rows[3].split(",")[0]
    line = next(number for number, row in enumerate(rows, start=1) if row.startswith(gone))
    (tmp_path / "data" / public.train / gone).unlink()
    loaded = load_project(PROJECTS / f"{kind}.yaml", overrides={"data.root": str(tmp_path / "data")})
    place = rf"{re.escape(public.table)}: line {line}: .*{re.escape(gone)}.*\[image_missing\]"
    with pytest.raises(DataError, match=place):
        load_splits(loaded.project)
