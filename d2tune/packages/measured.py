"""What a card says of metrics: those of the classes, and those that are low."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from d2tune.metrics.coco.results import KIND_NAMES
from d2tune.metrics.metric import Metric, with_interval
from d2tune.packages.manifest import FileEntry, InputSpec, Metrics, Threshold
from d2tune.project.traits import TRAITS, MetricPlace, TaskName

LOW = 30.0
"""A metric below this, or below half of the main metric, is named among the limits."""

_ENTRIES = {"value", "low", "high", "reason"}

_SIZES = {
    "APs": "smaller than 32 x 32 px",
    "APm": "between 32 x 32 and 96 x 96 px",
    "APl": "of 96 x 96 px or more",
}


class Described(Protocol):
    """What a card needs to know of a model; the description of a package has all of it."""

    @property
    def d2tune(self) -> str: ...
    @property
    def project(self) -> str: ...
    @property
    def preset(self) -> str: ...
    @property
    def task(self) -> TaskName: ...
    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def thing_ids(self) -> tuple[int, ...]: ...
    @property
    def thresholds(self) -> Mapping[str, Threshold]: ...
    @property
    def input(self) -> InputSpec: ...
    @property
    def metrics(self) -> Metrics | None: ...
    @property
    def data(self) -> Mapping[str, Any]: ...
    @property
    def training(self) -> Mapping[str, Any]: ...
    @property
    def versions(self) -> Mapping[str, str]: ...
    @property
    def files(self) -> Mapping[str, FileEntry]: ...


def kind_name(kind: str) -> str:
    """``mask`` for ``segm``; kinds of other tasks have their own name."""
    return next((name for key, name in KIND_NAMES.items() if key == kind), kind)


def main_place(model: Described) -> MetricPlace | None:
    """Where the main metric is; None where the model was not evaluated."""
    if model.metrics is None:
        return None
    values = model.metrics.values
    return next((one for one in TRAITS[model.task].main_metrics if one.name in values.get(one.kind, {})), None)


def main_metric(model: Described) -> Metric | None:
    """The main metric; None where the model was not evaluated."""
    place = main_place(model)
    if place is None or model.metrics is None:
        return None
    return Metric(**model.metrics.values[place.kind][place.name].model_dump())


def class_metrics(model: Described) -> dict[str, Metric]:
    """The main metric of each class by its name, or of label maps the first metric of a class, which is IoU or PQ."""
    place = main_place(model)
    if place is None or model.metrics is None:
        return {}
    rows = {str(row.get("name")): _class_metric(row, place) for row in model.metrics.classes}
    return {name: one[1] for name, one in rows.items() if one is not None}


def class_metric_title(model: Described) -> str:
    """What `class_metrics` are called: ``mask AP``, ``IoU`` or ``PQ``."""
    place = main_place(model)
    if place is None or model.metrics is None:
        return ""
    named = (_class_metric(row, place) for row in model.metrics.classes)
    return next((one[0] for one in named if one is not None), "")


def _class_metric(row: Mapping[str, Any], place: MetricPlace) -> tuple[str, Metric] | None:
    metrics = row.get("metrics")
    if not isinstance(metrics, dict) or not metrics:
        return None
    of_kind = metrics.get(place.kind)
    title, entry = (place.title, of_kind.get(place.name)) if isinstance(of_kind, dict) else next(iter(metrics.items()))
    return (title, Metric(**entry)) if isinstance(entry, dict) and set(entry) <= _ENTRIES else None


def low_lines(model: Described) -> Iterator[str]:
    """The classes and the sizes of objects with low metrics, in sentences."""
    place, main = main_place(model), main_metric(model)
    if place is None or main is None or main.value is None or model.metrics is None:
        return
    bound = max(LOW, main.value / 2)
    title = class_metric_title(model)
    for name, one in class_metrics(model).items():
        if one.value is not None and one.value < bound and len(model.classes) > 1:
            yield f"The class {name} has a low {title}: {with_interval(one)}."
    values = model.metrics.values[place.kind]
    own = {name: _own_size(name.removeprefix("AP ")) for name in values if name.startswith("AP ")}
    for name, words in (own or _SIZES).items():
        size = values.get(name)
        if size is None:
            continue
        if size.value is None:
            yield f"For objects {words}, {place.title} is not known: {size.reason}."
        elif size.value < bound:
            yield f"For objects {words}, {place.title} is low: {with_interval(Metric(**size.model_dump()))}."


def _own_size(name: str) -> str:
    """``59-108 px`` as ``of 59-108 px``; ``below 59 px`` stays."""
    return f"of {name}" if name[:1].isdigit() else name
