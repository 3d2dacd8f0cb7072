"""Evaluating and comparing packages: as the run, and nothing is written into a package."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PilImage

import d2tune
from d2tune.errors import RunError
from d2tune.metrics.coco.summary import InstanceMetrics
from d2tune.packages.write import write_package
from tests.annotations.builders import labelme_value, shape
from tests.packages.builders import make_run

pytestmark = pytest.mark.usefixtures("without_plots")


def annotated(folder: Path) -> Path:
    """Two images with a bus and a road on each."""
    folder.mkdir(parents=True)
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 256, (48, 64, 3), dtype=np.uint8)
        PilImage.fromarray(pixels).save(folder / f"{number}.png")
        bus = shape([[5, 5], [30, 5], [30, 20], [5, 20]], "bus")
        road = shape([[0, 30], [64, 30], [64, 48], [0, 48]], "road")
        value = labelme_value(bus, road, image=f"{number}.png")
        (folder / f"{number}.json").write_text(json.dumps(value), encoding="utf-8")
    return folder


@pytest.mark.slow
def test_a_package_is_evaluated_and_compared_as_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    val = annotated(tmp_path / "photos" / "val")
    run = make_run(tmp_path)
    write_package(run, tmp_path / "model", thresholds="0.99")
    before = sorted(path.name for path in (tmp_path / "model").iterdir())
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    mine = d2tune.evaluate(tmp_path / "model", data=val)
    theirs = d2tune.evaluate(run, data=val)
    # the thresholds of a package do not change its metrics
    assert isinstance(mine.metrics, InstanceMetrics) and mine.metrics.classes[0].instances == 2
    assert mine.metrics == theirs.metrics
    assert mine.out.resolve().parent == tmp_path / "work" and mine.out.name.endswith("_model")
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == before
    compared = d2tune.compare(mine.out, theirs.out)
    assert compared.images == 2 and compared.metrics["segm AP"].difference == 0
    with pytest.raises(RunError, match=r"the evaluation does not exist.*d2tune eval .*model"):
        d2tune.compare(tmp_path / "model", theirs.out)
    write_package(run, tmp_path / "model", thresholds="0.5", force=True)
    d2tune.compare(mine.out, theirs.out)  # the weights and the config are the same
    shutil.move(tmp_path / "model", tmp_path / "gone")
    with pytest.raises(RunError, match="the run or the package of this evaluation is missing"):
        d2tune.compare(mine.out, theirs.out)


@pytest.mark.slow
def test_data_beside_a_package_are_its_validation_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path)
    write_package(run, tmp_path / "model")
    for split in ("train", "val"):
        annotated(tmp_path / "model" / "data" / split)
    for number in range(2):  # other images than those of the validation split
        PilImage.effect_noise((64, 48), 50 + number).convert("RGB").save(
            tmp_path / "model" / "data" / "train" / f"{number}.png"
        )
    monkeypatch.chdir(tmp_path)
    result = d2tune.evaluate(tmp_path / "model")
    assert result.metrics.images == 2 and result.out == Path("evaluation_model")
    compared = d2tune.compare(tmp_path / "model", tmp_path / "model")
    assert compared.metrics["segm AP"].difference == 0
    (tmp_path / "model" / "data" / "val" / "0.json").unlink()
    with pytest.raises(RunError, match="the data changed after the evaluation"):
        d2tune.compare(tmp_path / "model", tmp_path / "model")
