"""Frames, times and rotation of real videos, and a clear line for everything that cannot be read."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from d2tune.errors import DataError
from d2tune.video.reader import Frame, VideoReader, source_of
from tests.video.encoded import TIMES_MS
from tests.video.scenes import frame, turned, write_video

TIMES_S = [time_ms / 1000 for time_ms in TIMES_MS]


def frames_of(path: str | Path) -> tuple[VideoReader, list[Frame]]:
    with VideoReader(source_of(path)) as reader:
        return reader, list(reader)


def refusal(source: str | Path, *, timeout_s: float = 10.0) -> str:
    with pytest.raises(DataError) as refused:
        VideoReader(source_of(source), timeout_s=timeout_s)
    return str(refused.value)


def rate_in_header(path: Path) -> float:
    """The average frame rate, as the program ffprobe reads it."""
    command = ["ffprobe", "-v", "error", "-show_entries", "stream=avg_frame_rate", "-of", "csv=p=0", str(path)]
    return float(Fraction(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()))


def square_at(image: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the square of the files of `encoded`, in pixels."""
    inside = image[..., 0].astype(int) > 130
    rows, columns = np.flatnonzero(inside.sum(axis=1) > 5), np.flatnonzero(inside.sum(axis=0) > 5)
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def test_a_variable_rate_has_the_times_of_the_container(encoded: Path) -> None:
    reader, frames = frames_of(encoded / "h264_variable_rate.mp4")
    assert [one.time_s for one in frames] == pytest.approx(TIMES_S)
    assert [one.index for one in frames] == list(range(12))
    assert (reader.frame_count, reader.rotation_deg, reader.is_live, reader.ending) == (12, 0, False, None)
    assert reader.frame_rate == pytest.approx(rate_in_header(encoded / "h264_variable_rate.mp4"), abs=0.05)
    for number, one in enumerate(frames):  # B frames come in the order of their times
        np.testing.assert_allclose(square_at(one.image_rgb), (2 + 3 * number, 10, 14 + 3 * number, 26), atol=1)


@pytest.mark.parametrize("name", ["hevc_10_bit.mp4", "vp9_audio.webm", "vp9_odd.webm"])
def test_other_depths_sound_and_odd_sizes_are_read(encoded: Path, name: str) -> None:
    reader, frames = frames_of(encoded / name)
    assert len(frames) == 12 and reader.ending is None
    assert [one.time_s for one in frames] == pytest.approx([number / 10 for number in range(12)])
    size = (47, 63, 3) if "odd" in name else (48, 64, 3)
    for number, one in enumerate(frames):
        assert one.image_rgb.shape == size and one.image_rgb.dtype == np.uint8
        np.testing.assert_allclose(one.image_rgb[2, 2], (30, 120, 60), atol=6)
        np.testing.assert_allclose(square_at(one.image_rgb), (2 + 3 * number, 10, 14 + 3 * number, 26), atol=1)


def test_gray_videos_have_three_equal_channels(encoded: Path) -> None:
    _, frames = frames_of(encoded / "ffv1_gray.mkv")
    for one in frames:
        assert (one.image_rgb[..., 0] == one.image_rgb[..., 1]).all()
        assert (one.image_rgb[..., 0] == one.image_rgb[..., 2]).all()
        assert len(np.unique(one.image_rgb)) == 2


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_frames_are_turned_as_the_header_says(encoded: Path, degrees: int, tmp_path: Path) -> None:
    reader, frames = frames_of(turned(encoded / "h264_variable_rate.mp4", tmp_path / "turned.mp4", degrees))
    _, upright = frames_of(encoded / "h264_variable_rate.mp4")
    assert reader.rotation_deg == degrees
    assert (reader.height_px, reader.width_px) == ((48, 64) if degrees == 180 else (64, 48))
    for one, other in zip(frames, upright, strict=True):
        expected = np.rot90(other.image_rgb, -degrees // 90)
        assert one.image_rgb.shape == expected.shape
        assert np.abs(one.image_rgb.astype(int) - expected).max() <= 2


@pytest.mark.parametrize(("suffix", "codec"), [("avi", "MJPG"), ("webm", "VP80")])
def test_a_truncated_file_gives_what_is_there_and_says_so(suffix: str, codec: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    images = [random.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(30)]
    whole = write_video(tmp_path / f"whole.{suffix}", images, codec=codec)
    content = whole.read_bytes()
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes(content[: len(content) // 2])
    reader, frames = frames_of(cut)
    assert 8 <= len(frames) <= 20
    last_s = (len(frames) - 1) / 25
    assert reader.ending == (
        f"the video is truncated or damaged after frame {len(frames)} ({last_s:.2f} s); it announces 30 frames"
    )
    assert frames_of(whole)[0].ending is None


def test_a_reader_that_stops_early_does_not_call_the_video_truncated(encoded: Path) -> None:
    with VideoReader(source_of(encoded / "vp9_audio.webm")) as reader:
        assert next(iter(reader)).index == 0
        assert reader.ending is None


def test_what_cannot_be_read_is_a_line(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("hello hello hello\n", encoding="utf-8")
    (tmp_path / "empty.mp4").touch()
    whole = write_video(tmp_path / "whole.mp4", [frame(64, 48)] * 5, codec="mp4v").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: whole.index(b"moov")])
    assert refusal(tmp_path / "text.mp4") == (
        f"{tmp_path}/text.mp4: is not a video that can be read; found a file that begins with 'hello hello hell'; "
        "expected MP4, MOV, MKV, WebM, AVI or another video file"
    )
    assert refusal(tmp_path / "empty.mp4") == f"{tmp_path}/empty.mp4: the video is empty; found 0 bytes"
    assert refusal(tmp_path / "none.mp4") == f"{tmp_path}/none.mp4: the video does not exist"
    assert refusal(tmp_path) == f"{tmp_path}: is not a video file"
    assert "the video has no index, so that it cannot be read" in refusal(tmp_path / "cut.mp4")
    # another kind of track in place of the video, as in a file with audio alone
    (tmp_path / "audio.mp4").write_bytes(whole.replace(b"vide", b"soun"))
    (tmp_path / "audio.mkv").write_bytes(b"\x1aE\xdf\xa3" + bytes(100))
    for name in ("audio.mp4", "audio.mkv"):
        message = "the file has no video that can be read: it has only audio, or is damaged"
        assert refusal(tmp_path / name) == f"{tmp_path}/{name}: {message}"


def test_a_codec_that_cannot_be_read_is_named(encoded: Path) -> None:
    assert refusal(encoded / "av1.mp4") == (
        f"{encoded}/av1.mp4: no frame of the video can be decoded; found codec 'AV01'; expected H.264, HEVC, VP8, VP9, "
        "MPEG-4 or Motion JPEG. Convert it, for example with `ffmpeg -i VIDEO -c:v libx264 video.mp4`."
    )


def test_a_camera_that_is_not_there_is_named() -> None:
    assert refusal("97").startswith("camera 97: the camera does not open. ")
    assert refusal("99999999999") == "99999999999: there is no camera of this number; expected 0 to 2147483647"


def test_an_address_that_does_not_answer_is_given_up() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        start_s = time.monotonic()
        line = refusal(f"rtsp://me:secret@127.0.0.1:{silent.getsockname()[1]}/live?key=abc", timeout_s=1.0)
        assert 0.5 < time.monotonic() - start_s < 8
    assert line.startswith("rtsp://***@127.0.0.1:")
    assert "the address does not answer with a video within 1 s. Check the address" in line
    assert "secret" not in line and "abc" not in line


def test_no_character_of_a_password_or_key_is_shown() -> None:
    assert source_of("rtsp://me:a@b@host/live?key=c").name == "rtsp://***@host/live"
    assert refusal("ftp://me:a@b@host/a.mp4?key=c").startswith("ftp://***@host/a.mp4: ")


def test_an_unknown_scheme_is_refused() -> None:
    assert refusal("ftp://me:secret@host/a.mp4") == (
        "ftp://***@host/a.mp4: the address cannot be read; found ftp://; "
        "expected rtsp://, rtsps://, rtmp://, rtmps://, udp://, http://, https://"
    )


def test_a_file_behind_an_address_is_read_like_a_file(encoded: Path, serve: Callable[[Path], str]) -> None:
    reader, frames = frames_of(f"{serve(encoded)}/h264_variable_rate.mp4")
    assert [one.time_s for one in frames] == pytest.approx(TIMES_S)
    assert not reader.is_live and reader.source.stem.endswith("h264_variable_rate.mp4")


def test_a_stream_without_an_end_is_live(tmp_path: Path) -> None:
    """A server sends Motion JPEG without a length, and closes."""
    source = write_video(
        tmp_path / "a.avi", [frame(64, 48, ((n, 10, n + 20, 30), 0, 255)) for n in range(8)], codec="MJPG"
    )
    content = source.read_bytes()
    starts = [at for at in range(len(content)) if content.startswith(b"\xff\xd8\xff", at)]
    images = [content[a : content.index(b"\xff\xd9", a) + 2] for a in starts]
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def send() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                head = "HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n"
                connection.sendall(head.encode())
                for image in images:
                    header = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(image)}\r\n\r\n"
                    connection.sendall(header.encode() + image + b"\r\n")

        thread = threading.Thread(target=send, daemon=True)
        thread.start()
        reader = VideoReader(source_of(f"http://127.0.0.1:{server.getsockname()[1]}/live"), timeout_s=5)
        with reader:
            frames = list(reader)
        thread.join(5)
    assert reader.is_live and reader.frame_count is None
    assert len(frames) == 8
    assert reader.ending == "the stream gave no more frames (waited 5 s at most)"
    times = [one.time_s for one in frames]
    assert times == sorted(times)


def test_reading_writes_nothing_to_the_terminal(
    encoded: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content = (encoded / "h264_variable_rate.mp4").read_bytes()
    damaged = bytearray(content)
    begin = content.index(b"mdat") + 600
    damaged[begin : begin + 60] = bytes(60)
    (tmp_path / "damaged.mp4").write_bytes(damaged)
    frames_of(tmp_path / "damaged.mp4")
    (tmp_path / "text.mp4").write_text("hello", encoding="utf-8")
    refusal(tmp_path / "text.mp4")
    shown = capfd.readouterr()
    assert shown.out == shown.err == ""
