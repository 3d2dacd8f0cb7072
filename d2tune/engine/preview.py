"""What a model sees in training: images as the augmentation leaves them, with the annotations that go with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.io.outputs import png_bytes, protected, refuse_existing, write_output
from d2tune.data.batches import SampleKey
from d2tune.data.image_reader import image_reader
from d2tune.data.training import layout_of
from d2tune.engine.assembly import training_batches, training_split
from d2tune.engine.plan import TrainingPlan
from d2tune.errors import DataError, check_range
from d2tune.report.sheets.cards import Card, Grid, resized
from d2tune.report.sheets.drawing import draw_instances
from d2tune.report.sheets.label_overlay import colors, overlay, to_rgb
from d2tune.report.sheets.label_sheet import legend_header, swatch
from d2tune.text import counted

KIND = "preview"
"""The kind of the file in the record of outputs."""

MOST_SAMPLES = 64

_COLUMNS = 2


@dataclass(frozen=True, slots=True)
class PreviewResult:
    """What was shown.

    Attributes:
        path: The PNG.
        samples: Images on it.
        summary: Where it is and what is on it.
    """

    path: Path
    samples: int
    summary: str


def write_preview(
    plan: TrainingPlan, *, out: Path | None = None, samples: int = 12, force: bool = False
) -> PreviewResult:
    """Draw the first samples of a training: the image as the model gets it, and with its masks or label map over it.

    They are those of the first batches, with the seed of the project, so that a training that begins now gets the very
    same pixels.

    Args:
        plan: The decisions of the training.
        out: The PNG; None is ``<project>_preview.png`` in the working folder.
        samples: Images to draw, at most 64.
        force: Whether an earlier preview is replaced.

    Raises:
        DataError: The file exists or is not called ``.png``, or an image cannot be read.
        ProjectError: ``samples`` is out of range.
    """
    check_range(samples, place="--samples", least=1, most=MOST_SAMPLES)
    path = out or Path(f"{plan.project.name}_preview.png")
    if path.suffix.lower() != ".png":
        raise DataError("a preview is a PNG", place="--out", file=path, hint="Name a file that ends with .png.")
    inputs = [image.path for image in plan.splits.train.images if image.path is not None]
    with protected(lambda: inputs):
        refuse_existing([path], force=force, kind=KIND)
    keys = list(islice(_keys(plan), samples))
    samples_of = training_split(plan)
    read = [samples_of[key] for key in keys]
    if not {"sem_seg", "instances"} & set(read[0]):
        message = "a model that follows objects is trained on pairs of crops, which a preview does not show"
        raise DataError(message, file=plan.loaded.file, place="task")
    shown = [_before_and_after(plan, sample) for sample in read]
    names = [plan.splits.train.images[key.index].file_name for key in keys]
    grid = Grid([image.shape[:2] for image, _ in shown], columns=_COLUMNS if len(shown) > 1 else 1, images=2)
    cards = (
        Card(
            name,
            tuple(resized(one, grid.size(place)) for one in images),
            (("as the model sees it", (f"{images[0].shape[1]} x {images[0].shape[0]} px",)), ("with annotations", ())),
        )
        for place, (name, images) in enumerate(zip(names, shown, strict=True))
    )
    seed = plan.cfg.SEED
    subtitle = f"{counted(len(keys), 'training sample')} of the first batches, seed {seed}"
    has_labels = "sem_seg" in read[0]
    legend = [(swatch(color), name) for color, name in _legend(plan)] if has_labels else []
    sheet = grid.sheet(legend_header(plan.project.name, subtitle, legend), cards)
    write_output(path, png_bytes(sheet), kind=KIND)
    summary = f"{path}: {subtitle}, {_sizes(shown)}"
    return PreviewResult(path, len(keys), summary)


def _keys(plan: TrainingPlan) -> Iterator[SampleKey]:
    for batch in training_batches(plan, start=0):
        yield from batch


def _before_and_after(plan: TrainingPlan, sample: dict[str, Any]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The image of a sample as RGB, and the same with what is annotated on it."""
    reader = image_reader(plan.project, plan.cfg)
    image = to_rgb(reader.shown(np.ascontiguousarray(sample["image"].numpy().transpose(1, 2, 0))))
    shown = image
    if "sem_seg" in sample:
        table = np.stack([color for color, _ in _legend(plan)])
        shown = overlay(shown, sample["sem_seg"].numpy().astype(np.uint8), colors=table)
    if "instances" in sample:
        instances = sample["instances"]
        masks = _masks(instances.gt_masks, image.shape[:2])
        things = [category.name for category in plan.splits.train.categories if category.isthing]
        shown = draw_instances(shown, masks, [things[index] for index in instances.gt_classes.tolist()])
    return image, shown


def _legend(plan: TrainingPlan) -> list[tuple[NDArray[np.uint8], str]]:
    """Color and name of each label of a label map, in the layout that the model is trained on."""
    names = [category.name for category in plan.splits.train.categories]
    if layout_of(plan.cfg) == "separated":
        names = ["objects", *(category.name for category in plan.splits.train.categories if not category.isthing)]
    return list(zip(colors(names), names, strict=True))


def _masks(masks: Any, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Detectron2's polygons or bitmaps as ``(N, H, W)`` bool."""
    from detectron2.structures import PolygonMasks
    from detectron2.structures.masks import polygons_to_bitmask

    if not isinstance(masks, PolygonMasks):
        return np.asarray(masks.tensor.numpy(), dtype=bool)
    bitmaps = [polygons_to_bitmask(polygons, *shape) for polygons in masks.polygons]
    return np.stack(bitmaps) if bitmaps else np.zeros((0, *shape), dtype=bool)


def _sizes(shown: Sequence[tuple[NDArray[np.uint8], NDArray[np.uint8]]]) -> str:
    sides = [min(image.shape[:2]) for image, _ in shown]
    low, high = min(sides), max(sides)
    return f"short side {low} px" if low == high else f"short side {low} to {high} px"
