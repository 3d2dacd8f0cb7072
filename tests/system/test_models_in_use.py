"""Models of every task in use: packaged, moved, predicted with, exported, filmed and evaluated."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import d2tune
from d2tune.cli import main
from d2tune.inference.results import Detections, LabelMap, PanopticMap
from tests.engine.test_tasks import raster_project
from tests.packages.builders import make_run
from tests.packages.test_evaluate import annotated

pytestmark = pytest.mark.usefixtures("without_plots")


@dataclass(frozen=True)
class Case:
    """A model and what it offers.

    Attributes:
        make: Makes a run and its validation data in a folder.
        to: Two formats of predictions.
        files: A file of each.
        windows: Whether images are predicted in windows on demand; otherwise the model does so by itself.
        video: Whether the model takes videos.
    """

    make: Callable[[Path], tuple[Path, Path]]
    to: str
    files: tuple[str, str]
    package: tuple[str, ...] = ()
    windows: bool = True
    video: bool = True


def random_weights(task: str) -> Callable[[Path], tuple[Path, Path]]:
    return lambda folder: (make_run(folder, task), annotated(folder / "photos" / "val"))


def deeplab(folder: Path) -> tuple[Path, Path]:
    """A DeepLabv3 of the bridge, trained for an iteration."""
    annotated(folder / "photos" / "train")
    for path in sorted(annotated(folder / "photos" / "val").glob("*.png")):
        cv2.imwrite(str(path), np.rot90(pixels_of(path), 2))
    project = folder / "deeplab.yaml"
    project.write_text(
        f"task: semantic\ndata: {{root: {folder / 'photos'}}}\nclasses: [bus, road]\n"
        "model: {preset: deeplab_v3_mobilenet_v2}\nweights: scratch\n"
        "train: {iterations: 1, batch_size: 2, image_size: 64, eval_every: 0, precision: float32}\n",
        encoding="utf-8",
    )
    return d2tune.train(project, output_dir=folder / "run").run, folder / "photos" / "val"


def pixels_of(path: Path) -> NDArray[np.uint8]:
    return np.asarray(cv2.imread(str(path)), np.uint8)


def five_channels(folder: Path) -> tuple[Path, Path]:
    """A U-Net on rasters of five channels in their own size, trained for two iterations."""
    project = raster_project(folder, channels=5, iterations=2)
    return d2tune.train(project, output_dir=folder / "run").run, folder / "data" / "val"


CASES = {
    "instance": Case(
        random_weights("instance"),
        "rle,labelme",
        ("results.json", "0.json"),
        package=("--thresholds", "0.1"),
    ),
    "semantic FPN": Case(random_weights("semantic"), "label_maps,labelme", ("labels/0.png", "0.json")),
    "panoptic": Case(random_weights("panoptic"), "coco_panoptic,labelme", ("panoptic.json", "0.json")),
    "bridge, DeepLab": Case(deeplab, "label_maps,measurements", ("labels/0.png", "measurements.csv")),
    "bridge, rasters": Case(
        five_channels, "label_maps,measurements", ("labels/scene_3.tif", "measurements.csv"), windows=False, video=False
    ),
}


@pytest.mark.extended
@pytest.mark.parametrize("name", CASES)
def test_a_model_is_packaged_moved_and_used(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[name]
    run, data = case.make(tmp_path / "home")
    use("package", run, "--out", tmp_path / "home" / "package", *case.package)
    away = tmp_path / "away"
    away.mkdir()
    shutil.move(tmp_path / "home" / "package", away / "model")
    shutil.move(data, away / "data")
    shutil.rmtree(tmp_path / "home")
    monkeypatch.chdir(away)
    source = away / "data" / "images" if (away / "data" / "images").is_dir() else away / "data"
    images = sorted(path for path in source.iterdir() if path.suffix in (".png", ".npy"))

    use("predict", "model", source, "--to", case.to, "--out", "predictions")
    for file in case.files:
        assert (away / "predictions" / file).stat().st_size
    predictor = d2tune.load_predictor(away / "model")
    expected = [predictor(path) for path in images]
    assert any(map(size_of_result, expected))
    in_windows(case, images, expected)
    if case.video:
        on_video(away, images)

    exported = away / "exported"
    use("export", "model", "--format", "onnx", "--out", exported, "--check", away / "data")
    with_onnx = d2tune.load_predictor(exported)
    for path, one in zip(images, expected, strict=True):
        assert_close(with_onnx(path), one)
    if case.windows:
        mine, theirs = (d2tune.load_predictor(model, window_px=40) for model in (exported, away / "model"))
        assert_close(mine(images[0]), theirs(images[0]))
    of_package, of_exported = (evaluated(away, path, away / "data", path.name) for path in (away / "model", exported))
    assert of_package.keys() == of_exported.keys()
    assert [key for key in of_package if abs((of_exported[key] or 0) - (of_package[key] or 0)) > 0.1] == []


def use(*words: object) -> None:
    """Run a command that must end well."""
    assert main([str(word) for word in words]) == 0


def evaluated(folder: Path, model: Path, data: Path, name: str) -> dict[str, float | None]:
    """All values of an evaluation by name."""
    out = folder / f"evaluation_of_{name}"
    use("eval", model, "--data", data, "--out", out)
    values: dict[str, float | None] = {}

    def collect(place: str, content: Any) -> None:
        if isinstance(content, dict) and "value" in content:
            values[place] = content["value"]
        elif isinstance(content, dict):
            for key, inner in content.items():
                collect(f"{place} {key}", inner)

    collect("", json.loads((out / "evaluation.json").read_text(encoding="utf-8"))["metrics"])
    assert len(values) >= 3
    return values


def size_of_result(result: Detections | LabelMap | PanopticMap) -> int:
    """Number of detections, of segments, or of classes that are there."""
    if isinstance(result, Detections):
        return len(result)
    return len(result.segments) if isinstance(result, PanopticMap) else len(np.unique(result.class_ids))


def in_windows(case: Case, images: list[Path], whole: list[Any]) -> None:
    """Windows smaller than the image give results of its size."""
    use("predict", "model", images[0], "--window-px", "40", "--to", case.to.split(",")[0], "--out", "windows")
    result = d2tune.load_predictor("model", window_px=40)(images[0])
    assert (result.height_px, result.width_px) == (whole[0].height_px, whole[0].width_px)
    assert size_of_result(result)


def on_video(folder: Path, images: list[Path]) -> None:
    """Six frames are predicted on."""
    clip = cv2.VideoWriter(str(folder / "clip.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 5, (64, 48))  # type: ignore[attr-defined]
    pixels = cv2.resize(pixels_of(images[0]), (64, 48))
    for shift in range(6):
        clip.write(np.roll(pixels, shift, axis=1))
    clip.release()
    use("predict", "model", "clip.mp4", "--out", "film")
    assert len(json.loads((folder / "film" / "frames.json").read_text(encoding="utf-8"))["images"]) == 6


def assert_close(exported: Any, expected: Any) -> None:
    """The same instances, or nearly all pixels the same."""
    if isinstance(expected, Detections):
        assert len(exported) == len(expected)
        np.testing.assert_allclose(exported.scores, expected.scores, atol=1e-3)
        assert np.array_equal(exported.class_ids, expected.class_ids)
        np.testing.assert_allclose(exported.boxes_xyxy, expected.boxes_xyxy, atol=0.01)
        for mine, theirs in zip(exported.masks, expected.masks, strict=True):
            assert (mine & theirs).sum() >= 0.999 * (mine | theirs).sum()
        return
    mine, theirs = (one.class_ids if isinstance(one, LabelMap) else one.segment_ids for one in (exported, expected))
    assert np.mean(mine == theirs) >= 0.999
