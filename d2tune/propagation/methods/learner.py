"""Fine-tunes the network on labeled frames, and predicts with it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from d2tune.annotations.formats.semantic import IGNORE_LABEL
from d2tune.annotations.model.types import Mask
from d2tune.propagation.methods.network import PropagationNetwork
from d2tune.propagation.methods.variants import ground_of, rearranged, varied
from d2tune.propagation.methods.windows import Window, merged_windows, whole, window_around

_RATE, _ENCODER_SHARE, _WARM_UP = 1e-3, 0.2, 10
_LAST_RATE = 0.05
"""Share of the learning rate at the end of its cosine (Loshchilov and Hutter 2017, arXiv 1608.03983)."""
_ONLINE_RATE = 2e-4
_DECAY = 1e-4
_WHOLE_FRAMES = 0.25
"""Share of steps on the whole frame, so that the network knows what is far from the objects."""
_REARRANGED = 0.4
"""Share of steps on references with the objects at other places."""
_DICE_WEIGHT = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """A frame to train on.

    Attributes:
        image: ``(H, W, 3)`` uint8 in RGB.
        labels: ``(H, W)`` uint8, 0 for the background, 1 to K for the objects, 255 is ignored.
        windows: Around the objects, at least one.
        ground: The image without its objects, for variants with objects at other places; None for none.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    windows: tuple[Window, ...]
    ground: NDArray[np.uint8] | None = None


def sample_of(image: NDArray[np.uint8], masks: Mapping[int, Mask], places: Mapping[int, int]) -> Sample:
    """A labeled frame as a sample.

    Args:
        image: The frame.
        masks: Masks by the number of the object; where they overlap, the smaller one is in front.
        places: The label of each number.
    """
    labels = np.zeros(image.shape[:2], np.uint8)
    for number, mask in sorted(masks.items(), key=lambda item: -int(item[1].sum())):
        labels[mask] = places[number]
    windows = merged_windows(window_around([mask], image.shape) for mask in masks.values())
    return Sample(image, labels, tuple(windows) or (whole(image.shape),))


def with_ground(sample: Sample) -> Sample:
    """A sample whose objects can be moved."""
    return replace(sample, ground=ground_of(sample.image, sample.labels))


class Learner:
    """A network with its training.

    Args:
        network: The network; its weights change.
        device: Where it runs.
        seed: Of the random variants.
    """

    def __init__(self, network: PropagationNetwork, *, device: str, seed: int) -> None:
        self._network = network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._device = device
        self._chance = random.Random(seed)
        self._learned: dict[str, Any] = {}
        self._online: torch.optim.Optimizer | None = None

    def fit(self, samples: Sequence[Sample], steps: int, *, on_step: Callable[[], object]) -> None:
        """Fine-tune on the references, each as often as the others.

        Args:
            samples: The references.
            steps: Number of steps.
            on_step: Called after each step.
        """
        optimizer = torch.optim.AdamW(self._groups(_RATE), weight_decay=_DECAY)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate_share(step, steps))
        for step in range(steps):
            self._step(samples[step % len(samples)], optimizer, 1.0)
            scheduler.step()
            on_step()
        self._learned = {key: value.clone() for key, value in self._network.state_dict().items()}

    def forget(self) -> None:
        """Return to the weights after `fit`, where the clip is entered at another reference."""
        self._network.load_state_dict(self._learned)
        self._online = None

    def adapt(self, references: Sequence[Sample], recent: Sequence[Sample], steps: int) -> None:
        """Train on: half of the steps on what the network itself saw, half on references, so that it does not drift.

        Args:
            references: The references.
            recent: Frames with the network's own masks, the latest one last.
            steps: Number of steps.
        """
        if self._online is None:
            self._online = torch.optim.AdamW(self._groups(_ONLINE_RATE), weight_decay=_DECAY)
        for step in range(steps):
            if step % 2:
                self._step(self._chance.choice(references), self._online, 1.0)
            else:
                is_latest = self._chance.random() < 0.5
                self._step(recent[-1] if is_latest else self._chance.choice(recent), self._online, 0.5)

    @torch.no_grad()
    def predict(self, image: NDArray[np.uint8], window: Window, canvas: NDArray[np.float32]) -> None:
        """Put the probabilities of the background and of each object in a window into ``canvas``, ``(H, W, K + 1)``."""
        self._network.eval()
        inputs = self._tensor(window.cut(image))
        inputs = torch.cat([inputs, inputs.flip(3)])
        probabilities = self._network(inputs).softmax(1)
        mean = (probabilities[:1] + probabilities[1:].flip(3)) / 2
        values = np.ascontiguousarray(mean[0].permute(1, 2, 0).cpu().numpy())
        window.paste(values, canvas)

    def _step(self, sample: Sample, optimizer: torch.optim.Optimizer, weight: float) -> None:
        self._network.train()
        window = (
            whole(sample.image.shape) if self._chance.random() < _WHOLE_FRAMES else self._chance.choice(sample.windows)
        )
        if sample.ground is not None and self._chance.random() < _REARRANGED:
            image, labels = rearranged(sample.image, sample.ground, sample.labels, window, self._chance)
        else:
            image, labels = varied(sample.image, sample.labels, window, self._chance)
        if not (labels != IGNORE_LABEL).any():
            return
        logits = self._network(self._tensor(image))
        targets = torch.from_numpy(labels.astype(np.int64))[None].to(self._device)
        optimizer.zero_grad()
        (weight * loss_of(logits, targets)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    def _groups(self, rate: float) -> list[dict[str, Any]]:
        encoder, others = self._network.parameter_groups()
        return [{"params": encoder, "lr": _ENCODER_SHARE * rate}, {"params": others, "lr": rate}]

    def _tensor(self, image: NDArray[Any]) -> Tensor:
        """An image ``(h, w, 3)`` as an input ``(1, 3, h, w)``."""
        tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))[None]).float()
        return tensor.to(device=self._device, memory_format=torch.channels_last)


def _rate_share(step: int, steps: int) -> float:
    cosine = 0.5 + 0.5 * math.cos(math.pi * step / steps)
    return min(1.0, (step + 1) / _WARM_UP) * (_LAST_RATE + (1 - _LAST_RATE) * cosine)


def loss_of(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy, and half of the mean Dice loss of the objects that are shown (Milletari et al. 2016).

    Args:
        logits: ``(N, K + 1, H, W)``.
        targets: ``(N, H, W)``; pixels of `IGNORE_LABEL` are ignored.
    """
    loss = F.cross_entropy(logits, targets, ignore_index=IGNORE_LABEL)
    probabilities = logits.softmax(1)
    is_valid = targets != IGNORE_LABEL
    terms = []
    for label in range(1, logits.shape[1]):
        truth = (targets == label).float()
        if truth.any():
            predicted = probabilities[:, label] * is_valid
            terms.append(1 - (2 * (predicted * truth).sum() + 1) / (predicted.sum() + truth.sum() + 1))
    return loss + _DICE_WEIGHT * torch.stack(terms).mean() if terms else loss


def band_confidence(probabilities: NDArray[np.float32], mask: Mask) -> float:
    """How sure a network is of an outline: the mean of ``|2 p - 1|`` in a band around it.

    Args:
        probabilities: Of the object, ``(H, W)``.
        mask: Its mask, not empty.
    """
    width = max(1, round(0.05 * math.sqrt(float(mask.sum()))))
    kernel = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    values = mask.astype(np.uint8)
    band = cv2.dilate(values, kernel) != cv2.erode(values, kernel, borderValue=1)
    if not band.any():
        band = mask
    return float(np.abs(2 * probabilities[band] - 1).mean())
