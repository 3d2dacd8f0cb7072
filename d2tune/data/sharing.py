"""What the splits of a project may share: an image whose labeled pixels differ, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.formats.semantic import paint
from d2tune.annotations.model.dataset import Dataset, Image
from d2tune.annotations.splitting.sharing import Separate, SharedImage, nowhere_separate
from d2tune.project import Project


def separate_labels(project: Project, splits: Mapping[str, Dataset]) -> Separate:
    """Which images two splits may share.

    A semantic task without a background ignores the pixels that have no label. One large scene can therefore be in
    both splits, with the labels of some regions for training and those of other regions for validation.

    Args:
        project: The project.
        splits: Its datasets by the name of the split.
    """
    if not project.is_by_pixel or project.data.background is not None:
        return nowhere_separate

    def is_separate(pair: SharedImage) -> bool:
        early, late = (splits[name] for name in pair.splits)
        if (pair.first.width_px, pair.first.height_px) != (pair.second.width_px, pair.second.height_px):
            return False
        return not (_labeled(early, pair.first) & _labeled(late, pair.second)).any()

    return is_separate


def _labeled(dataset: Dataset, image: Image) -> NDArray[np.bool_]:
    """The labeled pixels of an image, ``(H, W)``."""
    instances = [instance for instance in dataset.instances if instance.image_id == image.id]
    labeled: NDArray[np.bool_] = paint(instances, width_px=image.width_px, height_px=image.height_px) >= 0
    return labeled
