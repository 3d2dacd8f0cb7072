"""The runs of a report, and the predictions of other models: what of them can be read, and a line about what cannot."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from d2tune.annotations.model.dataset import Dataset
from d2tune.errors import D2TuneError, DataError, RunError
from d2tune.evaluation.comparison import ComparedSide, InstanceSide
from d2tune.evaluation.from_files.results import kinds_of
from d2tune.evaluation.images.base import ImageResult, Images
from d2tune.evaluation.images.instance import InstanceImages
from d2tune.evaluation.outcome import evaluate_results
from d2tune.evaluation.summaries import Metrics, closing_sentence
from d2tune.metrics.metric import Metric
from d2tune.packages.manifest import is_package
from d2tune.project import Project, load_project
from d2tune.project.traits import TRAITS, MetricPlace
from d2tune.review.cleaned import cleaned
from d2tune.review.history import History, read_history
from d2tune.run_folder import RunFolder
from d2tune.run_schema import chosen_on_images, read_evaluation, read_object
from d2tune.runs.evaluated import Evaluated, newest_evaluation, read_evaluated
from d2tune.runs.other_model import read_other
from d2tune.runs.overview import RunSummary, summarize
from d2tune.tasks import TASKS
from d2tune.text import reason_of

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(slots=True, kw_only=True)
class Side:
    """A run, or the predictions of another model, as far as it can be read.

    Attributes:
        name: Its name on the page.
        path: The run folder, or the file of predictions.
        is_run: Whether it is a run.
        summary: Of a run: its state, times and hashes.
        record: Of a run: the entries of its record; empty where it cannot be read.
        project: Of a run: its project.
        history: Of a run: how its training went.
        evaluation: The content of ``evaluation.json``; empty where there is none.
        metrics: Its metrics; None where there are none.
        sentence: The result in a sentence; empty without metrics, and where values for it are missing.
        evaluated: Of a run: the evaluation with its data.
        images: Its predictions image by image; None where they cannot be read.
        results: The result on each image.
        compared: Its predictions for a paired comparison.
        problems: A line about each thing that cannot be read.
    """

    name: str
    path: Path
    is_run: bool = True
    summary: RunSummary | None = None
    record: dict[str, Any] = field(default_factory=dict)
    project: Project | None = None
    history: History = field(default_factory=History)
    evaluation: dict[str, Any] = field(default_factory=dict)
    metrics: Metrics | None = None
    sentence: str = ""
    evaluated: Evaluated | None = None
    images: Images | None = None
    results: list[ImageResult] = field(default_factory=list)
    compared: ComparedSide | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def place(self) -> str:
        """The end of its path, from ``runs`` on: a page that is sent to others does not name this machine's folders."""
        names = self.path.absolute().parts[1:]
        return "/".join(names[-3:] if names[-3:-2] == ("runs",) else names[-2:])

    @property
    def dataset(self) -> Dataset | None:
        """The data that it was evaluated on."""
        return None if self.evaluated is None else self.evaluated.dataset

    @property
    def main_place(self) -> MetricPlace | None:
        """Where its main metric is; None without metrics."""
        traits = TRAITS.get(self.evaluation.get("task", ""))
        kinds = section(self.evaluation, "metrics")
        return next((one for one in traits.main_metrics if one.kind in kinds), None) if traits else None

    @property
    def main(self) -> Metric | None:
        """Its main metric with the interval."""
        place = self.main_place
        value = None if place is None else section(self.evaluation, "metrics", place.kind).get(place.name)
        return Metric(**value) if isinstance(value, dict) else None

    @property
    def is_by_training(self) -> bool:
        """Whether the evaluation is the one at the end of training, of the best weights."""
        return self.evaluation.get("weights_sha256") == section(self.record, "best").get("sha256") is not None

    def attempt(self, read: Callable[[], T]) -> T | None:
        """What ``read`` gives; None, and a line among the problems, where it raises an error of d2tune."""
        try:
            return read()
        except D2TuneError as error:
            self.problems.append(error.one_line())
        except OSError as error:
            self.problems.append(f"{error.filename or self.path}: {error.strerror or reason_of(error)}")
        return None


def section(content: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """The object at some keys, one below the other; empty where there is none."""
    value: Any = content
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, dict) else {}


def read_run(path: Path, name: str) -> Side:
    """Read a run.

    Args:
        path: The run folder.
        name: Its name on the page.

    Raises:
        RunError: It is not a run folder.
    """
    run = RunFolder(path)
    if is_package(path):
        hint = "Name the run that the package was made of."
        raise RunError("is a package, which has no predictions to report on", file=path, expected="a run", hint=hint)
    if not (run.record.is_file() or run.evaluation.is_file()):
        run.read_record()  # raises: is not a run folder
    side = Side(name=name, path=path, summary=summarize(path), history=read_history(run.metrics))
    record = side.attempt(run.read_record)
    side.record = record if record is not None else _raw(run.record)
    side.project = side.attempt(lambda: load_project(run.project).project)
    assembled = chosen_on_images(side.record)
    if side.history.problem and not assembled:
        side.problems.append(f"{run.metrics}: {side.history.problem}")
    _read_metrics(side)
    if assembled and side.evaluation.get("data") is None:
        side.problems.append(f"the run {assembled}")
    if record is not None and side.project is not None and side.metrics is not None:
        _read_images(side)
    return side


def _raw(path: Path) -> dict[str, Any]:
    """The entries of a record that lacks some; empty where it is not a JSON object."""
    try:
        return read_object(path, "record")
    except (FileNotFoundError, RunError):
        return {}


def _read_metrics(side: Side) -> None:
    """The evaluation and its metrics."""
    folder = newest_evaluation(side.path)
    path = folder / "evaluation.json"
    hint = f"Run `d2tune eval {side.path}`."
    if not path.is_file():
        if side.summary is not None and side.summary.state == "running":
            hint = "It still runs and is evaluated at its end; make the report again then."
        side.problems.append(RunError("the run has no evaluation", file=side.path, hint=hint).one_line())
        return
    content = side.attempt(lambda: read_evaluation(path))
    if content is None:
        content = _raw(path)
        if "task" not in content:
            return
    shown, invalid = cleaned(content)
    if invalid:
        side.problems.append(RunError(invalid, file=path, hint=hint).one_line())
    try:
        metrics = TASKS[content["task"]].metrics_from_json(shown)
        side.metrics, side.evaluation = metrics, shown
        if len(shown["classes"]) == len(content["classes"]):
            side.sentence = _sentence(side, metrics)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        message = f"the evaluation lacks what this version of d2tune reads ({reason_of(error)})"
        side.problems.append(RunError(message, file=path, hint=hint).one_line())


def _sentence(side: Side, metrics: Metrics) -> str:
    best = section(side.record, "best").get("iteration") if side.is_by_training else None
    kind = "validation" if side.is_run and side.evaluation.get("data") is None else "other"
    return closing_sentence(metrics, best_iteration=best, contact_sheet=None, kind=kind)


def _read_images(side: Side) -> None:
    """The data and the predictions."""
    evaluated = side.attempt(lambda: read_evaluated(side.path))
    if evaluated is None:
        return
    side.evaluated = evaluated
    predictions = side.attempt(evaluated.predictions)
    if predictions is None:
        return
    side.images = side.attempt(lambda: evaluated.evaluator.images(predictions))
    if side.images is not None:
        side.results = side.images.results()
        truth_sha256 = evaluated.content["data_sha256"]
        side.compared = evaluated.evaluator.side(predictions, name=side.name, truth_sha256=truth_sha256)


def read_predictions_of(path: Path, name: str, run: Side) -> Side:
    """Read the COCO results of another model on the images of a run, and evaluate them.

    Args:
        path: A file of COCO results.
        name: Name of the model.
        run: The run with the ground truth.

    Returns:
        The side; without metrics, and with a line among its problems, where they cannot be evaluated.
    """
    side = Side(name=name, path=path, is_run=False)
    project, evaluated = run.project, run.evaluated
    if project is None or evaluated is None:
        message = "the predictions cannot be evaluated, because the data of the run are not read"
        side.problems.append(DataError(message, file=path, place=name).one_line())
        return side
    if not TASKS[project.task].has_instance_metrics:
        message = f"predictions of other models are reported for instance runs, and this is a {project.task} run"
        side.problems.append(DataError(message, file=path, place=name).one_line())
        return side
    side.attempt(lambda: _with_file(path, lambda: _evaluate_predictions(side, evaluated)))
    return side


def _with_file(path: Path, read: Callable[[], T]) -> T:
    """What ``read`` gives; an error that names no file names this one."""
    try:
        return read()
    except D2TuneError as error:
        error.file = error.file or str(path)
        raise


def _evaluate_predictions(side: Side, evaluated: Evaluated) -> None:
    other = read_other(side.path, evaluated.dataset, name=side.name)
    side.problems += other.warnings
    truth, rows = other.truth, other.rows
    kinds = kinds_of(truth, rows, side.path)
    outcome = evaluate_results(truth, rows, kinds=kinds, split="the images of the run")
    side.metrics = outcome.metrics
    side.evaluation = {"task": "instance", **outcome.metrics.to_json(), "analysis": outcome.analysis.to_json()}
    side.sentence = _sentence(side, outcome.metrics)
    side.images = InstanceImages(truth, rows)
    side.results = side.images.results()
    side.compared = InstanceSide(side.name, evaluated.content["data_sha256"], truth, rows, kinds)
    side.evaluated = evaluated


def distinct_names(paths: list[Path]) -> list[str]:
    """A short name for each path: its last folder, with those above it where several would be the same."""
    resolved = [path.resolve() for path in paths]
    for depth in range(1, 8):
        names = ["/".join(path.parts[-depth:]) for path in resolved]
        if len(set(names)) == len(set(resolved)):
            return list(_numbered(names))
    return list(_numbered([str(path) for path in resolved]))


def _numbered(names: list[str]) -> Iterator[str]:
    seen: dict[str, int] = {}
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        yield name if seen[name] == 1 else f"{name} ({seen[name]})"
