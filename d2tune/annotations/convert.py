"""Reading annotations of any format, and converting them to another format."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from d2tune.annotations.formats import coco, labelme, panoptic, rle_csv, semantic
from d2tune.annotations.formats.shared.sources import walk_of
from d2tune.annotations.io.gathering import copy_files, gather
from d2tune.annotations.io.json_files import JsonError, decode_text, read_bytes
from d2tune.annotations.io.outputs import protected
from d2tune.annotations.io.photos.findings import with_photo_findings
from d2tune.annotations.model.dataset import Dataset
from d2tune.annotations.model.findings import Finding
from d2tune.annotations.model.ledger import LedgerRow, write_ledger
from d2tune.annotations.model.options import ReadOptions
from d2tune.annotations.recognition import Recognition, recognize, refusal
from d2tune.annotations.recognition import detect_format as detect_format
from d2tune.annotations.registry import FORMATS, TARGETS, check_format, unused_options
from d2tune.annotations.registry import READERS as READERS
from d2tune.annotations.splitting.lists import keep_listed
from d2tune.errors import DataError, printable
from d2tune.files import holds_rows_with, refuse_foreign, write_json
from d2tune.text import counted

_LEVELS = ("error", "warning", "info")
_WITH_IMAGES = ("yolo-seg", "rfdetr")
_SKIPPED = ("not_labelme", "not_via", "not_voc", "not_this_format")


class FindingsError(DataError):
    """The annotations have errors, and nothing was written.

    Args:
        error: The error that `Dataset.raise_on_errors` raised.
        findings: All findings.
        ledger: The fate of every shape.
    """

    def __init__(self, error: DataError, findings: Sequence[Finding], ledger: Sequence[LedgerRow]) -> None:
        super().__init__(error.message, file=error.file, hint=error.hint)
        self.findings = tuple(findings)
        self.ledger = tuple(ledger)


@dataclass(frozen=True, slots=True)
class ConvertResult:
    """The result of a conversion or a check.

    Attributes:
        dataset: The annotations.
        paths: The files written; none after a check.
        findings: In the order of the files.
    """

    dataset: Dataset
    paths: tuple[Path, ...]
    findings: tuple[Finding, ...]


def read_dataset(
    source: str | Path, *, format: str = "auto", options: ReadOptions | None = None, to: str | None = None
) -> Dataset:
    """Read annotations of any format.

    Args:
        source: Folder or file.
        format: One of `registry.FORMATS`, or ``auto`` to recognize it from the content.
        options: How to read.
        to: The format that is written next, if any.

    Returns:
        The dataset; errors in single files are among its findings, see `Dataset.raise_on_errors`.

    Raises:
        DataError: The source does not exist, nothing in it was recognized, or an option is invalid or not used.
    """
    path = Path(source)
    if options is not None and not abs(options.pixel_offset) <= 1:
        raise DataError("the pixel offset must be between -1 and 1", found=str(options.pixel_offset))
    options = options or ReadOptions()
    if path.exists() and not path.is_dir() and not path.is_file():
        raise DataError("a pipe or a device cannot be read", file=path, expected="a folder or a file")
    notes: tuple[Finding, ...] = ()
    if format == "auto":
        format, notes = _recognized(path, options)
    check_format(format)
    notes += unused_options(format, options, source=path.name, to=to)
    if path.is_dir() and not any(walk_of(path, options)):
        raise refusal(path, Recognition(None), options)
    dataset = FORMATS[format].read(path, options)
    _refuse_nothing(dataset, path, format)
    dataset = dataclasses.replace(dataset, findings=(*notes, *dataset.findings)) if notes else dataset
    if options.image_list is not None:
        dataset = keep_listed(dataset, options.image_list, skip_bad=options.skip_bad)
    if format == "label_images":  # its reader has opened all rasters
        return dataset
    return with_photo_findings(dataset, depth=options.image_checks, skip_bad=options.skip_bad)


def _recognized(path: Path, options: ReadOptions) -> tuple[str, tuple[Finding, ...]]:
    """The format of a source, and findings about other formats in it.

    Raises:
        DataError: Nothing was recognized.
    """
    recognition = recognize(path, options)
    if recognition.format is not None:
        return recognition.format, recognition.findings()
    if recognition.has_images_alone and options.include_unlabeled:
        return "labelme", ()
    raise refusal(path, recognition, options)


def _refuse_nothing(dataset: Dataset, path: Path, format: str) -> None:
    """Refuse a source in which no file is of the format that was named.

    Raises:
        DataError: All files were skipped.
    """
    skipped = [finding for finding in dataset.findings if finding.code in _SKIPPED]
    if not dataset.images and not dataset.errors() and skipped:
        raise DataError(
            f"no file is of the format {format} ({FORMATS[format].title})",
            file=path,
            found=f"{counted(len(skipped), 'other file')}, the first is {skipped[0].file}",
            hint="Leave --format out, so that the format is recognized, or name another one.",
        )


@contextlib.contextmanager
def checked(
    source: str | Path, *, format: str = "auto", options: ReadOptions | None = None, strict: bool = False
) -> Iterator[ConvertResult]:
    """Read annotations as `convert` does without writing files; errors are among the findings.

    Images that exist only inside annotation files are temporary files until the block ends.
    """
    with tempfile.TemporaryDirectory(prefix="d2tune-") as scratch:
        staged = dataclasses.replace(options or ReadOptions(), restore_dir=Path(scratch))
        if staged.image_checks == "header":
            staged = dataclasses.replace(staged, image_checks="structure")
        dataset = read_dataset(source, format=format, options=staged)
        yield ConvertResult(dataset, (), judged(dataset.findings, strict))


def check(
    source: str | Path, *, format: str = "auto", options: ReadOptions | None = None, strict: bool = False
) -> ConvertResult:
    """The result of `checked`; images that exist only inside annotation files are removed before this returns."""
    with checked(source, format=format, options=options, strict=strict) as result:
        return result


def judged(findings: Sequence[Finding], strict: bool) -> tuple[Finding, ...]:
    """The findings, with warnings as errors where ``strict``."""
    return tuple(
        dataclasses.replace(finding, level="error") if strict and finding.level == "warning" else finding
        for finding in findings
    )


def convert(
    source: str | Path,
    *,
    out: str | Path,
    to: str = "coco",
    format: str = "auto",
    options: ReadOptions | None = None,
    strict: bool = False,
    force: bool = False,
    findings_path: str | Path | None = None,
    ledger_path: str | Path | None = None,
    tolerance_px: float = 1.0,
    min_area_px2: float | None = None,
    images: Literal["copy", "link", "none"] = "copy",
) -> ConvertResult:
    """Read annotations of one format and write them in another.

    Images that exist only inside annotation files are written to the output folder, or to
    ``options.restore_dir``.

    Args:
        source: Folder or file.
        out: Folder; for COCO and run-length CSV also a file.
        to: One of `registry.TARGETS`.
        format: One of `registry.FORMATS`, or ``auto``.
        options: How to read; ``preset`` is also the dialect of written run-length CSV.
        strict: Whether warnings count as errors.
        force: Whether files that an earlier conversion wrote are replaced; others never are.
        findings_path: File for the findings as JSON, also when there are errors.
        ledger_path: File for the ledger, also when there are errors; see `ledger.write_ledger`.
        tolerance_px: How far the outlines of predictions may move in Labelme files.
        min_area_px2: Smaller regions of masks are excluded from Labelme files, see `labelme.write`.
        images: Whether the images of YOLO and RF-DETR are copied, hard-linked, or left where they are.

    Raises:
        FindingsError: There are errors; only the findings and the ledger were written.
        DataError: The source, an option or the output cannot be used.
    """
    places = {"findings_path": findings_path, "ledger_path": ledger_path}
    with staged(source, options=options, format=format, strict=strict, to=to, **places) as stage:
        return stage.write(out, to=to, tolerance_px=tolerance_px, min_area_px2=min_area_px2, force=force, images=images)


@dataclass(frozen=True, slots=True)
class Stage:
    """Annotations that were read without errors and are not written yet.

    Attributes:
        dataset: The annotations.
        source: The file or folder that they were read from.
        options: How they were read.
        scratch: Temporary folder of the images that exist only inside annotation files.
    """

    dataset: Dataset
    source: Path
    options: ReadOptions
    scratch: Path

    def write(
        self,
        out: str | Path,
        *,
        to: str = "coco",
        tolerance_px: float = 1.0,
        min_area_px2: float | None = None,
        force: bool = False,
        subfolder: str = "",
        images: Literal["copy", "link", "none"] = "copy",
    ) -> ConvertResult:
        """Write the annotations in another format.

        Where some images exist only inside annotation files, they are written too, and with them copies of all others,
        so that the annotations and their images are in one folder. Labelme files name the others where they are.

        Args:
            out: As for `convert`.
            to: As for `convert`.
            tolerance_px: As for `convert`.
            min_area_px2: As for `convert`.
            force: As for `convert`.
            subfolder: Folder in ``out`` for images that are written; of YOLO, RF-DETR and Cityscapes the split.
            images: As for `convert`.
        """
        out = Path(out)
        if to not in TARGETS:
            raise DataError("unknown target format", found=repr(to), expected=", ".join(TARGETS))
        is_file = out.suffix.lower() in (".json", ".csv")
        if is_file and to not in ("coco", "rle"):
            raise DataError("this format is written to a folder", file=out, hint="Give a folder.")
        if to in _WITH_IMAGES and not self.dataset.categories:
            hint = "Name its classes, or give annotations with objects."
            raise DataError("there are no classes, without which no model can be trained", file=self.source, hint=hint)
        dataset, copies = self._gathered(out.parent if is_file else out, to, subfolder)
        with protected(self._inputs):
            if to == "labelme":
                originals = self.source if self.source.is_dir() else self.source.parent
                paths = labelme.write(
                    dataset,
                    out,
                    originals=originals,
                    tolerance_px=tolerance_px,
                    min_area_px2=min_area_px2,
                    force=force,
                )
            elif to == "yolo-seg":
                from d2tune.annotations.formats.yolo import writer

                paths = writer.write(dataset, out, split=subfolder, images=images, force=force)
            elif to == "rfdetr":
                from d2tune.annotations.formats import rfdetr

                paths = rfdetr.write(dataset, out, split=subfolder, images=images, force=force)
            elif to == "cityscapes":
                from d2tune.annotations.formats.cityscapes import writer as cityscapes

                paths = cityscapes.write(dataset, out, split=subfolder, force=force)
            else:
                paths = _write(dataset, out, to, self.options, self.source, force=force)
        return ConvertResult(dataset, (*paths, *copy_files(copies)), dataset.findings)

    def _inputs(self) -> Iterator[Path]:
        """The files that were read."""
        folder = self.source if self.source.is_dir() else self.source.parent
        yield self.source
        for image in self.dataset.images:
            yield from [] if image.path is None else [image.path]
            yield from [] if image.annotation_file is None else [folder / image.annotation_file]

    def _gathered(self, folder: Path, to: str, subfolder: str) -> tuple[Dataset, dict[Path, Path]]:
        """The dataset with the final paths of its images, and the files to be copied by their targets."""
        if to in _WITH_IMAGES:  # which write the images themselves
            return self.dataset, {}
        if self.options.restore_dir is not None:
            return gather(self.dataset, self.scratch, self.options.restore_dir, with_all=False)
        if to in ("semantic", "panoptic", "cityscapes"):  # which write PNGs under the names of the images
            used = {image.file_name.partition("/")[0] for image in self.dataset.images}
            folder /= next(name for name in _image_folder_names() if name not in used)
        return gather(self.dataset, self.scratch, folder, subfolder=subfolder, with_all=to != "labelme")


def _image_folder_names() -> Iterator[str]:
    yield "images"
    for number in itertools.count(2):
        yield f"images-{number}"


@contextlib.contextmanager
def staged(source: str | Path, *, options: ReadOptions | None = None, **reading: Any) -> Iterator[Stage]:
    """Read annotations for writing them in another format; the arguments are those of `read_without_errors`.

    Raises:
        FindingsError: There are errors.
        DataError: The source or an option cannot be used.
    """
    options = options or ReadOptions()
    with tempfile.TemporaryDirectory(prefix="d2tune-") as scratch:
        with_scratch = dataclasses.replace(options, restore_dir=Path(scratch))
        yield Stage(read_without_errors(source, options=with_scratch, **reading), Path(source), options, Path(scratch))


def read_without_errors(
    source: str | Path,
    *,
    format: str = "auto",
    options: ReadOptions | None = None,
    strict: bool = False,
    findings_path: str | Path | None = None,
    ledger_path: str | Path | None = None,
    to: str | None = None,
) -> Dataset:
    """Read annotations and raise where they have errors or no image; the arguments are those of `convert`.

    Raises:
        FindingsError: There are errors, or no image has annotations; only the findings and the ledger were written.
        DataError: The source or an option cannot be used.
    """
    dataset = read_dataset(source, format=format, options=options, to=to)
    dataset = dataclasses.replace(dataset, findings=judged(dataset.findings, strict))
    if findings_path is not None:
        write_findings(findings_path, dataset.findings)
    if ledger_path is not None:
        write_ledger(ledger_path, dataset.ledger)
    try:
        dataset.raise_on_errors()
    except DataError as error:
        raise FindingsError(error, dataset.findings, dataset.ledger) from None
    if not dataset.images:
        hint = "Check the path and --format; `d2tune check` lists what was skipped."
        empty = DataError("no annotated image was read", file=source, hint=hint)
        raise FindingsError(empty, dataset.findings, dataset.ledger)
    return dataset


def _write(dataset: Dataset, out: Path, to: str, options: ReadOptions, source: Path, *, force: bool) -> list[Path]:
    if to == "semantic":
        return semantic.write(dataset, out, force=force)
    if to == "panoptic":
        return panoptic.write(dataset, out, force=force)
    if to == "rle":
        folder = source if source.is_dir() else source.parent
        names = (image.annotation_file for image in dataset.images if image.annotation_file is not None)
        files = {name for name in names if name.lower().endswith(".csv")}
        like = folder / files.pop() if len(files) == 1 else None
        return rle_csv.write(dataset, out, preset=options.preset, like=like, force=force)
    return coco.write(dataset, out, force=force)


def read_labels(path: str | Path) -> tuple[str, ...]:
    """Class names from a labels file, one per line; blank lines are skipped.

    Raises:
        DataError: The file cannot be read, or names a class twice.
    """
    try:
        text, _ = decode_text(read_bytes(Path(path)))
    except (OSError, JsonError) as error:
        raise DataError(f"the labels file cannot be read ({error})", file=path) from error
    names: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        name = line.strip()
        if name in names:
            raise DataError("the labels file names a class twice", file=path, place=f"line {number}", found=repr(name))
        names += [name] if name else []
    if not names:
        raise DataError("the labels file is empty", file=path, expected="one class name per line")
    return tuple(names)


def read_rename(pairs: str, dropped: str) -> dict[str, str | None]:
    """The value of `ReadOptions.rename` for ``--rename OLD=NEW,OLD=NEW`` and ``--drop LABEL,LABEL``.

    Raises:
        DataError: A pair is not OLD=NEW, or a label occurs twice.
    """
    rename: dict[str, str | None] = {}
    words = [("--rename", word.strip()) for word in pairs.split(",")]
    words += [("--drop", word.strip()) for word in dropped.split(",")]
    for option, word in words:
        if not word:
            continue
        old, new = (side.strip() for side in word.split("=", 1)) if "=" in word and option == "--rename" else (word, "")
        if option == "--rename" and not (old and new):
            raise DataError("a label has no new name", place=option, found=repr(word), expected="OLD=NEW,OLD=NEW")
        if old in rename:
            raise DataError("the label occurs twice in --rename and --drop", place=option, found=repr(old))
        rename[old] = new or None
    return rename


def findings_table(findings: Sequence[Finding]) -> str:
    """The findings as a table for the terminal: level, code, number, the first three places."""
    groups: dict[tuple[int, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((_LEVELS.index(finding.level), finding.code), []).append(finding)
    rows = [("level", "code", "count", "where")]
    details = [""]
    for (level, code), members in sorted(groups.items()):
        places = "; ".join(printable(finding.place()) for finding in members[:3])
        rest = len(members) - 3
        rows.append((_LEVELS[level], code, str(len(members)), places + (f"; and {rest} more" if rest > 0 else "")))
        hint = f" ({members[0].hint})" if members[0].hint else ""
        details.append("    " + printable(members[0].message + hint))
    if len(rows) == 1:
        return "no findings"
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = []
    for row, detail in zip(rows, details, strict=True):
        lines.append(f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]}")
        lines += [detail] if detail else []
    return "\n".join(lines)


def write_findings(path: str | Path, findings: Sequence[Finding]) -> None:
    """Write the findings as a JSON list, atomically; earlier findings are replaced.

    Raises:
        DataError: The path has a file that is not a list of findings.
    """
    refuse_foreign(Path(path), is_own=lambda content: holds_rows_with(content, ("level", "code", "file")))
    write_json(path, [finding.to_json() for finding in findings])
