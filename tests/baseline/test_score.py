"""``d2tune baseline`` on drawn images whose best method is known, and its row in a report."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

import d2tune.api as api
from d2tune.baseline.pixels import Scaling, choose
from d2tune.baseline.result import BaselineResult, BaselineRow, read_baseline
from d2tune.cli import main
from d2tune.errors import RunError
from d2tune.metrics.metric import Metric

SEMANTIC = """
task: semantic
name: blobs
data:
  root: data
  format: label_images
  label_images: {images: image, labels: label, values: {0: dark, 1: light}}
classes: [dark, light]
model: {preset: unet_2015}
weights: scratch
"""

INSTANCE = """
task: instance
name: balls
data: {root: balls, format: labelme}
classes: [ball]
model: {preset: pointrend_mobilenet_v2_fpn}
weights: scratch
"""


def make(folder: Path, split: str, seed: int) -> None:
    """Light disks on a dark ground, without a pixel in doubt, as label images and as Labelme files."""
    random = np.random.default_rng(seed)
    gray = random.integers(20, 60, (72, 96)).astype(np.uint8)
    truth = np.zeros(gray.shape, np.uint8)
    shapes = []
    for x in (18, 48, 78):
        y = int(random.integers(20, 50))
        cv2.circle(truth, (x, y), 9, 1, -1)
        shapes.append({"label": "ball", "shape_type": "circle", "points": [[x + 0.5, y + 0.5], [x + 9.8, y + 0.5]]})
    gray[truth == 1] = random.integers(180, 230, int(truth.sum()))
    for place, pixels in (("data/{}/image", gray), ("data/{}/label", truth), ("balls/{}", gray)):
        target = folder / place.format(split)
        target.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(target / f"{seed}.png"), pixels)
    content = {"shapes": shapes, "imagePath": f"{seed}.png", "imageHeight": 72, "imageWidth": 96, "imageData": None}
    (folder / "balls" / split / f"{seed}.json").write_text(json.dumps(content))


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for split, seeds in (("train", (1, 2, 3)), ("val", (4, 5))):
        for seed in seeds:
            make(tmp_path, split, seed)
    (tmp_path / "blobs.yaml").write_text(SEMANTIC)
    (tmp_path / "balls.yaml").write_text(INSTANCE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_label_maps(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["baseline", "blobs.yaml"]) == 0
    printed = capsys.readouterr().out
    result = read_baseline(work / "runs" / "blobs" / "baseline")
    assert result is not None
    by_name = {row.name: row for row in result.rows}
    assert list(by_name) and set(by_name) == {
        "otsu", "riddler-calvard", "multi-otsu", "li", "sauvola", "map", "mixtures",
    }  # fmt: skip
    for name in ("otsu", "riddler-calvard", "li"):
        assert by_name[name].main == Metric(100.0, low=100.0, high=100.0), name
        assert by_name[name].classes["light"].value == 100
    assert by_name["map"].main.value == pytest.approx(100, abs=8)
    assert result.images == 2 and result.metric == "mIoU"
    assert "Otsu" in printed and "100.0 (100.0 to 100.0)" in printed
    assert "The best classical method is" in printed
    assert api.baseline("blobs.yaml", methods=["otsu"]).rows[0].name == "otsu", "its own file is replaced"


def test_instances_are_connected_regions(work: Path) -> None:
    result = api.baseline("balls.yaml", methods=["otsu"])
    assert result.metric == "mask AP"
    assert result.rows[0].main.value is not None and result.rows[0].main.value > 60, (
        "a circle of Labelme is not OpenCV's"
    )
    assert result.rows[0].classes["ball"].value == result.rows[0].main.value


def test_a_persons_file_stays(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = work / "out" / "baseline.json"
    place.parent.mkdir()
    place.write_text("mine")
    assert main(["baseline", "blobs.yaml", "--methods", "otsu", "--out", "out"]) == 1
    assert "is not overwritten" in capsys.readouterr().err
    assert place.read_text() == "mine"


def test_mistakes(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["baseline", "blobs.yaml", "--methods", "otzu"]) == 1
    assert "otsu, riddler-calvard, multi-otsu, li, sauvola, map, mixtures" in capsys.readouterr().err


def row(name: str, low: float, high: float) -> BaselineRow:
    return BaselineRow(name, name, "", Metric((low + high) / 2, low=low, high=high), 1.0, {})


@pytest.mark.parametrize(
    ("span", "words"),
    [((70, 90), "these data need a network"), ((50, 80), "cannot be distinguished"), ((10, 20), "is not trained well")],
)
def test_the_answer(span: tuple[float, float], words: str) -> None:
    model = Path("runs/a"), Metric(sum(span) / 2, low=span[0], high=span[1])
    result = BaselineResult(Path("out"), "mIoU", 3, "0" * 64, (row("Otsu", 55, 65),), model)
    assert words in result.sentence
    assert "the network of runs/a" in result.table


def test_a_damaged_file(tmp_path: Path) -> None:
    (tmp_path / "baseline.json").write_text('{"schema": 1, "methods": [{}]}')
    with pytest.raises(RunError, match="is damaged"):
        read_baseline(tmp_path)
    assert read_baseline(tmp_path / "nowhere") is None


def test_gray_values_of_other_images_than_photos() -> None:
    scaling = Scaling(np.array([10.0, 0.0]), np.array([2.0, 1.0]))
    pixels = np.array([[[10.0, 0.0], [12.0, 1.0], [np.nan, 5.0], [-90.0, -50.0]]])
    # standardized means 0, 1, 2.5 and -50 from -3 to 3 become 0 to 255
    assert scaling.gray(pixels).tolist() == [[127, 170, 233, 0]]
    assert scaling.features(pixels)[0, 2].tolist() == [0, 5]


def test_images_with_objects_are_preferred_where_they_are_rare() -> None:
    rare = [at in (7, 500, 801) for at in range(900)]
    chosen = choose(rare, most=8, seed=0)
    assert {7, 500, 801} <= set(chosen) and len(chosen) == 8 and list(chosen) == sorted(chosen)
    assert sum(at % 2 for at in choose([at % 2 == 1 for at in range(900)], most=40, seed=0)) >= 30
    assert choose([True] * 900, most=40, seed=0) == choose([False] * 900, most=40, seed=0), "drawn from all"
    assert choose([False, True, False], most=40, seed=0) == (0, 1, 2)


def test_a_task_without_a_baseline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = "task: panoptic\nname: p\ndata: {root: .}\nthings: [a]\nstuff: [b]\nmodel: {preset: panoptic_fpn_r50}\n"
    (tmp_path / "p.yaml").write_text(project)
    assert main(["baseline", str(tmp_path / "p.yaml")]) == 1
    assert "classical methods predict nothing that a panoptic project is scored by" in capsys.readouterr().err
