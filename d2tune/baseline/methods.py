"""The classical methods of a baseline: each is fitted on training images, and gives the class of each pixel."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from d2tune.baseline.pixels import Scaling, TrainingImages, sample_rows
from d2tune.classical import thresholds
from d2tune.classical.clusters import best_classes, count_pairs, mean_iou
from d2tune.classical.mixtures import ClassMixtures, fit_mixtures
from d2tune.classical.self_organizing_map import SelfOrganizingMap, fit_map
from d2tune.data.image_reader import Pixels
from d2tune.errors import DataError

_ROWS = 60_000
"""Pixels that maps and mixtures are fitted to."""


class Method(ABC):
    """A classical method; see the module."""

    name: ClassVar[str]
    """As ``--methods`` takes it."""
    title: ClassVar[str]
    """As tables show it."""

    @abstractmethod
    def fit(self, images: TrainingImages, scaling: Scaling) -> str:
        """Fit it; returns what was chosen, for the table."""

    @abstractmethod
    def predict(self, pixels: Pixels, scaling: Scaling) -> NDArray[np.uint8]:
        """The class of each pixel ``(H, W)`` of an image ``(H, W, C)``."""


class _ByClusters(Method):
    """A method that divides pixels into clusters, whose classes are those with the best mean IoU in training."""

    n_clusters: ClassVar[int]

    def __init__(self) -> None:
        self._classes: NDArray[np.uint8] = np.zeros(self.n_clusters, dtype=np.uint8)

    @abstractmethod
    def _clusters(self, pixels: Pixels, scaling: Scaling) -> NDArray[Any]:
        """The cluster of each pixel ``(H, W)``."""

    def fit(self, images: TrainingImages, scaling: Scaling) -> str:
        self._classes = best_classes(self._counts(images, scaling)).astype(np.uint8)
        return ""

    def predict(self, pixels: Pixels, scaling: Scaling) -> NDArray[np.uint8]:
        return np.asarray(self._classes[self._clusters(pixels, scaling)])

    def _counts(self, images: TrainingImages, scaling: Scaling) -> NDArray[np.int64]:
        counts = np.zeros((self.n_clusters, images.n_classes), dtype=np.int64)
        for pixels, truth in images:
            clusters = self._clusters(pixels, scaling)
            counts += count_pairs(clusters, truth, n_clusters=self.n_clusters, n_classes=images.n_classes)
        return counts


class _Threshold(_ByClusters):
    """A threshold of each image."""

    n_clusters = 2

    def _clusters(self, pixels: Pixels, scaling: Scaling) -> NDArray[Any]:
        gray = scaling.gray(pixels)
        return (gray > self._threshold(gray)).astype(np.int64)

    @abstractmethod
    def _threshold(self, gray: NDArray[np.uint8]) -> float:
        """The threshold of an image ``(H, W)``."""


class Otsu(_Threshold):
    """Otsu's threshold."""

    name, title = "otsu", "Otsu"

    def _threshold(self, gray: NDArray[np.uint8]) -> float:
        return thresholds.otsu(gray)


class RiddlerCalvard(_Threshold):
    """The threshold of Riddler and Calvard."""

    name, title = "riddler-calvard", "Riddler-Calvard"

    def _threshold(self, gray: NDArray[np.uint8]) -> float:
        return thresholds.riddler_calvard(gray)


class Li(_Threshold):
    """Li's threshold."""

    name, title = "li", "Li"

    def _threshold(self, gray: NDArray[np.uint8]) -> float:
        return thresholds.li(gray)


class MultiOtsu(_ByClusters):
    """Two thresholds by multi-Otsu."""

    name, title = "multi-otsu", "multi-Otsu, 3 classes"
    n_clusters = 3

    def _clusters(self, pixels: Pixels, scaling: Scaling) -> NDArray[Any]:
        gray = scaling.gray(pixels)
        try:
            return np.asarray(np.digitize(gray, thresholds.multi_otsu(gray, self.n_clusters), right=True))
        except DataError:  # one or two gray values
            return np.asarray(gray > gray.min(), dtype=np.int64)


class Sauvola(_ByClusters):
    """Sauvola's local threshold of a smoothed image; smoothing, window and weight are chosen in training."""

    name, title = "sauvola", "Sauvola"
    n_clusters = 2
    _choices: ClassVar = tuple(itertools.product((0.0, 1.0, 2.0), (25, 51), (0.1, 0.2, 0.3)))
    _images: ClassVar = 8

    def __init__(self) -> None:
        super().__init__()
        self._sigma_px, self._window_px, self._k = self._choices[0]

    def fit(self, images: TrainingImages, scaling: Scaling) -> str:
        some = TrainingImages(
            images.dataset, images.reader, images.chosen[: self._images], images.background, images.n_classes
        )
        scores = {}
        for choice in self._choices:
            self._sigma_px, self._window_px, self._k = choice
            counts = self._counts(some, scaling)
            scores[choice] = mean_iou(counts, best_classes(counts))
        self._sigma_px, self._window_px, self._k = max(scores, key=scores.__getitem__)
        super().fit(images, scaling)
        return f"blur {self._sigma_px:g} px, window {self._window_px} px, k {self._k:g}"

    def _clusters(self, pixels: Pixels, scaling: Scaling) -> NDArray[Any]:
        gray = scaling.gray(pixels)
        if self._sigma_px:
            gray = cv2.GaussianBlur(gray, (0, 0), self._sigma_px)
        return (gray > thresholds.sauvola(gray, window_px=self._window_px, k=self._k)).astype(np.int64)


class Map(_ByClusters):
    """A self-organizing map of colors, each of whose units has a class."""

    name, title = "map", "self-organizing map, 6 x 6"
    _side: ClassVar = 6
    n_clusters = _side**2

    def __init__(self) -> None:
        super().__init__()
        self._map: SelfOrganizingMap | None = None

    def fit(self, images: TrainingImages, scaling: Scaling) -> str:
        rows, classes = sample_rows(images, scaling, most=_ROWS, seed=0)
        self._map = fit_map(rows, rows=self._side, columns=self._side)
        units = self._map.predict(rows)
        counts = count_pairs(units, classes, n_clusters=self.n_clusters, n_classes=images.n_classes)
        self._classes = best_classes(counts).astype(np.uint8)
        return f"{len(rows):,} pixels"

    def _clusters(self, pixels: Pixels, scaling: Scaling) -> NDArray[Any]:
        assert self._map is not None
        values = scaling.features(pixels)
        return self._map.predict(values.reshape(-1, values.shape[2])).reshape(values.shape[:2])


class Mixtures(Method):
    """Gaussian mixtures of the colors of each class, with shares as in training or equal, whichever is better."""

    name, title = "mixtures", "Gaussian mixtures, 4 a class"

    def __init__(self) -> None:
        self._mixtures: ClassMixtures | None = None

    def fit(self, images: TrainingImages, scaling: Scaling) -> str:
        rows, classes = sample_rows(images, scaling, most=_ROWS, seed=0)
        present = np.unique(classes)
        fits = {
            "shares as in training": fit_mixtures(rows, classes),
            "equal shares": fit_mixtures(rows, classes, priors={int(one): 1 / len(present) for one in present}),
        }
        n_classes = images.n_classes
        own = np.arange(n_classes)
        scores = {}
        for words, fitted in fits.items():
            counts = count_pairs(fitted.predict(rows), classes, n_clusters=n_classes, n_classes=n_classes)
            scores[words] = mean_iou(counts, own)
        best = max(scores, key=scores.__getitem__)
        self._mixtures = fits[best]
        return f"{len(rows):,} pixels, {best}"

    def predict(self, pixels: Pixels, scaling: Scaling) -> NDArray[np.uint8]:
        assert self._mixtures is not None
        values = scaling.features(pixels)
        flat = self._mixtures.predict(values.reshape(-1, values.shape[2]))
        return flat.reshape(values.shape[:2]).astype(np.uint8)


METHODS: dict[str, type[Method]] = {
    one.name: one for one in (Otsu, RiddlerCalvard, MultiOtsu, Li, Sauvola, Map, Mixtures)
}
"""The methods by their names."""


def chosen_methods(names: Any) -> list[Method]:
    """New methods by their names; all for None.

    Raises:
        DataError: A name does not exist.
    """
    for name in names or ():
        if name not in METHODS:
            raise DataError("the method does not exist", place="--methods", found=name, expected=", ".join(METHODS))
    return [METHODS[name]() for name in dict.fromkeys(names or METHODS)]
