"""A small network fine-tuned on the labeled frames of the clip itself, which then finds the objects on all frames.

The network learns the objects of the references from variants of these frames (Caelles et al. 2017, arXiv 1611.05198).
On its way through the clip it goes on learning from its own masks, where it is sure of them (Voigtlaender and Leibe
2017, arXiv 1706.09364). An object is looked for around the place where it was on the frame before, and one that was
lost, in the whole frame.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from d2tune.annotations.formats.semantic import IGNORE_LABEL
from d2tune.annotations.model.types import Mask
from d2tune.errors import DataError
from d2tune.modeling.device import choose_device
from d2tune.propagation.methods.base import Frames, Propagated, Reference
from d2tune.propagation.methods.flow import FlowEstimator, moved
from d2tune.propagation.methods.identity import identity_of
from d2tune.propagation.methods.learner import Learner, Sample, band_confidence, sample_of, with_ground
from d2tune.propagation.methods.network import PropagationNetwork, load_weights
from d2tune.propagation.methods.order import steps_of
from d2tune.propagation.methods.windows import merged_windows, whole, window_around
from d2tune.text import counted

STEPS, STEPS_OF_MORE, MOST_STEPS = 500, 200, 1000
"""Steps of training on one reference, on each further one, and in all."""
ONLINE_STEPS = 2
"""Steps of training after each frame."""

_RECENT = 6
"""Frames whose own masks are trained on."""
_SURE = 0.9
"""Probability from which a pixel of an own mask is trained on."""
_LEAST_CONFIDENCE = 0.6
"""Confidence of all outlines from which an own mask is trained on."""

_FREE_SHARE, _PENALTY = 0.15, 8.0
"""How far an object may have moved or grown, in sizes (roots of areas), and what each further size takes from its
log-odds."""
_BACK_AREA_SHARE, _BACK_PROBABILITY = 0.1, 0.7
"""Area of a lost object, as a share of the last one, and mean probability from which it is taken to be back."""
_NEAR_SHARE = 0.5
"""How far other regions may be from the largest one of an object that is back, in sizes of that region."""
_LEAST_AREA_PX2, _LEAST_AREA_SHARE = 4, 0.005
_SEED = 0


@dataclass(slots=True)
class _State:
    """What is known of the objects on the way.

    Attributes:
        masks: Those of the frame before, by number.
        areas_px2: The last area of each object that was seen.
        recent: Frames with the network's own masks.
        before: Index and pixels of the frame before.
    """

    masks: dict[int, Mask] = field(default_factory=dict)
    areas_px2: dict[int, int] = field(default_factory=dict)
    recent: list[Sample] = field(default_factory=list)
    before: tuple[int, NDArray[np.uint8]] | None = None


class FineTuning:
    """Fine-tunes a network on the references.

    Args:
        weights: A file with ImageNet weights of MobileNetV2; None takes torchvision's.
        steps: Steps of training on one reference; None takes `STEPS`.

    Raises:
        WeightsError: The file cannot be used.
    """

    name = "fine-tuning"

    def __init__(self, weights: str | None = None, *, steps: int | None = None) -> None:
        self._state = load_weights(weights)
        if self._state is not None:  # before anything is written
            with torch.random.fork_rng(devices=[]):
                PropagationNetwork(1).load_encoder(self._state.tensors, file=self._state.file)
        self.identity = "" if self._state is None else identity_of(self._state.tensors)
        self._steps = STEPS if steps is None else steps
        self._flow = FlowEstimator()

    def propagate(
        self, frames: Frames, references: Sequence[Reference], *, finished: Mapping[int, Mapping[int, Mask]]
    ) -> Iterator[Propagated]:
        """See `PropagationMethod`.

        Raises:
            DataError: There are more objects than label maps have numbers.
        """
        numbers = sorted({number for reference in references for number in reference.masks})
        if len(numbers) >= IGNORE_LABEL:
            raise DataError(
                "fine-tuning follows fewer objects",
                place="--method",
                found=counted(len(numbers), "object"),
                expected=f"{IGNORE_LABEL - 1} at most",
                hint="Use --method flow, or label fewer objects.",
            )
        places = {number: place for place, number in enumerate(numbers, start=1)}
        samples = [with_ground(sample_of(frames[one.index], one.masks, places)) for one in references]
        learner = self._fitted(samples, len(numbers))
        given = {one.index: one.masks for one in references}
        usual = {
            number: max(int(one.masks[number].sum()) for one in references if number in one.masks) for number in numbers
        }
        state = _State()
        for previous, index in steps_of(len(frames), [one.index for one in references]):
            if previous in given:
                learner.forget()
                state = _State(areas_px2=dict(usual))
            if index in finished:
                continue
            if previous in given or previous in finished:
                state.masks = dict(given[previous] if previous in given else finished[previous])
                state.areas_px2 |= {number: int(mask.sum()) for number, mask in state.masks.items()}
            image = frames[index]
            probabilities = self._look(learner, image, state, places)
            masks = _masks(probabilities, state, places)
            confidences = self._confidences(probabilities, masks, image, state, places, (frames, previous))
            state.masks = masks
            state.areas_px2 |= {number: int(mask.sum()) for number, mask in masks.items()}
            state.before = (index, image)
            yield Propagated(index, masks, confidences)
            if len(masks) == len(numbers) and min(confidences.values()) >= _LEAST_CONFIDENCE:
                own = _own_sample(image, probabilities, masks, places)
                state.recent = [*state.recent, own][-_RECENT:]
                learner.adapt(samples, state.recent, ONLINE_STEPS)

    def _fitted(self, samples: Sequence[Sample], objects: int) -> Learner:
        """A network that has learned the references."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_SEED)
            network = PropagationNetwork(objects)
        if self._state is not None:
            network.load_encoder(self._state.tensors, file=self._state.file)
        learner = Learner(network, device=choose_device(), seed=_SEED)
        steps = min(MOST_STEPS, self._steps + STEPS_OF_MORE * (len(samples) - 1))
        with tqdm(total=steps, desc="fine-tuning", unit=" steps", leave=False, disable=None) as bar:
            learner.fit(samples, steps, on_step=bar.update)
        return learner

    def _look(
        self, learner: Learner, image: NDArray[np.uint8], state: _State, places: Mapping[int, int]
    ) -> NDArray[np.float32]:
        """Probabilities ``(H, W, K + 1)``: around the objects, and of lost ones in the whole frame."""
        windows = merged_windows(window_around([mask], image.shape) for mask in state.masks.values())
        canvas = np.zeros((*image.shape[:2], len(places) + 1), np.float32)
        canvas[..., 0] = 1
        for window in windows:
            learner.predict(image, window, canvas)
        lost = [place for number, place in places.items() if number not in state.masks]
        if lost:
            overview = np.zeros_like(canvas)
            learner.predict(image, whole(image.shape), overview)
            canvas[..., lost] = overview[..., lost]
            canvas[..., 0] = np.clip(1 - canvas[..., 1:].sum(axis=2), 0, None)
            canvas /= canvas.sum(axis=2, keepdims=True)
        return canvas

    def _confidences(
        self,
        probabilities: NDArray[np.float32],
        masks: Mapping[int, Mask],
        image: NDArray[np.uint8],
        state: _State,
        places: Mapping[int, int],
        source: tuple[Frames, int],
    ) -> dict[int, float]:
        """How sure the outlines are, times how well the optical flow from the frame before agrees."""
        frames, previous = source
        before = state.before[1] if state.before is not None and state.before[0] == previous else frames[previous]
        back = self._flow.between_small(image, before)
        confidences = {}
        for number, place in places.items():
            values = probabilities[..., place]
            if number not in masks:
                confidences[number] = 1 - float(np.sort(values, axis=None)[-max(1, values.size // 1000) :].mean())
                continue
            sure = band_confidence(values, masks[number])
            if number in state.masks:
                expected = moved(state.masks[number].astype(np.float32), back) >= 0.5
                sure *= 0.5 + 0.5 * _overlap(expected, masks[number])
            confidences[number] = sure
        return confidences


def _overlap(first: Mask, second: Mask) -> float:
    union = int((first | second).sum())
    return float((first & second).sum()) / union if union else 1.0


def _masks(probabilities: NDArray[np.float32], state: _State, places: Mapping[int, int]) -> dict[int, Mask]:
    """The masks of a frame; each pixel belongs to the most probable object, or to none."""
    weighed = probabilities.copy()
    for number, place in places.items():
        before = state.masks.get(number)
        if before is not None:
            size_px = max(8.0, math.sqrt(float(before.sum())))
            away = cv2.distanceTransform((~before).astype(np.uint8), cv2.DIST_L2, 3) / size_px
            weighed[..., place] *= np.exp(-_PENALTY * np.clip(away - _FREE_SHARE, 0, None))
    best = weighed.argmax(axis=2)
    masks: dict[int, Mask] = {}
    for number, place in places.items():
        mask: Mask = best == place
        usual_px2 = state.areas_px2.get(number, 0)
        if number in state.masks:
            if mask.sum() >= max(_LEAST_AREA_PX2, _LEAST_AREA_SHARE * usual_px2):
                masks[number] = mask
            continue
        region = _main_regions(mask)
        is_large = bool(region.sum() >= max(_LEAST_AREA_PX2, _BACK_AREA_SHARE * usual_px2))
        if is_large and float(probabilities[region][:, place].mean()) >= _BACK_PROBABILITY:
            masks[number] = region
    return masks


def _main_regions(mask: Mask) -> Mask:
    """The largest connected region and what is near it; an empty mask as it is."""
    count, numbers, rows, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    if count < 3:
        return mask
    largest = numbers == 1 + int(rows[1:, cv2.CC_STAT_AREA].argmax())
    away = cv2.distanceTransform((~largest).astype(np.uint8), cv2.DIST_L2, 3)
    near: Mask = mask & (away <= _NEAR_SHARE * math.sqrt(float(largest.sum())))
    return near


def _own_sample(
    image: NDArray[np.uint8], probabilities: NDArray[np.float32], masks: Mapping[int, Mask], places: Mapping[int, int]
) -> Sample:
    """A frame with the network's own masks; pixels that it is not sure of are ignored."""
    own = sample_of(image, masks, places)
    labels = own.labels
    unsure = np.take_along_axis(probabilities, labels[..., None].astype(np.intp), axis=2)[..., 0] < _SURE
    labels[unsure] = IGNORE_LABEL
    return own
