"""The ground truth of images, to be shown beside what was predicted."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path

from d2tune.acceptance.objects import ShownObject, truth_of
from d2tune.annotations.convert import read_dataset
from d2tune.annotations.model.dataset import Dataset
from d2tune.annotations.model.options import ReadOptions
from d2tune.annotations.recognition import recognize
from d2tune.errors import DataError
from d2tune.evaluation.from_files.matching import Names

logger = logging.getLogger(__name__)


class Truth:
    """Annotations by the name of the image.

    Args:
        dataset: What was annotated; None where nothing was.
    """

    def __init__(self, dataset: Dataset | None) -> None:
        # a COCO file without annotations only names the images of a list of detections
        images = () if dataset is None or not dataset.instances else dataset.images
        self.class_names = () if dataset is None else dataset.class_names
        self._images = {image.id: image for image in images}
        self._names = Names({image.id: image.file_name for image in images}, are_paths=True)
        self._instances = {} if dataset is None else dataset.by_image()
        self._class_of = {} if dataset is None else {one.id: one.name for one in dataset.categories}
        self._made: dict[int, list[ShownObject]] = {}
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        return bool(self._images)

    @classmethod
    def of(cls, source: Path | None, images: Path | None, class_names: Sequence[str]) -> Truth:
        """Read annotations.

        Args:
            source: Annotations of any format; None takes those in the folder of images, where there are some.
            images: The folder of images.
            class_names: The classes of the model: of a single class it is the name of shapes that have none.

        Raises:
            DataError: The annotations cannot be read or have an error.
        """
        only = class_names[0] if len(class_names) == 1 else None
        if source is not None:
            root = images if images is not None and images.is_dir() else None
            options = ReadOptions(image_root=root, only_class=only, no_predictions=True, skip_bad=True)
            return cls(_noted(read_dataset(source, options=options)))
        if images is None or not images.is_dir():
            return cls(None)
        options = ReadOptions(only_class=only, no_predictions=True, skip_bad=True)
        if recognize(images, options).format is None:
            return cls(None)
        try:
            dataset = read_dataset(images, options=options)
        except DataError as error:
            hint = "Name the annotations with --truth, or move the files that are none out of the folder."
            raise DataError(
                f"the annotations in the folder of images cannot be read: {error.message}",
                file=error.file or images,
                found=error.found,
                hint=hint,
            ) from None
        return cls(_noted(dataset))

    def objects(self, name: str, width_px: int, height_px: int) -> list[ShownObject] | None:
        """The annotated objects of an image; None where it is not annotated.

        Args:
            name: Its path below the folder of images.
            width_px: Its width; annotations of another size are not those of the image.
            height_px: Its height.
        """
        hits = self._names.find(name) if self._images else []
        image = self._images[hits[0]] if len(hits) == 1 else None
        if image is None or (image.width_px, image.height_px) != (width_px, height_px):
            return None
        with self._lock:
            if image.id not in self._made:
                self._made[image.id] = truth_of(self._instances[image.id], self._class_of, image)
            return self._made[image.id]


def _noted(dataset: Dataset) -> Dataset:
    """A dataset, with a warning about what in it could not be used."""
    warnings = [finding for finding in dataset.findings if finding.level == "warning"]
    if warnings:
        more = f" (and {len(warnings) - 1} more: `d2tune check` lists them)" if len(warnings) > 1 else ""
        logger.warning("%s: %s%s", warnings[0].place(), warnings[0].message, more)
    return dataset
