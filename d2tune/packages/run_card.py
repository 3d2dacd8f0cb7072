"""``MODEL_CARD.md`` of a run, which its training writes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from d2tune import files
from d2tune.packages.card import card_of
from d2tune.packages.manifest import FileEntry, InputSpec, Metrics, Threshold
from d2tune.packages.thresholds import choose_thresholds
from d2tune.packages.write import described_entries
from d2tune.project import Project
from d2tune.project.traits import TaskName
from d2tune.run_folder import RunFolder
from d2tune.tasks import task_of
from d2tune.versions import own_version

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunDescription:
    """What the card of a run says; see `measured.Described`."""

    d2tune: str
    project: str
    preset: str
    task: TaskName
    classes: tuple[str, ...]
    thing_ids: tuple[int, ...]
    thresholds: Mapping[str, Threshold]
    input: InputSpec
    metrics: Metrics | None
    data: Mapping[str, Any]
    training: Mapping[str, Any]
    versions: Mapping[str, str]
    files: Mapping[str, FileEntry]


def write_run_card(folder: RunFolder, project: Project, cfg: CfgNode, *, divisible_by_px: int) -> Path:
    """Write the card of a run that was evaluated.

    A card that a person has changed stays; the new one is written beside it, as ``MODEL_CARD.new.md``, with a warning.

    Args:
        folder: The run folder.
        project: The project of the run.
        cfg: Its config.
        divisible_by_px: What the network pads the sides of images to multiples of.

    Returns:
        The file.

    Raises:
        RunError: The record or the evaluation is damaged.
    """
    record, evaluation = folder.read_record(), folder.read_evaluation()
    entries = described_entries(project, cfg, record, evaluation, divisible_by_px=divisible_by_px)
    scored = task_of(project).has_scores
    description = RunDescription(
        d2tune=own_version(),
        thresholds=choose_thresholds(None, record["classes"], evaluation["classes"]) if scored else {},
        files={path.name: _entry(path) for path in (folder.best, folder.final, folder.config) if path.is_file()},
        **{key: value for key, value in entries.items() if key not in ("input", "metrics")},
        input=InputSpec.model_validate(entries["input"]),
        metrics=Metrics.model_validate(entries["metrics"]),
    )
    text = card_of(description, is_package=False)
    path = folder.card
    if path.is_file() and files.sha256_file(path) != (record.get("card") or {}).get("sha256"):
        path = path.with_suffix(".new.md")
        logger.warning("%s was changed by hand and stays; the new card is %s", folder.card, path.name)
        files.write_text(path, text)
        return path
    files.write_text(path, text)
    folder.update_record({"card": {"sha256": files.sha256_file(path)}})
    return path


def _entry(path: Path) -> FileEntry:
    return FileEntry(bytes=path.stat().st_size, sha256=files.sha256_file(path))
