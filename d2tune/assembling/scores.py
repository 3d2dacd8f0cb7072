"""Scores of candidates on both halves of the validation images."""

from __future__ import annotations

import gc
import math
from dataclasses import dataclass
from typing import Any

from d2tune.annotations.model.dataset import Dataset
from d2tune.annotations.splitting.splits import SplitOptions, make_split
from d2tune.assembling.candidates import Candidate
from d2tune.errors import DataError
from d2tune.evaluation.comparison import RunComparison
from d2tune.evaluation.evaluator import Evaluator
from d2tune.metrics.bootstrap import least_images
from d2tune.modeling import checkpoint
from d2tune.modeling.ready import ready_model
from d2tune.project import Project
from d2tune.tasks import task_of


@dataclass(frozen=True, slots=True)
class Halves:
    """The validation images, divided.

    Attributes:
        dataset: All of them.
        choosing: Indices of the images that the candidate is chosen on.
        proving: Indices of the images that it is proven on.
    """

    dataset: Dataset
    choosing: tuple[int, ...]
    proving: tuple[int, ...]

    def subset(self, indices: tuple[int, ...]) -> Dataset:
        """The images with these indices."""
        return self.dataset.subset([self.dataset.images[index].id for index in indices])


def halves_of(dataset: Dataset, project: Project) -> Halves:
    """Divide the validation images into halves with about the same mix of classes and no near-duplicates in common.

    Raises:
        DataError: There are too few of them.
    """
    least = least_images()
    if len(dataset.images) < 2 * least:
        raise DataError(
            "there are too few validation images to choose a model on one half and prove it on the other",
            file=project.data.root,
            found=str(len(dataset.images)),
            expected=f"{2 * least} or more",
            hint="Move images from the training to the validation split, or annotate more.",
        )
    made = make_split(dataset, SplitOptions(kfold=2, group_by="folder" if project.data.frames else None))
    place = {image.id: index for index, image in enumerate(dataset.images)}
    choosing, proving = sorted(
        (tuple(sorted(place[one] for one in ids)) for ids in made.splits.values()), key=lambda half: (len(half), half)
    )
    if len(choosing) < least:
        raise DataError(
            "the validation images that are alike stay together, which leaves too few for a half",
            file=project.data.root,
            found=f"{len(choosing)} images",
            expected=f"{least} or more",
            hint="Add validation images of other scenes.",
        )
    return Halves(dataset, choosing, proving)


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """A candidate with its predictions on all validation images.

    Attributes:
        candidate: The candidate.
        predictions: As the evaluator keeps them.
        choosing: The main metric on the half that the candidate is chosen on; None where it is not defined.
        proving: The main metric on the other half.
    """

    candidate: Candidate
    predictions: list[Any]
    choosing: float | None
    proving: float | None

    @property
    def rank(self) -> float:
        """What candidates are chosen by, higher is better."""
        return -math.inf if self.choosing is None else self.choosing


def predictions_of(candidate: Candidate, evaluator: Evaluator[Any], dataset: Dataset, project: Project) -> list[Any]:
    """Predict with a candidate.

    Args:
        candidate: The candidate.
        evaluator: That of the images.
        dataset: The images.
        project: The project of the runs.

    Raises:
        DataError: An image cannot be read.
    """
    cfg = candidate.cfg.clone()
    file = candidate.member.folder.best
    model = ready_model(
        cfg,
        recorded=candidate.member.precision,
        load=lambda model: checkpoint.put_weights(model, candidate.state, file=file),
    )
    predictor = task_of(project).predictor(model, cfg, project, dataset.categories, is_model_own=True)
    predictions = evaluator.predict(predictor)
    del model, predictor
    gc.collect()
    return predictions


class Scoring:
    """Predicts with candidates, and scores them.

    Args:
        halves: The validation images.
        project: The project of the runs.
    """

    def __init__(self, halves: Halves, project: Project) -> None:
        self.halves = halves
        self._project = project
        self._task = task_of(project)
        self._evaluators: dict[tuple[int, ...] | None, Evaluator[Any]] = {}

    def evaluator(self, candidate: Candidate, indices: tuple[int, ...] | None = None) -> Evaluator[Any]:
        """The evaluator of all validation images, or of those with some indices."""
        if indices not in self._evaluators:
            dataset = self.halves.dataset if indices is None else self.halves.subset(indices)
            self._evaluators[indices] = self._task.evaluator(dataset, candidate.cfg, self._project)
        return self._evaluators[indices]

    def score(self, candidate: Candidate) -> Scored:
        """Predict on all validation images, and score both halves.

        Raises:
            DataError: An image cannot be read.
        """
        dataset = self.halves.dataset
        predictions = predictions_of(candidate, self.evaluator(candidate), dataset, self._project)
        values = [self._value(candidate, predictions, half) for half in (self.halves.choosing, self.halves.proving)]
        return Scored(candidate, predictions, *values)

    def _value(self, candidate: Candidate, predictions: list[Any], indices: tuple[int, ...]) -> float | None:
        evaluator = self.evaluator(candidate, indices)
        return evaluator.quick(self._of(evaluator, predictions, indices)).value

    def _of(self, evaluator: Evaluator[Any], predictions: list[Any], indices: tuple[int, ...]) -> list[Any]:
        return evaluator.of_others([predictions[index] for index in indices])

    def compare(self, a: Scored, b: Scored, indices: tuple[int, ...]) -> RunComparison:
        """Compare B with A on some of the images by a paired bootstrap."""
        sha256 = self.halves.subset(indices).content_hash()
        evaluator = self.evaluator(a.candidate, indices)
        side_a, side_b = (
            evaluator.side(self._of(evaluator, one.predictions, indices), name=one.candidate.name, truth_sha256=sha256)
            for one in (a, b)
        )
        return side_a.compare(side_b)
