"""``package.json``: what a package holds, with the size and the hash of each of its files.

The file vouches for itself too: its last entry, ``sha256``, is the hash of its own bytes with zeros in place of that
hash, so that a changed byte is detected in every file of a package.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from d2tune.errors import PackageError
from d2tune.text import describe, reason_of

FORMAT = 1
"""Version of ``package.json``, its entry ``d2tune_package``."""

NAME = "package.json"
PROJECT = "project.yaml"
CONFIG = "detectron2.yaml"
CARD = "README.md"
RUNNER = "runner.py"
WEIGHTS = "model.safetensors"

COPY_HINT = "Copy the package again, or make it again with `d2tune package`."

_NO_HASH = "0" * 64
_OWN_HASH = re.compile(rb'"sha256": "([0-9a-f]{64})"\s*\}\s*\Z')

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
Score = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]


class _Entries(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class FileEntry(_Entries):
    """A file of the package.

    Attributes:
        bytes: Its length.
        sha256: Hash of its bytes.
    """

    bytes: Count
    sha256: Sha256


class Threshold(_Entries):
    """The lowest score of an instance of a class.

    Attributes:
        value: The score.
        origin: ``best-f1`` is the best-F1 threshold of the evaluation, ``given`` was given by a person, ``default`` is
            0.5.
        objects: Annotated objects behind a best-F1 threshold; None for others.
        why: Why it is the default; None for others.
    """

    value: Score
    origin: Literal["best-f1", "given", "default"]
    objects: Count | None = None
    why: str | None = None


class RasterSpec(_Entries):
    """How rasters become the channels of the model.

    Attributes:
        stack: Name patterns of the files of a folder, in the order of their channels; empty takes all files.
        channels: Places of the used channels; empty takes all.
        nodata: Value of channels without data, beside NaN; None for NaN alone.
        georeference: ``kept``: label maps of rasters with a place on earth have the same place.
    """

    stack: tuple[str, ...]
    channels: tuple[Count, ...]
    nodata: float | None
    georeference: Literal["kept"] = "kept"


class InputSpec(_Entries):
    """What the model takes, and how images become that.

    Attributes:
        channels: Number of channels.
        channel_order: Order of the channels of photos: RGB or BGR; for rasters, the order of ``raster``.
        value_range: Lowest and highest value of a photo before mean and deviation; None for rasters, whose values are
            taken as they are.
        white_16bit: The value of 16-bit photos that becomes 255; None takes that of each file.
        pixel_mean: Subtracted from each channel.
        pixel_std: What each channel is divided by then.
        short_side_px: Images are resized so that the short side has this length; 0 keeps their size.
        max_side_px: Unless the long side would be longer than this.
        divisible_by_px: The resized image is padded on the right and below to a multiple of this, after mean and
            deviation, with zeros; 0 does not pad.
        window_px: Side of the overlapping windows in which images of original size are predicted; 0 takes whole images.
        image_short_side_px: Median short side of the training images before they were resized; None if not recorded.
        exif_orientation: ``applied``: photos are turned as their EXIF orientation says.
        raster: How rasters are read; None where images are photos.
        stacked: Whether an image is a folder of files.
        mask_format: Format of the masks in training.
    """

    channels: Annotated[int, Field(ge=1)]
    channel_order: str
    value_range: tuple[float, float] | None
    white_16bit: float | None
    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]
    short_side_px: Count
    max_side_px: Count
    divisible_by_px: Count
    window_px: Count
    image_short_side_px: Count | None = None
    exif_orientation: Literal["applied"] = "applied"
    raster: RasterSpec | None
    stacked: bool
    mask_format: str


class WeightsEntry(_Entries):
    """The weights, or the exported model.

    Attributes:
        file: Name of the file in the package.
        format: ``safetensors`` holds tensors for Detectron2's model; the other formats are exported models.
        precision: Type of the numbers in the file.
        sizes: Heights and widths in pixels that an exported model takes; None where all are taken.
        tensors: Number of tensors; None for exported models.
        source: ``best``, ``final`` or the name of the checkpoint that they were made from.
        source_sha256: Hash of that checkpoint.
    """

    file: FileName
    format: Literal["safetensors", "torchscript", "onnx", "openvino", "tensorrt"]
    precision: Literal["float32", "bfloat16", "float16", "int8"]
    sizes: tuple[tuple[Count, Count], ...] | None = None
    tensors: Count | None = None
    source: str
    source_sha256: Sha256


class Inference(_Entries):
    """How the model of the run predicts.

    Attributes:
        device: Kind of the device that it was trained on.
        precision: Precision of its forward pass, which is taken on devices of that kind.
    """

    device: str
    precision: Literal["float32", "bfloat16", "float16"]


class Value(_Entries):
    """A metric from 0 to 100 with its 95 % interval, or the reason why there is none; see `metrics.metric.Metric`."""

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str | None = None


class Metrics(_Entries):
    """The evaluation of the weights on the validation split of the run.

    Attributes:
        images: Number of images.
        data_sha256: Hash of the split.
        values: Metrics by kind and name.
        classes: The row of each class in ``evaluation.json``.
        sentence: The result in a sentence.
    """

    images: Count
    data_sha256: Sha256
    values: dict[str, dict[str, Value]]
    classes: tuple[dict[str, JsonValue], ...]
    sentence: str


class Manifest(_Entries):
    """``package.json``.

    Attributes:
        d2tune_package: Version of the format.
        d2tune: Version of d2tune that made the package.
        project: Name of the project.
        preset: The model by name.
        task: The task.
        classes: Names in the order of their ids, which count from 1.
        thing_ids: Ids of the things.
        thresholds: Lowest score by class; empty where predictions have no scores.
        input: What the model takes.
        weights: The weights, or the exported model.
        inference: How the model predicts.
        metrics: Its evaluation; None where these weights were not evaluated.
        data: Hashes and counts of the splits.
        training: When and how long it was trained, and what it started from.
        versions: Versions of the libraries at training.
        export: For exported models, what the format needs and what its check measured.
        files: Size and hash of each file but this one.
        sha256: Hash of this file with zeros in place of this hash.
    """

    d2tune_package: Annotated[int, Field(ge=1)]
    d2tune: str
    project: str
    preset: str
    task: Literal["instance", "semantic", "panoptic", "tracking"]
    classes: tuple[str, ...] = Field(min_length=1)
    thing_ids: tuple[Count, ...]
    thresholds: dict[str, Threshold]
    input: InputSpec
    weights: WeightsEntry
    inference: Inference
    metrics: Metrics | None
    data: dict[str, JsonValue]
    training: dict[str, JsonValue]
    versions: dict[str, str]
    export: dict[str, JsonValue] | None = None
    files: dict[FileName, FileEntry]
    sha256: Sha256

    def to_bytes(self) -> bytes:
        """The content of ``package.json``, with its own hash."""
        plain = self.model_dump(mode="json") | {"sha256": _NO_HASH}
        text = json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        content = text.encode("utf-8", errors="backslashreplace")
        digest = hashlib.sha256(content).hexdigest().encode()
        before, _, after = content.rpartition(_NO_HASH.encode())
        return before + digest + after


def is_package(path: Path) -> bool:
    """Whether a path is a folder with ``package.json``."""
    return (path / NAME).is_file()


def read_manifest(folder: Path) -> Manifest:
    """Read and check ``package.json``.

    Raises:
        PackageError: It is missing, of a later format, changed since it was written, or not that of a package.
    """
    path = folder / NAME
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        expected = f"a folder with {NAME}, as `d2tune package RUN --out {folder.name or 'model'}` writes it"
        raise PackageError("is not a package", file=folder, expected=expected) from None
    except OSError as error:
        raise PackageError(f"cannot be read: {error.strerror or error}", file=path) from None
    try:
        plain = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise PackageError(f"is not valid JSON: {reason_of(error)}", file=path, hint=COPY_HINT) from None
    if not isinstance(plain, dict) or "d2tune_package" not in plain:
        expected = "a JSON object with the entry d2tune_package"
        raise PackageError("is not the description of a package", file=path, expected=expected)
    _check_format(plain, path)
    _check_own_hash(content, path)
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        if first["type"] == "missing":
            raise PackageError("the entry is missing", file=path, place=place, hint=COPY_HINT) from None
        message, value = first["msg"].removeprefix("Input "), describe(first["input"])
        raise PackageError(f"the entry {message}", file=path, place=place, found=value, hint=COPY_HINT) from None
    _check_consistent(manifest, path)
    return manifest


def _check_format(plain: dict[str, Any], path: Path) -> None:
    given = plain["d2tune_package"]
    if isinstance(given, int) and given > FORMAT:
        written = plain.get("d2tune")
        by = f"d2tune {written}" if isinstance(written, str) else "a later version of d2tune"
        raise PackageError(
            f"the package was written by {by} and needs format {given}; this d2tune reads up to {FORMAT}",
            file=path,
            place="d2tune_package",
            hint="Install that version, or make the package with this one.",
        )


def _check_own_hash(content: bytes, path: Path) -> None:
    hit = _OWN_HASH.search(content)
    if hit is None:
        raise PackageError("the entry is missing, or not the last one", file=path, place="sha256", hint=COPY_HINT)
    digest = hashlib.sha256(content[: hit.start(1)] + _NO_HASH.encode() + content[hit.end(1) :]).hexdigest()
    if digest.encode() != hit[1]:
        raise PackageError(
            "the file was changed after it was written",
            file=path,
            found=f"SHA-256 {digest[:12]}",
            expected=hit[1][:12].decode(),
            hint=COPY_HINT,
        )


def _check_consistent(manifest: Manifest, path: Path) -> None:
    """What the types of the entries alone do not say."""
    for name in (manifest.weights.file, PROJECT, CONFIG):
        if name not in manifest.files:
            raise PackageError("the file is not listed", file=path, place=f"files.{name}", hint=COPY_HINT)
    ids = range(1, len(manifest.classes) + 1)
    for place, unknown in (
        ("thresholds", [name for name in manifest.thresholds if name not in manifest.classes]),
        ("thing_ids", [number for number in manifest.thing_ids if number not in ids]),
    ):
        if unknown:
            raise PackageError("is not a class of the package", file=path, place=place, found=str(unknown[0]))
