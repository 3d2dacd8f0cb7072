"""The samples of semantic and panoptic tasks: their files, what is drawn, and that their projects read them."""

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from d2tune.data.splits import load_splits
from d2tune.project import load_project
from d2tune.samples import cells, class_names, crops, membrane, render_sample, street
from tests.cases import on_demand

PROJECTS = Path(__file__).parents[2] / "projects"


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("kind", on_demand(["membrane", "cells", "street"], "cells"))
def test_the_seed_chooses_the_images_and_their_number_changes_none(tmp_path, kind):
    render_sample(kind, tmp_path / "a", images=3, seed=4)
    cv2.setNumThreads(1)
    render_sample(kind, tmp_path / "b", images=4, seed=4)
    cv2.setNumThreads(-1)
    render_sample(kind, tmp_path / "c", images=3, seed=5)
    three, four, other = (hashes(tmp_path / name) for name in "abc")
    assert len(three) == 6 and len(four) == 8
    assert three.items() <= four.items()
    assert three.keys() == other.keys() and not set(three.values()) & set(other.values())


@pytest.mark.parametrize(
    ("draw", "values", "least"), [(membrane.draw, (0, 255), 0.1), (cells.draw, (0, 128, 255), 0.01)]
)
def test_every_image_shows_every_class_and_label_edges_are_edges_of_the_image(draw, values, least):
    for index in range(3):
        image, labels = draw(np.random.default_rng([7, index]))
        assert image.dtype == labels.dtype == np.uint8 and image.shape[:2] == labels.shape
        assert set(np.unique(labels)) == set(values)
        assert min((labels == value).mean() for value in values) > least
        gray = cv2.GaussianBlur(image.reshape(*labels.shape, -1).mean(axis=2), (0, 0), 1.0)
        slope = np.hypot(cv2.Sobel(gray, cv2.CV_64F, 1, 0), cv2.Sobel(gray, cv2.CV_64F, 0, 1))
        edge = cv2.morphologyEx(labels, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
        assert slope[edge].mean() > 1.8 * slope[~edge].mean()


def test_membranes_are_the_dark_class():
    image, labels = membrane.draw(np.random.default_rng(1))
    assert image[labels == 0].mean() < image[labels == 255].mean() - 25


def test_street_outlines_overlap_and_the_last_one_lies_on_top(tmp_path):
    photos = 0
    result = render_sample("street", tmp_path, images=12, seed=1)
    assert dict(result.images) == {"train": 10, "val": 2}
    seen, hidden = set(), False
    for path in sorted(tmp_path.rglob("*.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        with Image.open(path.with_suffix(".jpg")) as photo:
            assert photo.size == (document["imageWidth"], document["imageHeight"]) == (384, 256)
        photos += 1
        top = np.full((256, 384), -1)
        areas = []
        for place, shape in enumerate(document["shapes"]):
            points = np.array(shape["points"])
            assert points.min() >= 0 and (points <= (384, 256)).all()
            mask = np.zeros((256, 384), np.uint8)
            cv2.fillPoly(mask, [np.rint(points).astype(np.int32)], 1)
            top[mask > 0] = place
            areas.append(mask.sum())
            seen.add(shape["label"])
        order = [shape["label"] in street.THINGS for shape in document["shapes"]]
        assert order == sorted(order), "objects are drawn after the regions behind them"
        hidden |= any((top == place).sum() < 0.8 * area for place, area in enumerate(areas) if order[place])
        assert 0.005 < (top < 0).mean() < 0.25, "pavements belong to nothing"
    assert photos == 12 and seen == set(street.CLASS_NAMES) and hidden


def test_a_scene_of_farmland_has_1800_by_1135_pixels():
    assert (crops.WIDTH_PX, crops.HEIGHT_PX) == (1800, 1135)


@pytest.fixture(
    scope="module",
    params=[(900, 568, 1), pytest.param((1800, 1135, 0), marks=pytest.mark.extended)],
    ids=["quarter", "real size"],
)
def farmland(request, tmp_path_factory):
    """A folder with one scene: a quarter of the area, and the real size."""
    width_px, height_px, seed = request.param
    folder = tmp_path_factory.mktemp("crops")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crops, "WIDTH_PX", width_px)
        patch.setattr(crops, "HEIGHT_PX", height_px)
        render_sample("crops", folder / "data", images=2, seed=seed)
        yield folder / "data"


def test_a_year_of_farmland(farmland):
    scene = farmland / "images" / "scene_01"
    assert sorted(path.name for path in scene.iterdir()) == [f"{month}.tif" for month in crops.MONTHS]
    assert sum(path.stat().st_size for path in farmland.rglob("*") if path.is_file()) < 250e6
    train, val = (np.array(Image.open(farmland / split / "labels" / "scene_01.png")) for split in ("train", "val"))
    assert train.shape == val.shape == (crops.HEIGHT_PX, crops.WIDTH_PX)
    assert not ((train > 0) & (val > 0)).any(), "validation fields are others"
    for labels in (train, val):
        assert set(np.unique(labels)) == set(range(9)) and 0.05 < (labels > 0).mean() < 0.6
    _, regions = cv2.connectedComponents((train > 0).astype(np.uint8))
    assert all(len(np.unique(train[regions == number])) == 1 for number in range(1, 30)), "a field has one crop"
    clouded = 0.0
    for month in crops.MONTHS:
        bands = tifffile.imread(scene / f"{month}.tif")
        assert bands.shape == (*train.shape, 5) and bands.dtype == np.uint16
        hidden = (bands == 0).all(axis=2)
        assert (hidden == (bands == 0).any(axis=2)).all()
        clouded = max(clouded, hidden.mean())
        if month == "2020-07":
            near, red = bands[..., 3].astype(float), bands[..., 2].astype(float)
            green = np.where(hidden, np.nan, (near - red) / np.maximum(near + red, 1))
            ndvi = {name: np.nanmedian(green[train == place + 1]) for place, name in enumerate(crops.CLASS_NAMES)}
    assert 0.05 < clouded < 0.8
    assert ndvi["sugar beet"] > ndvi["wheat"] + 0.2, "in July beet is green and wheat is ripe"


def test_the_crops_project_reads_its_scene_from_beside_the_splits(farmland):
    splits = load_splits(load_project(PROJECTS / "crops.yaml", overrides={"data.root": str(farmland)}).project)
    assert [len(split.images) for split in (splits.train, splits.val)] == [1, 1]
    assert splits.train.class_names == crops.CLASS_NAMES and min(splits.val.counts().values()) == 1
    assert splits.train.images[0].path.resolve() == splits.val.images[0].path.resolve()


@pytest.mark.parametrize(("kind", "counts"), [("membrane", (8, 2)), ("cells", (8, 2)), ("street", (8, 2))])
def test_the_project_reads_its_sample(tmp_path, kind, counts):
    overrides = {"data.root": str(tmp_path / "data"), "data.sample": kind, "data.sample_images": 10}
    splits = load_splits(load_project(PROJECTS / f"{kind}.yaml", overrides=overrides).project)
    assert splits.rendered and (len(splits.train.images), len(splits.val.images)) == counts
    assert set(splits.train.class_names) == set(class_names(kind))
    assert min(splits.train.counts().values()) > 0 and not splits.train.findings
