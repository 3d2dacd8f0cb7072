"""Predictions of the variants of each fold's run on the images that it has not seen; each is made once, and kept."""

from __future__ import annotations

import contextlib
import gc
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from d2tune import files
from d2tune.assembling.candidates import Network, averaged_name
from d2tune.assembling.folds import FoldRun, Folds
from d2tune.assembling.members import Member
from d2tune.assembling.scores import predictions_of
from d2tune.assembling.swa import averaged_network
from d2tune.assembling.variants import Variant
from d2tune.errors import RunError
from d2tune.evaluation.evaluator import Evaluator
from d2tune.metrics.bootstrap import Comparison, Statistic, over_folds, paired_comparison
from d2tune.modeling import checkpoint
from d2tune.tasks import task_of

_SCORE = "score.json"
_AVERAGED = "averaged.pth"


def mean_over(values: Sequence[float | None], images: Sequence[int]) -> float | None:
    """The mean of a metric over folds, each of which counts as often as it has images.

    Args:
        values: The metric of each fold; None where it is not defined, which counts nothing.
        images: Number of images of each fold.

    Returns:
        None where it is not defined on any fold.
    """
    defined = [(value, count) for value, count in zip(values, images, strict=True) if value is not None]
    total = sum(count for _, count in defined)
    return sum(value * count for value, count in defined) / total if total else None


class FoldScores:
    """The variants of the runs of all folds.

    Args:
        folds: The runs.
        folder: Where predictions and averaged weights are kept, in a folder for each fold. What is there already is
            taken.
        iterations: Iterations of the stochastic weight average.
        shown: Gives the name of a variant, for a line about each value.
    """

    def __init__(self, folds: Folds, folder: Path, *, iterations: int, shown: Callable[[Variant], str]) -> None:
        self.folds = folds
        self._folder = folder
        self._iterations = iterations
        self._shown = shown
        self._values: dict[tuple[Variant, int], float | None] = {}
        self._evaluators: dict[int, Evaluator[Any]] = {}
        self._read: tuple[int, Member] | None = None

    def known(self, variant: Variant) -> list[float | None]:
        """The metric on each fold; None where it is not defined or was not asked for."""
        return [self._values.get((variant, number)) for number in range(len(self.folds.runs))]

    def known_mean(self, variant: Variant) -> float | None:
        """The metric over all folds; None where it is not defined or was not asked for on each."""
        numbers = range(len(self.folds.runs))
        if any((variant, number) not in self._values for number in numbers):
            return None
        return self.mean(variant, numbers)

    def mean(self, variant: Variant, numbers: Sequence[int]) -> float | None:
        """The metric over the folds with some numbers, see `mean_over`."""
        images = [self.folds.images[number] for number in numbers]
        return mean_over([self.value(variant, number) for number in numbers], images)

    def value(self, variant: Variant, number: int) -> float | None:
        """The main metric on the images of a fold; None where it is not defined.

        Raises:
            D2TuneError: An image cannot be read, or the run of the fold has changed.
            SystemExit: The training of an average was stopped by a signal.
        """
        if (variant, number) not in self._values:
            folder = self._folder_of(variant, number)
            kept = _score_in(folder)
            value = self._measured(variant, number, folder) if kept is None else kept["value"]
            self._values[variant, number] = value
            text = "not defined" if value is None else f"{value:.1f}"
            print(f"  fold {number}, {self._shown(variant)}: {text}", flush=True)
        return self._values[variant, number]

    def compare(self, a: Variant, b: Sequence[Variant]) -> Comparison:
        """Compare the variant of each fold with one variant by a paired bootstrap over the images of all folds.

        Images that are alike are drawn together.

        Args:
            a: What is compared with.
            b: The variant of each fold.
        """
        images = self.folds.images
        of_a, of_b = (
            over_folds([self._statistic(variant, number) for number, variant in enumerate(side)], images)
            for side in ([a] * len(images), b)
        )
        return paired_comparison(of_a, of_b, sum(images), groups=self.folds.groups)

    def _statistic(self, variant: Variant, number: int) -> Statistic:
        """The metric on a fold as a function of the weights of its images."""
        self.value(variant, number)
        evaluator, folder = self._evaluator(number), self._folder_of(variant, number)
        try:
            is_same = evaluator.digest(folder) == (_score_in(folder) or {}).get("predictions_sha256")
        except OSError:
            is_same = False
        if not is_same:
            hint = "Remove the folder, and start the same command again."
            raise RunError("the predictions have changed or are missing", file=folder, hint=hint)
        return evaluator.side(evaluator.load(folder), name=str(folder), truth_sha256="").main_statistic()

    def _measured(self, variant: Variant, number: int, folder: Path) -> float | None:
        """Predict, keep the predictions, and score them; the score is written last."""
        member, run = self._member(number), self.folds.runs[number]
        candidate = variant.candidate([self._network(member, number, is_averaged=variant.is_averaged)])
        evaluator = self._evaluator(number)
        predictions = predictions_of(candidate, evaluator, run.dataset, member.loaded.project)
        folder.mkdir(parents=True, exist_ok=True)
        digest = evaluator.save(predictions, folder)
        value = evaluator.quick(predictions).value
        files.write_json(folder / _SCORE, {"value": value, "predictions_sha256": digest})
        return value

    def _network(self, member: Member, number: int, *, is_averaged: bool) -> Network:
        if not is_averaged:
            return Network(member.name, member, member.cfg, member.state)
        path = self._folder / f"fold{number}" / _AVERAGED
        if not path.is_file():
            swa, shown = path.with_name("swa"), f"fold {number}"
            made = averaged_network(member, swa, iterations=self._iterations, shown=shown)
            checkpoint.save(path, {"model": dict(made.state)})
        return Network(averaged_name(member), member, member.cfg, checkpoint.load(path)["model"])

    def _member(self, number: int) -> Member:
        """The run of a fold; the weights of one at a time are in memory."""
        if self._read is None or self._read[0] != number:
            self._read = None
            gc.collect()
            self._read = (number, _unchanged(self.folds.runs[number]))
        return self._read[1]

    def _evaluator(self, number: int) -> Evaluator[Any]:
        if number not in self._evaluators:
            member = self._member(number)
            project = member.loaded.project
            self._evaluators[number] = task_of(project).evaluator(self.folds.runs[number].dataset, member.cfg, project)
        return self._evaluators[number]

    def _folder_of(self, variant: Variant, number: int) -> Path:
        return self._folder / f"fold{number}" / variant.key


def _unchanged(run: FoldRun) -> Member:
    """The run of a fold with the weights that it had when the command began.

    Raises:
        RunError: They are others now.
    """
    member = run.read()
    if member.weights_sha256 != run.weights_sha256:
        raise RunError("the weights of the fold have changed meanwhile", file=run.path, hint="Start again.")
    return member


def _score_in(folder: Path) -> dict[str, Any] | None:
    """What is known of a variant on a fold; None where its predictions are not complete."""
    with contextlib.suppress(OSError, ValueError):
        content = json.loads((folder / _SCORE).read_bytes())
        if isinstance(content, dict) and content.keys() >= {"value", "predictions_sha256"}:
            return content
    return None
