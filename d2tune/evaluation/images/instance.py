"""What is right and wrong on the images of an instance evaluation, at the score from which detections are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as mask_utils

from d2tune.evaluation.from_files.results import kinds_of
from d2tune.evaluation.images.base import OF_TIDE, ImageResult, Images, Mistake, PrecisionCurve, Shape, shown_progress
from d2tune.metrics.analysis.analysis import scored_images
from d2tune.metrics.analysis.scored_image import ScoredImage
from d2tune.metrics.analysis.tide import KINDS, ImageErrors, image_errors
from d2tune.metrics.coco.matching import RECALLS
from d2tune.metrics.coco.results import Kind
from d2tune.metrics.coco.rows import Row, read_coco
from d2tune.metrics.coco.scorer import score_set
from d2tune.metrics.coco.summary import SHOWN_SCORE
from d2tune.report.thumbnails import Sketch


class InstanceImages(Images):
    """Detections of the shown score or more, matched to the ground truth at IoU 0.5.

    Args:
        truth: A COCO instances dict.
        results: Rows in COCO's results format.
    """

    quality_name = "image quality"
    quality_words = (
        "the sum of the IoU of all detected objects, divided by their number plus half of the missed and half of the "
        f"false ones (panoptic quality without classes), at score {SHOWN_SCORE:g}"
    )
    noun = "object"

    def __init__(self, truth: Mapping[str, Any], results: Sequence[dict[str, Any]]) -> None:
        kinds = kinds_of(dict(truth), results, Path("predictions"))
        self._kind: Kind = "segm" if "segm" in kinds else "bbox"
        self._data = read_coco(dict(truth), results, (self._kind,))
        self._rows: list[tuple[list[Row], list[Row]]] = []
        self._errors: list[ImageErrors] = []
        self._results: list[ImageResult] = []
        pairs = zip(self._data.by_image(), scored_images(self._data, self._kind), strict=True)
        for (_, annotated, detected), image in shown_progress(pairs, total=len(self._data.image_ids)):
            is_shown = image.dt_scores >= SHOWN_SCORE
            shown = [row for row, keep in zip(detected, is_shown, strict=True) if keep]
            image = _only(image, is_shown)
            errors = image_errors(image)
            self._rows.append((annotated, shown))
            self._errors.append(errors)
            self._results.append(self._result(image, errors, annotated, shown))

    def results(self) -> list[ImageResult]:
        """See `Images.results`; images are in the order of their ids."""
        return self._results

    def shapes(self, index: int) -> tuple[list[Shape], list[Shape]]:
        """See `Images.shapes`."""
        (annotated, shown), errors = self._rows[index], self._errors[index]
        right = errors.kinds < 0
        detected, matching = set(errors.targets[right].tolist()), set(errors.detections[right].tolist())
        truth = [
            Shape(self._class(row), self._sketch(row), None, True if row["iscrowd"] else at in detected)
            for at, row in enumerate(annotated)
        ]
        counts = set(errors.detections.tolist())
        predicted = [
            Shape(self._class(row), self._sketch(row), row["score"], at in matching or at not in counts)
            for at, row in enumerate(shown)
        ]
        return truth, predicted

    def curves(self) -> list[PrecisionCurve]:
        """See `Images.curves`."""
        result = score_set(self._data, kinds=(self._kind,)).kinds[self._kind]
        precision = result.curves.precision[0, :, :, 0, -1]
        return [
            PrecisionCurve(
                row.name, RECALLS, np.where(precision[:, at] < 0, np.nan, precision[:, at]), row.metrics["AP50"]
            )
            for at, row in enumerate(result.classes)
        ]

    def _class(self, row: Row) -> int:
        return next(at for at, one in enumerate(self._data.categories) if one.id == row["category_id"])

    def _sketch(self, row: Row) -> Sketch:
        if self._kind == "segm":
            return Sketch(mask=np.asarray(mask_utils.decode(row["rle"]), dtype=bool))
        x, y, width, height = row["bbox"]
        return Sketch(closed=(np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]], float),))

    def _result(self, image: ScoredImage, errors: ImageErrors, annotated: list[Row], shown: list[Row]) -> ImageResult:
        right = errors.kinds < 0
        detected = set(errors.targets[right].tolist())
        missed = [at for at, row in enumerate(annotated) if not row["iscrowd"] and at not in detected]
        wrong = np.flatnonzero(~right).tolist()
        mistakes = [self._missed(at, image, annotated[at]) for at in missed]
        mistakes += [self._false(errors, at, image, shown, annotated) for at in wrong]
        overlap = float(image.ious[errors.targets[right], errors.detections[right]].sum())
        total = len(detected) + (len(missed) + len(wrong)) / 2
        return ImageResult(100 * overlap / total if total else 100.0, len(detected), tuple(mistakes))

    def _missed(self, at: int, image: ScoredImage, row: Row) -> Mistake:
        ious = image.ious[at]
        note = "nothing is predicted there"
        if ious.size and float(ious.max()) >= 0.1:
            note = f"the nearest prediction has an IoU of {ious.max():.2f}"
        near = (int(ious.argmax()),) if ious.size and float(ious.max()) >= 0.1 else ()
        return Mistake("missed", self._class(row), self._box(row), float(row["area"]), None, note, (at,), near)

    def _false(
        self, errors: ImageErrors, place: int, image: ScoredImage, shown: list[Row], annotated: list[Row]
    ) -> Mistake:
        at = int(errors.detections[place])
        row, kind = shown[at], OF_TIDE[KINDS[int(errors.kinds[place])]]
        ious = np.where(image.gt_crowd, 0.0, image.ious[:, at])
        best = int(ious.argmax()) if ious.size and float(ious.max()) >= 0.1 else -1
        if errors.targets[place] >= 0:
            best = int(errors.targets[place])
        note = ""
        if best >= 0:
            truth = self._data.categories[self._class(annotated[best])].name
            of_class = "" if image.gt_classes[best] == image.dt_classes[at] else f" with an object of class {truth}"
            note = f"IoU {ious[best]:.2f}{of_class}"
        area = float(mask_utils.area([row["rle"]])[0]) if self._kind == "segm" else row["bbox"][2] * row["bbox"][3]
        about = (best,) if best >= 0 else ()
        return Mistake(kind, self._class(row), self._box(row), area, row["score"], note, about, (at,))

    def _box(self, row: Row) -> tuple[float, float, float, float]:
        x, y, width, height = mask_utils.toBbox([row["rle"]])[0].tolist() if self._kind == "segm" else row["bbox"]
        return x, y, x + width, y + height


def _only(image: ScoredImage, keep: NDArray[np.bool_]) -> ScoredImage:
    """An image with some of its detections."""
    return ScoredImage(
        image.name,
        image.ious[:, keep],
        image.gt_classes,
        image.gt_crowd,
        image.dt_classes[keep],
        image.dt_scores[keep],
    )
