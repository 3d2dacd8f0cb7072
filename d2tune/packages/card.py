"""The card of a run or a package: what the model is for, how good it is and how it is used, in Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from markupsafe import Markup, escape

from d2tune.data.in_common import in_common_lines
from d2tune.metrics.metric import Metric, with_interval
from d2tune.packages.front_matter import front_matter
from d2tune.packages.manifest import RUNNER, InputSpec, Metrics
from d2tune.packages.measured import Described, class_metric_title, class_metrics, kind_name, low_lines
from d2tune.packages.thresholds import LEAST_OBJECTS, origin_in_words, quality_of
from d2tune.packages.weights_license import license_rows
from d2tune.report.templates import filled
from d2tune.tasks import TASKS
from d2tune.text import counted, printable

_MARKDOWN = re.compile(r"([\\`*_\[\]|#~])")
_WIDE = 20.0
"""Width of an interval, in points, from which the card says that the metric is uncertain."""


def card_of(model: Described, *, is_package: bool = True) -> str:
    """The card, with everything that comes from files escaped.

    Args:
        model: The description of a package, whose files need not have the card, or a run.
        is_package: Whether it is a package; else it is a run.
    """
    task = TASKS[model.task]
    context = {
        **{name: getattr(model, name) for name in ("project", "preset", "d2tune", "metrics", "input")},
        "is_package": is_package,
        "front_matter": Markup(front_matter(model)),
        "gives": task.gives,
        "has_scores": task.has_scores,
        "follows_objects": task.follows_objects,
        "has_runner": RUNNER in model.files,
        "class_names": model.classes,
        "quality_line": quality_line(model) if is_package else "",
        "trained_by": model.versions.get("d2tune", "of an earlier version"),
        "intended_lines": list(intended_lines(model)),
        "classes": list(class_rows(model)),
        "class_metric": class_metric_title(model),
        "input_lines": list(input_lines(model.input)),
        "data_lines": list(data_lines(model)),
        "training_lines": list(training_lines(model)),
        "kinds": list(map(kind_name, model.metrics.values)) if model.metrics else [],
        "metric_rows": list(metric_rows(model)),
        "limit_lines": list(limit_lines(model)),
        "licenses": license_rows(model),
        "files": [
            {"name": name, "size": f"{entry.bytes:,}", "sha256": entry.sha256} for name, entry in model.files.items()
        ],
    }
    return filled("d2tune.packages", "card.md.jinja", context, finalize=_escaped, keep_trailing_newline=True)


def _escaped(value: Any) -> Any:
    """Text from files without control characters, and without what HTML or Markdown would read in it."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return Markup(escape(_MARKDOWN.sub(r"\\\1", printable(value))))


def intended_lines(model: Described) -> Iterator[str]:
    """What the model is meant for and what it is not, in sentences."""
    names = ", ".join(model.classes)
    images = "rasters" if model.input.raster is not None else "photos"
    stated = model.training.get("intended_use")
    if isinstance(stated, str):
        yield " ".join(stated.split())
    yield f"For {images} like those that it was trained on. {TASKS[model.task].gives}: {names}."
    yield (
        "Its quality on other images is not known until they are measured. Nothing that concerns the safety, health or "
        "rights of people should be decided by its predictions alone."
    )


def class_rows(manifest: Described) -> Iterator[dict[str, Any]]:
    """For each class its id, name, kind, threshold with its origin, instances in both splits, and main metric."""
    measured = class_metrics(manifest)
    counts = [manifest.data.get(key) for key in ("train_instances", "val_instances")]
    for number, name in enumerate(manifest.classes, start=1):
        threshold = manifest.thresholds.get(name)
        train, val = ((of if isinstance(of, dict) else {}).get(name, "-") for of in counts)
        yield {
            "id": number,
            "name": name,
            "kind": "thing" if number in manifest.thing_ids else "stuff",
            "threshold": None if threshold is None else f"{threshold.value:g}",
            "origin": None if threshold is None else origin_in_words(manifest, name),
            "train": train,
            "val": val,
            "metric": with_interval(measured[name]) if name in measured else "-",
        }


def quality_line(manifest: Described) -> str:
    """How good the instances of the only class are that the package gives; empty with several classes or if unknown."""
    if len(manifest.thresholds) != 1:
        return ""
    ((name, threshold),) = manifest.thresholds.items()
    quality = quality_of(manifest, name)
    return f"With the lowest score of this package, {threshold.value:g}: {quality}." if quality else ""


def input_lines(given: InputSpec) -> Iterator[str]:
    """What the model takes, and how images become that, in sentences."""
    channels = counted(given.channels, "channel")
    if given.raster is None:
        yield (
            f"Photos with {channels} in the order {given.channel_order}, values from 0 to 255, turned as their EXIF "
            "orientation says."
        )
        white = "the largest value that their headers state" if given.white_16bit is None else f"{given.white_16bit:g}"
        yield f"Of photos with 16 bits, {white} becomes 255."
    else:
        used = f", of which {list(given.raster.channels)} are used" if given.raster.channels else ""
        yield f"Rasters with {channels}{used}. Their values are taken as they are, and NaN stands for missing data."
        if given.raster.nodata is not None:
            yield f"The value {given.raster.nodata:g} stands for missing data too."
        if given.stacked:
            yield "An image is a folder of files whose channels are stacked."
        yield "Label maps of rasters with a place on earth have the same place."
    mean, deviation = (", ".join(f"{value:g}" for value in values) for values in (given.pixel_mean, given.pixel_std))
    yield f"The mean of each channel ({mean}) is subtracted, and the result divided by its deviation ({deviation})."
    if given.window_px:
        yield f"Images keep their size and are predicted in overlapping windows of {given.window_px} px."
    elif given.short_side_px:
        yield (
            f"Images are resized to a short side of {given.short_side_px} px, the long side to at most "
            f"{given.max_side_px} px; results have the size of the image."
        )
    else:
        yield "Images keep their size."
    if given.divisible_by_px > 1:
        yield f"They are padded on the right and below with zeros to sides divisible by {given.divisible_by_px}."


def data_lines(manifest: Described) -> Iterator[str]:
    """On what the model was trained and measured, in sentences."""
    data = manifest.data
    hashes = [str(data.get(key))[:12] for key in ("train_sha256", "val_sha256")]
    yield (
        f"{_count(data.get('train_images'))} training images (SHA-256 {hashes[0]}) and "
        f"{_count(data.get('val_images'))} validation images ({hashes[1]})."
    )
    if data.get("rendered_sample"):
        yield "The images are a sample that d2tune rendered itself, not photos."
    common = data.get("in_common")
    if isinstance(common, dict):
        yield from in_common_lines(common)


def training_lines(manifest: Described) -> Iterator[str]:
    """For how long and from which weights the model was trained, in sentences."""
    training = manifest.training
    started = f", started {training['started']}" if training.get("started") else ""
    yield f"{_count(training.get('iterations'))} iterations{started}, in {training.get('precision')}."
    pretrained = training.get("pretrained")
    digest = str(training.get("pretrained_sha256"))[:12]
    yield f"It started from {pretrained} (SHA-256 {digest})." if pretrained else "It was trained from scratch."
    if training.get("assembled"):
        yield f"The model was assembled of finished runs (d2tune assemble). {training['assembled']}"
    listed = ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
    if listed:
        yield f"Versions: {listed}."


def _count(number: Any) -> str:
    return f"{number:,}" if isinstance(number, int) else "an unknown number of"


def metric_rows(manifest: Described) -> Iterator[dict[str, Any]]:
    """For each metric its name, and a cell with its value and interval for each kind; see `kind_name`."""
    if manifest.metrics is None:
        return
    kinds = list(manifest.metrics.values.values())
    for name in dict.fromkeys(name for kind in kinds for name in kind):
        values = [kind.get(name) for kind in kinds]
        yield {
            "name": name,
            "cells": ["" if one is None else with_interval(Metric(**one.model_dump())) for one in values],
        }


def limit_lines(manifest: Described) -> Iterator[str]:
    """What the model is not known to do, in sentences."""
    classes, val = counted(len(manifest.classes), "class"), manifest.data.get("val_instances")
    yield f"It predicts {classes} and nothing else; what resembles one of them may be taken for it."
    if manifest.metrics is None:
        yield "Nothing is known of how good these weights are: evaluate them with d2tune eval."
    else:
        yield (
            f"The metrics are those of {counted(manifest.metrics.images, 'validation image')} of the project. Photos "
            "from other cameras, places or seasons were not measured; d2tune eval with --data measures them."
        )
        yield from low_lines(manifest)
        yield from _wide_lines(manifest.metrics)
    counts = {name: val.get(name) for name in manifest.classes} if isinstance(val, dict) else {}
    missing = [name for name, count in counts.items() if count == 0]
    few = [(count, name) for name, count in counts.items() if isinstance(count, int) and 0 < count < LEAST_OBJECTS]
    if missing:
        yield f"Without annotations in the validation split, so that their quality is not known: {', '.join(missing)}."
    if few:
        rows = ", ".join(f"{name} {count}" for count, name in sorted(few))
        yield f"With fewer than {LEAST_OBJECTS} annotations in the validation split: {rows}."
    common = manifest.data.get("in_common")
    alike = in_common_lines(common) if isinstance(common, dict) else []
    if alike:
        yield f"{' '.join(alike)} Images that differ in this were not measured."


def _wide_lines(metrics: Metrics) -> Iterator[str]:
    widths = [
        (one.high - one.low, f"{kind_name(kind)} {name}")
        for kind, values in metrics.values.items()
        for name, one in values.items()
        if one.low is not None and one.high is not None
    ]
    width, name = max(widths, default=(0.0, ""))
    if width >= _WIDE:
        yield f"Intervals are up to {width:.0f} points wide ({name}); with more validation images they are narrower."
