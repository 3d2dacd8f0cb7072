"""Scenes with exact detections: red and blue spots on gray, a network that detects them, and videos of them."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.structures import Boxes, Instances
from numpy.typing import NDArray
from scipy import ndimage

from d2tune.annotations.geometry.masks import encode_mask, to_rle
from d2tune.data.image_reader import ImageReader
from d2tune.inference.predictors.instance import InstancePredictor
from d2tune.inference.results import Detections

NAMES = ("red", "blue")
GRAY = 90
Box = tuple[int, int, int, int]


def frame(width_px: int, height_px: int, *spots: tuple[Box, int, int]) -> NDArray[np.uint8]:
    """A gray RGB image with spots: left, top, right and bottom, class, and brightness from 120 to 255."""
    image = np.full((height_px, width_px, 3), GRAY, np.uint8)
    for (left, top, right, bottom), class_id, brightness in spots:
        image[top:bottom, left:right] = 0
        image[top:bottom, left:right, 2 * class_id] = brightness
    return image


class SpotNetwork:
    """A callable with the inputs and outputs of a Detectron2 model, whose scores are the brightness of spots."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.batches: list[int] = []

    def __call__(self, samples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        self.batches.append(len(samples))
        time.sleep(self.seconds)
        return [{"instances": self._detect(sample)} for sample in samples]

    def _detect(self, sample: dict[str, Any]) -> Instances:
        pixels = sample["image"].numpy().transpose(1, 2, 0).astype(int)
        size = sample["height"], sample["width"]
        assert pixels.shape[:2] == size, "the scenes are not resized"
        masks, scores, classes = [], [], []
        for class_id in range(2):
            own = pixels[..., 2 * class_id]
            rest = np.delete(pixels, 2 * class_id, axis=2).max(axis=2)
            labels, count = ndimage.label(own - rest > 50)
            for number in range(1, count + 1):
                mask = labels == number
                if mask.sum() > 4:
                    masks.append(mask)
                    scores.append(round(float(own[mask].mean()) / 255, 2))
                    classes.append(class_id)
        instances = Instances(size)
        boxes = [box_of(mask) for mask in masks]
        instances.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
        instances.scores = torch.tensor(scores, dtype=torch.float32)
        instances.pred_classes = torch.tensor(classes, dtype=torch.int64)
        instances.pred_masks = torch.from_numpy(np.stack(masks) if masks else np.zeros((0, *size), bool))
        return instances


def box_of(mask: NDArray[np.bool_]) -> Box:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def spot_predictor(network: Any = None, *, least: float = 0.1) -> InstancePredictor:
    """The predictor of spots."""
    return InstancePredictor(
        network or SpotNetwork(), whole_size(), class_names=NAMES, reader=ImageReader(), min_scores=[least] * 2
    )


def whole_size() -> CfgNode:
    """A config that resizes no image."""
    cfg = get_cfg()
    cfg.INPUT.MIN_SIZE_TEST = 0
    return cfg


def detections(
    size_hw: tuple[int, int], *boxes: Box, scores: Sequence[float] = (), classes: Sequence[int] = ()
) -> Detections:
    """Detections whose masks are boxes."""
    masks = np.zeros((len(boxes), *size_hw), bool)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = True
    return Detections(
        *size_hw,
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores or [0.9] * len(boxes), np.float32),
        np.array(classes or [0] * len(boxes), np.int64),
        tuple(to_rle(encode_mask(mask)) for mask in masks),
        NAMES,
    )


def write_video(path: Path, frames: Iterable[NDArray[np.uint8]], *, rate: float = 25.0, codec: str = "FFV1") -> Path:
    """Write RGB frames of even sides; FFV1 in ``.mkv`` and HFYU in ``.avi`` lose nothing."""
    writer: cv2.VideoWriter | None = None
    for image in frames:
        if writer is None:
            size = image.shape[1], image.shape[0]
            writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), rate, size)
            assert writer.isOpened()
        writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    assert writer is not None
    writer.release()
    return path


def read_video(path: Path) -> list[NDArray[np.uint8]]:
    """All frames in RGB."""
    capture, images = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG), []
    while True:
        is_read, image = capture.read()
        if not is_read:
            return images
        images.append(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))


def turned(source: Path, out: Path, degrees: int) -> Path:
    """A copy of an MP4 whose header says that frames are to be turned clockwise (ISO/IEC 14496-12, 8.3.2)."""
    content = bytearray(source.read_bytes())
    begin = content.index(b"tkhd") + 4
    matrix = begin + (40 if content[begin] == 0 else 52)
    one = 1 << 16
    rows = {90: (0, one, -one, 0), 180: (-one, 0, 0, -one), 270: (0, -one, one, 0)}
    a, b, c, d = rows[degrees]
    content[matrix : matrix + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    out.write_bytes(content)
    return out
