"""What goes wrong is told in one line, with exit status 1, and leaves nothing half-written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision

from tests.system.commands import d2tune_here, refused


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


Attempt = Callable[..., str]


@pytest.fixture
def attempt(folder: Path) -> Attempt:
    """Tries to train, and gives the one line that refuses."""

    def one(*words: str) -> str:
        command = ("train", "--config", "bad.yaml", *words)
        line = refused(d2tune_here(*command, folder=folder))
        assert not (folder / "runs").exists(), "nothing may be written"
        return line

    return one


def first_json(folder: Path) -> Path:
    return sorted((folder / "data" / "train").glob("*.json"))[0]


def test_missing_config(folder: Path) -> None:
    line = refused(d2tune_here("train", "--config", "bat.yaml", folder=folder))
    assert "bat.yaml: no such project file. Did you mean bad.yaml?" in line


def test_unknown_key(folder: Path, attempt: Attempt) -> None:
    assert "Did you mean 'iterations'?" in attempt("train.iteration=5")
    assert "Did you mean 'SOLVER.BASE_LR'?" in attempt("SOLVER.BASE_RL=5")


def test_empty_folder(folder: Path, attempt: Attempt) -> None:
    shutil.rmtree(folder / "data" / "train")
    (folder / "data" / "train").mkdir()
    assert str(folder / "data" / "train") in attempt()


def test_label_outside_the_list(folder: Path, attempt: Attempt) -> None:
    line = attempt("classes=[ballon]")
    assert "unknown_label" in line and "Did you mean 'ballon'?" in line


def test_truncated_json(folder: Path, attempt: Attempt) -> None:
    path = first_json(folder)
    path.write_text(path.read_text(encoding="utf-8")[:200], encoding="utf-8")
    line = attempt()
    assert path.name in line and "bad_json" in line and "line" in line


def test_unreadable_image(folder: Path, attempt: Attempt) -> None:
    path = first_json(folder).with_suffix(".jpg")
    path.write_bytes(path.read_bytes()[:20])
    assert path.name in attempt()


def test_image_with_a_cut_off_end(folder: Path, attempt: Attempt) -> None:
    path = first_json(folder).with_suffix(".jpg")
    path.write_bytes(path.read_bytes()[:-2000])
    line = attempt()
    assert path.name in line and "truncated" in line


def test_no_instance_in_the_training_split(folder: Path, attempt: Attempt) -> None:
    for path in (folder / "data" / "train").glob("*.json"):
        content = json.loads(path.read_text(encoding="utf-8")) | {"shapes": []}
        path.write_text(json.dumps(content), encoding="utf-8")
    assert "the training split has no annotations" in attempt()


def test_weights_of_another_architecture(folder: Path, attempt: Attempt) -> None:
    torch.save(torchvision.models.resnet18().state_dict(), folder / "r18.pth")
    assert "r18.pth: these are the weights of another architecture" in attempt(f"weights={folder}/r18.pth")


def test_nothing_to_resume(folder: Path, attempt: Attempt) -> None:
    assert "nothing to resume" in attempt("--resume")


def test_output_folder_that_cannot_be_written(folder: Path, attempt: Attempt) -> None:
    (folder / "file").write_text("", encoding="utf-8")
    assert "cannot be written" in attempt("--output-dir", "file/run")


def test_settings_that_follow_from_the_data(folder: Path, attempt: Attempt) -> None:
    assert "It is derived from classes." in attempt("MODEL.ROI_HEADS.NUM_CLASSES", "80")


def test_a_device_that_is_not_there(folder: Path, attempt: Attempt) -> None:
    assert "cannot train on this device" in attempt("MODEL.DEVICE=tpu")


def test_more_gpus_than_there_are(folder: Path, attempt: Attempt) -> None:
    assert "--num-gpus: must be between 0 and" in attempt("--num-gpus", "99")


def test_evaluating_what_was_never_trained(folder: Path) -> None:
    assert "has no finished run" in refused(d2tune_here("eval", "bad.yaml", folder=folder))
    assert "is not a run folder" in refused(d2tune_here("eval", "data", folder=folder))
