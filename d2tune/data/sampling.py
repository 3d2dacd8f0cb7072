"""How often each image of the training split is used in an epoch, by the classes in it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.model.dataset import Dataset
from d2tune.project.sections import Sampling

MOST_REPEATS = 10.0
"""The largest frequency of an image, where that of the most frequent ones is 1: more would be learned by heart."""


def repeats_of(dataset: Dataset, sampling: Sampling) -> list[float] | None:
    """The relative frequency of each image, at least 1; None where all images are used equally often.

    A class that is in a share f of the images has the factor ``max(1, sqrt(t / f))`` with ``repeat_factor`` (Gupta et
    al. 2019, "LVIS: A Dataset for Large Vocabulary Instance Segmentation", 3.1), and ``max_f / f`` with
    ``class_balanced``, where ``max_f`` is the share of the most frequent class. An image has the largest factor of its
    classes; one without objects has 1.

    Args:
        dataset: The training split.
        sampling: What the project says.
    """
    if sampling.kind == "uniform":
        return None
    classes = classes_of_images(dataset)
    share = {one: sum(one in present for present in classes) / len(classes) for one in set().union(*classes)}
    if not share:
        return None
    if sampling.kind == "repeat_factor":
        factor = {one: float(np.sqrt(sampling.threshold / value)) for one, value in share.items()}
    else:
        largest = max(share.values())
        factor = {one: largest / value for one, value in share.items()}
    return [min(MOST_REPEATS, max([1.0, *(factor[one] for one in present)])) for present in classes]


def classes_of_images(dataset: Dataset) -> list[set[int]]:
    """For each image the ids of the classes that it has instances or regions of, crowds not counted."""
    place = {image.id: number for number, image in enumerate(dataset.images)}
    classes: list[set[int]] = [set() for _ in dataset.images]
    for instance in dataset.instances:
        if not instance.iscrowd:
            classes[place[instance.image_id]].add(instance.category_id)
    return classes


def systematic_sample(repeats: Sequence[float], rng: np.random.Generator) -> NDArray[np.int64]:
    """As many indices as ``repeats`` sum up to, each as often as its share says, rounded up or down at random.

    An index whose share is at least 1 is systematic_sample at least once.

    Systematic sampling: equally spaced points, of which the first is random, on the indices laid side by side, each as
    long as it is frequent. The indices ascend.

    Args:
        repeats: The relative frequency of each index.
        rng: Chooses the first point.
    """
    ends = np.cumsum(np.asarray(repeats, dtype=np.float64))
    count = math.ceil(ends[-1])
    points = (np.arange(count) + rng.random()) * (ends[-1] / count)
    places: NDArray[np.int64] = np.searchsorted(ends, points, side="right").clip(0, len(ends) - 1)
    return places
