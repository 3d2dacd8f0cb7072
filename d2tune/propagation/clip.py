"""The frames of a clip as image files: those of a folder, or those of a video, which are written as images."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from d2tune.annotations.io.images import read_header
from d2tune.annotations.io.output_record import PHOTO, OwnFiles
from d2tune.annotations.io.outputs import write_output
from d2tune.annotations.io.photos.reading import read_photo, read_photo_content, reading_photo
from d2tune.annotations.io.rasters import natural_order
from d2tune.errors import DataError, MachineError
from d2tune.inference.listing import find_images
from d2tune.inference.sources import is_video
from d2tune.text import counted
from d2tune.video.reader import VideoReader, source_of

logger = logging.getLogger(__name__)

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
        is_video: Whether the frames were written from a video.
    """

    root: Path
    paths: tuple[Path, ...]
    times_s: tuple[float, ...] | None
    width_px: int
    height_px: int
    is_video: bool

    def __len__(self) -> int:
        """The number of frames."""
        return len(self.paths)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """A frame, ``(H, W, 3)`` uint8 in RGB, upright.

        Raises:
            DataError: It cannot be read, or has another size than its header has.
        """
        image = read_photo(self.paths[index])
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


def folder_of_frames(source: str | Path) -> Path:
    """The output folder where none is given: that of the frames, or for a video one with its name."""
    return Path(source_of(source).stem) if is_video(source) else Path(source)


def open_clip(source: str | Path, out: Path) -> Clip:
    """The clip of a folder of frames, or of a video file, whose frames are written into the output folder.

    Frames of a folder, subfolders included, are ordered by their names with numbers as numbers: ``2.png`` is before
    ``10.png``. Frames of a video that an earlier call wrote stay.

    Args:
        source: A folder or a video file.
        out: The output folder.

    Raises:
        DataError: There is no such folder or video, it cannot be read, has no frames or frames of several sizes, or a
            frame of the video would replace a person's file, or belongs to another video than the frames in the folder.
    """
    if is_video(source):
        return _from_video(source, out)
    folder = Path(source)
    if folder.is_file():
        raise DataError("is neither a video nor a folder of frames", file=folder, hint="Name the folder of the frames.")
    root, images = find_images(folder)
    paths = sorted(images, key=lambda path: natural_order(path.relative_to(root).as_posix()))
    width_px, height_px = _common_size(paths)
    return Clip(root, tuple(paths), None, width_px, height_px, is_video=False)


def _common_size(paths: Sequence[Path]) -> tuple[int, int]:
    """Width and height of all images.

    Raises:
        DataError: One cannot be read, or has another size than the first one.
    """
    first: tuple[int, int] | None = None
    for path in paths:
        with reading_photo(path):
            header = read_header(path)
        size = header.width_px, header.height_px
        first = first or size
        if size != first:
            raise DataError(
                "the frames of a clip must have the same size",
                file=path,
                found=f"{size[0]} x {size[1]} px",
                expected=f"{first[0]} x {first[1]} px, as {paths[0].name}",
                hint="Move images that are not frames into another folder.",
            )
    assert first is not None
    return first


def _from_video(source: str | Path, out: Path) -> Clip:
    """Write the frames of a video as JPEG files, and open them."""
    video = source_of(source)
    if video.kind != "file":
        raise DataError(
            "only video files and folders of frames are tracked", file=video.name, hint="Record the stream first."
        )
    own = OwnFiles()
    paths: list[Path] = []
    times_s: list[float] = []
    with VideoReader(video) as reader:
        out.mkdir(parents=True, exist_ok=True)
        size = reader.width_px, reader.height_px
        for frame in tqdm(reader, total=reader.frame_count, desc="frames", unit=" frames", leave=False, disable=None):
            if frame.image_rgb.shape[1::-1] != size:
                raise DataError(
                    "the size of the frames changes within the video", file=video.name, place=f"frame {frame.index}"
                )
            path = out / f"{frame.index:0{_DIGITS}d}.jpg"
            content = _encoded(path, frame.image_rgb)
            if not own.is_unchanged(path, PHOTO):
                _write_frame(path, content)
            elif own.last_sha256(path) != hashlib.sha256(content).hexdigest():
                _check_frame(path, content, video.name)
            paths.append(path)
            times_s.append(frame.time_s)
        if reader.ending is not None:
            logger.warning("%s: %s", video.name, reader.ending)
    logger.info("%s of %s: %s", counted(len(paths), "frame"), video.name, out)
    return Clip(out, tuple(paths), tuple(times_s), *size, is_video=True)


def _check_frame(path: Path, content: bytes, name: str) -> None:
    """Refuse a frame that an earlier call wrote of another video.

    Raises:
        DataError: It shows something else than the JPEG content, or has another size.
    """
    written, image = read_photo(path), read_photo_content(content)
    if written.shape != image.shape or float(cv2.absdiff(written, image).mean()) > _LARGEST_DIFFERENCE:
        raise DataError(
            f"the folder has the frames of another video than {name}",
            file=path,
            hint="Name another folder with --out.",
        )


def _encoded(path: Path, image_rgb: NDArray[np.uint8]) -> bytes:
    """A frame as a JPEG file."""
    bgr = cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR)
    is_done, content = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    if not is_done:
        raise MachineError("a frame cannot be encoded as JPEG", file=path)
    return content.tobytes()


def _write_frame(path: Path, content: bytes) -> None:
    if path.exists() and PHOTO not in OwnFiles().kinds(path):
        raise DataError(
            "the file is already there and is not overwritten with a frame of the video",
            file=path,
            hint="Name another folder with --out.",
        )
    write_output(path, content, kind=PHOTO)
