"""Frames of video files, cameras and network streams with their times, read with OpenCV's FFmpeg."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from d2tune.errors import DataError
from d2tune.text import describe

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # OpenCV reads it once, when it opens the first video

Kind = Literal["file", "camera", "address"]

TIMEOUT_S = 10.0
"""Seconds that a stream may take to open, and to give the next frame."""

MOST_IN_BATCH = 16
_USUAL_RATE = 25.0
_RATES = (0.1, 240.0)
"""Frame rates that are taken from a container; others are those of time bases, not of frames."""

_ENDLESS = ("rtsp", "rtsps", "rtmp", "rtmps", "udp")
_SCHEMES = (*_ENDLESS, "http", "https")
_ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<rest>.*)", re.DOTALL)
_SECRET = re.compile(r"(?<=://)[^/]*@")
_HIGHEST_CAMERA = 2**31 - 1
_MATROSKA = b"\x1aE\xdf\xa3"
_MISSING_SHARE = 0.02
"""Share of the announced frames that may be missing, because many containers only state a duration."""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A frame of a video.

    Attributes:
        index: Number of the frame from 0, counting those that were dropped.
        time_s: Time from the beginning, as the container has it; of a live source when it arrived.
        image_rgb: ``(H, W, 3)`` uint8, upright.
    """

    index: int
    time_s: float
    image_rgb: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Source:
    """What to read.

    Attributes:
        kind: A file, a camera or an address.
        text: What is opened: the absolute path, the number of the camera, or the address.
        name: How it is named in messages and files, without passwords and keys.
        stem: A name for output folders.
    """

    kind: Kind
    text: str
    name: str
    stem: str


def source_of(source: str | Path) -> Source:
    """A video source as a person names it: a file, the number of a camera, or an address.

    Raises:
        DataError: The file does not exist or is empty, or the address has an unknown scheme.
    """
    text = str(source)
    if address := _ADDRESS.fullmatch(text):
        if address["scheme"].lower() not in _SCHEMES:
            raise DataError(
                "the address cannot be read",
                file=_named(text),
                found=f"{address['scheme']}://",
                expected=", ".join(f"{scheme}://" for scheme in _SCHEMES),
            )
        name = _named(text)
        stem = re.sub(r"[^A-Za-z0-9.-]+", "_", _SECRET.sub("", name).split("://", 1)[1]).strip("_.") or "stream"
        return Source("address", text, name, stem[:80])
    path = Path(text)
    if text.isdecimal() and not path.exists():
        if int(text) > _HIGHEST_CAMERA:
            raise DataError("there is no camera of this number", file=text, expected=f"0 to {_HIGHEST_CAMERA}")
        return Source("camera", text, f"camera {int(text)}", f"camera_{int(text)}")
    if not path.is_file():
        raise DataError("the video does not exist" if not path.exists() else "is not a video file", file=path)
    if not path.stat().st_size:
        raise DataError("the video is empty", file=path, found="0 bytes")
    return Source("file", str(path.absolute()), str(path), path.stem)


def _named(address: str) -> str:
    """An address without its password and what follows ``?``, which is often a key."""
    return _SECRET.sub("***@", address.split("?", 1)[0])


class VideoReader:
    """Reads the frames of a video in order; to be used as a context manager.

    Frames are 8 bits of RGB, whatever the video has, and are turned as the container says. Audio is not read.

    Args:
        source: The video.
        timeout_s: Seconds that a stream may take to open, and to give the next frame.

    Attributes:
        source: The video.
        is_live: Whether frames come as they happen and the length is unknown: of cameras and streams.
        width_px: Width of the frames.
        height_px: Height of the frames.
        frame_rate: Frames per second, as the container states it: of a variable rate the mean.
        frame_count: Number of frames that the container announces, often from its duration; None if it does not.
        rotation_deg: By how much frames are turned clockwise to be upright.
    """

    def __init__(self, source: Source, *, timeout_s: float = TIMEOUT_S) -> None:
        self.source = source
        self._timeout_s = timeout_s
        self._log_level = _silence()
        self._capture = self._open()
        try:
            is_read, first = self._capture.read()
            if not is_read or first is None:
                raise self._undecodable()
        except BaseException:
            self.close()
            raise
        self._first: NDArray[np.uint8] | None = first
        self._first_s = self._position_s()
        self._opened_s = time.monotonic()
        self.height_px, self.width_px = first.shape[:2]
        count = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.frame_count = count if source.kind != "camera" and 0 < count < 2**40 else None
        scheme = source.text.split("://")[0].lower()
        self.is_live = source.kind == "camera" or (
            source.kind == "address" and (scheme in _ENDLESS or self.frame_count is None)
        )
        if self.is_live:
            self.frame_count = None
        rate = float(self._capture.get(cv2.CAP_PROP_FPS))
        self.frame_rate = rate if _RATES[0] <= rate <= _RATES[1] else _USUAL_RATE
        self.rotation_deg = int(self._capture.get(cv2.CAP_PROP_ORIENTATION_META))
        self.frames_read = 0
        self.last_s = 0.0
        self._is_at_end = False

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the video; no thread may be reading."""
        self._capture.release()
        cv2.utils.logging.setLogLevel(self._log_level)

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames that are left."""
        while True:
            if self._first is not None:
                image, self._first, position_s = self._first, None, self._first_s
            else:
                is_read, image = self._capture.read()
                if not is_read:
                    self._is_at_end = True
                    return
                position_s = self._position_s()
            self.last_s = round(self._time_s(position_s), 6)
            self.frames_read += 1
            yield Frame(self.frames_read - 1, self.last_s, cv2.cvtColor(image, cv2.COLOR_BGR2RGB))

    def batch_of(self, batches: Callable[[list[NDArray[np.uint8]]], Iterator[list[int]]]) -> int:
        """How many frames of this size a function of images puts into its first batch; before the first frame is read.

        Args:
            batches: See `Predictor.batches`.
        """
        assert self._first is not None
        return len(next(batches([self._first] * MOST_IN_BATCH)))

    @property
    def ending(self) -> str | None:
        """Why the last frame was not the end of the video; None if it was, or if frames are left."""
        if not self._is_at_end:
            return None
        if self.is_live:
            return f"the stream gave no more frames (waited {self._timeout_s:g} s at most)"
        if self.frame_count is None:
            return None
        missing = self.frame_count - self.frames_read
        if missing <= max(1, _MISSING_SHARE * self.frame_count):
            return None
        return (
            f"the video is truncated or damaged after frame {self.frames_read} ({self.last_s:.2f} s); "
            f"it announces {self.frame_count} frames"
        )

    def _open(self) -> Any:
        if self.source.kind == "camera":
            capture = cv2.VideoCapture(int(self.source.text))
        else:
            wait_ms = round(1000 * self._timeout_s)
            options = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, wait_ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, wait_ms]
            capture = cv2.VideoCapture(self.source.text, cv2.CAP_FFMPEG, options)
        if capture.isOpened():
            return capture
        capture.release()
        cv2.utils.logging.setLogLevel(self._log_level)
        raise self._unopened()

    def _unopened(self) -> DataError:
        name = self.source.name
        if self.source.kind == "camera":
            devices = sorted(str(path) for path in Path("/dev").glob("video*"))
            hint = f"Connected: {', '.join(devices)}." if devices else "No camera is connected."
            return DataError("the camera does not open", file=name, hint=hint)
        if self.source.kind == "address":
            return DataError(
                f"the address does not answer with a video within {self._timeout_s:g} s",
                file=name,
                hint="Check the address, the network and the password.",
            )
        path = Path(self.source.text)
        beginning = _beginning(path)
        is_mp4 = beginning[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free")
        if beginning.startswith(_MATROSKA) or (is_mp4 and _has_index(path)):
            return DataError("the file has no video that can be read: it has only audio, or is damaged", file=name)
        if is_mp4:
            return DataError(
                "the video has no index, so that it cannot be read; its recording or copy was interrupted",
                file=name,
                hint="Copy it again; tools such as untrunc repair a recording.",
            )
        return DataError(
            "is not a video that can be read",
            file=name,
            found=f"a file that begins with {describe(beginning.decode('latin-1'))}",
            expected="MP4, MOV, MKV, WebM, AVI or another video file",
        )

    def _undecodable(self) -> DataError:
        codec = int(self._capture.get(cv2.CAP_PROP_FOURCC))
        letters = codec.to_bytes(4, "little", signed=codec < 0).decode("latin-1") if -(2**31) <= codec < 2**31 else ""
        return DataError(
            "no frame of the video can be decoded",
            file=self.source.name,
            found=f"codec {describe(letters.strip())}",
            expected="H.264, HEVC, VP8, VP9, MPEG-4 or Motion JPEG",
            hint="Convert it, for example with `ffmpeg -i VIDEO -c:v libx264 video.mp4`.",
        )

    def _position_s(self) -> float:
        return float(self._capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000

    def _time_s(self, position_s: float) -> float:
        """The time of the frame, later than that of the frame before."""
        if self.is_live:
            return time.monotonic() - self._opened_s
        if not self.frames_read:
            return max(0.0, position_s)
        return position_s if position_s > self.last_s else self.last_s + 1 / self.frame_rate


def _silence() -> int:
    """Keep OpenCV from writing to the terminal; returns its level before."""
    level = int(cv2.utils.logging.getLogLevel())
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return level


def _beginning(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(16)


def _has_index(path: Path) -> bool:
    """Whether a file of MP4 or MOV has the box ``moov`` (ISO/IEC 14496-12, 4.2 and 8.2.1)."""
    with path.open("rb") as stream:
        place = 0
        while len(header := stream.read(16)) >= 8:
            size = int.from_bytes(header[:4])
            if header[4:8] == b"moov":
                return True
            size = int.from_bytes(header[8:]) if size == 1 else size
            if size < 8:  # 0 stands for the rest of the file
                return False
            place += size
            stream.seek(place)
    return False
