"""What goes wrong is told in one line, with exit status 1, and leaves nothing half-written."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import torchvision

from tests.system.commands import d2tune, refused, train_net


@pytest.fixture
def folder(balloon_sample: Path, tmp_path: Path) -> Path:
    shutil.copytree(balloon_sample, tmp_path / "data")
    project = (
        "name: bad\ndata: {root: data}\nclasses: [balloon]\nweights: scratch\n"
        "model: {preset: pointrend_mobilenet_v2_fpn}\n"
        "train: {iterations: 2, batch_size: 2, image_size: 64, precision: float32}\n"
    )
    (tmp_path / "bad.yaml").write_text(project, encoding="utf-8")
    return tmp_path


def attempt(folder: Path, *words: str) -> str:
    line = refused(train_net("--config", "bad.yaml", *words, folder=folder))
    assert not (folder / "runs").exists(), "nothing may be written"
    return line


def first_json(folder: Path) -> Path:
    return sorted((folder / "data" / "train").glob("*.json"))[0]


def test_missing_config(folder: Path) -> None:
    line = refused(train_net("--config", "bat.yaml", folder=folder))
    assert "bat.yaml: no such project file. Did you mean bad.yaml?" in line


def test_unknown_key(folder: Path) -> None:
    assert "Did you mean 'iterations'?" in attempt(folder, "train.iteration=5")
    assert "Did you mean 'SOLVER.BASE_LR'?" in attempt(folder, "SOLVER.BASE_RL=5")


def test_empty_folder(folder: Path) -> None:
    shutil.rmtree(folder / "data" / "train")
    (folder / "data" / "train").mkdir()
    assert str(folder / "data" / "train") in attempt(folder)


def test_label_outside_the_list(folder: Path) -> None:
    line = attempt(folder, "classes=[ballon]")
    assert "unknown_label" in line and "Did you mean 'ballon'?" in line


def test_truncated_json(folder: Path) -> None:
    path = first_json(folder)
    path.write_text(path.read_text(encoding="utf-8")[:200], encoding="utf-8")
    line = attempt(folder)
    assert path.name in line and "bad_json" in line and "line" in line


def test_unreadable_image(folder: Path) -> None:
    path = first_json(folder).with_suffix(".jpg")
    path.write_bytes(path.read_bytes()[:20])
    assert path.name in attempt(folder)


def test_image_with_a_cut_off_end(folder: Path) -> None:
    path = first_json(folder).with_suffix(".jpg")
    path.write_bytes(path.read_bytes()[:-2000])
    line = attempt(folder)
    assert path.name in line and "truncated" in line


def test_no_instance_in_the_training_part(folder: Path) -> None:
    for path in (folder / "data" / "train").glob("*.json"):
        content = json.loads(path.read_text(encoding="utf-8")) | {"shapes": []}
        path.write_text(json.dumps(content), encoding="utf-8")
    assert "no instance in the training part" in attempt(folder)


def test_weights_of_another_architecture(folder: Path) -> None:
    torch.save(torchvision.models.resnet18().state_dict(), folder / "r18.pth")
    assert "r18.pth: these are the weights of another architecture" in attempt(folder, f"weights={folder}/r18.pth")


def test_nothing_to_resume(folder: Path) -> None:
    assert "nothing to resume" in attempt(folder, "--resume")


def test_output_folder_that_cannot_be_written(folder: Path) -> None:
    (folder / "file").write_text("", encoding="utf-8")
    assert "cannot be written" in attempt(folder, "--output-dir", "file/run")


def test_settings_that_follow_from_the_data(folder: Path) -> None:
    assert "It follows from classes." in attempt(folder, "MODEL.ROI_HEADS.NUM_CLASSES", "80")


def test_a_device_that_is_not_there(folder: Path) -> None:
    assert "cannot train on this device" in attempt(folder, "MODEL.DEVICE=tpu")


def test_more_gpus_than_there_are(folder: Path) -> None:
    assert "--num-gpus: 99 GPUs are asked for" in attempt(folder, "--num-gpus", "99")


def test_evaluating_what_was_never_trained(folder: Path) -> None:
    assert "has no finished run" in refused(d2tune("eval", "bad.yaml", folder=folder))
    assert "is no run folder" in refused(d2tune("eval", "data", folder=folder))
