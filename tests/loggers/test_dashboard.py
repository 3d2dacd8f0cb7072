"""The dashboard of W&B: what is built, and what is printed without a connection."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from wandb_workspaces.reports.v2 import Metric
from wandb_workspaces.workspaces import Workspace

from d2tune import api
from d2tune.cli import main
from d2tune.errors import D2TuneError
from d2tune.loggers.dashboard import built, planned
from d2tune.project import Data, Model, Project, load_project
from d2tune.project.traits import TaskName
from tests.runs.random_runs import PRESETS


def test_without_a_key_it_prints_what_it_would_make(
    tiny_project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert main(["dashboard", str(tiny_project)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        "W&B has no API key (`wandb login`): nothing was made. With W&B this makes, in its project d2tune-tiny,"
    )
    assert "    mask AP of the best weights (bars): evaluation/segm/AP" in lines
    assert "    images, the worst first (table): predictions" in lines
    assert [line.strip() for line in lines[2:] if line.startswith("  ") and not line.startswith("   ")] == [
        "Result",
        "Images",
        "Validation",
        "Training",
    ]


def test_with_a_key_and_a_closed_port_it_prints_too(tiny_project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_API_KEY", 40 * "0")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    result = api.dashboard(tiny_project)
    assert "W&B does not answer at http://127.0.0.1:9" in result.text() and result.addresses == ()


def test_the_objects_that_would_be_sent_have_all_panels(tiny_project: Path) -> None:
    plan = planned(load_project(tiny_project).project)
    workspace, report = built(plan, entity="team")
    assert (workspace.entity, workspace.project, workspace.name) == ("team", "d2tune-tiny", "d2tune: tiny")
    assert [section.name for section in workspace.sections] == [section.name for section in plan.sections]
    panels = {
        panel.title: panel for section in workspace.sections for panel in section.panels if hasattr(panel, "title")
    }
    assert panels["loss"].y == ["total_loss"]
    assert [str(y) for y in panels["mask AP with its 95 % interval"].y] == [
        f"evaluation/segm/AP{end}" for end in ("_low", "", "_high")
    ]
    grids = [block for block in report.blocks if type(block).__name__ == "PanelGrid"]
    assert [len(grid.panels) for grid in grids] == [len(section.panels) for section in plan.sections]
    assert {grid.runsets[0].project for grid in grids} == {"d2tune-tiny"}
    text = repr(workspace)
    for key in {key for section in plan.sections for panel in section.panels for key in panel.keys}:
        assert repr(key) in text, key


def plain(value: object) -> object:
    """A key of a panel as text: a key that is read back is an object of its kind."""
    if isinstance(value, list):
        return [plain(one) for one in value]
    return value.name if isinstance(value, Metric) else value


@pytest.mark.parametrize("task", ["instance", "semantic", "panoptic"])
def test_what_is_sent_is_read_back_as_it_was(task: TaskName) -> None:
    classes: dict[str, Any] = {"classes": ("bus", "road")}
    if task == "panoptic":
        classes = {"things": ("bus",), "stuff": ("road",)}
    data = Data(root=Path("data"), train="train", val="val")
    project = Project(name="streets", task=task, data=data, model=Model(preset=PRESETS[task]), **classes)
    plan = planned(project)
    workspace, report = built(plan, entity="team")
    sent = workspace._to_model()
    again = Workspace._from_model(type(sent).model_validate_json(sent.model_dump_json(by_alias=True)))
    assert (again.entity, again.project, again.name) == ("team", "d2tune-streets", "d2tune: streets")
    grids = [block for block in report.blocks if type(block).__name__ == "PanelGrid"]
    for section, read, grid in zip(plan.sections, again.sections, grids, strict=True):
        assert read.name == section.name
        for panel, other in zip(grid.panels, read.panels, strict=True):
            content = panel._to_model()
            of_report = type(panel)._from_model(
                type(content).model_validate_json(content.model_dump_json(by_alias=True))
            )
            for name in ("title", "x", "y", "metrics", "metric", "metric_regex", "media_keys", "columns", "table_name"):
                values = [plain(getattr(one, name, None)) for one in (panel, other, of_report)]
                assert values[0] == values[1] == values[2], (panel, name)
    assert '"xAxis":"_step"' in sent.model_dump_json(by_alias=True)


def test_an_unknown_project_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(D2TuneError, match=r"the project has no runs.*baloon"):
        api.dashboard("baloon")
