"""A workspace and a report of W&B for the runs of a project: what they show, and how they are made."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from d2tune.errors import ProjectError, RunError
from d2tune.loggers.evaluation import PREFIX
from d2tune.loggers.wandb import why_offline
from d2tune.project import LoadedProject, Project, load_project
from d2tune.run_folder import latest_run
from d2tune.text import reason_of

PanelKind = Literal["lines", "pattern", "bars", "value", "images", "table", "comparison", "parallel"]


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel of a dashboard.

    Attributes:
        kind: Lines and bars show metrics, a pattern all metrics whose names match, images and tables what was logged
            by their names, parallel settings beside a metric, a comparison all settings of runs.
        title: Its title.
        keys: Names of metrics, images, tables or settings.
    """

    kind: PanelKind
    title: str
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PlannedSection:
    """A section of panels.

    Attributes:
        name: Its name.
        panels: In their order.
    """

    name: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A workspace and a report with the same sections.

    Attributes:
        project: W&B's project.
        title: Of both.
        sections: In their order.
        addresses: Of what was made; empty where nothing was.
        reason: Why nothing was made; empty where it was.
    """

    project: str
    title: str
    sections: tuple[PlannedSection, ...]
    addresses: tuple[str, ...] = ()
    reason: str = ""

    def text(self) -> str:
        """What was made, or would be, with its panels."""
        if self.addresses:
            return "\n".join(f"made {address}" for address in self.addresses)
        lines = [f"{self.reason}: nothing was made. With W&B this makes, in its project {self.project},"]
        lines.append(f"the workspace and the report '{self.title}' with these panels:")
        for section in self.sections:
            lines.append(f"  {section.name}")
            for panel in section.panels:
                keys = f": {', '.join(panel.keys)}" if panel.keys else ""
                lines.append(f"    {panel.title} ({panel.kind}){keys}")
        return "\n".join(lines)


def make(project: str | Path, *, entity: str | None = None) -> Dashboard:
    """Make the workspace and the report of a project, where W&B can be reached.

    Args:
        project: A project file, or the name of a project that has runs in ``runs``.
        entity: The user or team of W&B; None takes ``WANDB_ENTITY``, or the user's default.

    Raises:
        ProjectError: The project does not exist, or wandb-workspaces is not installed.
        RunError: W&B refuses.
    """
    plan = planned(_project(project))
    mode = os.environ.get("WANDB_MODE")
    reason = f"WANDB_MODE={mode}" if mode in ("offline", "disabled", "dryrun") else why_offline()
    if reason is not None:
        return Dashboard(plan.project, plan.title, plan.sections, reason=reason)
    if find_spec("wandb_workspaces") is None:
        hint = "Install it with `pip install 'd2tune[dashboard]'`."
        raise ProjectError("wandb-workspaces is not installed", hint=hint)
    try:
        workspace, report = built(plan, entity=entity or _own_entity())
        addresses = (str(workspace.save().url), str(report.save().url))
    except Exception as error:  # of wandb, wandb-workspaces, pydantic or requests
        raise RunError(f"W&B refused the dashboard: {reason_of(error)}", place=plan.project) from error
    return Dashboard(plan.project, plan.title, plan.sections, addresses=addresses)


def planned(project: Project) -> Dashboard:
    """What the dashboard of a project shows."""
    places = project.traits.main_metrics
    main = places[0]
    final = f"{PREFIX}/{main.kind}/{main.name}"
    sections = (
        PlannedSection(
            "Result",
            (
                Panel("bars", f"{main.title} of the best weights", (final,)),
                Panel("value", f"best {main.title}", (final,)),
                Panel("lines", f"{main.title} with its 95 % interval", (f"{final}_low", final, f"{final}_high")),
                Panel(
                    "parallel",
                    "settings and result",
                    ("train.iterations", "train.image_size", "train.learning_rate", final),
                ),
                Panel("comparison", "differences between runs"),
            ),
        ),
        PlannedSection("Images", (Panel("table", "images, the worst first", ("predictions",)), _sheet())),
        PlannedSection("Validation", tuple(Panel("lines", place.title, (place.scalar,)) for place in places[:2])),
        PlannedSection(
            "Training",
            (
                Panel("lines", "loss", ("total_loss",)),
                Panel("pattern", "terms of the loss", ("^loss_.*",)),
                Panel("lines", "learning rate", ("lr",)),
                Panel("lines", "seconds of an iteration", ("time", "data_time")),
            ),
        ),
    )
    return Dashboard(f"d2tune-{project.name}", f"d2tune: {project.name}", sections)


def built(plan: Dashboard, *, entity: str) -> tuple[Any, Any]:
    """The workspace and the report as objects of wandb-workspaces, which ``save`` sends."""
    from wandb_workspaces import workspaces
    from wandb_workspaces.reports import v2 as reports

    sections = [
        workspaces.Section(name=one.name, panels=[_panel(panel) for panel in one.panels], is_open=True)
        for one in plan.sections
    ]
    workspace = workspaces.Workspace(entity=entity, project=plan.project, name=plan.title, sections=sections)
    runs = reports.Runset(entity=entity, project=plan.project)
    blocks: list[Any] = [reports.TableOfContents()]
    for one in plan.sections:
        grid = reports.PanelGrid(runsets=[runs], panels=_placed([_panel(panel) for panel in one.panels]))
        blocks += [reports.H2(text=one.name), grid]
    return workspace, reports.Report(entity=entity, project=plan.project, title=plan.title, blocks=blocks)


def _sheet() -> Panel:
    return Panel("images", "ground truth beside predictions", ("contact_sheet",))


def _panel(panel: Panel) -> Any:
    from wandb_workspaces.reports import v2 as reports

    keys = list(panel.keys)
    if panel.kind == "lines":
        return reports.LinePlot(title=panel.title, x="Step", y=keys)
    if panel.kind == "pattern":
        return reports.LinePlot(title=panel.title, x="Step", metric_regex=keys[0])
    if panel.kind == "bars":
        return reports.BarPlot(title=panel.title, metrics=keys)
    if panel.kind == "value":
        return reports.ScalarChart(title=panel.title, metric=keys[0], groupby_aggfunc="max")
    if panel.kind == "images":
        return reports.MediaBrowser(title=panel.title, media_keys=keys)
    if panel.kind == "table":
        return reports.WeavePanelSummaryTable(table_name=keys[0])
    if panel.kind == "parallel":
        settings = [reports.ParallelCoordinatesPlotColumn(metric=reports.Config(key)) for key in keys[:-1]]
        result = reports.ParallelCoordinatesPlotColumn(metric=reports.SummaryMetric(keys[-1]))
        return reports.ParallelCoordinatesPlot(title=panel.title, columns=[*settings, result])
    return reports.RunComparer(diff_only="split")


def _placed(panels: Sequence[Any]) -> list[Any]:
    """The panels of a report's grid, two beside each other: W&B's grid has 24 columns."""
    from wandb_workspaces.reports import v2 as reports

    for number, panel in enumerate(panels):
        panel.layout = reports.Layout(x=12 * (number % 2), y=8 * (number // 2), w=12, h=8)
    return list(panels)


def _own_entity() -> str:
    import wandb

    return os.environ.get("WANDB_ENTITY") or str(wandb.Api().default_entity)


def _project(project: str | Path) -> Project:
    path = Path(project)
    if path.suffix.lower() in (".yaml", ".yml"):
        return load_project(path).project
    run = latest_run(str(project), having="project.yaml")
    if run is None:
        raise ProjectError(
            "the project has no runs",
            place="PROJECT",
            found=str(project),
            expected="a project file, or the name of a folder in runs",
        )
    loaded: LoadedProject = load_project(run.project)
    return loaded.project
