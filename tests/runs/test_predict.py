"""The files that semantic and panoptic runs write for images without annotations."""

from __future__ import annotations

import csv
import json
import shutil
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import rasterio
import tifffile
import yaml
from PIL import Image as PilImage

import d2tune
from d2tune.annotations.convert import read_dataset
from d2tune.annotations.formats import rle_csv
from d2tune.annotations.formats.semantic import paint
from d2tune.annotations.model.dataset import Dataset
from d2tune.annotations.model.options import ReadOptions
from d2tune.engine.plan import make_plan
from d2tune.errors import DataError
from d2tune.inference.images import find_rasters
from d2tune.modeling.from_run import load_run
from d2tune.project import load_project
from d2tune.run_folder import RunFolder
from d2tune.tasks import task_of
from tests.annotations.builders import labelme_value, shape

pytestmark = pytest.mark.usefixtures("without_plots")

CLASSES = ("background", "1")
HEIGHT_PX, WIDTH_PX = 40, 56
TRAIN = """\
model: {preset: unet_2015}
weights: scratch
train: {iterations: 60, batch_size: 4, learning_rate: 0.01, precision: float32, eval_every: 0, image_size: SIZE}
detectron2: {MODEL.BRIDGE.WIDTH: 4, INPUT.COLOR_JITTER: 0.0}
"""


def bright_box(seed: int) -> np.ndarray:
    """A label map with a box of class 1."""
    draw = np.random.default_rng(seed)
    labels = np.zeros((HEIGHT_PX, WIDTH_PX), np.uint8)
    top, left = draw.integers(3, 16), draw.integers(3, 24)
    labels[top : top + 18, left : left + 26] = 1
    return labels


def photo_of(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 20, (*labels.shape, 3))
    return (40 + 150 * labels[:, :, None] + noise).astype(np.uint8)


def scene_of(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Four channels; the second encodes the label, and a corner has no data."""
    pixels = np.random.default_rng(seed).normal(size=(*labels.shape, 4)).astype(np.float32)
    pixels[:, :, 1] += 6 * labels
    pixels[-5:, -7:] = np.nan
    return pixels


def save_photo(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    PilImage.fromarray(photo_of(bright_box(seed), seed)).save(path)
    return path


@pytest.fixture(scope="module", autouse=True)
def module_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("D2TUNE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def photo_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on Labelme's polygons, resized to 48 px."""
    root = tmp_path_factory.mktemp("photos")
    for seed, name in enumerate(("train/a.png", "train/b.png", "train/c.png", "train/d.png", "val/e.png")):
        path = save_photo(root / "data" / name, seed)
        rows, columns = np.nonzero(bright_box(seed))
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        left, top, right, bottom = (float(side) for side in box)
        polygon = shape([[left, top], [right, top], [right, bottom], [left, bottom]], "1")
        value = labelme_value(polygon, image=path.name, size=(WIDTH_PX, HEIGHT_PX))
        path.with_suffix(".json").write_text(json.dumps(value), encoding="utf-8")
    project = root / "photos.yaml"
    data = f"{{root: {root / 'data'}, background: background, csv_preset: airbus}}"
    project.write_text(
        f"task: semantic\ndata: {data}\nclasses: [background, '1']\n{TRAIN.replace('SIZE', '48')}", encoding="utf-8"
    )
    run: Path = d2tune.train(project, output_dir=root / "run").run
    return run


@pytest.fixture(scope="module")
def raster_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on rasters of four channels in their own size."""
    root = tmp_path_factory.mktemp("rasters")
    for seed, split in enumerate(("train", "train", "train", "train", "val")):
        for folder in ("images", "labels"):
            (root / "data" / split / folder).mkdir(parents=True, exist_ok=True)
        np.save(root / "data" / split / "images" / f"{seed}.npy", scene_of(bright_box(seed), seed))
        PilImage.fromarray(bright_box(seed)).save(root / "data" / split / "labels" / f"{seed}.png")
    project = root / "rasters.yaml"
    project.write_text(
        f"task: semantic\ndata: {{root: {root / 'data'}, format: label_images}}\nclasses: [background, '1']\n"
        + TRAIN.replace("SIZE", "original"),
        encoding="utf-8",
    )
    run: Path = d2tune.train(project, output_dir=root / "run").run
    return run


def changed_run(run: Path, folder: Path, *, config: dict[str, Any] | None = None, **data: Any) -> Path:
    """A copy of a run with other keys in its config, and in the data section of its project."""
    shutil.copytree(run, folder)
    files = RunFolder(folder)
    plain = yaml.safe_load(files.config.read_text("utf-8"))
    for key, value in (config or {}).items():
        section, name = key.split(".")
        plain[section][name] = value
    files.config.write_text(yaml.safe_dump(plain), encoding="utf-8")
    project = yaml.safe_load(files.project.read_text("utf-8"))
    project["data"] |= data
    files.project.write_text(yaml.safe_dump(project), encoding="utf-8")
    return folder


def gray(path: Path) -> np.ndarray:
    with PilImage.open(path) as image:
        assert image.mode == "L"
        return np.asarray(image)


def maps_of(dataset: Dataset) -> dict[str, np.ndarray]:
    """The pixels of instances, by image."""
    groups = dataset.by_image()
    return {
        image.file_name: paint(groups[image.id], width_px=image.width_px, height_px=image.height_px) >= 0
        for image in dataset.images
    }


@pytest.mark.slow
def test_photos_of_any_name_and_folder(photo_run: Path, tmp_path: Path) -> None:
    names = ("a.png", "a.jpg", "deep/er/a.png", "UP.JPEG", "no.suffix.bmp")
    for seed, name in enumerate(names):
        save_photo(tmp_path / "in" / name, seed)
    (tmp_path / "in" / "torn.png").write_bytes((tmp_path / "in" / "a.png").read_bytes()[:200])
    (tmp_path / "in" / "words.txt").write_text("no image")
    (tmp_path / "out" / "labels").mkdir(parents=True)
    (tmp_path / "out" / "labels" / "mine.txt").write_text("mine")
    result = d2tune.predict(photo_run, tmp_path / "in", out=tmp_path / "out")
    assert (result.images, result.instances) == (5, 0) and result.out == tmp_path / "out"
    (line,) = result.skipped
    assert "torn.png" in line and "\n" not in line
    written = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("[!.]*.*")}
    maps = {"a.png.png": 0, "a.jpg.png": 1, "deep/er/a.png": 2, "UP.png": 3, "no.suffix.png": 4}
    shown = {f"{name}.predicted.jpg" for name in names}
    assert written == {f"labels/{name}" for name in maps} | shown | {"labels/categories.json", "labels/mine.txt"}
    for name, seed in maps.items():
        labels = gray(tmp_path / "out" / "labels" / name)
        assert (labels == bright_box(seed)).mean() > 0.9
    table = json.loads((tmp_path / "out/labels/categories.json").read_text("utf-8"))
    assert table == [{"label": 0, "name": "background"}, {"label": 1, "name": "1"}]
    with PilImage.open(tmp_path / "out" / "a.png.predicted.jpg") as image:
        assert image.size == (WIDTH_PX, HEIGHT_PX)
    # one image instead of the folder, over what is there
    (tmp_path / "one").mkdir()
    alone = d2tune.predict(photo_run, tmp_path / "in" / "a.jpg", out=tmp_path / "one")
    assert alone.images == 1
    assert np.array_equal(gray(tmp_path / "one/labels/a.png"), gray(tmp_path / "out/labels/a.jpg.png"))
    # nothing that can be read
    with pytest.raises(DataError, match=r"no image could be read.*torn\.png"):
        d2tune.predict(photo_run, tmp_path / "in" / "torn.png", out=tmp_path / "none")


@pytest.mark.slow
def test_the_validation_split_is_predicted_as_it_was_evaluated(
    photo_run: Path, raster_run: Path, tmp_path: Path
) -> None:
    d2tune.predict(photo_run, None, out=tmp_path / "photos")
    (mine,) = (tmp_path / "photos" / "labels").rglob("*.png")
    (theirs,) = (photo_run / "predicted_labels").rglob("*.png")
    assert np.array_equal(gray(mine), gray(theirs))
    d2tune.predict(raster_run, None, out=tmp_path / "rasters")
    (mine,) = (tmp_path / "rasters" / "labels").rglob("*.tif")
    (theirs,) = (raster_run / "predicted_labels").rglob("*.png")
    assert np.array_equal(tifffile.imread(mine), gray(theirs))
    assert (gray(theirs)[-5:, -7:] == 255).all() and (gray(theirs)[:-5] != 255).all()


@pytest.mark.slow
def test_label_images_beside_the_images_are_ignored(raster_run: Path, tmp_path: Path) -> None:
    split = load_project(RunFolder(raster_run).project).project.data.root / "train"
    result = d2tune.predict(raster_run, split, out=tmp_path / "out")
    assert (result.images, result.skipped) == (4, ())
    assert {path.name for path in (tmp_path / "out" / "labels").glob("*.tif")} == {f"{seed}.tif" for seed in range(4)}


@pytest.mark.slow
def test_outlines_lie_on_the_regions(photo_run: Path, tmp_path: Path) -> None:
    for seed, name in enumerate(("a.png", "sub/b.jpg")):
        save_photo(tmp_path / "in" / name, seed)
    d2tune.predict(photo_run, tmp_path / "in", out=tmp_path / "maps")
    for tolerance_px in (0.0, 1.5):
        out = tmp_path / f"labelme_{tolerance_px}"
        result = d2tune.predict(photo_run, tmp_path / "in", out=out, to="labelme", tolerance_px=tolerance_px)
        assert result.images == 2 and not list(out.rglob("*.jpg"))
        documents = {path.relative_to(out).as_posix(): json.loads(path.read_text()) for path in out.rglob("*.json")}
        assert set(documents) == {"a.json", "sub/b.json"}
        labels = [item["label"] for document in documents.values() for item in document["shapes"]]
        assert set(labels) == {"1"} and result.instances >= 2
        outlined = maps_of(read_dataset(out, options=ReadOptions(labels=CLASSES, image_root=tmp_path / "in")))
        for name, mask in outlined.items():
            region = gray((tmp_path / "maps" / "labels" / name).with_suffix(".png")) == 1
            edge = sum(cv2.distanceTransform(side.astype(np.uint8), cv2.DIST_L2, 5) for side in (region, ~region))
            differs = mask != region
            assert not differs.any() if tolerance_px == 0 else edge[differs].max(initial=0) <= tolerance_px + 1
    again = tmp_path / "labelme_0.0"
    with pytest.raises(DataError, match="all 2 images already have a Labelme file"):
        d2tune.predict(photo_run, tmp_path / "in", out=again, to="labelme")
    save_photo(tmp_path / "in" / "new.png", 5)
    more = d2tune.predict(photo_run, tmp_path / "in", out=again, to="labelme")
    assert more.images == 1 and len(more.skipped) == 2 and (again / "new.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["airbus", "carvana", "severstal"])
def test_csv_of_each_dialect_reads_back(photo_run: Path, tmp_path: Path, preset: str) -> None:
    for seed, name in enumerate(("a.png", "b.jpg")):
        save_photo(tmp_path / "in" / name, seed)
    PilImage.fromarray(np.full((HEIGHT_PX, WIDTH_PX, 3), 50, np.uint8)).save(tmp_path / "in" / "none.png")
    run = changed_run(photo_run, tmp_path / "run", csv_preset=preset)
    d2tune.predict(run, tmp_path / "in", out=tmp_path / "maps")
    result = d2tune.predict(run, tmp_path / "in", out=tmp_path / "folder", to="csv")
    assert result.out == tmp_path / "folder" / "submission.csv" and result.images == 3
    named = d2tune.predict(run, tmp_path / "in", out=tmp_path / "made" / "mine.csv", to="csv")
    assert named.out.is_file() and named.out.read_bytes() == result.out.read_bytes()
    options = ReadOptions(
        preset=preset,
        labels=CLASSES,
        image_root=tmp_path / "in",
        class_name=None if preset == "severstal" else "1",
        include_unlabeled=True,
    )
    masks = maps_of(rle_csv.read(result.out, options))
    assert set(masks) == {"a.png", "b.jpg", "none.png"}
    for name, mask in masks.items():
        assert np.array_equal(mask, gray((tmp_path / "maps/labels" / name).with_suffix(".png")) == 1)
    before = named.out.read_bytes()
    with pytest.raises(DataError, match=r"mine\.csv: the file is already there.*--force"):
        d2tune.predict(run, tmp_path / "in", out=named.out, to="csv")
    d2tune.predict(run, tmp_path / "in" / "a.png", out=named.out, to="csv", force=True)
    assert len(named.out.read_bytes()) < len(before)


@pytest.mark.slow
def test_rasters_keep_their_georeference(raster_run: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    pixels = scene_of(bright_box(0))
    transform = rasterio.Affine(10.0, 0, 500_000, 0, -10.0, 5_400_000)
    about = {"driver": "GTiff", "height": HEIGHT_PX, "width": WIDTH_PX, "count": 4, "dtype": "float32"}
    about |= {"crs": "EPSG:32633", "transform": transform, "nodata": np.nan}
    with rasterio.open(source / "scene.tif", "w", **about) as file:
        file.write(pixels.transpose(2, 0, 1))
    np.save(source / "scene.npy", pixels)
    (source / "sub.folder").mkdir()
    np.save(source / "sub.folder" / "other.v2.npy", pixels)
    np.save(source / "three.npy", pixels[:, :, :3])
    (source / "torn.tif").write_bytes((source / "scene.tif").read_bytes()[:300])
    result = d2tune.predict(raster_run, source, out=tmp_path / "out")
    assert result.images == 3
    assert len(result.skipped) == 2 and any("three.npy" in line and "expected 4" in line for line in result.skipped)
    labels = tmp_path / "out" / "labels"
    written = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("[!.]*.*")}
    stems = {"scene.tif", "scene.npy", "sub.folder/other.v2"}
    assert written - {"sub.folder", "labels/sub.folder", "labels/categories.json"} == (
        {f"labels/{stem}.tif" for stem in stems} | {f"{stem}.predicted.png" for stem in stems}
    )
    with rasterio.open(labels / "scene.tif.tif") as file:
        assert (file.crs.to_epsg(), file.transform, file.nodata, file.dtypes) == (32633, transform, 255, ("uint8",))
        labels_of_tiff = file.read(1)
    for name in ("scene.npy.tif", "sub.folder/other.v2.tif"):
        assert np.array_equal(tifffile.imread(labels / name), labels_of_tiff)
    assert (labels_of_tiff[-5:, -7:] == 255).all() and (labels_of_tiff[:-5] == bright_box(0)[:-5]).mean() > 0.9


@pytest.mark.slow
def test_folders_are_stacked_to_images(raster_run: Path, tmp_path: Path) -> None:
    """Their names may have a dot, and a folder itself may be the source."""
    run = changed_run(raster_run, tmp_path / "run")
    record = json.loads((run / "record.json").read_text("utf-8"))
    record["input"]["stacked"] = True
    (run / "record.json").write_text(json.dumps(record), encoding="utf-8")
    for seed, name in enumerate(("scene.2020", "scene.2021")):
        (tmp_path / "in" / name).mkdir(parents=True)
        for band, plane in enumerate(scene_of(bright_box(seed), seed).transpose(2, 0, 1)):
            tifffile.imwrite(tmp_path / "in" / name / f"band_{band}.tif", plane)
    result = d2tune.predict(run, tmp_path / "in", out=tmp_path / "out")
    alone = d2tune.predict(run, tmp_path / "in" / "scene.2021", out=tmp_path / "alone")
    assert (result.images, alone.images) == (2, 1)
    maps = [tifffile.imread(tmp_path / "out" / "labels" / f"scene.{year}.tif") for year in (2020, 2021)]
    for seed, class_ids in enumerate(maps):
        assert (class_ids[:-5] == bright_box(seed)[:-5]).mean() > 0.9
    assert np.array_equal(tifffile.imread(tmp_path / "alone" / "labels" / "scene.2021.tif"), maps[1])
    assert (tmp_path / "alone" / "scene.2021.predicted.png").is_file()
    assert find_rasters(tmp_path / "in", stacked=True) == (
        tmp_path / "in",
        [tmp_path / "in" / "scene.2020", tmp_path / "in" / "scene.2021"],
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        {"INPUT.MIN_SIZE_TEST": 32, "INPUT.MAX_SIZE_TEST": 64, "TEST.WINDOW_PX": 0},
        {"TEST.WINDOW_PX": 32},
    ],
    ids=["resized", "windows"],
)
def test_rasters_are_predicted_as_they_are_evaluated(raster_run: Path, tmp_path: Path, config: dict[str, Any]) -> None:
    run = changed_run(raster_run, tmp_path / "run", config=config)
    loaded = load_run(run)
    val = make_plan(load_project(RunFolder(run).project), num_gpus=0, sample=False)[0].splits.val
    task = task_of(loaded.project)
    evaluator = task.evaluator(val, loaded.cfg, loaded.project)
    predictions = evaluator.predict(task.predictor(loaded.model, loaded.cfg, loaded.project, val.categories))
    digest = evaluator.save(predictions, tmp_path / "kept")
    assert digest == evaluator.digest(tmp_path / "kept") and evaluator.load(tmp_path / "kept") == predictions
    (theirs,) = (tmp_path / "kept" / "predicted_labels").rglob("*.png")
    d2tune.predict(run, None, out=tmp_path / "out")
    (mine,) = (tmp_path / "out" / "labels").rglob("*.tif")
    labels = tifffile.imread(mine)
    assert np.array_equal(labels, gray(theirs)) and (labels[-5:, -7:] == 255).all()
    theirs.write_bytes(theirs.read_bytes() + b"x")
    assert evaluator.digest(tmp_path / "kept") != digest
    theirs.unlink()
    with pytest.raises(OSError, match=theirs.name):
        evaluator.digest(tmp_path / "kept")


@pytest.mark.slow
def test_a_raster_is_never_held_as_a_whole(raster_run: Path, tmp_path: Path) -> None:
    run = changed_run(raster_run, tmp_path / "run", config={"TEST.WINDOW_PX": 128})
    big = np.lib.format.open_memmap(tmp_path / "big.npy", mode="w+", dtype=np.float32, shape=(2000, 512, 4))
    big[:] = 0
    big.flush()
    raster_bytes = big.nbytes
    del big
    d2tune.predict(run, None, out=tmp_path / "first")  # imports and the model do not count
    tracemalloc.start()
    d2tune.predict(run, tmp_path / "big.npy", out=tmp_path / "out")
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert tifffile.imread(tmp_path / "out/labels/big.tif").shape == (2000, 512)
    assert peak_bytes < raster_bytes / 2


@pytest.mark.slow
def test_maps_of_rasters_are_the_same_in_rows_and_beside_formats_that_need_whole_maps(
    raster_run: Path, tmp_path: Path
) -> None:
    """Label maps and drawings are written in rows; measures need the whole map and the pixels."""
    run = changed_run(raster_run, tmp_path / "run", config={"TEST.WINDOW_PX": 32})
    d2tune.predict(run, None, out=tmp_path / "rows")
    d2tune.predict(run, None, out=tmp_path / "whole", to="auto,measurements", mm_per_px=10.0)
    names = ("labels/images/4.tif", "images/4.predicted.png", "labels/categories.json")
    for name in names:
        assert (tmp_path / "rows" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    for to, name in (("label_maps", names[0]), ("overlays", names[1])):
        d2tune.predict(run, None, out=tmp_path / to, to=to)
        assert (tmp_path / to / name).read_bytes() == (tmp_path / "rows" / name).read_bytes()
    assert not list((tmp_path / "label_maps").rglob("*.png")) and not (tmp_path / "overlays" / "labels").exists()

    labels = tifffile.imread(tmp_path / "rows" / names[0])
    with (tmp_path / "whole" / "counts.csv").open(encoding="utf-8", newline="") as stream:
        counts = list(csv.DictReader(stream))
    assert [int(row["area_px2"]) for row in counts] == [int((labels == value).sum()) for value in (0, 1)]
    with_data = int((labels != 255).sum())
    assert with_data == labels.size - 35  # a corner has no data
    assert [float(row["share_percent"]) for row in counts] == pytest.approx(
        [100 * int((labels == value).sum()) / with_data for value in (0, 1)], abs=1e-3
    )
    with (tmp_path / "whole" / "measurements.csv").open(encoding="utf-8", newline="") as stream:
        measured = list(csv.DictReader(stream))
    regions = measured if int(counts[0]["objects"]) else [row for row in measured if row["class"] == "1"]
    largest = max(regions, key=lambda row: int(row["area_px2"]))
    assert float(largest["area_mm2"]) == pytest.approx(int(largest["area_px2"]) * 100)
    assert {"channel_1", "channel_4"} <= set(largest) and "red" not in largest
    pixels = scene_of(bright_box(4), 4)
    left, top = int(largest["left_px"]), int(largest["top_px"])
    inside = np.zeros(labels.shape, bool)
    inside[top : top + int(largest["box_height_px"]), left : left + int(largest["box_width_px"])] = True
    chosen = cv2.connectedComponents((labels == int(largest["class"] == "1")).astype(np.uint8), connectivity=8)[1]
    values = chosen[inside & (chosen > 0)]
    region = (chosen == np.bincount(values).argmax()) & inside
    assert int(region.sum()) == int(largest["area_px2"])
    assert float(largest["channel_2"]) == pytest.approx(float(np.nanmean(pixels[region][:, 1])), rel=1e-4)

    with pytest.raises(DataError, match="cut-outs are PNGs of gray or color photos; found a model of 4 channels"):
        d2tune.predict(run, None, out=tmp_path / "no", to="cutouts")


@pytest.mark.slow
def test_invalid_formats_and_options_are_refused_first(photo_run: Path, tmp_path: Path) -> None:
    source = save_photo(tmp_path / "a.png", 0)
    panoptic = tmp_path / "panoptic"
    shutil.copytree(photo_run, panoptic)
    record = json.loads((panoptic / "record.json").read_text("utf-8"))
    (panoptic / "record.json").write_text(json.dumps(record | {"task": "panoptic"}), encoding="utf-8")
    for run, options, message in (
        (
            photo_run,
            {"to": "coco"},
            "a semantic run cannot write this format; found coco; expected auto or label_maps or labelme or csv",
        ),
        (
            panoptic,
            {"to": "csv"},
            "a panoptic run cannot write this format; found csv; expected auto or coco_panoptic or labelme",
        ),
        (photo_run, {"min_score": 0.3}, "predictions of a semantic run have no scores"),
    ):
        with pytest.raises(DataError, match=message):
            d2tune.predict(run, source, out=tmp_path / "out", **options)
    nameless = changed_run(photo_run, tmp_path / "nameless", csv_preset=None)
    with pytest.raises(DataError, match=r"data\.csv_preset: the dialect of the CSV is not set.*carvana"):
        d2tune.predict(nameless, source, out=tmp_path / "out", to="csv")
    for name, message in (("gone", "the image or folder does not exist"), ("empty", "the folder has no images")):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(DataError, match=message):
            d2tune.predict(photo_run, tmp_path / name, out=tmp_path / "out")
        with pytest.raises(DataError, match=message):
            find_rasters(tmp_path / name, stacked=False)


PANOPTIC = """\
task: panoptic
data: {{root: {root}, background: ground}}
things: ['1']
stuff: [ground]
model: {{preset: panoptic_fpn_mobilenet_v2}}
weights: scratch
train: {{iterations: 1, batch_size: 1, image_size: 32, eval_every: 0, precision: float32}}
"""


@pytest.mark.slow
def test_segments_of_photos(photo_run: Path, tmp_path: Path) -> None:
    root = load_project(RunFolder(photo_run).project).project.data.root
    project = tmp_path / "panoptic.yaml"
    project.write_text(PANOPTIC.format(root=root), encoding="utf-8")
    run = d2tune.train(project, output_dir=tmp_path / "run").run
    loaded = load_run(run)
    val = make_plan(load_project(RunFolder(run).project), num_gpus=0, sample=False)[0].splits.val
    evaluator = task_of(loaded.project).evaluator(val, loaded.cfg, loaded.project)
    kept = evaluator.load(run)
    assert evaluator.save(kept, tmp_path / "again") == evaluator.digest(run) and len(kept) == 1
    assert evaluator.load(tmp_path / "again") == kept
    for seed, name in enumerate(("a.png", "a.jpg", "sub/b.png")):
        save_photo(tmp_path / "in" / name, seed)
    (tmp_path / "in" / "torn.jpg").write_bytes(b"\xff\xd8 torn")
    result = d2tune.predict(run, tmp_path / "in", out=tmp_path / "out")
    assert result.images == 3 and len(result.skipped) == 1 and "torn.jpg" in result.skipped[0]
    table = json.loads((tmp_path / "out" / "panoptic.json").read_text("utf-8"))
    assert [row["file_name"] for row in table["annotations"]] == ["a.jpg.png", "a.png.png", "sub/b.png"]
    segments = 0
    for image, row in zip(table["images"], table["annotations"], strict=True):
        with PilImage.open(tmp_path / "out" / "panoptic" / row["file_name"]) as photo:
            assert photo.mode == "RGB" and photo.size == (image["width"], image["height"])
            colors = np.asarray(photo).astype(int)
        ids = colors[..., 0] + 256 * colors[..., 1] + 65536 * colors[..., 2]
        areas = {info["id"]: info["area"] for info in row["segments_info"]}
        assert areas == {segment: int((ids == segment).sum()) for segment in np.unique(ids).tolist() if segment}
        assert (tmp_path / "out" / f"{image['file_name']}.predicted.jpg").is_file()
        segments += len(areas)
    assert result.instances == segments
    outlined = d2tune.predict(run, tmp_path / "in" / "sub", out=tmp_path / "outlined", to="labelme", tolerance_px=0)
    row = table["annotations"][2]
    document = json.loads((tmp_path / "outlined" / "b.json").read_text("utf-8"))
    names = {category["id"]: category["name"] for category in table["categories"]}
    assert outlined.instances == len(row["segments_info"])
    assert {item["label"] for item in document["shapes"]} == {
        names[info["category_id"]] for info in row["segments_info"]
    }
