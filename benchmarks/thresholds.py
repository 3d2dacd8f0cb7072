"""How much F1 a best-F1 threshold loses on new images, by the number of annotated objects that it was chosen on.

``python benchmarks/thresholds.py`` draws the scores of right and of false detections of four imaginary detectors, picks
the threshold with the highest F1 on a few objects, and computes its F1 on 200,000 others. The loss is that to the best
threshold of all. Objects are drawn independently; those of one photo are alike, so real losses are larger.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

OBJECTS = (5, 10, 20, 30, 50, 100, 200)
MANY = 200_000


@dataclass(frozen=True)
class Detector:
    """An imaginary detector: Beta distributions of scores, the share of detected objects, false ones an object."""

    right: tuple[float, float]
    false: tuple[float, float]
    recall: float
    false_per_object: float

    def draw(self, objects: int, random: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Scores of right and of false detections on images with so many objects."""
        right = random.beta(*self.right, size=random.binomial(objects, self.recall))
        return right, random.beta(*self.false, size=random.poisson(self.false_per_object * objects))


DETECTORS = {
    "0.5 is nearly best": Detector((4, 2), (2, 4), 0.9, 0.8),
    "sure of itself": Detector((8, 1.5), (4, 2), 0.9, 0.6),
    "unsure of itself": Detector((2, 5), (1.2, 9), 0.9, 2.0),
    "weak": Detector((2.5, 2.5), (1.5, 5), 0.7, 2.0),
}


def best_threshold(right: NDArray[np.float64], false: NDArray[np.float64], objects: int) -> float:
    """The score with the highest F1; 0.5 without detections."""
    scores = np.concatenate([right, false])
    if not len(scores):
        return 0.5
    order = np.argsort(-scores, kind="stable")
    is_right = order < len(right)
    f1 = 2 * np.cumsum(is_right) / (np.arange(1, len(scores) + 1) + objects)
    return float(scores[order][np.argmax(f1)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=1500)
    draws = parser.parse_args().draws
    random = np.random.default_rng(0)
    print("loss of F1 in points: mean, and what 9 in 10 thresholds stay below")
    print(f"{'':20} {'best F1':>14}  {'loss of 0.5':>11}  " + "  ".join(f"{count:>4} objects" for count in OBJECTS))
    for name, detector in DETECTORS.items():
        right, false = map(np.sort, detector.draw(MANY, random))

        def f1(threshold: float, right: NDArray[np.float64] = right, false: NDArray[np.float64] = false) -> float:
            true = len(right) - np.searchsorted(right, threshold)
            return float(200 * true / (true + len(false) - np.searchsorted(false, threshold) + MANY))

        values = {threshold: f1(threshold) for threshold in np.linspace(0, 1, 201)}
        at = max(values, key=lambda threshold: values[threshold])
        cells = []
        for count in OBJECTS:
            losses = [values[at] - f1(best_threshold(*detector.draw(count, random), count)) for _ in range(draws)]
            cells.append(f"{np.mean(losses):5.1f} {np.quantile(losses, 0.9):6.1f}")
        print(f"{name:20} {values[at]:5.1f} at {at:5.3f}  {values[at] - f1(0.5):11.1f}  " + "  ".join(cells))


if __name__ == "__main__":
    main()
