"""Each task is one object, and nothing outside it asks which task it is."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import d2tune
from d2tune.errors import DataError
from d2tune.project import Data, Project
from d2tune.tasks import TASKS, task_of

PACKAGE = Path(d2tune.__file__).parent
KNOWS_TASKS = ("tasks/", "project/schema.py")
NAMES = {"instance", "semantic", "panoptic"}


def asked(tree: ast.AST) -> list[int]:
    """Lines that compare a task with the name of one."""
    lines = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            inside = [part for side in (node.left, *node.comparators) for part in ast.walk(side)]
            names = {getattr(part, "id", getattr(part, "attr", None)) for part in inside}
            constants = {part.value for part in inside if isinstance(part, ast.Constant)}
            if "task" in names and constants & NAMES:
                lines.append(node.lineno)
    return lines


def test_nothing_outside_asks_which_task_it_is() -> None:
    found = [
        f"{path.relative_to(PACKAGE)}:{line}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if not path.relative_to(PACKAGE).as_posix().startswith(KNOWS_TASKS)
        for line in asked(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert found == []


def test_the_search_sees_a_question() -> None:
    assert asked(ast.parse("a = project.task == 'instance'\nb = task in ('semantic', 'y')\nc = to == 'panoptic'")) == [
        1,
        2,
    ]


@pytest.mark.parametrize("name", sorted(NAMES))
def test_what_each_task_writes(name: str, tmp_path: Path) -> None:
    classes = {"things": ("car",), "stuff": ("road",)} if name == "panoptic" else {"classes": ("car", "road")}
    project = Project(name="p", task=name, data=Data(root=tmp_path, csv_preset="airbus"), **classes)
    task = task_of(project)
    assert task is TASKS[name] and task.name == name
    for to in ("auto", *task.writers):
        task.check_output(to, None, project)
    with pytest.raises(DataError, match=f"a {name} run does not write this; found xml"):
        task.check_output("xml", None, project)
    if task.has_scores:
        task.check_output("auto", 0.3, project)
    else:
        with pytest.raises(DataError, match="no scores to choose by"):
            task.check_output("auto", 0.3, project)
    assert next(iter(task.writers)) != "labelme" and "labelme" in task.writers
