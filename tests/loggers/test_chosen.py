"""Which loggers a project gets, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import d2tune
from d2tune.errors import ProjectError
from d2tune.loggers import chosen


@pytest.mark.parametrize(
    ("tracking", "names"),
    [
        ("none", ["JsonLines", "TensorBoard"]),
        ("wandb", ["JsonLines", "TensorBoard", "Queued"]),
        ("mlflow", ["JsonLines", "TensorBoard", "Queued"]),
        ("trackio", ["JsonLines", "TensorBoard", "Queued"]),
    ],
)
def test_loggers_of_a_project(tracking: str, names: list[str], tiny_project: Path) -> None:
    project = d2tune.load_project(tiny_project, overrides=[f"tracking={tracking}"]).project
    loggers = chosen.loggers_of(project)
    assert [type(one).__name__ for one in loggers] == names
    assert [one.takes_galleries for one in loggers] == [False, False, True][: len(names)]


def test_a_logger_that_is_not_installed_is_refused_before_anything_is_written(
    tiny_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "trackio", None)  # as Python marks a module that cannot be imported
    project = d2tune.load_project(tiny_project, overrides=["tracking=trackio"])
    with pytest.raises(ProjectError, match=r"tracking: trackio is not installed.*pip install 'd2tune\[trackio\]'"):
        d2tune.train(project, output_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_unknown_logger(tiny_project: Path) -> None:
    with pytest.raises(ProjectError, match="Did you mean 'trackio'"):
        d2tune.load_project(tiny_project, overrides=["tracking=trakio"])


@pytest.mark.parametrize(
    ("overrides", "group"),
    [
        ([], None),
        (["tracking_group=rates"], "rates"),
        (["data.train=splits/fold3/train.txt", "data.val=splits/fold3/val.txt"], "tiny-folds"),
        (["data.train=splits/fold3/train.txt", "tracking_group=mine"], "mine"),
        (["data.train=fold/train.txt"], None),
    ],
)
def test_folds_of_a_split_and_sweeps_are_groups(overrides: list[str], group: str | None, tiny_project: Path) -> None:
    assert chosen.group_of(d2tune.load_project(tiny_project, overrides=overrides).project) == group
