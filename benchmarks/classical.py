"""What classical methods give: outlines of balloons from scribbles and boxes, and thresholds of membranes.

``python benchmarks/classical.py`` marks each of the balloons as a person would, with a line along the middle of the
object and another around it, or with a box, and prints the mean IoU of the outlines and the milliseconds of an object;
beside it the random walker with the library's own settings. Then it scores thresholds on all 30 membrane images with
the evaluator's metrics and their intervals, as ``d2tune baseline`` does on a validation split.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from skimage.morphology import skeletonize
from skimage.segmentation import random_walker

from d2tune.classical import thresholds
from d2tune.classical.outline import outline_box, outline_scribbles
from d2tune.evaluation.semantic_metrics import semantic_metrics
from d2tune.metrics.metric import with_interval
from d2tune.metrics.semantic import SemanticScorer

SHARED = Path(__file__).resolve().parents[2] / "shared"
RING = 0.1
"""Distance of the outer scribble, as a share of the square root of the object's area."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=SHARED, help="the folder of real data")
    parser.add_argument("--split", choices=["train", "val"], default="val", help="of the balloons (default: val)")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only each N-th balloon")
    parser.add_argument("--ring", type=float, default=RING, help=f"see the source (default: {RING})")
    parser.add_argument("--out", type=Path, help="write the results to this JSON file")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    results: dict[str, Any] = outlines(options)
    results["membranes"] = membranes(options.shared / "data" / "membrane" / "train")
    print(json.dumps(results, indent=2))
    if options.out:
        options.out.write_text(json.dumps(results, indent=2) + "\n")


def outlines(options: argparse.Namespace) -> dict[str, Any]:
    """Mean IoU, share of balloons from 0.8, and milliseconds of each way to mark an object."""
    ways: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
        "scribbles, grabcut": lambda rgb, mask, inside, outside: outline_scribbles(rgb, inside, outside),
        "scribbles, random-walker": lambda rgb, mask, inside, outside: outline_scribbles(
            rgb, inside, outside, method="random-walker"
        ),
        "box, grabcut": lambda rgb, mask, inside, outside: outline_box(rgb, box_of(mask)),
        "box, random-walker": lambda rgb, mask, inside, outside: outline_box(rgb, box_of(mask), method="random-walker"),
        "scribbles, the library's random walker": default_walker,
    }
    scores: dict[str, list[float]] = {name: [] for name in ways}
    seconds = dict.fromkeys(ways, 0.0)
    for number, (rgb, mask) in enumerate(balloons(options.shared / "data" / "balloon" / options.split)):
        if number % options.every:
            continue
        inside, outside = scribbles(mask, options.ring)
        for name, way in ways.items():
            began = time.process_time()
            predicted = way(rgb, mask, inside, outside)
            seconds[name] += time.process_time() - began
            scores[name].append(float((predicted & mask).sum() / (predicted | mask).sum()))
    return {
        name: {
            "balloons": len(values),
            "mean_iou": round(float(np.mean(values)), 4),
            "share_from_0.8": round(float(np.mean(np.array(values) >= 0.8)), 3),
            "processor_ms": round(1000 * seconds[name] / len(values)),
        }
        for name, values in scores.items()
    }


def balloons(folder: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """RGB image and mask of each balloon."""
    for row in json.loads((folder / "via_region_data.json").read_text()).values():
        rgb = cv2.cvtColor(cv2.imread(str(folder / row["filename"])), cv2.COLOR_BGR2RGB)
        for region in row["regions"].values():
            shape = region["shape_attributes"]
            points = np.stack([shape["all_points_x"], shape["all_points_y"]], axis=1).astype(np.int32)
            mask = np.zeros(rgb.shape[:2], np.uint8)
            cv2.fillPoly(mask, [points], 1)
            yield rgb, mask.astype(bool)


def scribbles(mask: np.ndarray, ring: float = RING) -> tuple[np.ndarray, np.ndarray]:
    """A line along the middle of an object, and a closed one around it."""
    root = float(np.sqrt(mask.sum()))
    pad = int((ring + 0.2) * root) + 20
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), pad, pad, pad, pad, cv2.BORDER_CONSTANT)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, 5)
    inside = skeletonize(padded > 0) & (depth >= 0.3 * depth.max())
    away = cv2.distanceTransform(1 - padded, cv2.DIST_L2, 5)
    at = max(2.0, ring * root)
    outside = (away > at) & (away < at + 2)
    return inside[pad:-pad, pad:-pad], outside[pad:-pad, pad:-pad]


def box_of(mask: np.ndarray) -> tuple[float, float, float, float]:
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return x, y, x + width, y + height


def default_walker(rgb: np.ndarray, mask: np.ndarray, inside: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """``random_walker`` with the settings of the library, on a crop of at most 128 px."""
    x, y, width, height = cv2.boundingRect((inside | outside).astype(np.uint8))
    scale = min(1.0, 128 / max(width, height))
    size = max(2, round(width * scale)), max(2, round(height * scale))

    def scaled(values: np.ndarray) -> np.ndarray:
        return cv2.resize(values[y : y + height, x : x + width].astype(np.float32), size, interpolation=cv2.INTER_AREA)

    seeds = np.where(scaled(inside) > 0, 1, np.where(scaled(outside) > 0, 2, 0))
    labels = random_walker(scaled(rgb) / 255, seeds, mode="cg_j", channel_axis=-1) == 1
    predicted = np.zeros(mask.shape, bool)
    predicted[y : y + height, x : x + width] = cv2.resize(labels.astype(np.float32), (width, height)) >= 0.5
    return predicted


def membranes(folder: Path) -> dict[str, str]:
    """Mean IoU with its interval of thresholds on all images."""

    def smoothed(gray: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(gray, (0, 0), 2)

    ways: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "Otsu": lambda gray: gray > thresholds.otsu(gray),
        "Riddler-Calvard": lambda gray: gray > thresholds.riddler_calvard(gray),
        "Li": lambda gray: gray > thresholds.li(gray),
        "Otsu, blur 2 px": lambda gray: smoothed(gray) > thresholds.otsu(smoothed(gray)),
        "Sauvola, blur 2 px, window 51 px, k 0.1": lambda gray: smoothed(gray) > thresholds.sauvola(smoothed(gray)),
    }
    scorers = {name: SemanticScorer(("membrane", "cell"), boundary=False) for name in ways}
    for path in sorted((folder / "image").glob("*.png")):
        gray = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        truth = (cv2.imread(str(folder / "label" / path.name), cv2.IMREAD_GRAYSCALE) > 0).astype(np.uint8)
        for name, way in ways.items():
            scorers[name].add(way(gray).astype(np.uint8), truth, path.name)
    return {name: with_interval(semantic_metrics(scorer, intervals=True).main) for name, scorer in scorers.items()}


if __name__ == "__main__":
    main()
