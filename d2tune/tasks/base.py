"""The base class of tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from detectron2.config import CfgNode
from numpy.typing import NDArray

from d2tune.annotations.model.dataset import Category, Dataset
from d2tune.data.label_maps import LabelFiles
from d2tune.errors import DataError
from d2tune.evaluation.evaluator import Evaluator
from d2tune.evaluation.summaries import Metrics
from d2tune.inference.predictors.base import Predictor
from d2tune.inference.predictors.tracking import needs_outline
from d2tune.inference.uncertainty import UncertaintyPredictor
from d2tune.inference.writers.base import Images, Writer, WriterFactory, WriterOptions
from d2tune.inference.writers.image_files import CutoutWriter, MaskWriter, OverlayWriter
from d2tune.inference.writers.objects import ObjectsWriter
from d2tune.inference.writers.several import SeveralWriter
from d2tune.inference.writers.tables import MeasurementsWriter
from d2tune.project import Project
from d2tune.text import a_or_an, counted

OVERLAYS = "overlays"

OBJECT_WRITERS: dict[str, tuple[str, type[ObjectsWriter[Any]]]] = {
    "measurements": ("tables of the measures of each object, and of counts", MeasurementsWriter),
    "masks": ("PNGs with the number of the object of each pixel", MaskWriter),
    "cutouts": ("a PNG of each object with a transparent background", CutoutWriter),
    OVERLAYS: ("drawings of the predictions", OverlayWriter),
}
"""The formats that every task has, with their descriptions and writers."""

Samples = torch.utils.data.Dataset[dict[str, Any]]


class Task(ABC):
    """Everything that depends on the task of a model: training samples, prediction, evaluation and texts.

    Only derived classes and the schema of project files compare the name of a task.
    """

    name: ClassVar[str]
    """The name in project files: instance, semantic, panoptic or tracking."""
    main_metric: ClassVar[str]
    """Key of the main metric in the record of a run."""
    predictions_noun: ClassVar[str]
    """Plural noun of the counted predictions."""
    gives: ClassVar[str]
    """What a model gives, as the beginning of a list of classes."""
    has_instance_metrics: ClassVar[bool] = False
    """Whether the kinds of metrics (boxes, masks, boundaries) can be chosen."""
    has_scores: ClassVar[bool] = False
    """Whether predictions have scores, and can be filtered by them."""
    takes_windows: ClassVar[bool] = False
    """Whether predictions in overlapping windows can be put together; see also `modeling.config.takes_windows`."""
    measures_pixels: ClassVar[bool] = False
    """Whether training needs the number of pixels of each class."""
    follows_objects: ClassVar[bool] = False
    """Whether a model follows objects that are given in a frame, and predicts nothing on an image alone."""
    uncertainty: ClassVar[type[UncertaintyPredictor[Any]]]
    """Measures how unsure a model is of an image."""

    # training

    @abstractmethod
    def label_files(self, dataset: Dataset) -> LabelFiles | None:
        """The label maps that the model is trained on; None if it is trained on instances only."""

    @abstractmethod
    def training_samples(
        self, dataset: Dataset, labels: LabelFiles | None, cfg: CfgNode, project: Project, *, cache_bytes: int
    ) -> Samples:
        """The training samples by ``SampleKey``.

        Args:
            dataset: The training split with its background.
            labels: Its `label_files`.
            cfg: The run's config.
            project: The project, with the options for reading its images.
            cache_bytes: Memory that images may take in one process.
        """

    # prediction

    @abstractmethod
    def predictor(
        self,
        model: Any,
        cfg: CfgNode,
        project: Project,
        categories: Sequence[Category],
        *,
        is_model_own: bool = False,
        min_scores: Sequence[float] | None = None,
    ) -> Predictor[Any, Any]:
        """The predictor of a model; see `Predictor`.

        Args:
            model: The model.
            cfg: The run's config.
            project: The project, with the options for reading images.
            categories: The classes in the order of their ids.
            is_model_own: Whether only this predictor uses the model.
            min_scores: Lowest score of the instances of each class, in the order of ``categories``; None keeps all that
                the model gives. Predictions without scores do not use it.
        """

    @property
    @abstractmethod
    def writers(self) -> Mapping[str, str]:
        """The formats of this task's predictions with their descriptions; the first is the default, with drawings."""

    @property
    def formats(self) -> Mapping[str, str]:
        """All formats of predictions with their descriptions: `writers`, and those of every task."""
        return {**self.writers, **{name: words for name, (words, _) in OBJECT_WRITERS.items()}}

    @property
    def default_formats(self) -> tuple[str, ...]:
        """The formats that ``auto`` stands for: the first of `writers`, and drawings."""
        return next(iter(self.writers)), OVERLAYS

    @abstractmethod
    def writer_factory(self, to: str, project: Project) -> WriterFactory:
        """The function or class that makes the writer of a format.

        Args:
            to: A key of `writers`.
            project: The project of the run.

        Raises:
            DataError: The project lacks a key that this writer needs.
        """

    def check_output(self, to: str, min_score: float | None, project: Project) -> None:
        """Check the options of a prediction before the model is loaded.

        Args:
            to: Keys of `formats` with commas between them, or ``auto``.
            min_score: Lowest score of written instances; None if not given.
            project: The project of the run.

        Raises:
            DataError: ``to`` is not a key of `formats`, the project lacks a key that this writer needs, or
                ``min_score`` is given and predictions have no scores.
        """
        for name in self.chosen(to):
            if name not in self.formats:
                raise DataError(
                    f"{a_or_an(self.name)} run cannot write this format",
                    place="--to",
                    found=name,
                    expected=" or ".join(("auto", *self.formats)),
                )
            self._factory(name, project)
        if min_score is not None and not self.has_scores:
            message = f"predictions of {a_or_an(self.name)} run have no scores"
            raise DataError(message, place="--min-score", hint="Remove it.")

    def check_predicts_images(self) -> None:
        """Refuse a model that predicts nothing on an image alone.

        Raises:
            DataError: The model follows objects.
        """
        if self.follows_objects:
            raise needs_outline()

    def writer(
        self, to: str, out: Path, images: Images, predictor: Any, options: WriterOptions, project: Project
    ) -> Writer[Any, Any]:
        """The writer of predictions.

        Args:
            to: Keys of `formats` with commas between them, or ``auto``.
            out: The output folder, or the file of a CSV.
            images: The images.
            predictor: The predictor of this task.
            options: The options for writing.
            project: The project of the run.
        """
        factories = [self._factory(name, project) for name in self.chosen(to)]
        if len(factories) == 1:
            return factories[0](out, images, predictor, options)
        return SeveralWriter(out, images, predictor, options, factories=factories)

    def chosen(self, to: str) -> list[str]:
        """The formats in a list with commas, each once; ``auto`` stands for `default_formats`."""
        names = (name.strip() for name in to.split(","))
        given = (self.default_formats if name == "auto" else (name,) for name in names)
        return list(dict.fromkeys(name for names in given for name in names))

    def _factory(self, name: str, project: Project) -> WriterFactory:
        if name in OBJECT_WRITERS and name not in self.writers:
            return partial(OBJECT_WRITERS[name][1], background=project.data.background)
        return self.writer_factory(name, project)

    # evaluation

    @abstractmethod
    def evaluator(self, dataset: Dataset, cfg: CfgNode, project: Project) -> Evaluator[Any]:
        """The evaluator of a split with its background."""

    @abstractmethod
    def metrics_from_json(self, evaluation: Mapping[str, Any]) -> Metrics:
        """The metrics in the content of an ``evaluation.json``."""

    has_baseline: ClassVar[bool] = False
    """Whether classical methods, which give the class of each pixel, can be scored."""

    def check_has_baseline(self, project: Path) -> None:
        """Refuse a task for which classical methods predict nothing.

        Args:
            project: The project file.

        Raises:
            DataError: It is one.
        """
        if not self.has_baseline:
            message = f"classical methods predict nothing that {a_or_an(self.name)} project is scored by"
            raise DataError(message, file=project, place="task", expected="instance or semantic")

    def of_class_map(self, class_ids: NDArray[np.uint8], class_names: Sequence[str], *, typical_area_px2: float) -> Any:
        """The prediction of this task that the class of each pixel stands for, where it `has_baseline`.

        Args:
            class_ids: Indices of the classes ``(H, W)``; for instances, one more stands for the background.
            class_names: The classes in the order of their ids.
            typical_area_px2: The median area of an object.

        Raises:
            TypeError: The task has no baseline.
        """
        raise TypeError(f"a {self.name} task has no baseline")

    # texts

    @abstractmethod
    def describe_model(self, cfg: CfgNode, project: Project) -> str:
        """Number of classes and other properties of the model, for the plan: ``4 classes, bitmask masks``."""

    def describe_data(self, train: Dataset, val: Dataset) -> str:
        """The sizes of both splits, for the plan."""
        empty = sum(not instances for instances in train.by_image().values())
        negatives = f", {empty} without any" if empty else ""
        noun = self.predictions_noun.removesuffix("s")
        in_train, in_val = counted(len(train.instances), noun), f"{len(val.instances)}"
        if train.crowds or val.crowds:
            in_train, in_val = train.objects_in_words(), val.objects_in_words()
        return (
            f"{counted(len(train.images), 'training image')} with {in_train}{negatives}; "
            f"{counted(len(val.images), 'validation image')} with {in_val}"
        )

    def count_rows(
        self, train: Dataset, val: Dataset, pixels: tuple[Sequence[int], Sequence[int]] | None = None
    ) -> tuple[list[str], list[list[str]]]:
        """Header and rows of the table of classes in the plan.

        Args:
            train: The training split.
            val: The validation split.
            pixels: Pixels of each class in both splits; None if the task does not measure them.
        """
        in_train, in_val = train.counts(), val.counts()
        rows = [[name, str(in_train[name]), str(in_val.get(name, 0))] for name in in_train]
        header, crowds = ["class", "train", "val"], (train.crowd_counts(), val.crowd_counts())
        if not any(count for counts in crowds for count in counts.values()):
            return header, rows
        for row in rows:
            row += [str(counts.get(row[0], 0)) for counts in crowds]
        return [*header, "train crowds", "val crowds"], rows


def counted_classes(classes: int) -> str:
    """``1 class`` or ``4 classes``."""
    return counted(classes, "class")
