"""Random changes of the colors of photos."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
from detectron2.data import transforms as T
from numpy.typing import NDArray

from d2tune.data.augmentation.options import Augmentations

BLUR_SIGMA_PX = (0.5, 2.0)
"""Smallest and largest standard deviation of the blur, in pixels of the network's input."""

_LUMA = {"RGB": (0.299, 0.587, 0.114), "BGR": (0.114, 0.587, 0.299)}
"""Shares of the channels in the brightness of a color (Rec. ITU-R BT.601)."""


class ColorJitter(T.Augmentation):  # type: ignore[misc]  # Detectron2 has no types
    """Changes brightness, contrast and saturation, each by a random factor between 0.7 and 1.3."""

    def __init__(self) -> None:
        super().__init__()
        self._jitters = [T.RandomBrightness(0.7, 1.3), T.RandomContrast(0.7, 1.3), T.RandomSaturation(0.7, 1.3)]

    def __call__(self, aug_input: T.AugInput) -> T.Transform:
        return T.AugmentationList(self._jitters)(aug_input)


class Photometric:
    """Varies colors, takes them away, and blurs, each in a share of the images.

    Args:
        chosen: The shares.
        channel_order: ``RGB`` or ``BGR``.
    """

    def __init__(self, chosen: Augmentations, channel_order: str) -> None:
        self._chosen = chosen
        self._order: Literal["RGB", "BGR"] = "BGR" if channel_order == "BGR" else "RGB"
        self._color = T.RandomApply(ColorJitter(), prob=chosen.color)

    def __call__(self, image: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
        """The changed image; the state of numpy's global generator decides how its colors are varied.

        Args:
            image: ``(H, W, 3)``.
            seed: Decides which images are gray and blurred, and how much.
        """
        inputs = T.AugInput(np.ascontiguousarray(image))
        self._color(inputs)
        changed: NDArray[np.uint8] = inputs.image
        rng = np.random.default_rng((seed, 4))
        if rng.random() < self._chosen.gray:
            changed = grayed(changed, self._order)
        if rng.random() < self._chosen.blur:
            changed = blurred(changed, sigma_px=float(rng.uniform(*BLUR_SIGMA_PX)))
        return changed


def grayed(image: NDArray[np.uint8], channel_order: Literal["RGB", "BGR"]) -> NDArray[np.uint8]:
    """The image ``(H, W, 3)`` with the brightness of each pixel in all three channels."""
    luma = image.astype(np.float32) @ np.asarray(_LUMA[channel_order], dtype=np.float32)
    return np.repeat(np.rint(luma).clip(0, 255).astype(np.uint8)[:, :, None], 3, axis=2)


def blurred(image: NDArray[np.uint8], *, sigma_px: float) -> NDArray[np.uint8]:
    """The image ``(H, W, 3)`` under a Gaussian with this standard deviation."""
    soft = cv2.GaussianBlur(image, (0, 0), sigma_px, borderType=cv2.BORDER_REFLECT)
    return np.asarray(soft, dtype=np.uint8)
