import json
from pathlib import Path

import pytest

import d2tune
from tests.engine.test_tasks import raster_project, street_project


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_evaluating_and_predicting_on_a_gpu(
    tiny_project: Path, balloon_sample: Path, tmp_path: Path, precision: str
) -> None:
    overrides = [f"train.precision={precision}", "train.workers=2"]
    result = d2tune.train(tiny_project, output_dir=tmp_path / "run", overrides=overrides, num_gpus=1)
    record = json.loads((result.run / "record.json").read_text(encoding="utf-8"))
    assert record["machine"]["precision"] == precision and record["machine"]["device"] != "cpu"
    assert result.metrics.segm["AP"].value is not None
    assert d2tune.evaluate(result.run).metrics.images == result.metrics.images
    assert d2tune.predict(result.run, balloon_sample / "val", out=tmp_path / "found").images == result.metrics.images


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_label_maps_on_a_gpu(tmp_path: Path, precision: str) -> None:
    project = raster_project(tmp_path)
    overrides = [f"train.precision={precision}", "train.workers=2"]
    result = d2tune.train(project, output_dir=tmp_path / "run", overrides=overrides, num_gpus=1)
    assert result.metrics.main.value is not None and result.metrics.main.value > 80
    prediction = d2tune.predict(result.run, tmp_path / "data/val/images", out=tmp_path / "found")
    assert prediction.images == 1 and (tmp_path / "found/labels/scene_3.tif").is_file()


@pytest.mark.gpu
def test_segments_on_a_gpu(tmp_path: Path) -> None:
    project, _ = street_project(tmp_path)
    result = d2tune.train(project, output_dir=tmp_path / "run", num_gpus=1)
    assert result.metrics.main.value is not None
    assert d2tune.evaluate(result.run).metrics.images == result.metrics.images
