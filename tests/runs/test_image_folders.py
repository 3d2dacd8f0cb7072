"""A run on COCO's own layout, and its evaluation on annotations whose images are elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from d2tune import api
from d2tune.cli import main
from d2tune.errors import DataError
from tests.annotations.builders import photo
from tests.data.test_image_folders import coco_file

pytestmark = pytest.mark.usefixtures("without_plots")

PROJECT = """\
classes: [car]
data: {root: ., train: annotations/instances_train2017.json, val: annotations/instances_val2017.json}
model: {preset: pointrend_mobilenet_v2_fpn}
weights: scratch
train: {iterations: 1, batch_size: 1, image_size: 64, precision: float32, workers: 0}
detectron2: {TEST.DETECTIONS_PER_IMAGE: 3}
"""


def test_a_run_on_the_layout_of_coco_and_its_evaluation_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for subset, name in (("train2017", "000001.png"), ("val2017", "000002.png")):
        coco_file(tmp_path / "annotations" / f"instances_{subset}.json", name)
        photo(tmp_path / subset / name)
    (tmp_path / "mine.yaml").write_text(PROJECT, "utf-8")
    run = tmp_path / "run"
    api.train(tmp_path / "mine.yaml", output_dir=run, num_gpus=0)
    assert json.loads((run / "evaluation.json").read_bytes())["metrics"]

    apart, photos = tmp_path / "apart" / "x.json", tmp_path / "photos"
    coco_file(apart, "000003.png")
    photo(photos / "000003.png")
    with pytest.raises(DataError, match=r"000003\.png.*Name the folder of the images with --image-root"):
        api.evaluate(run, data=apart)
    assert main(["eval", str(run), "--data", str(apart), "--image-root", str(photos)]) == 0
    assert "1 other image" in capsys.readouterr().out
    assert api.evaluate(run, image_root=tmp_path / "val2017", out=tmp_path / "again").out == tmp_path / "again"
    with pytest.raises(DataError, match=r"nowhere: the folder of images does not exist"):
        api.evaluate(run, data=apart, image_root=tmp_path / "nowhere")
    assert main(["eval", "--predictions", "p.json", "--ground-truth", "t.json", "--image-root", str(photos)]) == 1
    assert "Remove RUN, --data, --image-root" in capsys.readouterr().err
