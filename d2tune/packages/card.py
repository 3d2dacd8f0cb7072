"""The card of a package: what the model is for, how good it is and how it is used, in Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from markupsafe import Markup, escape

from d2tune.metrics.coco.results import KIND_NAMES
from d2tune.metrics.metric import Metric, with_interval
from d2tune.packages.manifest import RUNNER, InputSpec, Manifest, Metrics
from d2tune.packages.thresholds import LEAST_OBJECTS, origin_in_words, quality_of
from d2tune.report.templates import filled
from d2tune.tasks import TASKS
from d2tune.text import counted, printable

_MARKDOWN = re.compile(r"([\\`*_\[\]|#~])")
_WIDE = 20.0
"""Width of an interval, in points, from which the card says that the metric is uncertain."""


def card_of(manifest: Manifest) -> str:
    """The card, with everything that comes from files escaped.

    Args:
        manifest: The description of the package, whose files need not have the card.
    """
    task = TASKS[manifest.task]
    context = {
        **{name: getattr(manifest, name) for name in ("project", "preset", "d2tune", "metrics", "input")},
        "gives": task.gives,
        "has_scores": task.has_scores,
        "has_runner": RUNNER in manifest.files,
        "class_names": manifest.classes,
        "quality_line": quality_line(manifest),
        "trained_by": manifest.versions.get("d2tune", "of an earlier version"),
        "classes": list(class_rows(manifest)),
        "input_lines": list(input_lines(manifest.input)),
        "training_lines": list(training_lines(manifest)),
        "kinds": list(map(kind_name, manifest.metrics.values)) if manifest.metrics else [],
        "metric_rows": list(metric_rows(manifest)),
        "limit_lines": list(limit_lines(manifest)),
        "files": [
            {"name": name, "size": f"{entry.bytes:,}", "sha256": entry.sha256} for name, entry in manifest.files.items()
        ],
    }
    return filled("d2tune.packages", "card.md.jinja", context, finalize=_escaped, keep_trailing_newline=True)


def _escaped(value: Any) -> Any:
    """Text from files without control characters, and without what HTML or Markdown would read in it."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return Markup(escape(_MARKDOWN.sub(r"\\\1", printable(value))))


def class_rows(manifest: Manifest) -> Iterator[dict[str, Any]]:
    """For each class its id, name, kind, threshold with its origin, and instances in training and validation."""
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
        }


def quality_line(manifest: Manifest) -> str:
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


def training_lines(manifest: Manifest) -> Iterator[str]:
    """On what the model was trained, for how long and from which weights, in sentences."""
    data, training = manifest.data, manifest.training
    hashes = [str(data.get(key))[:12] for key in ("train_sha256", "val_sha256")]
    yield (
        f"{_count(data.get('train_images'))} training images (SHA-256 {hashes[0]}) and "
        f"{_count(data.get('val_images'))} validation images ({hashes[1]})."
    )
    if data.get("rendered_sample"):
        yield "The images are a sample that d2tune rendered itself, not photos."
    started = f", started {training['started']}" if training.get("started") else ""
    yield f"{_count(training.get('iterations'))} iterations{started}, in {training.get('precision')}."
    pretrained = training.get("pretrained")
    digest = str(training.get("pretrained_sha256"))[:12]
    yield f"It started from {pretrained} (SHA-256 {digest})." if pretrained else "It was trained from scratch."
    listed = ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
    if listed:
        yield f"Versions: {listed}."


def _count(number: Any) -> str:
    return f"{number:,}" if isinstance(number, int) else "an unknown number of"


def metric_rows(manifest: Manifest) -> Iterator[dict[str, Any]]:
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


def limit_lines(manifest: Manifest) -> Iterator[str]:
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
        yield from _wide_lines(manifest.metrics)
    for name in manifest.classes if isinstance(val, dict) else ():
        count = val.get(name) if isinstance(val, dict) else None
        if count == 0:
            yield f"The class {name} has no annotations in the validation split: its quality is not known."
        elif isinstance(count, int) and count < LEAST_OBJECTS:
            yield f"The class {name} has only {counted(count, 'annotation')} in the validation split."


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


def kind_name(kind: str) -> str:
    """``mask`` for ``segm``; kinds of other tasks have their own name."""
    return next((name for key, name in KIND_NAMES.items() if key == kind), kind)
