"""What distinguishes the tasks, as far as project files go; ``d2tune.tasks`` has everything that needs a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

TaskName = Literal["instance", "semantic", "panoptic", "tracking"]


@dataclass(frozen=True, slots=True)
class MetricPlace:
    """Where a metric is in ``evaluation.json``; in ``metrics.jsonl`` it is ``val/<kind>/<name>``.

    Attributes:
        kind: The key in ``metrics``.
        name: The key in the kind.
        title: Its name for people.
    """

    kind: str
    name: str
    title: str

    @property
    def scalar(self) -> str:
        """Its name in ``metrics.jsonl``."""
        return f"val/{self.kind}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskTraits:
    """What project files depend on.

    Attributes:
        meaning: What is predicted.
        has_label_maps: Whether there is a class for each pixel, so that the ground truth includes label maps.
        has_objects: Whether objects of one class are kept apart.
        needs_every_class: Whether each class must have annotations in the training split.
        main_metrics: Where the metric by which models are compared may be; the first that is there counts.
        gpu_model: Section ``model`` of a new project file.
        cpu_model: The same of its profile for machines without a GPU.
        comments: What the keys of ``gpu_model`` mean.
        follows_objects: Whether objects that are given in a frame are followed to other frames, whatever their class.
    """

    meaning: str
    has_label_maps: bool
    has_objects: bool
    needs_every_class: bool
    main_metrics: tuple[MetricPlace, ...]
    gpu_model: Mapping[str, Any]
    cpu_model: Mapping[str, Any]
    comments: Mapping[str, str]
    follows_objects: bool = False

    @property
    def has_things_and_stuff(self) -> bool:
        """Whether classes are divided into things, whose objects are kept apart, and stuff, which are regions."""
        return self.has_objects and self.has_label_maps


_PRESET = "network; docs/presets.md lists all of them"

TRAITS: Mapping[TaskName, TaskTraits] = {
    "instance": TaskTraits(
        meaning="one mask for each object",
        has_label_maps=False,
        has_objects=True,
        needs_every_class=False,
        main_metrics=(
            MetricPlace("segm", "AP", "mask AP"),
            MetricPlace("bbox", "AP", "box AP"),
            MetricPlace("boundary", "AP", "boundary AP"),
        ),
        gpu_model={"preset": "pointrend_r50_fpn"},
        cpu_model={"preset": "pointrend_mobilenet_v2_fpn"},
        comments={"preset": _PRESET},
    ),
    "semantic": TaskTraits(
        meaning="one class for each pixel",
        has_label_maps=True,
        has_objects=False,
        needs_every_class=False,
        main_metrics=(MetricPlace("semantic", "mIoU", "mIoU"),),
        gpu_model={"preset": "unet", "encoder": "resnet34", "loss": {"cross_entropy": 1, "dice": 1}},
        cpu_model={"encoder": "mobilenet_v2"},
        comments={
            "preset": _PRESET,
            "encoder": "network that makes the features of an image",
            "loss": "sum of losses, by weight",
        },
    ),
    "panoptic": TaskTraits(
        meaning="objects of the things, regions of the stuff",
        has_label_maps=True,
        has_objects=True,
        needs_every_class=True,
        main_metrics=(MetricPlace("panoptic", "PQ", "PQ"),),
        gpu_model={"preset": "panoptic_fpn_r50"},
        cpu_model={"preset": "panoptic_fpn_mobilenet_v2"},
        comments={"preset": _PRESET},
    ),
    "tracking": TaskTraits(
        meaning="the mask of an object that is followed through a video, of any class",
        has_label_maps=False,
        has_objects=True,
        needs_every_class=False,
        main_metrics=(MetricPlace("tracking", "J", "J"),),
        gpu_model={"preset": "siammask_mobilenet_v2"},
        cpu_model={},
        comments={"preset": _PRESET},
        follows_objects=True,
    ),
}
"""The traits of each task."""
