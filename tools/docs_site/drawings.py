"""The drawings of ``docs/evaluation_explained.md``; all numbers in them are computed from what is drawn."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tools.docs_site.svg import FAINT, INK, LINE, PREDICTION, TRUTH, Axes, Drawing, Point

RANKED = (True, True, False, True, True, False, False, True, False, False)
"""Ten detections by descending score, and whether each is right; there are six objects."""

OBJECTS = 6
PRECISION_WANTED = 0.9


def iou_of_discs(radius: float, distance: float) -> float:
    """IoU of two discs of one radius whose centers are less than two radii apart (the area of a lens)."""
    lens = 2 * radius**2 * math.acos(distance / (2 * radius)) - distance / 2 * math.sqrt(4 * radius**2 - distance**2)
    return lens / (2 * math.pi * radius**2 - lens)


def overlap() -> str:
    """Pairs of discs with four values of IoU."""
    drawing = Drawing(640, 190, "Four pairs of discs that overlap more and more, with their IoU")
    for index, distance in enumerate((62.0, 35.0, 15.0, 5.5)):
        x, y, radius = 85.0 + 157 * index, 80.0, 45.0
        for shift, color in ((-distance / 2, TRUTH), (distance / 2, PREDICTION)):
            drawing.shape(
                "circle", cx=x + shift, cy=y, r=radius, fill=color, fill_opacity=0.25, stroke=color, stroke_width=2
            )
        drawing.text((x, 160), f"IoU {iou_of_discs(radius, distance):.2f}", anchor="middle")
    drawing.text((14, 182), "green: ground truth, red: prediction", size=11, color=FAINT)
    return drawing.svg()


def ranked_curve() -> list[Point]:
    """Recall and precision after each of the ranked detections."""
    right = np.cumsum(RANKED)
    return [(float(hits) / OBJECTS, float(hits) / (index + 1)) for index, hits in enumerate(right)]


def average_precision(curve: list[Point]) -> float:
    """COCO's: at 101 recalls from 0 to 1, the highest precision at that recall or a higher one, averaged."""
    recalls = np.linspace(0, 1, 101)
    return float(np.mean([max((p for r, p in curve if r >= recall), default=0.0) for recall in recalls]))


def precision_recall() -> str:
    """Ten ranked detections beside their curve."""
    curve = ranked_curve()
    drawing = Drawing(640, 340, "Ten detections in the order of their scores, and the precision-recall curve of them")
    for x, text in ((30, "score"), (90, "detection"), (185, "precision"), (265, "recall")):
        drawing.text((x, 34), text, size=12, color=FAINT)
    for index, (is_right, (recall, precision)) in enumerate(zip(RANKED, curve, strict=True)):
        y = 60 + 26 * index
        drawing.text((30, y), f"{0.98 - 0.07 * index:.2f}")
        drawing.text((90, y), "right" if is_right else "wrong", color=TRUTH if is_right else PREDICTION)
        drawing.text((185, y), f"{precision:.2f}")
        drawing.text((265, y), f"{recall:.2f}")
    axes = Axes(drawing, 380, 50, 220, ("recall", "precision"))
    envelope = [(recall, max(p for r, p in curve if r >= recall)) for recall, _ in curve]
    steps = [(0.0, envelope[0][1])]
    for recall, precision in envelope:
        steps += [(steps[-1][0], precision), (recall, precision)]
    area = [axes.at(0, 0), *(axes.at(*step) for step in steps), axes.at(steps[-1][0], 0)]
    places = " ".join(f"{x:.1f},{y:.1f}" for x, y in area)
    drawing.shape("polygon", points=places, fill=LINE, fill_opacity=0.15)
    drawing.line([axes.at(*point) for point in steps])
    for point in curve:
        center = axes.at(*point)
        drawing.shape("circle", cx=center[0], cy=center[1], r=3, fill=INK)
    drawing.text((490, 326), f"AP {100 * average_precision(curve):.1f}", size=14, anchor="middle")
    return drawing.svg()


def errors() -> str:
    """What can be wrong with a detection, one box each."""
    drawing = Drawing(640, 300, "Six pairs of ground truth and prediction: right, and five kinds of errors")
    titles = (
        "right",
        "bad outline (Loc)",
        "wrong class (Cls)",
        "duplicate (Dupe)",
        "false alarm (Bkg)",
        "missed (Miss)",
    )
    discs: tuple[tuple[tuple[float, float, str], ...], ...] = (
        ((0, 38, TRUTH), (3, 38, PREDICTION)),
        ((0, 38, TRUTH), (26, 40, PREDICTION)),
        ((0, 38, TRUTH), (3, 38, LINE)),
        ((0, 38, TRUTH), (3, 38, PREDICTION), (-5, 34, PREDICTION)),
        ((10, 30, PREDICTION),),
        ((0, 38, TRUTH),),
    )
    for index, (title, shown) in enumerate(zip(titles, discs, strict=True)):
        x, y = 110.0 + 210 * (index % 3), 62.0 + 138 * (index // 3)
        for shift, radius, color in shown:
            dashes = {"stroke_dasharray": "5 4"} if color == TRUTH else {}
            drawing.shape(
                "circle",
                cx=x + shift,
                cy=y,
                r=radius,
                fill=color,
                fill_opacity=0.12,
                stroke=color,
                stroke_width=2,
                **dashes,
            )
        drawing.text((x, y + 62), title, anchor="middle")
    drawing.text(
        (14, 290),
        "dashed green: ground truth, red: prediction, blue: prediction of another class",
        size=11,
        color=FAINT,
    )
    return drawing.svg()


RADII_PX = (100.0, 97.0)
IMAGE_SIDE_PX = 300
BAND_PX = 0.02 * math.hypot(IMAGE_SIDE_PX, IMAGE_SIDE_PX)


def disc_and_boundary_iou() -> tuple[float, float]:
    """Mask IoU, and IoU of the boundaries, of two concentric discs."""
    outer, inner = RADII_PX
    band = outer - BAND_PX, inner - BAND_PX
    boundary = (inner**2 - band[0] ** 2) / (outer**2 - band[1] ** 2)
    return (inner / outer) ** 2, boundary


def boundaries() -> str:
    """Two discs whose masks agree and whose boundaries do not."""
    mask, boundary = disc_and_boundary_iou()
    drawing = Drawing(640, 270, "A disc and a smaller one in it: as masks, and as boundaries")
    for x, text in ((150.0, f"mask IoU {mask:.2f}"), (470.0, f"IoU of the boundaries {boundary:.2f}")):
        for radius, color in zip(RADII_PX, (TRUTH, PREDICTION), strict=True):
            if x < 300:
                drawing.shape("circle", cx=x, cy=120, r=radius, fill=color, fill_opacity=0.25, stroke=color)
            else:
                middle = radius - BAND_PX / 2
                ring = {"stroke": color, "stroke_width": BAND_PX, "stroke_opacity": 0.45}
                drawing.shape("circle", cx=x, cy=120, r=middle, fill="none", **ring)
        drawing.text((x, 250), text, anchor="middle")
    return drawing.svg()


def simulated_images() -> NDArray[np.float64]:
    """A quality from 0 to 100 of each of 800 images, as models have it: many good ones, some very bad ones."""
    rng = np.random.default_rng(3)
    return np.asarray(100 * rng.beta(2.0, 1.3, size=800))


def interval_of(values: NDArray[np.float64]) -> tuple[float, float]:
    """The percentile bootstrap's interval of the mean, 1,000 draws of the images."""
    draws = np.random.default_rng(0).integers(0, len(values), size=(1000, len(values)))
    low, high = np.percentile(values[draws].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def intervals() -> str:
    """One model, measured on more and more images."""
    values = simulated_images()
    drawing = Drawing(640, 230, "The interval of one model's metric becomes narrower with the number of images")
    scale = 5.2
    for row, count in enumerate((13, 50, 200, 800)):
        y, (low, high) = 50 + 42 * row, interval_of(values[:count])
        mean = float(values[:count].mean())
        drawing.text((20, y + 5), f"{count} images")
        left, middle, right = (110 + scale * value for value in (low, mean, high))
        drawing.line([(left, y), (right, y)], width=5)
        drawing.shape("circle", cx=middle, cy=y, r=6, fill=INK)
        drawing.text((right + 10, y + 5), f"{mean:.0f} ({low:.0f} to {high:.0f})", size=12)
    for tick in (0, 25, 50, 75):
        drawing.text((110 + scale * tick, 216), f"{tick}", size=11, color=FAINT, anchor="middle")
    return drawing.svg()


def simulated_scores() -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Scores of 400 detections in descending order, and which are right: a detector that is too sure of itself."""
    rng = np.random.default_rng(1)
    scores = np.sort(rng.uniform(0.02, 1, size=400))[::-1]
    return scores, np.asarray(rng.uniform(size=400) < scores**1.7)


def thresholds() -> str:
    """Precision, recall and F1 over the threshold, with the two thresholds that an evaluation gives."""
    scores, right = simulated_scores()
    hits = np.cumsum(right)
    precision, recall = hits / np.arange(1, len(hits) + 1), hits / hits[-1]
    f1 = 2 * precision * recall / (precision + recall)
    drawing = Drawing(640, 330, "Precision rises and recall falls with the threshold; F1 is highest in between")
    axes = Axes(drawing, 70, 50, 230, ("threshold", "precision, recall, F1"))
    for row, (name, values, color) in enumerate(
        (("precision", precision, LINE), ("recall", recall, TRUTH), ("F1", f1, INK))
    ):
        drawing.line([axes.at(float(x), float(y)) for x, y in zip(scores, values, strict=True)], color=color)
        drawing.text((350, 90 + 22 * row), name, color=color)
    best = int(np.argmax(f1))
    precise = int(np.flatnonzero(precision >= PRECISION_WANTED)[-1])
    for row, (index, text) in enumerate(((best, "best F1"), (precise, f"precision {PRECISION_WANTED:g}"))):
        x = float(scores[index])
        drawing.line([axes.at(x, 0), axes.at(x, 1)], color=PREDICTION, width=1.5, dashes="4 4" if row else "")
        values = f"precision {precision[index]:.2f}, recall {recall[index]:.2f}"
        drawing.text((350, 180 + 48 * row), f"{text}: threshold {x:.2f}{' (dashed)' if row else ''}")
        drawing.text((350, 198 + 48 * row), values, size=12, color=FAINT)
    return drawing.svg()


def reliability() -> str:
    """The share of right detections by score, beside the diagonal of a model that is as sure as it is right."""
    scores, right = simulated_scores()
    drawing = Drawing(640, 330, "The share of right detections lies below the score: the model is too sure of itself")
    axes = Axes(drawing, 70, 50, 230, ("score", "share of right detections"))
    drawing.line([axes.at(0, 0), axes.at(1, 1)], color=FAINT, width=1, dashes="4 4")
    for low in np.arange(0, 1, 0.1):
        inside = (scores >= low) & (scores < low + 0.1)
        share = float(right[inside].mean())
        (x, top), (right_px, bottom) = axes.at(float(low), share), axes.at(float(low) + 0.09, 0)
        drawing.shape("rect", x=x, y=top, width=right_px - x, height=bottom - top, fill=LINE, fill_opacity=0.55)
    drawing.text((350, 120), "On the dashed line a score is")
    drawing.text((350, 140), "the share of right detections.")
    drawing.text((350, 176), "Bars below it: too sure of itself.")
    return drawing.svg()


TRUTH_MAP = ("sssssrrr", "ssssrrrr", "sssrrrrr", "ssrrrrrr")
PREDICTED_MAP = ("sssssssr", "sssssrrr", "ssssrrrr", "ssrrrrrr")
CLASSES = {"s": ("sky", "#7fb2e5"), "r": ("road", "#9a8c7c")}


def iou_of_maps(letter: str) -> float:
    """IoU of a class in the two small label maps."""
    pairs = list(zip("".join(TRUTH_MAP), "".join(PREDICTED_MAP), strict=True))
    both = sum(a == b == letter for a, b in pairs)
    return both / sum(letter in pair for pair in pairs)


def label_maps() -> str:
    """Two label maps of 8 by 4 pixels and the IoU of each class."""
    drawing = Drawing(
        640, 190, "Ground truth and prediction as grids of pixels of two classes, with the IoU of each class"
    )
    for left, title, rows in ((20, "ground truth", TRUTH_MAP), (240, "prediction", PREDICTED_MAP)):
        drawing.text((left, 24), title)
        for y, line in enumerate(rows):
            for x, letter in enumerate(line):
                wrong = rows is PREDICTED_MAP and TRUTH_MAP[y][x] != letter
                edge = (
                    {"stroke": PREDICTION, "stroke_width": 2.5} if wrong else {"stroke": "#ffffff", "stroke_width": 1}
                )
                place = {"x": left + 24 * x, "y": 40 + 24 * y, "width": 22, "height": 22}
                drawing.shape("rect", **place, fill=CLASSES[letter][1], **edge)
    values = {letter: iou_of_maps(letter) for letter in CLASSES}
    for row, (letter, (name, color)) in enumerate(CLASSES.items()):
        drawing.shape("rect", x=460, y=48 + 30 * row, width=16, height=16, fill=color)
        drawing.text((486, 61 + 30 * row), f"{name}: IoU {100 * values[letter]:.1f}")
    drawing.text((460, 130), f"mIoU {100 * sum(values.values()) / len(values):.1f}", size=15)
    drawing.text((20, 170), "red edges: wrong pixels", size=11, color=FAINT)
    return drawing.svg()


DRAWINGS: dict[str, Callable[[], str]] = {
    "overlap": overlap,
    "precision_recall": precision_recall,
    "errors": errors,
    "boundaries": boundaries,
    "intervals": intervals,
    "thresholds": thresholds,
    "reliability": reliability,
    "label_maps": label_maps,
}
"""The drawings by name."""
