"""Images once and predictions that refer to them, in the files of an offline run."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from wandb.proto.wandb_internal_pb2 import Record

from d2tune.loggers import wandb_file
from d2tune.loggers.base import LoggedFile
from d2tune.loggers.exhibits import Gallery
from d2tune.loggers.wandb import Wandb
from d2tune.loggers.wandb_file import LoggedArtifact, WandbFile
from d2tune.report.labeled_image import LabeledImage, LabeledPrediction, decode, encode_labels, labeled_image
from d2tune.run_folder import RunFolder
from tests.loggers.read_back import finished_wandb
from tests.loggers.test_family import run_info

IMAGES = 6
CLASSES = tuple(f"class {number}" for number in range(200))
"""So many that labels above 127 are needed, which W&B's own encoding of mask arrays gets wrong."""


def photo(seed: int) -> np.ndarray:
    """Noise of several sizes, ``(1200, 1600, 3)``: about as many bytes as a photo when compressed."""
    rng = np.random.default_rng(seed)
    sizes = ((6, 8), (60, 80), (600, 800))
    layers = [cv2.resize(rng.uniform(0, 255, (*size, 3)).astype(np.float32), (1600, 1200)) for size in sizes]
    return (0.5 * layers[0] + 0.35 * layers[1] + 0.15 * layers[2]).astype(np.uint8)


def labels(at: int, label: int) -> np.ndarray:
    """A disk of one class, ``(1200, 1600)``."""
    canvas = np.zeros((1200, 1600), np.uint8)
    return cv2.circle(canvas, (300 + at, 500), 200, label, -1)


def gallery(images: list[LabeledImage], shift: int) -> Gallery:
    """Predictions of all images, the last one first."""
    pngs = [encode_labels(labels(100 * at + shift, 180), (1000, 750)) for at in range(IMAGES)]
    rows = [(image, LabeledPrediction(png, 50.0, 1, 1)) for image, png in zip(images, pngs, strict=True)]
    return Gallery("split", CLASSES, rows[::-1], images)


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WandbFile]:
    """A run with two galleries and a model, copied to another place; the first place is gone."""
    home = tmp_path_factory.mktemp("home")
    run = home / "runs" / "circles" / "first"
    images = [labeled_image(f"photos/{at}.jpg", photo(at), labels(100 * at, 180)) for at in range(IMAGES)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.setenv("WANDB_MODE", "offline")
        RunFolder(run).update_record({"project": "circles", "data": {"val_sha256": "abc"}})
        (run / "checkpoints").mkdir()
        (run / "checkpoints" / "model_best.pth").write_bytes(bytes(50_000))
        logger = Wandb()
        logger.start(run_info(run, first_iteration=0))
        for iteration, shift in ((0, 40), (1, 10)):
            logger.log_images({"predictions": gallery(images, shift)}, iteration=iteration)
        best = LoggedFile(run / "checkpoints" / "model_best.pth", "model_best", "model", ("best",), {"segm/AP": 12.5})
        logger.log_file(best, iteration=1)
        logger.finish()
    finished_wandb(*wandb_file.files_of(run))
    assert {path.name for path in home.iterdir()} == {"runs"}
    other = tmp_path_factory.mktemp("other") / "copied"
    shutil.move(run, other)
    shutil.rmtree(home)
    yield wandb_file.read(*wandb_file.files_of(other))
    shutil.rmtree(other)


def artifacts(content: WandbFile, kind: str) -> list[LoggedArtifact]:
    return [one for one in content.artifacts if one.type == kind]


def own_bytes(artifact: LoggedArtifact, name: str) -> bytes:
    """The content of a file of an artifact."""
    (file,) = (one for one in artifact.files if one.name == name)
    assert file.local is not None
    return file.local.read_bytes()


def test_a_copied_run_has_every_file_of_its_artifacts(logged: WandbFile) -> None:
    files = [file for artifact in logged.artifacts for file in artifact.files if not file.reference]
    assert len(files) > 2 * IMAGES
    assert all(file.is_present() for file in files)


def test_images_are_logged_once_as_an_input_and_predictions_refer_to_them(logged: WandbFile) -> None:
    (data,) = artifacts(logged, "dataset")
    assert data.name == "circles-validation" and data.is_input
    assert data.metadata["data"] == {"val_sha256": "abc"}
    names = {file.name for file in data.files}
    assert sum(name.endswith(".jpg") for name in names) == IMAGES
    first, second = artifacts(logged, "predictions")
    for predictions in (first, second):
        assert not predictions.is_input
        references = [file.reference for file in predictions.files if file.reference]
        start = f"wandb-client-artifact://{data.client_id}/"
        assert len(references) == 2 * IMAGES
        assert {reference.removeprefix(start) for reference in references} <= names


def test_a_table_of_predictions_takes_a_twentieth_of_the_images(logged: WandbFile) -> None:
    (data,) = artifacts(logged, "dataset")
    sizes = [one.size_bytes for one in artifacts(logged, "predictions")]
    print(f"images {data.size_bytes:,} bytes, tables of predictions {sizes}")
    assert max(sizes) <= 0.05 * data.size_bytes


def test_rows_have_masks_of_both_sides_with_all_labels_and_the_worst_is_first(logged: WandbFile) -> None:
    (data,) = artifacts(logged, "dataset")
    predictions = artifacts(logged, "predictions")[0]
    table = json.loads(own_bytes(predictions, "predictions.table.json"))
    assert table["columns"] == ["image", "score", "file", "annotated", "predicted"]
    assert [row[2] for row in table["data"]] == [f"photos/{at}.jpg" for at in reversed(range(IMAGES))]
    masks = table["data"][0][0]["masks"]
    assert set(masks) == {"ground truth", "prediction"}
    truth = decode(own_bytes(data, masks["ground truth"]["path"]))
    predicted = decode(own_bytes(predictions, masks["prediction"]["path"]))
    assert truth.shape == predicted.shape == (750, 1000)
    assert np.unique(truth).tolist() == np.unique(predicted).tolist() == [0, 180]
    assert (truth != predicted).any()
    classes = json.loads(own_bytes(predictions, table["data"][0][0]["classes"]["path"]))
    assert {one["name"] for one in classes["class_set"] if one["id"] == 180} == {"class 179"}


def test_a_model_has_its_aliases_and_is_not_copied(logged: WandbFile) -> None:
    (model,) = artifacts(logged, "model")
    assert set(model.aliases) == {"best", "latest"} and not model.is_input
    assert model.metadata == {"iteration": 1, "segm/AP": 12.5}
    (file,) = model.files
    run = logged.path.parent.parent.parent
    assert file.local == run / "checkpoints" / "model_best.pth" and file.size_bytes == 50_000
    assert all(path.stat().st_size != 50_000 for path in (run / "wandb").rglob("*"))


def test_a_moved_run_notes_where_its_files_are_now(logged: WandbFile, tmp_path: Path) -> None:
    """As ``wandb sync`` needs it, which looks for the files at the paths that are noted."""
    run = logged.path.parent.parent.parent
    copied = tmp_path / "copied"
    shutil.copytree(run, copied)
    own = [file for artifact in logged.artifacts for file in artifact.files if not file.reference]
    assert wandb_file.relocate(copied) == len(own)
    (path,) = wandb_file.files_of(copied)
    assert wandb_file.relocate(copied) == 0
    noted = [entry.local_path for entry in manifest_entries(path) if entry.local_path]
    assert len(noted) == len(own) and all(Path(one).is_relative_to(copied) and Path(one).is_file() for one in noted)
    again = wandb_file.read(path)
    assert again.records == viewed(path)[0] == logged.records
    assert (again.history, again.config, again.summary) == (logged.history, logged.config, logged.summary)


def manifest_entries(path: Path) -> list[Any]:
    messages = [Record.FromString(content) for content in wandb_file.records_of(path)]
    return [entry for message in messages for entry in message.artifact.manifest.contents]


def viewed(path: Path) -> tuple[Counter[str], list[int]]:
    """What W&B's own viewer lists: the number of records of each type, and the steps of the history."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    steps = [int(row["history"]["step"]["num"]) for row in rows if row["type"] == "history"]
    return Counter(row["type"] for row in rows), steps


def test_wandbs_own_viewer_counts_the_same_records(logged: WandbFile) -> None:
    counts, steps = viewed(logged.path)
    assert logged.records == counts
    assert steps == [step for step, _ in logged.history] == [1, 2]
