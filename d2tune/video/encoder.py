"""Writing a video of constant frame rate, in which frames are placed by their times."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.io.output_record import DRAWING, add_to_record
from d2tune.errors import MachineError
from d2tune.files import sha256_file, try_lock

Format = Literal["mp4", "webm"]

CODECS: dict[Format, str] = {"mp4": "mp4v", "webm": "VP80"}
"""MPEG-4 Part 2, which takes little time, and VP8, which browsers play; OpenCV's FFmpeg encodes neither H.264 nor AV1,
and VP9 in ten times the time of VP8."""

MOST_REPEATS_S = 10.0
"""The longest pause between two frames that is shown; longer ones are cut to it."""


_LEAST_FREE_BYTES = 4 << 20
"""Free space below which writing stops: OpenCV reports no errors of writing, and would go on until the end."""
_LOOKS_AFTER = 50
"""Frames between two looks at the free space."""


class VideoEncoder:
    """Writes frames into a video file, which appears whole or not at all; to be used as a context manager.

    The frame rate is constant. A frame is repeated until the time of the next one, and a frame that is not shown for
    half of an interval is omitted, so that the video lasts as long as that of a variable frame rate.

    Args:
        path: The file, with the suffix of a `Format`.
        frame_rate: Frames per second.

    Attributes:
        repeated: Number of frames that were written again, to fill the time.
        omitted: Number of frames that were not written, because others follow too closely.
        cut_s: Seconds of pauses that were not shown.

    Raises:
        MachineError: OpenCV cannot write this format, or the disk is full.
        OSError: The folder cannot be written.
    """

    def __init__(self, path: Path, *, frame_rate: float) -> None:
        self._path = path
        self._frame_rate = frame_rate
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._written = 0
        self._cut_frames = 0
        self._waiting: NDArray[np.uint8] | None = None
        self.repeated = 0
        self.omitted = 0
        self._stack = contextlib.ExitStack()
        self._temporary = path

    def __enter__(self) -> VideoEncoder:
        return self

    def __exit__(self, *reason: object) -> None:
        if self._writer is not None:
            self._writer.release()
        self._stack.close()

    @property
    def cut_s(self) -> float:
        """Seconds of pauses that were not shown."""
        return self._cut_frames / self._frame_rate

    def add(self, image_rgb: NDArray[np.uint8], time_s: float) -> None:
        """Add the next frame.

        Args:
            image_rgb: ``(H, W, 3)`` uint8; frames of another size than the first one are resized to it.
            time_s: Its time, later than that of the frame before.
        """
        place = round(time_s * self._frame_rate) - self._cut_frames
        if self._waiting is not None:
            self._write_until(place)
        elif place > self._written:  # the first frame begins the video, whatever its time is
            self._cut_frames += place - self._written
        self._waiting = image_rgb

    def finish(self) -> None:
        """Write the last frame and put the file into its place."""
        if self._waiting is not None:
            self._write_until(self._written + 1)
        if self._writer is None:
            return
        self._writer.release()
        self._writer = None
        self._check()
        add_to_record(self._path, DRAWING, sha256_file(self._temporary))
        self._temporary.replace(self._path)

    def _check(self) -> None:
        """Check that the file has all frames, because OpenCV reports no errors of writing."""
        capture = cv2.VideoCapture(str(self._temporary), cv2.CAP_FFMPEG)
        frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        capture.release()
        if frames < self._written - 1:
            raise MachineError(
                "the video could not be written",
                file=self._path,
                found=f"{frames} of {self._written} frames",
                hint="Check that the disk is not full.",
            )

    def _write_until(self, place: int) -> None:
        """Write the waiting frame until the place of the next one."""
        assert self._waiting is not None
        copies = place - self._written
        most = max(1, round(MOST_REPEATS_S * self._frame_rate))
        if copies < 1:
            self.omitted += 1
            return
        if copies > most:
            self._cut_frames += copies - most
            copies = most
        self.repeated += copies - 1
        image_bgr = self._fitted(self._waiting)
        for _ in range(copies):
            self._open().write(image_bgr)
        self._written += copies
        if self._written // _LOOKS_AFTER > (self._written - copies) // _LOOKS_AFTER:
            self._check_space()

    def _check_space(self) -> None:
        free = shutil.disk_usage(self._path.parent).free
        if free < _LEAST_FREE_BYTES:
            left = f"{free / 1e6:.1f} MB free after {self._written} frames"
            raise MachineError("the disk is full", file=self._path, found=left, hint="Make space, or choose --out.")

    def _fitted(self, image_rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The frame in BGR with even sides, which codecs need: the last column and row are repeated."""
        if not self._written:
            height, width = image_rgb.shape[:2]
            self._size = width + width % 2, height + height % 2
        width, height = self._size
        if not 0 <= width - image_rgb.shape[1] <= 1 or not 0 <= height - image_rgb.shape[0] <= 1:
            image_rgb = cv2.resize(image_rgb, self._size, interpolation=cv2.INTER_AREA)
        below, right = height - image_rgb.shape[0], width - image_rgb.shape[1]
        if below or right:
            image_rgb = cv2.copyMakeBorder(image_rgb, 0, below, 0, right, cv2.BORDER_REPLICATE)
        image_bgr: NDArray[np.uint8] = cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR)
        return image_bgr

    def _open(self) -> cv2.VideoWriter:
        if self._writer is None:
            self._temporary = self._make_temporary()
            letters = CODECS[self._path.suffix.removeprefix(".")]  # type: ignore[index]
            codec = cv2.VideoWriter.fourcc(*letters)
            with _quiet():
                writer = cv2.VideoWriter(str(self._temporary), cv2.CAP_FFMPEG, codec, self._frame_rate, self._size)
            if not writer.isOpened():
                raise MachineError(
                    f"this OpenCV cannot write {self._path.suffix} videos of {self._size[0]} x {self._size[1]} px",
                    file=self._path,
                    hint="Write no video (--video none), or install opencv-python-headless.",
                )
            self._writer = writer
        return self._writer

    def _make_temporary(self) -> Path:
        """A path in a folder of its own beside the file; FFmpeg takes the format from the suffix.

        The folder is locked, so that those that killed processes have left are known, and removed here.
        """
        parent, name = self._path.parent, self._path.name
        parent.mkdir(parents=True, exist_ok=True)
        for left in parent.glob(f".{name[:40]}.*.tmp"):
            with contextlib.ExitStack() as lock:
                if left.is_dir() and _locked(left, lock):
                    shutil.rmtree(left, ignore_errors=True)
        made = tempfile.TemporaryDirectory(prefix=f".{name[:40]}.", suffix=".tmp", dir=parent)
        folder = Path(self._stack.enter_context(made))
        _locked(folder, self._stack)
        return folder / name


def _locked(folder: Path, stack: contextlib.ExitStack) -> bool:
    """Lock a folder until the stack is closed or the process ends; False where that is not possible."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # it is gone, or the system opens no folders
        return False
    stack.callback(os.close, handle)
    return try_lock(handle) is True


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep FFmpeg, which writes about WebM whatever its level is, from the standard error."""
    try:
        kept = os.dup(2)
    except OSError:  # it is closed
        yield
        return
    try:
        with open(os.devnull, "wb") as nothing:  # noqa: PTH123
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
