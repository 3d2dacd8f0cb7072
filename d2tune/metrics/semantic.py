"""The agreement of predicted label maps with the ground truth: IoU, accuracy, Dice and boundary IoU over a data set.

All metrics follow from counts of pixels. ``TP`` of a class are the pixels that have it in both maps, ``GT`` those that
have it in the ground truth, ``P`` those that have it in the prediction, each summed over the images. Pixels that the
ground truth ignores count nowhere, whatever their prediction.

- IoU is ``TP / (GT + P - TP)``, Dice ``2 TP / (GT + P)``, accuracy of a class ``TP / GT``.
- mIoU and mDice are means over the classes that occur in the ground truth or in the prediction: a class that is only
  predicted counts 0. mACC is the mean over the classes in the ground truth.
- fwIoU is the mean of IoU weighted by ``GT``, pACC the share of pixels with the right class.
- Boundary IoU (Cheng et al., CVPR 2021) is the IoU of the boundaries of both masks of a class, each class on its own,
  summed over images before dividing; boundary_mIoU is the mean over classes that have a boundary in either image.
  The contour of a class is unknown along ignored pixels: such an edge is not a boundary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from d2tune.errors import DataError
from d2tune.metrics.metric import Metric, mean_defined, metric, ratio
from d2tune.metrics.overlap.boundary import boundary_width_px

Labels = Tensor | NDArray[Any]


@dataclass(frozen=True, slots=True)
class SemanticClass:
    """The metrics of one class.

    Attributes:
        name: The class.
        pixels: Its pixels in the ground truth.
        metrics: ``IoU``, ``ACC``, ``Dice`` and, if boundaries were scored, ``boundary_IoU``.
    """

    name: str
    pixels: int
    metrics: dict[str, Metric]


@dataclass(frozen=True, slots=True)
class SemanticResult:
    """The metrics of a set of label maps.

    Attributes:
        images: Number of images.
        metrics: ``mIoU``, ``fwIoU``, ``pACC``, ``mACC``, ``mDice`` and, if boundaries were scored, ``boundary_mIoU``.
        classes: One row for each class.
        confusion: Pixels ``(K, K + 1)``, int64: rows are classes of the ground truth, columns classes of the
            prediction, the last column pixels without a predicted class.
    """

    images: int
    metrics: dict[str, Metric]
    classes: tuple[SemanticClass, ...]
    confusion: NDArray[np.int64]

    def to_json(self) -> dict[str, Any]:
        """A plain dict of the same."""
        return {
            "images": self.images,
            "metrics": {name: asdict(one) for name, one in self.metrics.items()},
            "classes": [asdict(row) for row in self.classes],
            "confusion": self.confusion.tolist(),
        }


class SemanticScorer:
    """Collects label maps and scores them.

    It keeps one confusion matrix for all images, and for each image only the three to five sums of each class that the
    metrics need (24 to 40 bytes a class), on the device. Counts are integers, so that they are equal on every device.

    Args:
        class_names: The classes; their indices are the ids in the maps.
        ignore: The id of ignored pixels. A prediction may hold it too: such a pixel has no class, and is wrong where
            the ground truth has one.
        device: Where pixels are counted.
        boundary: Whether boundary IoU is computed.

    Raises:
        ValueError: There are no classes, or ``ignore`` is the id of a class.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        *,
        ignore: int = 255,
        device: str | torch.device = "cpu",
        boundary: bool = True,
    ) -> None:
        if not class_names or 0 <= ignore < len(class_names):
            raise ValueError(
                f"at least one class is required, and an id of ignored pixels that is not the id of a class; "
                f"found {len(class_names)} classes and the id {ignore}"
            )
        self.class_names = tuple(class_names)
        self._ignore = ignore
        self._device = torch.device(device)
        self._boundary = boundary
        count = len(self.class_names)
        self._confusion = torch.zeros((count, count + 1), dtype=torch.int64, device=self._device)
        self._sums: list[Tensor] = []

    @property
    def images(self) -> int:
        """The number of images added."""
        return len(self._sums)

    def add(self, prediction: Labels, ground_truth: Labels, image: str) -> None:
        """Count the pixels of one image.

        Args:
            prediction: Class ids ``(H, W)``, whole numbers.
            ground_truth: Class ids ``(H, W)``, whole numbers.
            image: Its name, for messages.

        Raises:
            DataError: The shapes differ, or a map holds an id that is not a class.
        """
        predicted = self._labels(prediction, image, "prediction")
        truth = self._labels(ground_truth, image, "ground truth")
        if predicted.shape != truth.shape:
            raise DataError(
                "the prediction and the ground truth have different sizes",
                file=image,
                found=f"a prediction of {predicted.shape[1]} x {predicted.shape[0]} px",
                expected=f"{truth.shape[1]} x {truth.shape[0]} px as in the ground truth",
                hint="Resize the prediction to the size of the image.",
            )
        count = len(self.class_names)
        pairs = truth * (count + 1) + predicted
        counts = torch.bincount(pairs.flatten(), minlength=(count + 1) ** 2)
        confusion = counts.view(count + 1, count + 1)[:-1]
        self._confusion += confusion
        sums = [confusion.diagonal(), confusion.sum(dim=1), confusion[:, :-1].sum(dim=0)]
        if self._boundary:
            sums += self._boundary_counts(predicted, truth)
        self._sums.append(torch.stack(sums))

    def result(self) -> SemanticResult:
        """The metrics of all images added."""
        sums = self._per_image().sum(axis=0)
        by_class = _class_metrics(sums)
        classes = [
            SemanticClass(
                name,
                int(sums[1, index]),
                {key: metric(values[index], _class_reason(key, name)) for key, values in by_class.items()},
            )
            for index, name in enumerate(self.class_names)
        ]
        metrics = {
            name: metric(value, "no class has a boundary" if name == "boundary_mIoU" else "no pixel has a class")
            for name, value in _means(sums, by_class).items()
        }
        return SemanticResult(self.images, metrics, tuple(classes), self._confusion.cpu().numpy())

    def resample(self, weights: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
        """The metrics of `SemanticResult.metrics` on draws of the images, NaN where undefined.

        Args:
            weights: ``(R, n_images)``, how often each draw took each image, in the order of `add`.

        Returns:
            ``(R,)`` for each metric.
        """
        per_image = self._per_image()
        images, sums, classes = per_image.shape
        # sums of whole numbers below 2^53: exact in float64, and a product of matrices
        totals = (weights.astype(np.float64) @ per_image.reshape(images, -1)).reshape(-1, sums, classes)
        rows = np.moveaxis(totals, 1, 0)
        return _means(rows, _class_metrics(rows))

    def _per_image(self) -> NDArray[np.float64]:
        """``(n_images, 3 or 5, K)``."""
        if not self._sums:
            return np.zeros((0, 5 if self._boundary else 3, len(self.class_names)))
        sums: NDArray[np.float64] = torch.stack(self._sums).cpu().numpy().astype(np.float64)
        return sums

    def _labels(self, values: Labels, image: str, what: str) -> Tensor:
        """The checked map on the device, with the number of classes at ignored pixels."""
        kind = values.dtype.is_floating_point if isinstance(values, Tensor) else values.dtype.kind not in "iub"
        if values.ndim != 2 or kind:
            raise DataError(
                f"the {what} is not a label map",
                file=image,
                found=f"shape {tuple(values.shape)} of {values.dtype}",
                expected="whole numbers of shape (height, width)",
            )
        wide = values.dtype.itemsize > 2
        if not isinstance(values, Tensor):
            values = torch.from_numpy(values.astype(np.int64 if wide else np.int32))
        labels = values.to(self._device, torch.int64 if wide else torch.int32)
        count = len(self.class_names)
        ignored = labels == self._ignore
        known = labels.masked_fill(ignored, 0)
        if known.numel() and not 0 <= int(known.min()) <= int(known.max()) < count:
            names = ", ".join(f"{index} {name}" for index, name in enumerate(self.class_names[:20]))
            more = f" and {count - 20} more" if count > 20 else ""
            raise DataError(
                f"the {what} holds an id that is not a class",
                file=image,
                found=str(int(known[(known < 0) | (known >= count)][0])),
                expected=f"{names}{more}, or {self._ignore} for ignored pixels",
            )
        return known.to(torch.int32).masked_fill_(ignored, count)

    def _boundary_counts(self, predicted: Tensor, truth: Tensor) -> list[Tensor]:
        """Pixels in both boundaries and in either, ``(K,)`` each."""
        count = len(self.class_names)
        valid = truth != count
        of_truth, of_prediction = (_near_contour(labels, valid, count) for labels in (truth, predicted))

        def pixels(labels: Tensor, chosen: Tensor) -> Tensor:
            return torch.bincount(labels.masked_fill(~chosen, count).flatten(), minlength=count + 1)[:-1]

        both = pixels(truth, of_truth & of_prediction & (truth == predicted))
        return [both, pixels(truth, of_truth) + pixels(predicted, of_prediction) - both]


def _near_contour(labels: Tensor, valid: Tensor, n_classes: int) -> Tensor:
    """Which valid pixels lie in the boundary of their class's mask, ``(H, W)`` bool, for all classes at once.

    A pixel lies inside if its whole window holds one label: the greatest is the least. Pixels that are not valid agree
    with any label.
    """
    reach = boundary_width_px(*labels.shape)
    side = 2 * reach + 1
    if min(labels.shape) < side:
        return valid
    greatest, least = labels.masked_fill(~valid, -1), labels.masked_fill(~valid, n_classes + 1)
    for dim in (0, 1):
        greatest = _over_window(torch.maximum, greatest, side, dim)
        least = _over_window(torch.minimum, least, side, dim)
    near = valid.clone()
    near[reach:-reach, reach:-reach] &= greatest != least
    return near


def _over_window(operation: Callable[[Tensor, Tensor], Tensor], values: Tensor, length: int, dim: int) -> Tensor:
    """``operation`` over each ``length`` neighbors along ``dim``; the range doubles with every step."""
    reached = 1
    while reached < length:
        step = min(reached, length - reached)
        size = values.shape[dim] - step
        values = operation(values.narrow(dim, 0, size), values.narrow(dim, step, size))
        reached += step
    return values


def _class_metrics(sums: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Metrics of classes ``(..., K)`` from sums ``(3 or 5, ..., K)``."""
    right, truth, predicted = sums[:3]
    metrics = {
        "IoU": 100 * ratio(right, truth + predicted - right),
        "ACC": 100 * ratio(right, truth),
        "Dice": 100 * ratio(2 * right, truth + predicted),
    }
    return metrics | ({"boundary_IoU": 100 * ratio(sums[3], sums[4])} if len(sums) > 3 else {})


def _means(sums: NDArray[np.float64], by_class: dict[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    """Metrics over all classes ``(...)`` from sums ``(3 or 5, ..., K)`` and the metrics of classes ``(..., K)``."""
    right, truth = sums[:2]
    pixels = truth.sum(axis=-1)
    means = {
        "mIoU": mean_defined(by_class["IoU"]),
        "fwIoU": ratio((truth * np.nan_to_num(by_class["IoU"])).sum(axis=-1), pixels),
        "pACC": 100 * ratio(right.sum(axis=-1), pixels),
        "mACC": mean_defined(by_class["ACC"]),
        "mDice": mean_defined(by_class["Dice"]),
    }
    return means | ({"boundary_mIoU": mean_defined(by_class["boundary_IoU"])} if "boundary_IoU" in by_class else {})


def _class_reason(key: str, name: str) -> str:
    what, where = {
        "ACC": ("pixel", "the ground truth"),
        "boundary_IoU": ("boundary", "ground truth or prediction"),
    }.get(key, ("pixel", "ground truth or prediction"))
    return f"class {name!r} has no {what} in {where}"
