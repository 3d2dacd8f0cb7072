"""Each task is an object, and no code outside it compares the name of a task."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import d2tune
from d2tune.errors import DataError
from d2tune.project import Data, Project
from d2tune.tasks import TASKS, task_of

PACKAGE = Path(d2tune.__file__).parent
MAY_COMPARE = ("tasks/", "project/schema.py")
NAMES = {"instance", "semantic", "panoptic"}
"""The tasks that predict on images alone."""


def comparisons(source: str) -> list[int]:
    """Lines that compare a task with the name of a task."""
    if "task" not in source or not any(name in source for name in TASKS):
        return []
    lines = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare):
            inside = [inner for side in (node.left, *node.comparators) for inner in ast.walk(side)]
            names = {getattr(inner, "id", getattr(inner, "attr", None)) for inner in inside}
            constants = {inner.value for inner in inside if isinstance(inner, ast.Constant)}
            if "task" in names and constants & set(TASKS):
                lines.append(node.lineno)
    return lines


def test_no_code_outside_compares_tasks() -> None:
    outside = [
        f"{path.relative_to(PACKAGE)}:{line}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if not path.relative_to(PACKAGE).as_posix().startswith(MAY_COMPARE)
        for line in comparisons(path.read_text(encoding="utf-8"))
    ]
    assert outside == []


def test_the_search_detects_comparisons() -> None:
    source = "a = project.task == 'instance'\nb = task in ('semantic', 'y')\nc = to == 'panoptic'"
    assert comparisons(source) == [1, 2]


@pytest.mark.parametrize("name", sorted(NAMES))
def test_formats_and_options_of_each_task(name: str, tmp_path: Path) -> None:
    classes = {"things": ("car",), "stuff": ("road",)} if name == "panoptic" else {"classes": ("car", "road")}
    project = Project(name="p", task=name, data=Data(root=tmp_path, csv_preset="airbus"), **classes)
    task = task_of(project)
    assert task is TASKS[name] and task.name == name
    for to in ("auto", *task.writers):
        task.check_output(to, None, project)
    with pytest.raises(DataError, match=f"an? {name} run cannot write this format; found xml"):
        task.check_output("xml", None, project)
    if task.has_scores:
        task.check_output("auto", 0.3, project)
    else:
        with pytest.raises(DataError, match=f"predictions of a {name} run have no scores"):
            task.check_output("auto", 0.3, project)
    assert next(iter(task.writers)) != "labelme" and "labelme" in task.writers


def test_tracking_gives_no_files_of_images(tmp_path: Path) -> None:
    project = Project(name="p", task="tracking", data=Data(root=tmp_path, frames=True), classes=("car",))
    task = task_of(project)
    assert task is TASKS["tracking"] and task.follows_objects and not task.writers
    with pytest.raises(DataError, match=r"outlined in a frame of a video\. Use d2tune track"):
        task.check_output("auto", None, project)
