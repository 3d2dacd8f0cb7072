"""The evaluator of instances: COCO's average precision of boxes, masks and boundaries."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from d2tune import files
from d2tune.annotations.formats.coco import to_coco
from d2tune.annotations.model.dataset import Dataset
from d2tune.data.image_reader import Pixels
from d2tune.errors import RunError
from d2tune.evaluation.comparison import InstanceSide
from d2tune.evaluation.contact_sheet import write_images
from d2tune.evaluation.evaluator import Evaluator, Quick, Scoring
from d2tune.evaluation.from_files.results import kinds_of
from d2tune.evaluation.images.instance import InstanceImages
from d2tune.evaluation.outcome import InstanceEvaluation, evaluate_results, write_outcome
from d2tune.evaluation.predicted_images import check_predicted_images, write_predicted_images
from d2tune.evaluation.summaries import lower_scores_in_words, short_line
from d2tune.inference.results import CocoResult, Detections
from d2tune.metrics.coco.results import KIND_NAMES
from d2tune.metrics.coco.scorer import score_coco
from d2tune.metrics.coco.summary import SHOWN_SCORE, InstanceMetrics, metrics_of, spanned_main
from d2tune.timing import StageTimes

PREDICTIONS = "predictions.json"
"""File with COCO results in a run folder."""


@dataclass(frozen=True, slots=True)
class InstanceOutcome:
    """A complete evaluation of instances."""

    evaluation: InstanceEvaluation

    @property
    def metrics(self) -> InstanceMetrics:
        """The metrics."""
        return self.evaluation.metrics

    @property
    def headline(self) -> str:
        """The main metric with its name: ``mask AP 56.1``."""
        main = self.metrics.main
        return f"{KIND_NAMES[main]} AP {self.metrics.metrics[main]['AP']}"

    def write(self, folder: Path, *, bound: Mapping[str, Any], times: StageTimes | None) -> None:
        """Write ``evaluation.json`` and ``plots``; see `evaluator.Outcome`."""
        write_outcome(folder, self.evaluation, bound=bound, times=times)


class InstanceEvaluator(Evaluator[list[CocoResult]]):
    """Evaluates `Detections` on a split; keeps rows in COCO's results format for each image."""

    def __init__(self, dataset: Dataset) -> None:
        super().__init__(dataset)
        self._category_ids = [category.id for category in dataset.categories if category.isthing]

    def _kept(self, index: int, result: Detections, pixels: Pixels | None) -> list[CocoResult]:
        return result.to_coco(self._dataset.images[index].id, category_ids=self._category_ids)

    def of_others(self, predictions: Sequence[list[CocoResult]]) -> list[list[CocoResult]]:
        """Rows with the ids of the images of this dataset."""
        pairs = zip(self._dataset.images, predictions, strict=True)
        return [[row | {"image_id": image.id} for row in rows] for image, rows in pairs]

    def quick(self, predictions: Sequence[list[CocoResult]]) -> Quick:
        """Box and mask AP."""
        result = score_coco(to_coco(self._dataset), _rows(predictions), kinds=("bbox", "segm"))
        metrics = metrics_of(result)
        scalars = {
            f"{kind}/{name}": metric.value
            for kind, values in (("bbox", metrics.bbox), ("segm", metrics.segm))
            for name, metric in values.items()
            if metric.value is not None
        }
        class_ap = {row.name: row.metrics["segm"]["AP"].value for row in metrics.classes}
        scalars |= {f"segm/AP-{name}": value for name, value in class_ap.items() if value is not None}
        return Quick(metrics.segm["AP"].value, short_line(metrics), scalars, partial(spanned_main, metrics, result))

    def evaluate(self, predictions: Sequence[list[CocoResult]], scoring: Scoring) -> InstanceOutcome:
        """All metrics with their intervals, and the analysis of errors."""
        evaluation = evaluate_results(
            to_coco(self._dataset),
            _rows(predictions),
            kinds=scoring.kinds,
            split=scoring.split,
            times=scoring.times,
        )
        return InstanceOutcome(evaluation)

    def side(self, predictions: Sequence[list[CocoResult]], *, name: str, truth_sha256: str) -> InstanceSide:
        """The rows and the ground truth as a COCO instances dict."""
        truth, rows = to_coco(self._dataset), _rows(predictions)
        return InstanceSide(name, truth_sha256, truth, rows, kinds_of(truth, rows, Path(name)))

    def images(self, predictions: Sequence[list[CocoResult]]) -> InstanceImages:
        """Which objects are missed or false on each image."""
        return InstanceImages(to_coco(self._dataset), _rows(predictions))

    def save(self, predictions: Sequence[list[CocoResult]], folder: Path) -> str:
        """Write ``predictions.json`` with the ids, and the names, of the images and classes of the source file."""
        image_ids, category_ids = self._dataset.source_image_ids(), self._dataset.source_category_ids()
        names = {category.id: category.name for category in self._dataset.categories}
        file_names = {image.id: image.file_name for image in self._dataset.images}
        rows = [
            row
            | {
                "image_id": image_ids[row["image_id"]],
                "category_id": category_ids[row["category_id"]],
                "file_name": file_names[row["image_id"]],
                "category_name": names[row["category_id"]],
            }
            for row in _rows(predictions)
        ]
        write_predicted_images(folder, self._dataset)
        files.write_json(folder / PREDICTIONS, rows, indent=None)
        return self.digest(folder)

    def files(self, folder: Path) -> list[Path]:
        """``predictions.json``."""
        return [folder / PREDICTIONS]

    def digest(self, folder: Path) -> str:
        """The SHA-256 of ``predictions.json``."""
        return files.sha256_file(folder / PREDICTIONS)

    def load(self, folder: Path) -> list[list[CocoResult]]:
        """Read ``predictions.json``, with the ids of the dataset."""
        is_listed = check_predicted_images(folder, self._dataset)
        path = folder / PREDICTIONS
        rows = _read_rows(path)
        own_ids = not (is_listed or any("file_name" in row for row in rows))
        image_ids, category_ids = self._dataset.source_image_ids(), self._dataset.source_category_ids()
        image_of = {image.id if own_ids else image_ids[image.id]: image.id for image in self._dataset.images}
        class_of = {one.id if own_ids else category_ids[one.id]: one.id for one in self._dataset.categories}
        by_image: dict[int, list[CocoResult]] = {image.id: [] for image in self._dataset.images}
        name_of = {image.id: image.file_name for image in self._dataset.images}
        try:
            for row in rows:
                ids = {"image_id": image_of[row["image_id"]], "category_id": class_of[row["category_id"]]}
                plain = {key: value for key, value in row.items() if key not in ("file_name", "category_name")}
                if row.get("file_name", name_of[ids["image_id"]]) != name_of[ids["image_id"]]:
                    raise RunError("the predictions are of other images", file=path, found=repr(row["file_name"]))
                by_image[ids["image_id"]].append(plain | ids)
        except KeyError as error:
            message = f"the predictions are of other images or are damaged: {error.args[0]!r} is not known"
            raise RunError(message, file=path, hint="Evaluate the run again with `d2tune eval`.") from None
        except TypeError as error:
            raise RunError(f"the predictions are damaged ({error})", file=path) from None
        return list(by_image.values())

    def draw(self, path: Path, predictions: Sequence[list[CocoResult]], *, title: str, subtitle: str) -> None:
        """Draw ground truth beside predictions on up to 16 images."""
        rows = _rows(predictions)
        scores = [row["score"] for row in rows]
        if scores and max(scores) < SHOWN_SCORE:
            words = lower_scores_in_words("detection", len(scores), max(scores), least=SHOWN_SCORE)
            subtitle = f"{subtitle}; {words}"
        write_images(path, self._dataset, rows, title=title, subtitle=subtitle)


def _read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of predictions."""
    try:
        rows = json.loads(path.read_bytes())
    except ValueError as error:
        raise RunError(f"the predictions are damaged ({error})", file=path) from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise RunError("the predictions are damaged", file=path, expected="a list of objects")
    return rows


def _rows(predictions: Sequence[list[CocoResult]]) -> list[CocoResult]:
    return [row for rows in predictions for row in rows]
