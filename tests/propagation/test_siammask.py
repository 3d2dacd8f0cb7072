"""SiamMask as a method of propagation: which models it takes, and what it gives of each frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from d2tune import files
from d2tune.errors import ProjectError, RunError, WeightsError
from d2tune.modeling.build import build_model
from d2tune.modeling.config import DataFacts, project_config
from d2tune.project import Data, Model, Project
from d2tune.propagation.methods import METHODS, method_named
from d2tune.propagation.methods.base import Reference
from d2tune.propagation.methods.siammask import SiamMaskTracking, confidence
from d2tune.run_folder import RunFolder
from tests.inference.test_object_tracker import ColorNetwork, frame
from tests.runs.random_runs import _record, random_run

RED = (220, 30, 30)


def tracking_run(folder: Path) -> Path:
    """A run of a tracking project with random weights."""
    facts = DataFacts(class_names=("a", "b"), train_images=9, has_rle=True, train_name="t", val_name="v")
    project = Project(
        name="random",
        task="tracking",
        data=Data(root=folder),
        model=Model(preset="siammask_mobilenet_v2"),
        classes=("a", "b"),
    )
    cfg = project_config(project, facts, scratch=True, device="cpu")
    torch.manual_seed(3)
    run = RunFolder(folder)
    run.best.parent.mkdir(parents=True)
    torch.save({"model": build_model(cfg)[0].state_dict()}, run.best)
    files.write_text(run.config, cfg.dump())
    files.write_text(run.project, project.to_yaml())
    files.write_json(run.record, _record("tracking"))
    return folder


def frames(count: int) -> tuple[list[NDArray[np.uint8]], list[NDArray[np.bool_]]]:
    """Frames with a red rectangle that moves, and its masks."""
    pairs = [frame((40 + 6 * at, 60, 40, 30, RED)) for at in range(count)]
    return [image for image, _ in pairs], [masks[1] for _, masks in pairs]


def test_all_frames_but_references_and_finished_ones_are_given_once(tmp_path: Path) -> None:
    images, masks = frames(9)
    method = method_named("siammask", weights=str(tracking_run(tmp_path / "run")))
    assert method.name == "siammask" and method.name in METHODS
    references = [Reference(2, {1: masks[2], 4: masks[2][::-1]}), Reference(7, {1: masks[7]})]
    given = list(method.propagate(images, references, finished={0: {}, 3: {1: masks[3]}}))
    assert sorted(one.index for one in given) == [1, 4, 5, 6, 8]
    for one in given:
        assert set(one.confidences) == {1, 4} and all(0 <= value <= 1 for value in one.confidences.values())
        assert set(one.masks) <= ({1, 4} if one.index <= 4 else {1})
        assert all(mask.shape == (240, 320) and mask.any() for mask in one.masks.values())
        assert np.sum(list(one.masks.values()), axis=0).max(initial=0) <= 1


def test_a_project_file_names_its_latest_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = "task: tracking\ndata: {root: .}\nclasses: [a, b]\nmodel: {preset: siammask_mobilenet_v2}\n"
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(RunError, match="the project has no finished run"):
        method_named("siammask", weights="mine.yaml")
    tracking_run(tmp_path / "runs" / "mine" / "2026-01-31_12-00-00")
    assert method_named("siammask", weights="mine.yaml").name == "siammask"


def test_masks_and_confidence_of_an_exact_network(tmp_path: Path) -> None:
    images, masks = frames(9)
    method: Any = SiamMaskTracking(str(tracking_run(tmp_path / "run")))
    method._model = ColorNetwork()
    given = {one.index: one for one in method.propagate(images, [Reference(4, {3: masks[4]})], finished={})}
    assert set(given) == set(range(9)) - {4}
    for index, one in given.items():
        overlap = np.count_nonzero(one.masks[3] & masks[index]) / np.count_nonzero(one.masks[3] | masks[index])
        assert overlap > 0.93 and one.confidences[3] > 0.8


def test_confidence_by_hand() -> None:
    from d2tune.data.tracking_crops import ObjectBox
    from d2tune.inference.object_tracker import Tracked

    probability = np.zeros((4, 4), np.float32)
    probability[:2] = 0.9
    probability[2] = 0.4
    # two rows of |2 * 0.9 - 1| = 0.8 and one of 0.2; the fourth is far from the object
    tracked = Tracked(probability, ObjectBox(2, 1, 4, 2), 0.5)
    assert confidence(tracked) == pytest.approx(0.5 * (8 * 0.8 + 4 * 0.2) / 12)
    assert confidence(Tracked(np.zeros((4, 4), np.float32), ObjectBox(2, 1, 4, 2), 0.5)) == 0.0


def test_what_is_not_a_tracking_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="--method siammask needs a trained model"):
        method_named("siammask")
    with pytest.raises(RunError, match=r"does not follow objects; found task: semantic"):
        method_named("siammask", weights=str(random_run(tmp_path / "semantic", "semantic")))
    torch.save({"features.0.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"other.pth.*not SiamMask's published weights"):
        method_named("siammask", weights=str(tmp_path / "other.pth"))
    with pytest.raises(WeightsError, match="does not exist"):
        method_named("siammask", weights=str(tmp_path / "none.pth"))


@pytest.mark.extended
def test_a_published_file_follows_objects(tmp_path: Path) -> None:
    from tests.modeling.test_siammask import published

    torch.save({"state_dict": published()}, tmp_path / "SiamMask.pth")
    images, masks = frames(2)
    (given,) = method_named("siammask", weights=str(tmp_path / "SiamMask.pth")).propagate(
        images, [Reference(0, {1: masks[0]})], finished={}
    )
    assert given.index == 1 and set(given.confidences) == {1}
