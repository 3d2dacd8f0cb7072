"""The dialects of run-length CSV, and which column of a file has what."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass

from d2tune.annotations.io.images import is_image_name

# The runs of a large mask are longer than the 128 KB that the csv module allows by default.
csv.field_size_limit(2**31 - 1)

SEPARATORS = (",", ";", "\t", "|")
"""What may separate columns."""

_IMAGE = ("imageid", "img", "image", "imagename", "filename", "id")
_RUNS = ("encodedpixels", "rlemask", "rle", "rleencoding", "annotation", "segmentation")
_LABEL = ("classid", "class", "classname", "label", "celltype", "category")
_JOINED = ("imageidclassid", "imageidclass", "imageidlabel", "imagelabel", "imageclass", "imageclassid")
_WIDTH, _HEIGHT = ("width", "imgwidth", "imagewidth"), ("height", "imgheight", "imageheight")
_NO_OBJECT = frozenset({"", "-1", "nan", "none", "null"})


@dataclass(frozen=True, slots=True)
class Preset:
    """A dialect.

    Attributes:
        headers: Its possible column names; the first is written.
        by_rows: Whether pixels are counted along rows; else down columns.
        has_classes: Whether rows have a class.
        row_per_instance: Whether each instance has a row; else each class of an image.
        is_relative: Whether each start counts from the end of the run before, the first one from 0.
    """

    headers: tuple[tuple[str, ...], ...]
    by_rows: bool = False
    has_classes: bool = False
    row_per_instance: bool = False
    is_relative: bool = False


PRESETS = {
    "carvana": Preset((("img", "rle_mask"),), by_rows=True),
    "airbus": Preset((("ImageId", "EncodedPixels"),), row_per_instance=True),
    "severstal": Preset(
        (("ImageId", "ClassId", "EncodedPixels"), ("ImageId_ClassId", "EncodedPixels")), has_classes=True
    ),
    "sartorius": Preset(
        (("id", "annotation", "width", "height", "cell_type"),), by_rows=True, has_classes=True, row_per_instance=True
    ),
    "siim": Preset((("ImageId", "EncodedPixels"),), row_per_instance=True, is_relative=True),
}
"""The dialects that ``--preset`` takes."""

_OWN_ROLES = {
    ("img", "rlemask"): "carvana",
    ("imageid", "encodedpixels"): "airbus",
    ("imageid", "encodedpixels", "classid"): "severstal",
    ("imageidclassid", "encodedpixels"): "severstal",
    ("imagelabel", "encodedpixels"): "severstal",
    ("id", "annotation", "celltype"): "sartorius",
}


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of a file that are read; all others are ignored.

    Attributes:
        columns: The names of all columns, as the file has them.
        image: Place of the image.
        runs: Place of the runs.
        label: Place of the class; None where there is none, or where it is in the column of the image.
        is_joined: Whether the class follows the image after an underscore.
        width: Place of the width of the image, None where there is none.
        height: Place of the height of the image.
    """

    columns: tuple[str, ...]
    image: int
    runs: int
    label: int | None = None
    is_joined: bool = False
    width: int | None = None
    height: int | None = None

    @property
    def has_classes(self) -> bool:
        """Whether rows have a class."""
        return self.is_joined or self.label is not None

    @property
    def preset(self) -> str | None:
        """The dialect whose column names these are; None where they are those of none, or of several orders."""
        roles = [self.image, self.runs, *([] if self.label is None else [self.label])]
        return _OWN_ROLES.get(tuple(_plain(self.columns[place]) for place in roles))

    def cells(self, row: Sequence[str]) -> tuple[str, str | None, str]:
        """Image, class and runs of a row, empty without an object; the class is None where there is none."""
        image, runs = row[self.image].strip(), row[self.runs].strip()
        label = None if self.label is None else row[self.label]
        if self.is_joined:
            image, label = split_joined(image)
        return image, label, "" if runs.lower() in _NO_OBJECT else runs


def split_joined(text: str) -> tuple[str, str | None]:
    """Image and class of ``a.jpg_Fish``, at the last underscore; the class is None where it is missing."""
    image, _, label = text.rpartition("_")
    if not is_image_name(image):  # a class with an underscore after a.jpg
        head = text
        while "_" in head:
            head = head.rpartition("_")[0]
            if is_image_name(head):
                return head, text[len(head) + 1 :] or None
    return (image, label) if image and label else (text, None)


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name.lower())


def layout_of(header: Sequence[str]) -> Layout | None:
    """The columns by their names, in any case; None where there is none for images or none for runs."""
    plain = [_plain(name) for name in header]

    def place(names: Sequence[str]) -> int | None:
        return next((plain.index(name) for name in names if name in plain), None)

    joined, runs = place(_JOINED), place(_RUNS)
    image = place(_IMAGE) if joined is None else joined
    if image is None or runs is None:
        return None
    label = place(_LABEL) if joined is None else None
    columns = tuple(name.strip() for name in header)
    return Layout(columns, image, runs, label, joined is not None, place(_WIDTH), place(_HEIGHT))


def separator_of(line: str) -> str:
    """What separates the columns of a file, by its first line."""
    return next((one for one in SEPARATORS if layout_of(split_line(line, one)) is not None), ",")


def split_line(line: str, separator: str) -> list[str]:
    """The cells of the first line of a CSV file, without blanks around them."""
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=separator), [])]
    except csv.Error:
        return []


def preset_of(header: Sequence[str]) -> str | None:
    """The dialect with these columns, other columns beside them; None where no dialect has them.

    A header that a file separates with ``;`` or a tab may be given as one cell.
    """
    line = header[0] if len(header) == 1 else None
    layout = layout_of(header if line is None else split_line(line, separator_of(line)))
    return None if layout is None else layout.preset


def refusal(layout: Layout, name: str) -> str | None:
    """Why a dialect does not fit to columns, as the end of a sentence; None where it fits."""
    preset, own = PRESETS[name], layout.preset
    if layout.has_classes and not preset.has_classes:
        column = layout.columns[layout.image if layout.label is None else layout.label]
        fitting = own or ("sartorius" if preset.by_rows else "severstal")
        return f"the column {column} has classes, which the dialect {name} does not have; --preset {fitting} has"
    if preset.has_classes and not layout.has_classes:
        return "which have no class"
    if own is not None and PRESETS[own].by_rows != preset.by_rows:
        return f"which are those of the dialect {own}"
    return None
