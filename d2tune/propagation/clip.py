"""The frames of a clip as image files: those of a folder, or those of a video, which are written as images."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from d2tune.annotations.io.images import read_header
from d2tune.annotations.io.output_record import PHOTO, OwnFiles
from d2tune.annotations.io.outputs import write_output
from d2tune.annotations.io.photos.reading import read_photo, read_photo_content, read_values, reading_photo
from d2tune.annotations.io.rasters import natural_order
from d2tune.annotations.model.pixel_format import FULL_RANGE, PixelFormat
from d2tune.errors import DataError, MachineError
from d2tune.inference.listing import find_images
from d2tune.inference.sources import is_video
from d2tune.text import counted
from d2tune.video.reader import Frame, VideoReader, source_of

logger = logging.getLogger(__name__)

_COMPARED_PX = 64
_MOST_FOR_WHITE = 16
"""Frames of which the largest value is looked for."""
_JPEG_QUALITY = 95
_DIGITS = 6
_LARGEST_DIFFERENCE = 4.0
"""Mean difference of the values of a frame that two versions of the libraries decode and encode."""


@dataclass(frozen=True, slots=True)
class Clip:
    """The frames of a clip; see ``methods.base.Frames``.

    Attributes:
        root: The folder that names are relative to.
        paths: The image files in the order of time.
        times_s: The time of each frame; None where it is unknown, as of a folder.
        width_px: Width of all frames, upright.
        height_px: Height of all frames.
        is_video: Whether the frames are those of a video; they can be read once `write_frames` has written them.
        white: The stored value of 16-bit frames that becomes 255; None for frames of 8 bits, and of a stated range.
        compared: `reduced` of each frame of a video; None for a folder.
    """

    root: Path
    paths: tuple[Path, ...]
    times_s: tuple[float, ...] | None
    width_px: int
    height_px: int
    is_video: bool
    white: float | None = None
    compared: tuple[NDArray[np.uint8], ...] | None = None

    def __len__(self) -> int:
        """The number of frames."""
        return len(self.paths)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """A frame, ``(H, W, 3)`` uint8 in RGB, upright.

        Raises:
            DataError: It cannot be read, or has another size than its header has.
        """
        image = read_photo(self.paths[index], white=self.white)
        if image.shape[:2] != (self.height_px, self.width_px):
            raise DataError(
                "the size of the frame has changed",
                file=self.paths[index],
                found=f"{image.shape[1]} x {image.shape[0]} px",
                expected=f"{self.width_px} x {self.height_px} px",
            )
        return image

    def name(self, index: int) -> str:
        """The path of a frame relative to the root, with forward slashes."""
        return self.paths[index].relative_to(self.root).as_posix()

    def reduced(self, index: int) -> NDArray[np.uint8]:
        """`reduced` of a frame, also of one of a video that is not written yet."""
        return reduced(self[index]) if self.compared is None else self.compared[index]


def reduced(image_rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A small gray version of an image, to compare it with others."""
    gray = cv2.cvtColor(image_rgb, cv2.COLOR_RGB2GRAY)
    small: NDArray[np.uint8] = cv2.resize(gray, (_COMPARED_PX, _COMPARED_PX), interpolation=cv2.INTER_AREA)
    return small


def folder_of_frames(source: str | Path) -> Path:
    """The output folder where none is given: that of the frames, or for a video one with its name."""
    return Path(source_of(source).stem) if is_video(source) else Path(source)


def open_clip(source: str | Path, out: Path) -> Clip:
    """The clip of a folder of frames, or of a video file.

    Nothing is written: `write_frames` writes the frames of a video, once all other inputs are known to be good.

    Frames of a folder, subfolders included, are ordered by their names with numbers as numbers: ``2.png`` is before
    ``10.png``.

    Args:
        source: A folder or a video file.
        out: The output folder.

    Raises:
        DataError: There is no such folder or video, it cannot be read, has no frames or frames of several sizes, or a
            frame of the video would replace a person's file, or belongs to another video than the frames in the folder.
    """
    if is_video(source):
        return _of_video(source, out)
    folder = Path(source)
    if folder.is_file():
        raise DataError("is neither a video nor a folder of frames", file=folder, hint="Name the folder of the frames.")
    root, images = find_images(folder)
    paths = sorted(images, key=lambda path: natural_order(path.relative_to(root).as_posix()))
    width_px, height_px, form = _common_size(paths)
    white = _white_of(paths) if form is not None and form.is_deep and not form.is_stated else None
    return Clip(root, tuple(paths), None, width_px, height_px, is_video=False, white=white)


def _white_of(paths: Sequence[Path]) -> float:
    """The largest value of as many bits as deep frames use: 4095 where a camera wrote 12 bits into files of 16.

    Divided by the range of the files, such frames would be nearly black.

    Raises:
        DataError: A frame cannot be read.
    """
    places = np.unique(np.linspace(0, len(paths) - 1, _MOST_FOR_WHITE).round().astype(int))
    read = (read_values(paths[place]) for place in places)
    largest = max((int(values[0].max()) for values in read if values is not None), default=FULL_RANGE)
    return float(max(255, min(FULL_RANGE, (1 << largest.bit_length()) - 1)))


def _common_size(paths: Sequence[Path]) -> tuple[int, int, PixelFormat | None]:
    """Width and height of all images, and how the first one stores its pixels.

    Raises:
        DataError: One cannot be read, or has another size than the first one.
    """
    first: tuple[int, int] | None = None
    form: PixelFormat | None = None
    for path in paths:
        with reading_photo(path):
            header = read_header(path)
        size = header.width_px, header.height_px
        if first is None:
            first, form = size, header.pixel_format
        if size != first:
            raise DataError(
                "the frames of a clip must have the same size",
                file=path,
                found=f"{size[0]} x {size[1]} px",
                expected=f"{first[0]} x {first[1]} px, as {paths[0].name}",
                hint="Move images that are not frames into another folder.",
            )
    assert first is not None
    return *first, form


def _of_video(source: str | Path, out: Path) -> Clip:
    """The clip of a video whose frames are, or will be, JPEG files in the output folder."""
    video = source_of(source)
    if video.kind != "file":
        raise DataError(
            "only video files and folders of frames are tracked", file=video.name, hint="Record the stream first."
        )
    own = OwnFiles()
    paths: list[Path] = []
    times_s: list[float] = []
    compared: list[NDArray[np.uint8]] = []
    with VideoReader(video) as reader:
        size = reader.width_px, reader.height_px
        for frame in _frames(reader, "reading frames"):
            if frame.image_rgb.shape[1::-1] != size:
                raise DataError(
                    "the size of the frames changes within the video", file=video.name, place=f"frame {frame.index}"
                )
            path = out / f"{frame.index:0{_DIGITS}d}.jpg"
            if os.path.lexists(path):
                _check_frame(path, frame.image_rgb, video.name, own)
            paths.append(path)
            times_s.append(frame.time_s)
            compared.append(reduced(frame.image_rgb))
        if reader.ending is not None:
            logger.warning("%s: %s", video.name, reader.ending)
    return Clip(out, tuple(paths), tuple(times_s), *size, is_video=True, compared=tuple(compared))


def _frames(reader: VideoReader, doing: str) -> Iterator[Frame]:
    """The frames of a video, with a progress bar."""
    bar = tqdm(reader, total=reader.frame_count, desc=doing, unit=" frames", leave=False, disable=None)
    yield from bar


def _check_frame(path: Path, image_rgb: NDArray[np.uint8], name: str, own: OwnFiles) -> None:
    """Refuse a file in the place of a frame that is not this frame.

    Raises:
        DataError: It is a person's file, or shows something else than the frame.
    """
    if PHOTO not in own.kinds(path):
        raise DataError(
            "the file is already there and is not overwritten with a frame of the video",
            file=path,
            hint="Name another folder with --out.",
        )
    content = _encoded(path, image_rgb)
    if own.is_unchanged(path, PHOTO) and own.last_sha256(path) == hashlib.sha256(content).hexdigest():
        return
    written, image = read_photo(path), read_photo_content(content)
    if written.shape != image.shape or float(cv2.absdiff(written, image).mean()) > _LARGEST_DIFFERENCE:
        raise DataError(
            f"the folder has the frames of another video than {name}",
            file=path,
            hint="Name another folder with --out.",
        )


def write_frames(source: str | Path, clip: Clip) -> None:
    """Write the frames of a video that are not in the output folder yet; a folder of frames stays as it is.

    Args:
        source: The video of the clip.
        clip: The clip, of which `open_clip` has checked the frames that are there.
    """
    if not clip.is_video or all(path.exists() for path in clip.paths):
        return
    video = source_of(source)
    with VideoReader(video) as reader:
        for path, frame in zip(clip.paths, _frames(reader, "writing frames"), strict=False):
            if not path.exists():
                write_output(path, _encoded(path, frame.image_rgb), kind=PHOTO)
    logger.info("%s of %s: %s", counted(len(clip), "frame"), video.name, clip.root)


def _encoded(path: Path, image_rgb: NDArray[np.uint8]) -> bytes:
    """A frame as a JPEG file."""
    bgr = cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR)
    is_done, content = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    if not is_done:
        raise MachineError("a frame cannot be encoded as JPEG", file=path)
    return content.tobytes()
