"""What a task knows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from detectron2.config import CfgNode

from d2tune.annotations.model.dataset import Category, Dataset
from d2tune.data.label_maps import LabelFiles
from d2tune.errors import DataError
from d2tune.evaluation.evaluator import Evaluator
from d2tune.evaluation.summaries import Metrics
from d2tune.inference.predictors.base import Predictor
from d2tune.inference.writers.base import Images, Writer, WriterFactory, WriterOptions
from d2tune.project import Project

Samples = torch.utils.data.Dataset[dict[str, Any]]


class Task(ABC):
    """What a model is trained for, and everything in the code that depends on it.

    Nothing outside the classes derived from this one and the schema of project files asks which task it is.
    """

    name: ClassVar[str]
    """As in project files: instance, semantic or panoptic."""
    main_metric: ClassVar[str]
    """Key of the main metric's value in the record of a run."""
    predictions_noun: ClassVar[str]
    """What is counted on an image, in the plural."""
    has_instance_metrics: ClassVar[bool] = False
    """Whether boxes, masks and boundaries of instances are scored."""
    has_scores: ClassVar[bool] = False
    """Whether predictions have scores to choose by."""
    measures_pixels: ClassVar[bool] = False
    """Whether training needs the number of pixels of each class."""

    # training

    @abstractmethod
    def label_files(self, dataset: Dataset) -> LabelFiles | None:
        """The label maps that the model is trained on; None where it is trained on instances alone."""

    @abstractmethod
    def training_samples(
        self, dataset: Dataset, labels: LabelFiles | None, cfg: CfgNode, project: Project, *, cache_bytes: int
    ) -> Samples:
        """What the model is trained on, by ``SampleKey``.

        Args:
            dataset: The training split, its background painted.
            labels: Its `label_files`.
            cfg: The run's config.
            project: How its images are read.
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
    ) -> Predictor[Any, Any]:
        """The predictor of a model; see `Predictor`."""

    @property
    @abstractmethod
    def writers(self) -> Mapping[str, str]:
        """What predictions can be written as, with what that is; the first is the default."""

    @abstractmethod
    def writer_factory(self, to: str, project: Project) -> WriterFactory:
        """What makes the writer of a key of `writers`.

        Raises:
            DataError: The project lacks what this writer needs.
        """

    def check_output(self, to: str, min_score: float | None, project: Project) -> None:
        """Refuse what this task cannot write.

        Raises:
            DataError: ``to`` is not a key of `writers`, the project lacks what that writer needs, or predictions have
                no scores.
        """
        accepted = ("auto", *self.writers)
        if to not in accepted:
            raise DataError(
                f"a {self.name} run does not write this", place="--to", found=to, expected=" or ".join(accepted)
            )
        if min_score is not None and not self.has_scores:
            raise DataError(f"a {self.name} run has no scores to choose by", place="--min-score", hint="Leave it out.")
        self.writer_factory(self._chosen(to), project)

    def writer(
        self, to: str, out: Path, images: Images, predictor: Any, options: WriterOptions, project: Project
    ) -> Writer[Any, Any]:
        """The writer of predictions.

        Args:
            to: A key of `writers`, or ``auto``.
            out: Where the files go.
            images: The images.
            predictor: What predicts.
            options: How predictions are written.
            project: The project of the run.
        """
        return self.writer_factory(self._chosen(to), project)(out, images, predictor, options)

    def _chosen(self, to: str) -> str:
        return next(iter(self.writers)) if to == "auto" else to

    # evaluation

    @abstractmethod
    def evaluator(self, dataset: Dataset, cfg: CfgNode, project: Project) -> Evaluator[Any]:
        """The evaluator on one split of the data, its background painted."""

    @abstractmethod
    def metrics_from_json(self, evaluation: Mapping[str, Any]) -> Metrics:
        """The metrics in the content of an ``evaluation.json``."""

    # words

    @abstractmethod
    def describe_model(self, cfg: CfgNode, project: Project) -> str:
        """Number of classes and what else distinguishes the model, for the plan: ``4 classes, bitmask masks``."""

    def describe_data(self, train: Dataset, val: Dataset) -> str:
        """The size of both splits."""
        empty = sum(not instances for instances in train.by_image().values())
        negatives = f", {empty} without any" if empty else ""
        return (
            f"{len(train.images)} training images with {len(train.instances)} {self.predictions_noun}{negatives}; "
            f"{len(val.images)} validation images with {len(val.instances)}"
        )

    def count_rows(
        self, train: Dataset, val: Dataset, pixels: tuple[Sequence[int], Sequence[int]] | None = None
    ) -> tuple[list[str], list[list[str]]]:
        """Header and rows of the table of classes in the plan.

        Args:
            train: The training split.
            val: The validation split.
            pixels: Pixels of each class in the splits, where the task measures them.
        """
        in_train, in_val = train.counts(), val.counts()
        rows = [[name, str(in_train[name]), str(in_val.get(name, 0))] for name in in_train]
        return ["class", "train", "val"], rows


def counted_classes(classes: int) -> str:
    """``1 class`` or ``4 classes``."""
    return f"{classes} class{'' if classes == 1 else 'es'}"
