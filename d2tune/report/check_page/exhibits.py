"""The subject of a finding: the shape in its image, or the lines of the file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from d2tune.annotations.io.images import ImageError, is_image_name, read_header
from d2tune.annotations.io.json_files import JsonError, decode_text, read_bytes
from d2tune.annotations.io.places import ImageFinder
from d2tune.annotations.model.dataset import Image, Instance
from d2tune.annotations.model.findings import Finding
from d2tune.report.check_page.raw_shapes import RawShape, raw_shapes, runs_mask
from d2tune.report.check_page.survey import Checked
from d2tune.report.thumbnails import Album, Frame, Sketch, ThumbnailError, View, around, sketch_of

_SIDE_PX = 320
_ASPECT = 4 / 3
_SHAPES_SHOWN = 60
_TEXT_LIMIT_BYTES = 64 * 1024 * 1024
_LINES_AROUND = 2
_COLUMNS_AROUND = 28
_CULPRIT, _OTHER = "#ff2d6f", "#00b3ff"


@dataclass(frozen=True, slots=True)
class TextLine:
    """A line of an annotation file, cut to what fits.

    Attributes:
        number: From 1.
        text: The characters that are shown.
        caret: Column in ``text``, from 0, that the finding points at; None on other lines.
        is_it: Whether the finding points at this line.
    """

    number: int
    text: str
    caret: int | None = None
    is_it: bool = False


@dataclass(frozen=True, slots=True)
class Exhibit:
    """A finding and the views of its subject.

    Attributes:
        finding: The finding.
        frame: The shape in its image; None where there is no image, or the page has no space left.
        lines: The lines of the file around the place; empty where there is none.
        note: Why there is no view, or a remark on it.
    """

    finding: Finding
    frame: Frame | None = None
    lines: tuple[TextLine, ...] = ()
    note: str = ""


class Exhibits:
    """Looks up the shapes, images and lines of the findings of one source.

    Args:
        checked: The source.
        album: Makes the frames.
    """

    def __init__(self, checked: Checked, album: Album) -> None:
        self._checked = checked
        self._album = album
        self._folder = checked.source if checked.source.is_dir() else checked.source.parent
        root = checked.dataset.image_root or self._folder
        self._finder = ImageFinder(root, allow_outside=False)
        self._root = root

    @cached_property
    def _images(self) -> dict[str, list[Image]]:
        """Images by their annotation file."""
        groups: dict[str, list[Image]] = {}
        for image in self._checked.dataset.images:
            groups.setdefault(image.annotation_file or image.file_name, []).append(image)
        return groups

    @cached_property
    def _instances(self) -> dict[int, list[Instance]]:
        return self._checked.dataset.by_image()

    def show(self, finding: Finding) -> Exhibit:
        """The views of a finding; invalid files raise nothing."""
        path = self._folder / finding.file
        lines = () if finding.line is None else text_around(path, finding.line, finding.column)
        if finding.code in ("bad_json", "bad_xml"):
            return Exhibit(finding, lines=lines)
        shapes = {} if is_image_name(finding.file) else raw_shapes(path)
        key = finding.line if finding.line in shapes and finding.shape is None else finding.shape
        raw = shapes[key]() if key in shapes else None
        image = self._image_of(finding, raw, path)
        if image is None:
            return Exhibit(finding, lines=lines)
        others = [shapes[index]() for index in finding.also if isinstance(index, int) and index in shapes]
        if key is None and len(self._images.get(finding.file, ())) <= 1:
            others = [make() for make in list(shapes.values())[:_SHAPES_SHOWN]]
        culprits = [_sketch(raw, image)] if raw is not None else []
        if finding.shape is not None and not any(sketch.extent() for sketch in culprits):
            culprits = [sketch_of(one) for one in self._instances.get(image.id, ()) if finding.shape in one.shapes]
        return self._framed(finding, image, culprits, [_sketch(other, image) for other in others], lines)

    def _framed(
        self,
        finding: Finding,
        image: Image,
        culprits: Sequence[Sketch],
        others: Sequence[Sketch],
        lines: tuple[TextLine, ...],
    ) -> Exhibit:
        extent = around([box for box in (sketch.extent() for sketch in culprits) if box is not None])
        view, is_far = view_of(image, extent)
        outlines = [(sketch, _OTHER, "another shape", "other") for sketch in others]
        title = f"shape {finding.shape}" if finding.shape is not None else "the shape"
        outlines += [(sketch, _CULPRIT, title, "culprit") for sketch in culprits]
        try:
            frame = self._album.frame(image, view, side_px=_SIDE_PX, outlines=outlines)
        except ThumbnailError as error:
            return Exhibit(finding, lines=lines, note=f"The image {error}.")
        return Exhibit(finding, frame, lines, "The shape lies too far outside the image to be shown." if is_far else "")

    def _image_of(self, finding: Finding, raw: RawShape | None, path: Path) -> Image | None:
        """The image of a finding: from the dataset, else by the name that the file gives."""
        if finding.code in ("image_missing", "image_unreadable"):
            return None
        known = self._images.get(finding.file, [])
        stated = next((image for image in known if finding.image and image.file_name == finding.image), None)
        if stated is not None:
            return stated
        name = raw.image_name if raw is not None else None
        if len(known) > 1 or (known and name):
            base = (name or "").replace("\\", "/").rsplit("/", 1)[-1]
            named = [image for image in known if image.file_name.rsplit("/", 1)[-1] == base]
            exact = [image for image in named if image.file_name == name]
            known = exact or named or (known if len(known) == 1 and finding.line is None else [])
        if known:
            return known[0]
        if is_image_name(finding.file):
            return _measured(self._root / finding.file, finding.file)
        if name is None:
            return None
        place = self._finder.find(name, folders=(path.parent, self._root))
        return None if place.path is None else _measured(place.path, place.file_name)


def _measured(path: Path, file_name: str) -> Image | None:
    try:
        header = read_header(path)
    except ImageError:
        return None
    return Image(0, file_name, header.width_px, header.height_px, path)


def _sketch(raw: RawShape, image: Image) -> Sketch:
    mask = runs_mask(raw, width_px=image.width_px, height_px=image.height_px) if raw.runs else None
    return Sketch(raw.outlines, raw.lines, mask)


def view_of(image: Image, extent: View | None, *, aspect: float = _ASPECT) -> tuple[View, bool]:
    """A view of a fixed aspect ratio around a shape, and whether the shape lies too far outside to be in it.

    The view stays within the image unless the shape extends beyond it; a shape that lies outside is shown together
    with the whole image.

    Args:
        image: The image.
        extent: The box around the shape; None shows the whole image.
        aspect: Width of the view divided by its height.
    """
    whole = (0.0, 0.0, float(image.width_px), float(image.height_px))
    if extent is None:
        return _with_aspect(whole, aspect, whole), False
    joined = around([whole, extent]) or whole
    side = max(image.width_px, image.height_px)
    if max(joined[2] - joined[0], joined[3] - joined[1]) > 5 * side:
        return _with_aspect(_padded(whole, 0.12 * side), aspect, None), True
    left, top, right, bottom = extent
    is_off = right <= 0 or bottom <= 0 or left >= whole[2] or top >= whole[3]
    sticks_out = left < 0 or top < 0 or right > whole[2] or bottom > whole[3]
    if is_off:
        return _with_aspect(_padded(joined, 0.06 * side), aspect, None), False
    pad = max(0.35 * max(right - left, bottom - top), 0.04 * side, 4.0)
    return _with_aspect(_padded(extent, pad), aspect, None if sticks_out else whole), False


def _padded(box: View, pad: float) -> View:
    return box[0] - pad, box[1] - pad, box[2] + pad, box[3] + pad


def _with_aspect(box: View, aspect: float, within: View | None) -> View:
    """The box enlarged to an aspect ratio, and moved to lie in ``within`` as far as possible."""
    left, top, right, bottom = box
    width, height = max(right - left, (bottom - top) * aspect), max(bottom - top, (right - left) / aspect)
    x, y = (left + right - width) / 2, (top + bottom - height) / 2
    if within is not None:
        x = (within[2] - width) / 2 if width > within[2] else min(max(x, 0.0), within[2] - width)
        y = (within[3] - height) / 2 if height > within[3] else min(max(y, 0.0), within[3] - height)
    return x, y, x + width, y + height


def text_around(path: Path, line: int, column: int | None) -> tuple[TextLine, ...]:
    """The lines of a file around a place; long lines are cut to the columns around it.

    Args:
        path: The file.
        line: From 1.
        column: From 1; None points at the whole line.
    """
    try:
        if path.stat().st_size > _TEXT_LIMIT_BYTES:
            return ()
        text, _ = decode_text(read_bytes(path))
    except (OSError, JsonError):
        return ()
    lines_around = []
    for number, content in enumerate(text.split("\n")[: line + _LINES_AROUND], start=1):
        if number < line - _LINES_AROUND:
            continue
        is_it, at = number == line, (column or 1) - 1
        start = max(0, at - _COLUMNS_AROUND)
        cut = content[start : start + 2 * _COLUMNS_AROUND].expandtabs(1)
        lead, tail = "…" if start else "", "…" if len(content) > start + 2 * _COLUMNS_AROUND else ""
        caret = min(at - start, len(cut)) + len(lead) if is_it and column is not None else None
        lines_around.append(TextLine(number, lead + cut + tail, caret, is_it))
    return tuple(lines_around)
