"""What a run or a package is, in lines for people."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from d2tune import run_schema
from d2tune.errors import RunError
from d2tune.evaluation.summaries import closing_sentence
from d2tune.packages.card import input_lines
from d2tune.packages.manifest import Manifest, is_package
from d2tune.packages.read import read_package
from d2tune.packages.thresholds import threshold_lines
from d2tune.run_folder import RunFolder
from d2tune.runs.load import describe
from d2tune.tasks import TASKS, task_of
from d2tune.text import counted, printable


def info(path: str | Path) -> list[str]:
    """What a model is; all files of a package are checked.

    Args:
        path: A run folder, a package or an exported model.

    Raises:
        RunError: The folder is neither a run folder nor a package.
        PackageError: The package was written by a later version, or a file is missing or was changed.
    """
    folder = Path(path)
    described = describe(folder)
    lines = _of_package(read_package(folder).manifest) if is_package(folder) else _of_run(folder, described.record)
    return [printable(f"{name + ':':15} {text}") for name, text in lines]


def _of_package(manifest: Manifest) -> Iterator[tuple[str, str]]:
    yield "package", f"{manifest.project}, made with d2tune {manifest.d2tune}, format {manifest.d2tune_package}"
    yield from _model(TASKS[manifest.task].name, manifest.preset, manifest.classes)
    for line in threshold_lines(manifest):
        yield "lowest score", line
    for line in input_lines(manifest.input):
        yield "input", line
    metrics = manifest.metrics
    assembled = manifest.training.get("assembled")
    if isinstance(assembled, str):
        yield "assembled", assembled
    yield "evaluation", "these weights were not evaluated" if metrics is None else metrics.sentence
    weights = manifest.weights
    sizes = "" if weights.sizes is None else f", images of {', '.join(f'{w} x {h} px' for h, w in weights.sizes)}"
    yield "weights", f"{weights.file}, {weights.format}, {weights.precision}{sizes}"
    yield "computes", _precision(manifest)
    size_mb = sum(entry.bytes for entry in manifest.files.values()) / 1e6
    yield (
        "files",
        f"{counted(len(manifest.files) + 1, 'file')}, {size_mb:.1f} MB, all unchanged since they were written",
    )


def _precision(manifest: Manifest) -> str:
    """In which precision predictions are computed, and where."""
    if manifest.weights.format == "safetensors":
        device = "GPU" if manifest.inference.device == "cuda" else "processor"
        return f"in {manifest.inference.precision} on a {device} as it was trained on"
    return f"in {'int8 and ' if manifest.weights.precision == 'int8' else ''}float32 on the processor"


def _of_run(folder: Path, record: dict[str, Any]) -> Iterator[tuple[str, str]]:
    run, project = RunFolder(folder), describe(folder).project
    finished = (record.get("finished") or {}).get("iterations")
    state = "not finished" if "finished" in record and finished is None else "finished"
    yield "run", f"{record['project']}, {state}, started {record.get('started', 'at an unknown time')}"
    yield from _model(task_of(project).name, project.model.preset, record["classes"])
    if isinstance(record.get("assembled"), dict):
        yield "assembled", str(record["assembled"].get("sentence", "of finished runs"))
    try:
        evaluation = run_schema.read_evaluation(run.evaluation)
    except (FileNotFoundError, RunError):
        yield "evaluation", "none"
    else:
        metrics = task_of(project).metrics_from_json(evaluation)
        yield "evaluation", closing_sentence(metrics, best_iteration=None, contact_sheet=None)
    present = [path.name for path in (run.best, run.final) if path.is_file()]
    yield "weights", ", ".join(present) or "none"


def _model(task: str, preset: str, classes: Any) -> Iterator[tuple[str, str]]:
    yield "model", f"{task}, {preset}"
    yield "classes", ", ".join(f"{number} {name}" for number, name in enumerate(classes, start=1))
