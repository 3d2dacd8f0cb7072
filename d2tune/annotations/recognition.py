"""Recognizing the annotation format of a file or a folder by its content; where it is unknown, saying what was seen.

Few files are opened: JSON files until one is the annotation of one image, at most `_JSON_FILES`, and a few of the other
kinds.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from d2tune.annotations.formats.shared import signatures
from d2tune.annotations.formats.shared.sources import link_problem, walk_of
from d2tune.annotations.io.json_files import JsonError, decode_json, decode_text, read_bytes
from d2tune.annotations.io.lookup.walking import Walk
from d2tune.annotations.io.places import LINK_HINT
from d2tune.annotations.io.suffixes import is_image_name, unreadable_hint_of
from d2tune.annotations.model.findings import Finding
from d2tune.annotations.model.options import ReadOptions
from d2tune.annotations.registry import FORMATS
from d2tune.errors import DataError
from d2tune.text import counted, describe

_JSON_FILES = 50
_XML_FILES = 5
_CSV_FILES = 20
_START_BYTES = 65536
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
_VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")
_TABLES = (".parquet", ".tfrecord", ".record", ".h5", ".hdf5", ".mat", ".pkl", ".ndjson", ".jsonl", ".manifest")
_JSON_READERS = ("labelme", "via", "isat", "cityscapes", "supervisely", "darwin", "label-studio", "datumaro")
_ONE_IMAGE_EACH = ("labelme", "isat", "cityscapes", "supervisely", "darwin")
_PANOPTIC = {"coco", "panoptic"}
_PRIORITY = (
    *_JSON_READERS,
    *("panoptic", "coco", "cvat", "voc", "yolo-seg", "voc-masks", "rle", "via-csv", "masks"),
)
"""The format that is read first where a folder has several."""


@dataclass(frozen=True, slots=True)
class Recognition:
    """What a folder or file is.

    Attributes:
        format: The format that is read; None where nothing was recognized.
        others: Formats that are there too and are not read, with a file of each.
        guesses: What files that no reader reads probably are, with the first of each.
        names: The files.
    """

    format: str | None
    others: tuple[tuple[str, str], ...] = ()
    guesses: tuple[tuple[str, str], ...] = ()
    names: tuple[str, ...] = ()

    @property
    def has_images_alone(self) -> bool:
        """Whether there are images and nothing that could be annotations."""
        has_images = any(is_image_name(name) for name in self.names)
        return self.format is None and has_images and not self.guesses and not any(map(_is_table, self.names))

    def findings(self) -> tuple[Finding, ...]:
        """A finding for each format that is there and is not read."""
        assert self.format is not None
        return tuple(
            Finding(
                "warning",
                "other_format",
                file,
                f"the folder has files of the format {other} ({FORMATS[other].title}) too, which are not read; "
                f"it is read as {self.format}",
                hint=f"name the one to read with --format {other} or --format {self.format}, or move the others away",
            )
            for other, file in self.others
        )


def _is_table(name: str) -> bool:
    return name.lower().endswith((".json", ".xml", ".csv", ".txt", *_TABLES))


def detect_format(source: Path, options: ReadOptions | None = None) -> str:
    """Recognize the annotation format of a file or a folder from its content.

    Args:
        source: The file or folder.
        options: Whether links are followed.

    Raises:
        DataError: The path does not exist, or nothing in it was recognized; the message says what was seen.
    """
    options = options or ReadOptions()
    recognition = recognize(source, options)
    if recognition.format is None:
        raise refusal(Path(source), recognition, options)
    return recognition.format


def recognize(source: Path, options: ReadOptions | None = None) -> Recognition:
    """What a file or a folder is, by its content.

    Args:
        source: The file or folder.
        options: Whether links are followed.

    Raises:
        DataError: The path does not exist.
    """
    source, options = Path(source), options or ReadOptions()
    if not source.exists():
        raise DataError("there is no such file or folder", file=source)
    if source.is_file():
        files = _Files(source.parent, (source.name,))
    else:
        files = _Files(source, tuple(walk_of(source, options)))
    formats: dict[str, str] = {}
    for name, form in (*files.of_json(), *files.of_xml(), *files.of_csv(has_preset=options.preset is not None)):
        formats.setdefault(form, name)
    formats |= files.of_labels(source)
    if not formats and source.is_dir():
        formats |= files.of_masks()
    ordered = [name for name in _PRIORITY if name in formats]
    if not ordered and files.fallback:
        ordered = [files.fallback]
    others = tuple((name, formats[name]) for name in ordered[1:] if not _is_reported(ordered[0], name))
    return Recognition(ordered[0] if ordered else None, others, tuple(files.guesses.items()), files.names)


def _is_reported(read: str, other: str) -> bool:
    """Whether the reader of a format notes each file of another one, or both are made for each other."""
    return (read in _JSON_READERS and other in (*_JSON_READERS, "coco", "panoptic")) or {read, other} == _PANOPTIC


class _Files:
    """The files of a source, and what those are that were opened.

    Args:
        folder: The folder of the source.
        names: Its files.

    Attributes:
        guesses: What files that no reader reads probably are, with the first of each.
        fallback: The format whose reader reports what is wrong with the files, where no other format was recognized.
    """

    def __init__(self, folder: Path, names: tuple[str, ...]) -> None:
        self.folder, self.names = folder, names
        self.guesses: dict[str, str] = {}
        self.fallback = ""

    def _ending(self, *suffixes: str) -> list[str]:
        return [name for name in self.names if name.lower().endswith(suffixes)]

    def of_json(self) -> Iterator[tuple[str, str]]:
        """JSON files and their formats; the first that has a file for each image ends the search."""
        for name in itertools.islice(self._ending(".json"), _JSON_FILES):
            try:
                value, _ = decode_json(read_bytes(self.folder / name))
            except (JsonError, OSError):
                self.fallback = self.fallback or "labelme"
                continue
            form = format_of_json(value)
            if form is not None:
                yield name, form
                if form in _ONE_IMAGE_EACH:
                    return
                continue
            kind = signatures.unread_kind(value)
            if kind is not None:
                self.guesses.setdefault(kind, name)

    def of_xml(self) -> Iterator[tuple[str, str]]:
        """An XML file and its format."""
        roots = {"annotation": "voc", "annotations": "cvat"}
        for name in self._ending(".xml")[:_XML_FILES]:
            tag = _root_tag(self.folder / name)
            if tag is None:
                self.fallback = self.fallback or "voc"
            elif tag in roots:
                yield name, roots[tag]
                return
            else:
                self.guesses.setdefault(f"XML with the element <{tag[:40]}>", name)

    def of_csv(self, *, has_preset: bool) -> Iterator[tuple[str, str]]:
        """CSV files and their formats, by their first lines; with a dialect all others are run lengths."""
        names = self._ending(".csv")[:_CSV_FILES]
        if not names:
            return
        from d2tune.annotations.formats import rle_layout
        from d2tune.annotations.formats.tools import via_csv

        for name in names:
            header = _first_line(self.folder / name)
            if not header or not header.strip():
                continue
            if via_csv.is_via_header(header):
                yield name, "via-csv"
            elif has_preset or rle_layout.preset_of([header]) is not None:
                yield name, "rle"
            elif rle_layout.layout_of(rle_layout.split_line(header, rle_layout.separator_of(header))) is not None:
                self.fallback = self.fallback or "rle"
            else:
                self.guesses.setdefault(f"a CSV with the columns {describe(header.strip(), limit=80)}", name)

    def of_labels(self, source: Path) -> dict[str, str]:
        """A file by the format: of the label files of a folder, or a named ``data.yaml``."""
        is_named = source.is_file() and source.suffix.lower() in (".yaml", ".yml")
        if not (is_named or source.is_dir()):
            return {}
        from d2tune.annotations.formats.yolo import description, layout

        is_yolo = description.parse_description(source) is not None if is_named else layout.is_yolo(source, self.names)
        if not is_yolo:
            return {}
        labels = (name for name in self.names if layout.is_label_name(name))
        return {"yolo-seg": source.name if is_named else next(labels, "data.yaml")}

    def of_masks(self) -> dict[str, str]:
        """A file by the format: of mask images."""
        from d2tune.annotations.formats import masks, voc

        if voc.has_masks(self.names):
            return {"voc-masks": ""}
        return {"masks": ""} if masks.has_masks(self.names) else {}


def format_of_json(value: object) -> str | None:
    """The format of a parsed JSON file; None where no reader reads it."""
    from d2tune.annotations.formats import coco, labelme, panoptic, via

    tests: dict[str, Callable[[object], bool]] = {
        "panoptic": panoptic.is_panoptic,
        "coco": coco.is_coco,
        **signatures.SIGNATURES,
        "via": via.is_via,
    }
    if labelme.is_labelme(value):
        return "labelme"
    return next((name for name, test in tests.items() if test(value)), None)


def _first_line(path: Path) -> str | None:
    try:
        with path.open("rb") as stream:
            return decode_text(stream.readline(_START_BYTES))[0].lstrip("\ufeff")
    except (OSError, JsonError):
        return None


def _root_tag(path: Path) -> str | None:
    """The name of the root element of an XML file, None where it is damaged."""
    from d2tune.annotations.io.xml_files import XmlError, parse_xml

    try:
        return parse_xml(read_bytes(path)).tag
    except (XmlError, JsonError, OSError):
        return None


def refusal(source: Path, recognition: Recognition, options: ReadOptions) -> DataError:
    """The error of a source in which nothing was recognized: what was seen, and what to do."""
    if source.is_file():
        return _file_refusal(source, recognition)
    walk = walk_of(source, options)
    names: Sequence[str] = recognition.names or tuple(walk)
    if not names:
        return _empty(source, walk)
    unreadable = unreadable_hint_of(names)
    seen = _seen(names)
    if recognition.has_images_alone:
        return DataError(
            "the folder contains images and no annotations",
            file=source,
            found=seen,
            hint="Annotate them with `d2tune annotate`, or add --include-unlabeled to read them as negatives.",
        )
    if unreadable is not None and not recognition.guesses and not any(map(is_image_name, names)):
        return DataError("the folder contains no image that is read", file=source, found=unreadable)
    guess = "; ".join(f"{name} looks like {kind}" for kind, name in list(recognition.guesses)[:2])
    has_images = any(map(is_image_name, names))
    problem = "no annotations that are read" if has_images else "neither annotations nor images"
    return DataError(
        f"the folder contains {problem}",
        file=source,
        found=seen + (f"; {guess}" if guess else ""),
        expected="annotations of one of the formats: " + ", ".join(FORMATS),
        hint=_archive_hint(names) or "Check the path, or name the format with --format.",
    )


def _empty(source: Path, walk: Walk) -> DataError:
    message = "the folder contains neither annotations nor images"
    list(walk)
    link = link_problem(walk)
    if link is not None:
        return DataError(message, file=source, found=link, hint=f"{LINK_HINT[0].upper()}{LINK_HINT[1:]}.")
    return DataError(message, file=source, found="no files", hint="Check the path.")


def _seen(names: Sequence[str]) -> str:
    """``3 .json files, 1 .txt file, 12 images``."""
    suffixes = (".json", ".txt", ".xml", ".csv", ".yaml", *_ARCHIVES, *_VIDEOS, *_TABLES)
    counts = Counter(Path(name).suffix.lower() for name in names)
    words = [counted(counts[suffix], f"{suffix} file") for suffix in suffixes if counts[suffix]]
    images = sum(map(is_image_name, names))
    rest = len(names) - images - sum(counts[suffix] for suffix in suffixes)
    words += [counted(images, "image")] if images or not words else []
    return ", ".join(words + ([counted(rest, "other file")] if rest else []))


def _archive_hint(names: Sequence[str]) -> str | None:
    archive = next((name for name in names if name.lower().endswith(_ARCHIVES)), None)
    return None if archive is None else f"Unpack {archive}."


def _file_refusal(path: Path, recognition: Recognition) -> DataError:
    suffix = path.suffix.lower()
    guess = next((kind for kind, _ in recognition.guesses), None)
    if suffix in _ARCHIVES:
        return DataError("the file is an archive, which is not read", file=path, hint="Unpack it, and name the folder.")
    if suffix in _VIDEOS:
        return DataError(
            "the file is a video, and annotations belong to images",
            file=path,
            hint="Extract its images, for example with ffmpeg, and annotate them.",
        )
    if is_image_name(path.name):
        return DataError(
            "the file is an image and has no annotations", file=path, hint="Name the folder of the annotations."
        )
    hint = "Check the path, or name the format with --format."
    if suffix == ".txt":
        guess = guess or "labels of YOLO or a list of images"
        hint = "Name the folder of the data set."
    return DataError(
        "the format of the file is not recognized" if suffix else "the file has no suffix of an annotation file",
        file=path,
        found=guess,
        expected="one of the formats: " + ", ".join(FORMATS),
        hint=hint,
    )
