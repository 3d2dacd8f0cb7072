"""The annotation formats: their names, their readers, and the options that only some of them use.

A reader is imported when it is called, so that naming the formats costs nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from d2tune.annotations.model.dataset import Dataset
from d2tune.annotations.model.findings import Finding
from d2tune.annotations.model.options import ReadOptions
from d2tune.errors import DataError, nearest

_FORMATS = "d2tune.annotations.formats"


@dataclass(frozen=True, slots=True)
class Format:
    """An annotation format that can be read.

    Attributes:
        title: The format in words.
        module: The module of its reader, below the formats.
        function: The reader in it.
    """

    title: str
    module: str
    function: str = "read"

    def read(self, source: Path, options: ReadOptions) -> Dataset:
        """Read a file or folder; raises what the reader raises."""
        reader: Callable[[Path, ReadOptions], Dataset]
        reader = getattr(importlib.import_module(f"{_FORMATS}.{self.module}"), self.function)
        return reader(source, options)


FORMATS: Mapping[str, Format] = {
    "labelme": Format("Labelme JSON", "labelme"),
    "via": Format("VIA JSON", "via"),
    "via-csv": Format("VIA CSV", "tools.via_csv"),
    "coco": Format("COCO instances", "coco_kinds"),
    "panoptic": Format("COCO panoptic", "panoptic"),
    "yolo-seg": Format("YOLO labels", "yolo.reader"),
    "cvat": Format("CVAT for images", "tools.cvat"),
    "label-studio": Format("Label Studio JSON", "tools.label_studio"),
    "isat": Format("ISAT JSON", "tools.isat"),
    "datumaro": Format("Datumaro JSON", "tools.datumaro"),
    "supervisely": Format("Supervisely JSON", "tools.supervisely"),
    "darwin": Format("V7 Darwin JSON", "tools.darwin"),
    "cityscapes": Format("Cityscapes polygons", "cityscapes.reader"),
    "voc": Format("Pascal VOC XML", "voc"),
    "voc-masks": Format("Pascal VOC masks", "voc", "read_masks"),
    "masks": Format("mask images beside images", "masks"),
    "rle": Format("run-length CSV", "rle_csv"),
    "label_images": Format("label images beside images", "label_images"),
}
"""The formats by their names in ``--format`` and ``data.format``."""

READERS: Mapping[str, Callable[[Path, ReadOptions], Dataset]] = {name: one.read for name, one in FORMATS.items()}
"""The readers by the names of the formats."""

TARGETS = ("coco", "labelme", "semantic", "panoptic", "rle", "yolo-seg", "rfdetr", "cityscapes")
"""The formats that can be written."""

_NAMELESS = ("via", "via-csv", "rle", "masks")
_GROUPED = ("labelme", "voc", "cvat", "isat", "datumaro", "supervisely")
_WITHOUT_OTHER_IMAGES = ("coco", "panoptic")

USED_BY: Mapping[str, tuple[str, str | None, tuple[str, ...]]] = {
    "class_name": ("--class-name", "data.class_name", _NAMELESS),
    "class_attribute": ("--class-attribute", "data.class_attribute", ("via", "via-csv")),
    "pixel_offset": ("--pixel-offset", None, ("via", "via-csv")),
    "nested_groups": ("--nested-groups", None, _GROUPED),
    "preset": ("--preset", "data.csv_preset", ("rle",)),
    "color_map": ("--color-map", None, ("masks", "voc-masks")),
    "split_components": ("--split-components", None, ("rle", "masks", "voc-masks")),
    "no_predictions": ("--no-predictions", "data.predictions", ("labelme",)),
    "unknown_shapes": ("--unknown-shapes", "data.unknown_shapes", ("labelme",)),
    "include_unlabeled": (
        "--include-unlabeled",
        None,
        tuple(name for name in FORMATS if name not in _WITHOUT_OTHER_IMAGES),
    ),
}
"""The options that only some formats use, by the field of `ReadOptions`: on the command line, in a project, formats.

All formats use the other options. ``--crowds`` and ``--workers`` change nothing where a format has no crowds or is not
Labelme's.
"""


def check_format(name: str) -> None:
    """Refuse the name of a format that is not read.

    Raises:
        DataError: No format has that name.
    """
    if name not in FORMATS:
        near = nearest(name, FORMATS)
        raise DataError(
            "unknown annotation format",
            found=repr(name),
            expected=", ".join(["auto", *FORMATS]),
            hint=f"Did you mean {near!r}?" if near else None,
        )


def unused_options(format: str, options: ReadOptions, *, source: str, to: str | None = None) -> tuple[Finding, ...]:
    """Findings about options that a format does not use, where these are not refused.

    Args:
        format: The format that is read.
        options: How to read.
        source: The name of what is read, for findings.
        to: The format that is written next; run-length CSV is written in the dialect ``preset``.

    Raises:
        DataError: ``options.unused`` refuses such options, and the format does not use one of them; the dialect
            is only noted where another format is written.
    """
    findings = []
    defaults = ReadOptions()
    for field, (flag, key, formats) in USED_BY.items():
        if format in formats or (field == "preset" and to == "rle"):
            continue
        if getattr(options, field) == getattr(defaults, field):
            continue
        is_refused = options.unused == "refuse" and not (field == "preset" and to is not None)
        named = flag if options.unused == "refuse" or key is None else key
        message = f"{named} is not used by the format {format} ({FORMATS[format].title})"
        users = ", ".join(formats) if len(formats) < len(FORMATS) // 2 else f"all but {', '.join(_all_but(formats))}"
        if is_refused:
            raise DataError(message, hint=f"Remove it; the formats that use it: {users}.")
        findings.append(Finding("info", "option_unused", source, message, hint=f"the formats that use it: {users}"))
    return tuple(findings)


def _all_but(formats: Iterable[str]) -> list[str]:
    return [name for name in FORMATS if name not in set(formats)]
