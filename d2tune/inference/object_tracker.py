"""Follows objects through the frames of a video with a model of the meta architecture SiamMask."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode
from numpy.typing import NDArray

from d2tune.annotations.model.types import Mask
from d2tune.data.tracking_crops import EXEMPLAR_PX, SEARCH_PX, ObjectBox, Square, box_of, mean_color
from d2tune.inference.loop import forward_pass, inference_mode
from d2tune.modeling.siammask.anchors import PLACES, place_px
from d2tune.modeling.siammask.meta_arch import Kernels, Searched

_LEAST_SIDE_PX = 10.0
_THIN = 0.06
"""Radius of what is too thin for the body of an object, as a share of the root of its pixels."""


@dataclass(frozen=True, slots=True)
class TrackerOptions:
    """How the place of an object is chosen; see the keys of ``MODEL.SIAMMASK``.

    Attributes:
        window_influence: Share of the cosine window in the scores.
        penalty: How much a change of the box lowers a score.
        update_rate: Share of the new size, times its score.
        mask_threshold: The least probability of a pixel of the mask.
        mask_share: Share of the box around the mask in the new box; the rest is that of the predicted box.
        channel_order: ``RGB`` or ``BGR``.
    """

    window_influence: float
    penalty: float
    update_rate: float
    mask_threshold: float
    mask_share: float
    channel_order: str

    @classmethod
    def of_config(cls, cfg: CfgNode) -> TrackerOptions:
        """The options that a config sets."""
        siammask = cfg.MODEL.SIAMMASK
        return cls(
            siammask.WINDOW_INFLUENCE,
            siammask.PENALTY,
            siammask.UPDATE_RATE,
            siammask.MASK_THRESHOLD,
            siammask.MASK_SHARE,
            cfg.INPUT.FORMAT,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Tracked:
    """An object in a frame.

    Attributes:
        probability: Of each pixel of the frame, ``(H, W)`` float32.
        box: Its box.
        score: From 0 to 1.
    """

    probability: NDArray[np.float32]
    box: ObjectBox
    score: float


@dataclass(slots=True)
class _Followed:
    """An object that is followed: where it was last, and what it is searched with."""

    box: ObjectBox
    kernels: Kernels


class ObjectTracker:
    """Follows any number of objects from frame to frame.

    Args:
        model: A `SiamMask`.
        options: How places are chosen.
    """

    def __init__(self, model: Any, options: TrackerOptions) -> None:
        self._model = model
        self._options = options
        self._followed: dict[int, _Followed] = {}
        hanning = np.hanning(PLACES)
        self._window = np.outer(hanning, hanning)

    @property
    def objects(self) -> list[int]:
        """The numbers of the objects that are followed."""
        return list(self._followed)

    def start(self, frame: NDArray[np.uint8], masks: Mapping[int, Mask]) -> None:
        """Begin to follow objects, or begin anew with those that are followed already; empty masks are ignored.

        Args:
            frame: ``(H, W, 3)`` RGB.
            masks: Mask ``(H, W)`` of each object by its number.
        """
        border = mean_color(frame)
        for number, mask in masks.items():
            box = body_box(mask)
            if box is None:
                continue
            exemplar = Square.around(box, side_px=EXEMPLAR_PX).cut(frame, border)
            with inference_mode(self._model), forward_pass(self._model):
                kernels = self._model.kernels(self._tensor([exemplar]))
            self._followed[number] = _Followed(box, kernels)

    def step(self, frame: NDArray[np.uint8]) -> dict[int, Tracked]:
        """Follow all objects to the next frame ``(H, W, 3)`` RGB."""
        squares = {number: Square.around(one.box, side_px=SEARCH_PX) for number, one in self._followed.items()}
        tracked = self.look(frame, squares)
        for number, one in tracked.items():
            self._followed[number].box = one.box
        return tracked

    def look(self, frame: NDArray[np.uint8], squares: Mapping[int, Square]) -> dict[int, Tracked]:
        """Look for objects in given squares of 255 px, without following them there.

        Args:
            frame: ``(H, W, 3)`` RGB.
            squares: The square of each object by its number.
        """
        if not squares:
            return {}
        border = mean_color(frame)
        chosen = [self._followed[number] for number in squares]
        images = self._tensor([square.cut(frame, border) for square in squares.values()])
        names = Kernels.__slots__
        kernels = Kernels(*(torch.cat([getattr(one.kernels, name) for one in chosen]) for name in names))
        with inference_mode(self._model), forward_pass(self._model):
            searched = self._model.search(kernels, images)
            best = self._best(searched, chosen, list(squares.values()))
            places = torch.tensor([[number, row, column] for number, (_, _, row, column) in enumerate(best)])
            probabilities = self._model.masks(searched, places).sigmoid().float().cpu().numpy()
        size = (frame.shape[0], frame.shape[1])
        result = {}
        for number, square, (box, score, row, column), values in zip(
            squares, squares.values(), best, probabilities, strict=True
        ):
            probability = _mask_square(square, row, column).back(values, size)
            around = body_box(probability >= self._options.mask_threshold) if self._options.mask_share else None
            box = box if around is None else _mixed(box, around, self._options.mask_share)
            result[number] = Tracked(probability, _inside(box, size), score)
        return result

    def _best(
        self, searched: Searched, followed: list[_Followed], squares: list[Square]
    ) -> list[tuple[ObjectBox, float, int, int]]:
        """For each object its box in the frame, its score, and the row and column of its place."""
        scores = searched.logits.float().softmax(dim=1)[:, 1].cpu().numpy()
        boxes = self._model.boxes(searched).float().cpu().numpy()
        result = []
        for own_scores, own_boxes, one, square in zip(scores, boxes, followed, squares, strict=True):
            penalty = self._penalty(own_boxes, one.box, square)
            influence = self._options.window_influence
            ranked = penalty * own_scores * (1 - influence) + self._window * influence
            at = np.unravel_index(int(ranked.argmax()), ranked.shape)
            x, y, width, height = own_boxes[at].tolist()
            score = float(own_scores[at])
            rate = float(penalty[at]) * score * self._options.update_rate
            center = square.point(x, y)
            size = [
                old * (1 - rate) + new / scale * rate
                for old, new, scale in zip(
                    (one.box.width_px, one.box.height_px), (width, height), square.scale, strict=True
                )
            ]
            result.append((ObjectBox(*center, *size), score, int(at[1]), int(at[2])))
        return result

    def _penalty(self, boxes: NDArray[np.float32], last: ObjectBox, square: Square) -> NDArray[np.float32]:
        """Factors for the scores: the less, the more a box differs from the last one in size and proportions."""
        width, height = last.width_px * square.scale[0], last.height_px * square.scale[1]
        size = _padded_size(boxes[..., 2], boxes[..., 3]) / _padded_size(np.array(width), np.array(height))
        ratio = (width / height) / (boxes[..., 2] / boxes[..., 3])
        change = np.maximum(size, 1 / size) * np.maximum(ratio, 1 / ratio)
        penalty: NDArray[np.float32] = np.exp(-(change - 1) * self._options.penalty)
        return penalty

    def _tensor(self, images: list[NDArray[np.uint8]]) -> torch.Tensor:
        """RGB images in the channel order of the model, ``(N, 3, S, S)``."""
        stacked = np.stack(images)
        if self._options.channel_order == "BGR":
            stacked = stacked[..., ::-1]
        return torch.from_numpy(np.ascontiguousarray(stacked.transpose(0, 3, 1, 2)))


def body_box(mask: Mask) -> ObjectBox | None:
    """The box of the largest connected body of a mask ``(H, W)``, without thin lines and specks; None without pixels.

    A shadow, a rope or a leak of a predicted mask would make a box that is mostly ground.
    """
    whole = box_of(np.ascontiguousarray(mask))
    if whole is None:
        return None
    radius = max(1, round(_THIN * math.sqrt(np.count_nonzero(mask))))
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    left, top = int(whole.x - whole.width_px / 2), int(whole.y - whole.height_px / 2)
    window = mask[top : top + int(whole.height_px), left : left + int(whole.width_px)].astype(np.uint8)
    count, _, rows, _ = cv2.connectedComponentsWithStats(cv2.morphologyEx(window, cv2.MORPH_OPEN, disk))
    if count < 2:
        return whole
    x, y, width, height = rows[1 + int(rows[1:, cv2.CC_STAT_AREA].argmax()), :4].tolist()
    return ObjectBox(left + x + width / 2, top + y + height / 2, width, height)


def resolved(tracked: Mapping[int, Tracked], *, threshold: float) -> dict[int, Mask]:
    """The masks ``(H, W)`` of objects, each pixel of the object that is most probable there.

    Args:
        tracked: The objects in a frame by their numbers.
        threshold: The least probability of a pixel of a mask.
    """
    if not tracked:
        return {}
    stacked = np.stack([one.probability for one in tracked.values()])
    best = stacked.argmax(axis=0)
    return {number: (best == at) & (stacked[at] >= threshold) for at, number in enumerate(tracked)}


def _padded_size(width: NDArray[Any], height: NDArray[Any]) -> NDArray[Any]:
    margin = (width + height) / 2
    result: NDArray[Any] = np.sqrt((width + margin) * (height + margin))
    return result


def _mask_square(square: Square, row: int, column: int) -> Square:
    """The square of the frame that the mask of 127 px at a place of a search square is of."""
    x, y = square.point(place_px(column), place_px(row))
    return replace(square, x=x, y=y, side_px=EXEMPLAR_PX)


def _mixed(box: ObjectBox, other: ObjectBox, share: float) -> ObjectBox:
    """A box between two, by the share of the second one."""
    return ObjectBox(
        box.x + share * (other.x - box.x),
        box.y + share * (other.y - box.y),
        box.width_px + share * (other.width_px - box.width_px),
        box.height_px + share * (other.height_px - box.height_px),
    )


def _inside(box: ObjectBox, size_hw: tuple[int, int]) -> ObjectBox:
    """A box whose center is in the frame and whose size is not above that of the frame."""
    height, width = size_hw
    numbers = (box.x, box.y, box.width_px, box.height_px)
    if not all(map(math.isfinite, numbers)):
        return ObjectBox(width / 2, height / 2, _LEAST_SIDE_PX, _LEAST_SIDE_PX)
    return ObjectBox(
        min(max(box.x, 0.0), float(width)),
        min(max(box.y, 0.0), float(height)),
        min(max(box.width_px, _LEAST_SIDE_PX), float(width)),
        min(max(box.height_px, _LEAST_SIDE_PX), float(height)),
    )
