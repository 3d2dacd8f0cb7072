"""What the images of a split have in common, which limits what a model is known to do."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

from d2tune.annotations.model.dataset import Image

MOST_READ = 200
"""Files whose camera and time are read; of more images, so many are chosen evenly."""

_MODEL, _TAKEN, _EXIF = 0x0110, 0x9003, 0x8769


def in_common(images: Sequence[Image]) -> dict[str, Any]:
    """Sizes, cameras and times of images, for the record of a run.

    Returns:
        ``sizes_px`` (the most frequent size and how many images have it), ``short_side_px`` (least, median, most),
        ``read`` (files whose EXIF block was looked at), ``cameras`` (models with numbers of files, most frequent
        first), ``taken`` (first and last date) and ``hours`` (first and last hour of the day).
    """
    if not images:
        return {}
    sizes = Counter((image.width_px, image.height_px) for image in images)
    (width_px, height_px), count = sizes.most_common(1)[0]
    sides = [min(image.width_px, image.height_px) for image in images]
    step = max(1, -(-len(images) // MOST_READ))
    paths = [image.path for image in images[::step] if image.path is not None and image.path.is_file()]
    notes = [_exif(path) for path in paths]
    cameras = Counter(camera for camera, _ in notes if camera)
    times = sorted(moment for _, moment in notes if moment is not None)
    return {
        "sizes_px": {"width": width_px, "height": height_px, "images": count, "different": len(sizes)},
        "short_side_px": [min(sides), round(median(sides)), max(sides)],
        "read": len(paths),
        "cameras": dict(cameras.most_common(5)),
        "with_camera": cameras.total(),
        "with_time": len(times),
        "taken": [f"{times[0]:%Y-%m-%d}", f"{times[-1]:%Y-%m-%d}"] if times else None,
        "hours": [min(one.hour for one in times), max(one.hour for one in times)] if times else None,
    }


def _exif(path: Path) -> tuple[str | None, datetime | None]:
    """The camera and the time of a photo; None where its file does not have them."""
    from PIL import Image as PilImage

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with PilImage.open(path) as image:
                exif = image.getexif()
                camera, taken = exif.get(_MODEL), exif.get_ifd(_EXIF).get(_TAKEN)
    except Exception:  # what a file that is not a photo, or is damaged, raises in Pillow
        return None, None
    return _name(camera), _time(taken)


def _name(camera: Any) -> str | None:
    text = camera.strip(" \0\n\t")[:60] if isinstance(camera, str) else ""
    return text or None


def _time(taken: Any) -> datetime | None:
    try:
        return datetime.strptime(str(taken).strip(" \0"), "%Y:%m:%d %H:%M:%S")
    except ValueError:
        return None


def in_common_lines(facts: Mapping[str, Any]) -> list[str]:
    """What `in_common` has recorded, in sentences; facts that are missing or of another form are ignored."""
    lines = []
    try:
        sizes, (least, middle, most) = facts["sizes_px"], facts["short_side_px"]
        if sizes["different"] == 1:
            lines.append(f"All training images are {sizes['width']} x {sizes['height']} px.")
        else:
            lines.append(f"The short sides of the training images are {least} to {most} px, in the median {middle} px.")
        if facts["with_camera"]:
            lines.append(_camera_line(facts["cameras"], facts["with_camera"], facts["read"]))
        if facts["taken"]:
            (first, last), (early, late) = facts["taken"], facts["hours"]
            lines.append(
                f"{facts['with_time']} of {facts['read']} files state when they were taken: from {first} to {last}, "
                f"between {early} and {late + 1} o'clock."
            )
    except (KeyError, TypeError, ValueError):
        pass
    return lines


def _camera_line(cameras: Mapping[str, int], total: int, read: int) -> str:
    first, count = next(iter(cameras.items()))
    if count == total:
        return f"{total} of {read} files name their camera, all of them the same: {first}."
    listed = ", ".join(f"{name} ({number})" for name, number in cameras.items())
    return f"{total} of {read} files name their camera; most of them {listed}."
