"""Dividing a dataset into parts."""

from __future__ import annotations

import hashlib
from collections import Counter

from d2tune.annotations.dataset import Dataset


def split(dataset: Dataset, *, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """Set a part of the images aside so that every class has about its share of instances there.

    Images are taken for the rarest class first, each in an order drawn from ``seed`` and the file name, until
    the class has its share. The result depends on nothing but the dataset, the fraction and the seed.

    Args:
        dataset: What to divide.
        fraction: Share of the images to set aside, between 0 and 1; at least one image is, and one is left.
        seed: Seed of the order.

    Returns:
        What is left, and what was set aside; ids are counted anew in each.
    """
    wanted = min(max(1, round(fraction * len(dataset.images))), len(dataset.images) - 1)
    of_image = dataset.by_image()
    classes = {image_id: {one.category_id for one in found} for image_id, found in of_image.items()}
    totals = Counter(category for found in classes.values() for category in found)
    drawn = sorted(
        dataset.images,
        key=lambda image: hashlib.sha256(f"{seed}\t{image.file_name}".encode("utf-8", "replace")).digest(),
    )
    aside: set[int] = set()
    has: Counter[int] = Counter()
    for category, total in sorted(totals.items(), key=lambda item: (item[1], item[0])):
        share = max(1, round(fraction * total)) if total > 1 else 0
        for image in drawn:
            if has[category] >= share or len(aside) >= wanted:
                break
            if category in classes[image.id] and image.id not in aside:
                aside.add(image.id)
                has.update(classes[image.id])
    for image in drawn:
        if len(aside) >= wanted:
            break
        if image.id not in aside and (not classes[image.id] or not _is_last(classes[image.id], has, totals)):
            aside.add(image.id)
            has.update(classes[image.id])
    left = [image.id for image in dataset.images if image.id not in aside]
    return dataset.subset(left), dataset.subset(sorted(aside))


def _is_last(classes: set[int], has: Counter[int], totals: Counter[int]) -> bool:
    """Whether setting the image aside would leave a class without any image."""
    return any(totals[category] - has[category] <= 1 for category in classes)
