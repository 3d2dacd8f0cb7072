"""A year over farmland: for each month a TIFF of five bands, and label images of some of the fields.

``images/SCENE/2020-01.tif`` to ``2020-12.tif`` are one image of 60 channels, with blue, green, red, near and
short-wave infrared as reflectance times 10,000 and 0 under clouds. ``train/labels/SCENE.png`` and
``val/labels/SCENE.png`` label different fields of it: 0 for pixels of no label, 1 and up for the crops.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import tifffile

from d2tune.annotations.io.outputs import write_png
from d2tune.files import write_bytes
from d2tune.samples.rendering.canvas import value_noise

CLASS_NAMES = ("wheat", "barley", "rapeseed", "maize", "sugar beet", "potato", "sunflower", "alfalfa")

WIDTH_PX, HEIGHT_PX = 1800, 1135
BANDS = ("blue", "green", "red", "near infrared", "short-wave infrared")
MONTHS = tuple(f"2020-{month:02d}" for month in range(1, 13))

_SOIL = np.array([0.08, 0.11, 0.15, 0.22, 0.28], np.float32)
_LEAF = np.array([0.03, 0.07, 0.04, 0.46, 0.2], np.float32)
_STRAW = np.array([0.1, 0.16, 0.22, 0.32, 0.34], np.float32)
_BLOOM = np.array([0.02, 0.14, 0.16, 0.02, 0.0], np.float32)

# the months of first growth, full cover, ripening and harvest; the most cover; brightness of leaves; months in bloom
_SEASONS = {
    "wheat": (2.0, 4.2, 5.6, 6.8, 0.88, 1.0, ()),
    "barley": (1.6, 3.6, 4.8, 5.9, 0.85, 0.94, ()),
    "rapeseed": (0.8, 3.2, 5.2, 6.3, 0.9, 1.05, (3, 4)),
    "maize": (4.6, 6.4, 8.2, 9.3, 0.92, 1.0, ()),
    "sugar beet": (4.0, 5.8, 9.6, 10.6, 0.95, 1.12, ()),
    "potato": (4.3, 5.7, 7.2, 8.2, 0.8, 1.0, (5,)),
    "sunflower": (4.2, 5.8, 6.9, 8.6, 0.78, 0.9, (6,)),
    "alfalfa": (1.2, 3.2, 9.8, 11.2, 0.86, 1.08, ()),
}
_CUTS = {"alfalfa": (4.6, 6.2, 7.8)}
_WILD = len(CLASS_NAMES)
_LEFT_WILD, _LABELED, _FOR_VALIDATION = 0.14, 0.7, 0.3
_SMALLEST_FIELD_PX, _LARGEST_FIELD_PX = 45.0, 150.0
_HEADLAND_PX = 5
_SCALE = 10_000


def write(folder: Path, *, images: int, seed: int) -> dict[str, int]:
    """Write scenes of 1800 x 1135 px, each with two label images: ``images`` label images, rounded up to pairs.

    Returns:
        How many label images ``train`` and ``val`` have.
    """
    scenes = (images + 1) // 2
    for index in range(scenes):
        rng = np.random.default_rng([seed, index, *b"crops"])
        name = f"scene_{index + 1:02d}"
        fields, crops = lay_out(rng)
        for month, bands in zip(MONTHS, observe(rng, fields, crops), strict=True):
            write_bytes(folder / "images" / name / f"{month}.tif", _tiff(bands))
        for split, labels in zip(("train", "val"), label(rng, fields, crops), strict=True):
            write_png(folder / split / "labels" / f"{name}.png", labels)
    return {"train": scenes, "val": scenes}


def lay_out(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Divide the land into fields.

    Returns:
        The field of every pixel, (H, W) int32, and the crop of every field as its place in :data:`CLASS_NAMES`, or
        one more where nothing is sown, (N,).
    """
    corners = np.array(
        [[-80, -80], [WIDTH_PX + 80, -80], [WIDTH_PX + 80, HEIGHT_PX + 80], [-80, HEIGHT_PX + 80]], float
    )
    waiting, done = [corners], []
    while waiting:
        plot = waiting.pop()
        halves = _split(rng, plot)
        if halves:
            waiting.extend(halves)
        else:
            done.append(plot)
    fields = np.zeros((HEIGHT_PX, WIDTH_PX), np.int32)
    for number, plot in enumerate(done):
        cv2.fillPoly(fields, [np.rint(plot * 16).astype(np.int32)], number, shift=4)
    crops = rng.permutation(np.arange(len(done)) % len(CLASS_NAMES))
    crops[rng.random(len(done)) < _LEFT_WILD] = _WILD
    return fields, crops


def _split(rng: np.random.Generator, plot: np.ndarray) -> list[np.ndarray]:
    """Two halves of a convex plot, cut across its longer side; none where it is small enough."""
    middle = plot.mean(axis=0)
    _, (long, short), _ = cv2.minAreaRect(plot.astype(np.float32))
    if max(long, short) < rng.uniform(1.2 * _SMALLEST_FIELD_PX, _LARGEST_FIELD_PX):
        return []
    spread = plot - middle
    direction = np.linalg.eigh(spread.T @ spread)[1][:, 1]
    turn = rng.normal(0, 0.12)
    normal = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ direction
    side = (spread - rng.uniform(-0.12, 0.12) * max(long, short) * direction) @ normal
    halves: list[list[np.ndarray]] = [[], []]
    for i, point in enumerate(plot):
        after = (i + 1) % len(plot)
        halves[int(side[i] >= 0)].append(point)
        if (side[i] >= 0) != (side[after] >= 0):
            cut = point + (plot[after] - point) * side[i] / (side[i] - side[after])
            for half in halves:
                half.append(cut)
    return [np.array(half) for half in halves]


def observe(rng: np.random.Generator, fields: np.ndarray, crops: np.ndarray) -> Iterator[np.ndarray]:
    """What a satellite sees, month by month: (H, W, 5) uint16, 0 where clouds hide the ground."""
    shape = fields.shape
    late = rng.normal(0, 0.35, len(crops))
    vigour = rng.uniform(0.85, 1.1, len(crops))
    bright = rng.uniform(0.8, 1.2, len(crops)).astype(np.float32)
    wild = rng.uniform(0.35, 0.75, len(crops))
    uneven = 0.8 + 0.4 * value_noise(rng, shape, 90, octaves=4)
    hedge = _hedges(fields)
    for month in range(12):
        cover, ripe, bloom = _state(month, crops, late, vigour, wild)
        green = np.clip(cover[fields] * uneven, 0, 0.97)[..., None]
        under = (
            np.where(ripe[fields][..., None], _STRAW, _SOIL)
            * (bright[fields] * (1.15 - 0.3 * (uneven - 0.8)))[..., None]
        )
        leaves = _leaf_tone(crops)[fields][..., None] * _LEAF + bloom[fields][..., None] * _BLOOM
        ground = under + green * (leaves - under)
        ground += hedge[..., None] * (
            (0.5 + 0.35 * np.sin((month - 2) / 12 * 2 * np.pi)) * _LEAF + 0.5 * _SOIL - ground
        )
        ground *= rng.uniform(0.93, 1.07, len(BANDS)).astype(np.float32)
        ground += 0.012 * rng.standard_normal(ground.shape, dtype=np.float32)
        bands = np.clip(np.rint(ground * _SCALE), 1, 2**16 - 1).astype(np.uint16)
        if month in (0, 1, 3, 8, 10, 11) or rng.random() < 0.25:
            bands[value_noise(rng, shape, 260, octaves=4) > rng.uniform(0.56, 0.66)] = 0
        yield bands


def _state(
    month: int, crops: np.ndarray, late: np.ndarray, vigour: np.ndarray, wild: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How far leaves cover each field, whether it is ripe or stubble, and how much it blooms, each (N,) float32."""
    cover, ripe, bloom = (np.zeros(len(crops), np.float32) for _ in range(3))
    for place, name in enumerate(CLASS_NAMES):
        here = crops == place
        start, full, ripening, harvest, most, _, blooming = _SEASONS[name]
        when = month - late[here]
        up = np.clip((when - start) / (full - start), 0, 1)
        down = np.clip((when - ripening) / (harvest - ripening), 0, 1)
        grown = most * up * up * (3 - 2 * up) * (1 - down * down * (3 - 2 * down))
        for cut in _CUTS.get(name, ()):
            grown *= 1 - 0.6 * np.exp(-(((when - cut) / 0.5) ** 2))
        cover[here] = 0.06 + grown * vigour[here]
        ripe[here] = (down > 0.3) & (when < harvest + 1.5)
        bloom[here] = month in blooming
    still = crops == _WILD
    cover[still] = wild[still] * (0.8 + 0.25 * np.sin((month - 2.5) / 12 * 2 * np.pi))
    return cover, ripe, bloom


def _leaf_tone(crops: np.ndarray) -> np.ndarray:
    """How bright the leaves of each field are, (N,) float32."""
    tones: np.ndarray = np.array([*(season[5] for season in _SEASONS.values()), 0.8], np.float32)[crops]
    return tones


def _hedges(fields: np.ndarray) -> np.ndarray:
    """The borders between fields, (H, W) float32 from 0 to 1."""
    edge = np.zeros(fields.shape, np.uint8)
    edge[1:][fields[1:] != fields[:-1]] = 255
    edge[:, 1:][fields[:, 1:] != fields[:, :-1]] = 255
    result: np.ndarray = cv2.GaussianBlur(cv2.dilate(edge, np.ones((3, 3), np.uint8)), (0, 0), 0.8) / np.float32(255)
    return result


def label(rng: np.random.Generator, fields: np.ndarray, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Label images for training and validation, (H, W) uint8: disjoint fields, without their borders."""
    draws = rng.random(len(crops))
    inner = cv2.erode((_hedges(fields) < 0.05).astype(np.uint8), np.ones((_HEADLAND_PX,) * 2, np.uint8))
    values = np.where(crops == _WILD, 0, crops + 1).astype(np.uint8)
    train = np.where(draws < _LABELED * (1 - _FOR_VALIDATION), values, 0)
    val = np.where((draws >= _LABELED * (1 - _FOR_VALIDATION)) & (draws < _LABELED), values, 0)
    return (train[fields] * inner).astype(np.uint8), (val[fields] * inner).astype(np.uint8)


def _tiff(bands: np.ndarray) -> bytes:
    """A tiled, compressed TIFF with one sample per band."""
    stream = io.BytesIO()
    tifffile.imwrite(
        stream,
        bands,
        photometric="minisblack",
        planarconfig="contig",
        tile=(256, 256),
        compression="zlib",
        compressionargs={"level": 1},
    )
    return stream.getvalue()
