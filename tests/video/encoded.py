"""Tiny videos of codecs that OpenCV does not write, encoded by the program ffmpeg.

Each has 12 frames of ``rgb(30, 120, 60)`` with a square of ``rgb(230, 60, 40)`` in rows 10 to 25 and columns
``2 + 3 n`` to ``13 + 3 n`` of frame ``n``.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.video.scenes import frame

FRAMES = 12
TIMES_MS = (0, 40, 80, 200, 240, 280, 1280, 1320, 1400, 1500, 1600, 1640)
"""Times of the frames of ``h264_variable_rate.mp4``, in milliseconds."""

_TIMES = "+".join(f"eq(N,{number})*{time_ms}" for number, time_ms in enumerate(TIMES_MS))
_YUV = ("-pix_fmt", "yuv420p")
_FILES: dict[str, tuple[str, ...]] = {
    "h264_variable_rate.mp4": (
        *("-vf", f"settb=1/1000,setpts='{_TIMES}'", "-fps_mode", "passthrough", "-enc_time_base", "1/1000"),
        *("-video_track_timescale", "1000", "-c:v", "libx264", "-bf", "2", *_YUV),
    ),
    "hevc_10_bit.mp4": ("-c:v", "libx265", "-x265-params", "log-level=none", "-pix_fmt", "yuv420p10le"),
    "ffv1_gray.mkv": ("-c:v", "ffv1", "-pix_fmt", "gray"),
    "vp9_odd.webm": ("-c:v", "libvpx-vp9", *_YUV),
    "vp9_audio.webm": ("-c:v", "libvpx-vp9", *_YUV, "-c:a", "libopus"),
    "av1.mp4": ("-c:v", "libaom-av1", "-cpu-used", "8", *_YUV),
}
_SILENCE = ("-f", "lavfi", "-t", "0.5", "-i", "anullsrc=r=48000:cl=mono")


def write_encoded(folder: Path) -> Path:
    """Write all videos to a folder, and return it."""
    for name, options in _FILES.items():
        width_px, height_px = (63, 47) if "odd" in name else (64, 48)
        rate = "25" if "variable" in name else "10"
        command = ["ffmpeg", "-hide_banner", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24"]
        command += ["-video_size", f"{width_px}x{height_px}", "-framerate", rate, "-i", "pipe:0"]
        command += [*(_SILENCE if "audio" in name else ()), *options, str(folder / name)]
        subprocess.run(command, input=_pixels(width_px, height_px), check=True, timeout=60)
    return folder


def _pixels(width_px: int, height_px: int) -> bytes:
    images = []
    for number in range(FRAMES):
        image = frame(width_px, height_px)
        image[:] = 30, 120, 60
        image[10:26, 2 + 3 * number : 14 + 3 * number] = 230, 60, 40
        images.append(image.tobytes())
    return b"".join(images)
