"""The runs of a project, or of all projects, each summed up from the files in its folder."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from d2tune import run_schema
from d2tune.errors import RunError
from d2tune.metrics.metric import Metric
from d2tune.project import load_project
from d2tune.project.traits import TRAITS, MetricPlace
from d2tune.run_folder import RunFolder
from d2tune.run_lock import LOCK, holder_of, left_behind
from d2tune.text import nearest_hint

State = Literal["running", "finished", "stopped", "failed", "damaged"]
STATES: tuple[State, ...] = ("running", "finished", "stopped", "failed", "damaged")

ROOT = Path("runs")
"""The folder of all runs."""

_DEPTH = 3
"""How far below a folder runs are looked for."""

_MAX_ITERATIONS = re.compile(r"^  MAX_ITER: (\d+)\s*$", re.MULTILINE)
"""The iterations of a run in Detectron2's config, whose file takes too long to read as YAML for a list of runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """What a list of runs says of a run.

    Attributes:
        path: The run folder.
        project: Name of the project; that of the folder above where the record is damaged.
        state: ``running``: a process holds its lock. ``finished``: trained and evaluated to the end. ``stopped``: ended
            by a signal, and can be resumed. ``failed``: ended with an error, or killed. ``damaged``: its record cannot
            be read.
        note: What it does now, why it ended, or what is damaged; empty where there is nothing to say.
        task: The task; None where it is not known.
        preset: The model by name; None where it is not known.
        metric_name: Name of the main metric, such as ``mask AP``.
        metric: The main metric of the best weights with its interval. Before the final evaluation it is the highest
            value so far, without an interval. None before the first evaluation.
        best_iteration: Iterations after which the best weights were reached.
        iterations: Iterations completed.
        all_iterations: Iterations that were planned; None where they are not known.
        left_s: Seconds of training left, without evaluations; None where it does not run or is not known.
        train_sha256: Hash of the training split.
        val_sha256: Hash of the validation split, on which the metric was measured.
        weights_sha256: Hash of the best weights.
        started: When it started.
        ended: When it ended, or was written to last.
        training_s: Seconds of training, evaluations included.
        size_bytes: Size of all files in the folder.
        is_best: Whether no other run of the project with the same validation split has a higher metric.
    """

    path: Path
    project: str
    state: State
    note: str = ""
    task: str | None = None
    preset: str | None = None
    metric_name: str | None = None
    metric: Metric | None = None
    best_iteration: int | None = None
    iterations: int = 0
    all_iterations: int | None = None
    left_s: float | None = None
    train_sha256: str | None = None
    val_sha256: str | None = None
    weights_sha256: str | None = None
    started: datetime | None = None
    ended: datetime | None = None
    training_s: float | None = None
    size_bytes: int = 0
    is_best: bool = False

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.path.name

    def to_json(self) -> dict[str, Any]:
        """A plain dict of all attributes; times are ISO 8601."""
        plain = asdict(self)
        times = {key: value.isoformat() for key, value in plain.items() if isinstance(value, datetime)}
        return plain | times | {"path": str(self.path)}


def list_runs(project: str | Path | None = None, *, root: Path = ROOT) -> list[RunSummary]:
    """All runs of a project, or of all projects, the newest first.

    Args:
        project: Name of a project, a project file, a run folder, or any folder with runs in it; None is ``root``.
        root: The folder of all runs.

    Raises:
        RunError: The folder does not exist.
        ProjectError: The project file is invalid.
    """
    folder = runs_folder(project, root=root)
    runs = [summarize(path) for path in find_runs(folder)]
    return sorted(with_best(runs), key=_start, reverse=True)


def _start(run: RunSummary) -> tuple[float, str]:
    moment = run.started or run.ended
    return (moment.timestamp() if moment is not None else 0.0), run.name


def runs_folder(project: str | Path | None, *, root: Path = ROOT) -> Path:
    """The folder below which the runs of a project lie; see `list_runs`.

    Raises:
        RunError: It does not exist.
    """
    if project is None:
        folder = root
    elif Path(project).suffix.lower() in (".yaml", ".yml"):
        folder = root / load_project(project).project.name
    else:
        folder = root / project if (root / project).is_dir() else Path(project)
    if folder.is_dir():
        return folder
    if project is None:
        hint = "Train a project with `d2tune train`, or name a folder of runs: `d2tune runs FOLDER`."
        raise RunError("there are no runs: the folder does not exist", file=folder, hint=hint)
    known = sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    near = nearest_hint(str(project), known, otherwise=f"Projects with runs: {', '.join(known) or 'none'}.")
    raise RunError("the project has no runs", file=folder, expected="a project with runs, or a folder", hint=near)


def find_runs(folder: Path) -> Iterator[Path]:
    """The run folders in a folder, itself included; what is inside of a run is not looked at."""
    waiting = [(folder, 0)]
    while waiting:
        path, depth = waiting.pop(0)
        try:
            entries = {entry.name: entry for entry in os.scandir(path)}
        except OSError:
            continue
        if _is_run(entries):
            yield path
        elif depth < _DEPTH:
            below = sorted(name for name, entry in entries.items() if entry.is_dir(follow_symlinks=False))
            waiting += [(path / name, depth + 1) for name in below if not name.startswith(".")]


def _is_run(entries: Mapping[str, os.DirEntry[str]]) -> bool:
    """Whether a folder is that of a run, be it a damaged one: the record alone, or two other files that runs have."""
    others = ("metrics.jsonl", "checkpoints", "detectron2.yaml", "log.txt", LOCK)
    return "record.json" in entries or sum(name in entries for name in others) > 1


def summarize(path: Path) -> RunSummary:
    """What a list of runs says of a run; a damaged one is described as far as it can be read."""
    run = RunFolder(path)
    problem, record = _readable_record(run)
    lines = _logged(run.metrics)
    started, ended = _times(run, record)
    planned = _planned(run.config)
    summary = RunSummary(
        path=path,
        project=_text(record.get("project")) or path.resolve().parent.name,
        state="damaged",
        note=problem,
        task=_text(record.get("task")) or ("instance" if record and not problem else None),
        preset=_text(record.get("preset")),
        iterations=_completed(record, lines, planned),
        all_iterations=planned,
        train_sha256=_text(_section(record, "data").get("train_sha256")),
        val_sha256=_text(_section(record, "data").get("val_sha256")),
        weights_sha256=_text(_section(record, "best").get("sha256")),
        started=started,
        ended=ended,
        training_s=_number(_section(record, "durations").get("training_s")),
        size_bytes=sum(size for _, size, _ in walk(path)),
    )
    return _with_metric(_with_state(summary, run, record, lines), run, record, lines)


def walk(folder: Path) -> Iterator[tuple[Path, int, float]]:
    """Each file below a folder with its size in bytes and the time of its last change; links are not followed."""
    waiting = [folder]
    while waiting:
        try:
            entries = list(os.scandir(waiting.pop()))
        except OSError:
            continue
        for entry in entries:
            try:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(Path(entry.path))
                else:
                    status = entry.stat(follow_symlinks=False)
                    yield Path(entry.path), status.st_size, status.st_mtime
            except OSError:
                continue  # it was removed meanwhile


def _readable_record(run: RunFolder) -> tuple[str, dict[str, Any]]:
    """What is wrong with the record, or nothing, and the entries that can be read."""
    try:
        return "", run_schema.read_record(run.record)
    except FileNotFoundError:
        return "record.json is missing", {}
    except RunError as error:
        problem = error.one_line().removeprefix(f"{run.record}: ")
    try:
        return f"record.json: {problem}", run_schema.read_object(run.record, "record")
    except (RunError, FileNotFoundError):
        return f"record.json: {problem}", {}


def _with_state(
    summary: RunSummary, run: RunFolder, record: Mapping[str, Any], lines: list[dict[str, Any]]
) -> RunSummary:
    holder = holder_of(run.path)
    if holder is not None:
        return replace(
            summary,
            state="running",
            note=holder.doing or "training",
            left_s=_left_s(summary, lines),
            training_s=_elapsed_s(record, holder.since),
        )
    if summary.note:
        return summary
    if _is_finished(run, record):
        return replace(summary, state="finished")
    ended = _section(record, "ended")
    if ended.get("state") in ("stopped", "failed"):
        return replace(summary, state=ended["state"], note=_text(ended.get("reason")) or "")
    killed = left_behind(run.path)
    if killed is not None:
        where = f" while {killed.doing}" if killed.doing else ""
        return replace(summary, state="failed", note=f"process {killed.pid} on {killed.host} was killed{where}")
    if run.last.is_file():
        return replace(summary, state="stopped", note="not finished; why it ended is not recorded")
    return replace(summary, state="failed", note="ended before the first checkpoint")


def _completed(record: Mapping[str, Any], lines: list[dict[str, Any]], planned: int | None) -> int:
    """The iterations completed; what is logged of a finished run has the number of all iterations, counted from 0."""
    finished = _section(record, "finished").get("iterations")
    logged = max((int(line["iteration"]) + 1 for line in lines), default=0)
    best = _section(record, "best").get("iteration")
    logged = logged if planned is None else min(logged, planned)
    return max(logged, *(number for number in (finished, best, 0) if isinstance(number, int)))


def _is_finished(run: RunFolder, record: Mapping[str, Any]) -> bool:
    if "finished" in record:
        return bool(record["finished"])
    return run.evaluation.is_file()  # a run of an earlier version


def _left_s(summary: RunSummary, lines: list[dict[str, Any]]) -> float | None:
    step_s = next((line["time"] for line in reversed(lines) if _number(line.get("time")) is not None), None)
    if step_s is None or summary.all_iterations is None:
        return None
    return max(0, summary.all_iterations - summary.iterations) * float(step_s)


def _elapsed_s(record: Mapping[str, Any], since: str) -> float | None:
    """Seconds of the earlier starts, and of this one, which began when the lock was taken."""
    try:
        began_s = time.mktime(time.strptime(since, "%Y-%m-%d %H:%M:%S"))
    except ValueError:
        return None
    starts_s = _section(record, "durations").get("starts_s") or []
    resumed = record.get("resumed")
    earlier = starts_s[: len(resumed) if isinstance(resumed, list) else 0]
    return sum(filter(None, map(_number, earlier))) + max(0.0, time.time() - began_s)


def _with_metric(
    summary: RunSummary, run: RunFolder, record: Mapping[str, Any], lines: list[dict[str, Any]]
) -> RunSummary:
    traits = next((traits for name, traits in TRAITS.items() if name == summary.task), None)
    if traits is None:
        return summary
    is_finished = summary.state == "finished"
    try:
        evaluation = run_schema.read_evaluation(run.evaluation)
        if is_finished or evaluation["weights_sha256"] == summary.weights_sha256:
            summary = _of_evaluation(summary, evaluation, traits.main_metrics)
    except FileNotFoundError:
        summary = replace(summary, note="evaluation.json is missing") if is_finished else summary
    except RunError as error:
        reason = error.one_line().removeprefix(f"{run.evaluation}: ")
        summary = replace(summary, note=f"evaluation.json: {reason}") if is_finished else summary
    best = _section(record, "best").get("iteration")
    if summary.metric is None:
        summary = _of_log(summary, lines, traits.main_metrics)
    return replace(summary, best_iteration=best) if isinstance(best, int) else summary


def _of_evaluation(summary: RunSummary, evaluation: Mapping[str, Any], places: tuple[MetricPlace, ...]) -> RunSummary:
    for place in places:
        entry = _section(evaluation["metrics"], place.kind).get(place.name)
        if isinstance(entry, dict):
            value, low, high = (_number(entry.get(key)) for key in ("value", "low", "high"))
            metric = Metric(value, _text(entry.get("reason")), low, high)
            return replace(summary, metric_name=place.title, metric=metric)
    return replace(summary, note="evaluation.json has no main metric")


def _of_log(summary: RunSummary, lines: list[dict[str, Any]], places: tuple[MetricPlace, ...]) -> RunSummary:
    """With the highest value in ``metrics.jsonl``, for runs without a final evaluation."""
    for place in places:
        values = [(_number(line.get(place.scalar)), line["iteration"] + 1) for line in lines]
        known = [(value, done) for value, done in values if value is not None]
        if known:
            value, done = max(known, key=lambda pair: pair[0])
            return replace(summary, metric_name=place.title, metric=Metric(value), best_iteration=done)
    return summary


def with_best(runs: Iterable[RunSummary]) -> list[RunSummary]:
    """The runs with the best ones marked; of equal ones the newest is the best."""
    listed = list(runs)
    best: dict[tuple[str, str | None, str | None], tuple[float, float, int]] = {}
    for number, run in enumerate(listed):
        if run.metric is not None and run.metric.value is not None:
            rank = (run.metric.value, _start(run)[0], number)
            best[_comparable(run)] = max(best.get(_comparable(run), rank), rank)
    chosen = {number for _, _, number in best.values()}
    return [replace(run, is_best=number in chosen) for number, run in enumerate(listed)]


def _comparable(run: RunSummary) -> tuple[str, str | None, str | None]:
    return run.project, run.metric_name, run.val_sha256


def _logged(path: Path) -> list[dict[str, Any]]:
    """The lines of ``metrics.jsonl`` with an iteration; damaged lines and one that is being written are ignored."""
    try:
        content = path.read_bytes()
    except OSError:
        return []
    lines = []
    for line in content.splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and isinstance(row.get("iteration"), int):
            lines.append(row)
    return lines


def _planned(config: Path) -> int | None:
    try:
        hit = _MAX_ITERATIONS.search(config.read_text("utf-8", errors="replace"))
    except OSError:
        return None
    return int(hit[1]) if hit else None


def _times(run: RunFolder, record: Mapping[str, Any]) -> tuple[datetime | None, datetime | None]:
    """When a run started, and when it ended or was written to last."""
    ended = _moment(_section(record, "ended").get("time")) or _moment(_section(record, "finished").get("time"))
    if ended is None:
        written = [path.stat().st_mtime for path in (run.metrics, run.last, run.record) if path.is_file()]
        ended = datetime.fromtimestamp(max(written)).astimezone() if written else None
    return _moment(record.get("started")), ended


def _moment(value: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(value).astimezone()
    except (TypeError, ValueError, OverflowError, OSError):
        return None


def _section(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = content.get(key)
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
