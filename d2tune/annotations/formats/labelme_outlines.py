"""The shapes of Labelme files for instances that were not drawn in Labelme: outlines and masks."""

from __future__ import annotations

import base64
import logging
from typing import Any

import numpy as np

from d2tune.annotations.formats.shared.mask_files import component_numbers
from d2tune.annotations.geometry import tracing
from d2tune.annotations.geometry.masks import Patch, decode_mask
from d2tune.annotations.geometry.polygons import signed_area_px2
from d2tune.annotations.io.outputs import png_bytes
from d2tune.annotations.model.dataset import Instance
from d2tune.annotations.model.types import Polygons, Rle
from d2tune.text import counted

logger = logging.getLogger(__name__)

MIN_AREA_PX2 = 25.0
"""The smallest area of an outline of a label map or of a prediction, where no other is given."""


class Outlines:
    """Makes the shapes of instances and counts what is excluded.

    Args:
        tolerance_px: As for `new_shapes`.
        min_area_px2: As for `new_shapes`.
    """

    def __init__(self, tolerance_px: float, min_area_px2: float | None = None) -> None:
        self.excluded = 0
        self._tolerance_px, self._min_area_px2 = tolerance_px, min_area_px2

    def shapes_of(self, instance: Instance, label: str) -> list[dict[str, Any]]:
        """The shapes of an instance, see `new_shapes`."""
        shapes, excluded = new_shapes(instance, label, tolerance_px=self._tolerance_px, min_area_px2=self._min_area_px2)
        self.excluded += excluded
        return shapes

    def log(self) -> None:
        """Log how many regions were excluded."""
        if self.excluded:
            least = MIN_AREA_PX2 if self._min_area_px2 is None else self._min_area_px2
            regions = counted(self.excluded, "region")
            logger.warning(
                "%s smaller than %g px2 excluded from the Labelme files (--min-area)",
                regions,
                least,
            )


def new_shapes(
    instance: Instance, label: str, *, tolerance_px: float, min_area_px2: float | None
) -> tuple[list[dict[str, Any]], int]:
    """The shapes of an instance without an original file.

    Args:
        instance: The instance.
        label: Its class name.
        tolerance_px: How far the outline of a mask or of a prediction may move.
        min_area_px2: Smaller regions of masks are excluded; of an object that is not a region of a label map, the
            largest stays. None takes `MIN_AREA_PX2` for label maps and predictions, and 0 for what a person annotated.

    Returns:
        The shapes, and how many regions were excluded.
    """
    polygons, patch, excluded = instance.segmentation, None, 0
    is_traced = isinstance(polygons, Rle) or any(tracing.runs_along_pixels(part) for part in polygons)
    if min_area_px2 is None:
        min_area_px2 = MIN_AREA_PX2 if instance.is_disjoint or instance.score is not None else 0.0
    elif not is_traced and instance.score is None:
        min_area_px2 = 0.0
    if isinstance(polygons, Rle):
        size = {"width_px": polygons.width_px, "height_px": polygons.height_px}
        patch = Patch(decode_mask(polygons), 0, 0).clipped(**size)
        patch, excluded = _without_specks(patch, size, min_area_px2, keeps_largest=not instance.is_disjoint)
        traced = tracing.mask_to_polygons(patch.mask, tolerance_px=tolerance_px) if patch.mask.size else ()
        polygons = tuple(part + np.array([patch.left_px, patch.top_px]) for part in traced or ())
    else:
        large = _large_parts(polygons, min_area_px2, keeps_largest=not instance.is_disjoint)
        polygons, excluded = large, len(polygons) - len(large)
        if instance.score is not None or is_traced:
            polygons = tuple(tracing.simplify(part, tolerance_px=tolerance_px) for part in polygons)
    common = _common(instance, label)
    if patch is not None and not polygons and patch.mask.size:
        corners = [[patch.left_px, patch.top_px]]
        corners.append([patch.left_px + patch.mask.shape[1] - 1, patch.top_px + patch.mask.shape[0] - 1])
        png = base64.b64encode(png_bytes(patch.mask.astype(np.uint8))).decode("ascii")
        return [common | {"points": corners, "shape_type": "mask", "mask": png}], excluded
    return [common | {"points": part.tolist(), "shape_type": "polygon"} for part in polygons], excluded


def _common(instance: Instance, label: str) -> dict[str, Any]:
    """What all shapes of an instance have."""
    flags: dict[str, bool] = {"iscrowd": True} if instance.iscrowd else {}
    common: dict[str, Any] = {"label": label, "flags": flags}
    if instance.difficult:
        common["difficult"] = True
    if instance.score is not None:
        flags["prediction"] = True
        common |= {"description": f"score={instance.score:.3f}", "score": round(instance.score, 6)}
    return common


def _without_specks(
    patch: Patch, size: dict[str, int], min_area_px2: float, *, keeps_largest: bool
) -> tuple[Patch, int]:
    """A mask without its small connected regions, and their number."""
    if not patch.mask.size or min_area_px2 <= 1:
        return patch, 0
    numbers = component_numbers(patch.mask)
    areas = np.bincount(numbers.reshape(-1))
    stays = areas >= min_area_px2
    if keeps_largest:
        stays[1 + int(areas[1:].argmax())] = True
    stays[0] = False
    excluded = len(areas) - 1 - int(stays.sum())
    if not excluded:
        return patch, 0
    return Patch(stays[numbers], patch.left_px, patch.top_px).clipped(**size), excluded


def _large_parts(polygons: Polygons, min_area_px2: float, *, keeps_largest: bool) -> Polygons:
    """The outlines that are not small."""
    if min_area_px2 <= 0 or (keeps_largest and len(polygons) == 1):
        return polygons
    areas = [abs(signed_area_px2(part)) for part in polygons]
    largest = max(range(len(areas)), key=areas.__getitem__) if keeps_largest else None
    return tuple(part for index, part in enumerate(polygons) if areas[index] >= min_area_px2 or index == largest)
