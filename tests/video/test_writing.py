"""Encoded videos are read back, stages hand on everything in order, and drawings are where they should be."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from d2tune.annotations.io.output_record import DRAWING, OwnFiles
from d2tune.errors import MachineError
from d2tune.video import encoder as encoder_module
from d2tune.video.encoder import VideoEncoder
from d2tune.video.masks import crops_of
from d2tune.video.overlay import COLORS, ObjectToDraw, draw_classes, draw_objects, track_color
from d2tune.video.threads import Ahead, Behind
from tests.video.scenes import detections, frame, read_video

SHADES = np.linspace(20, 235, 12).astype(int).tolist()


def encode(path: Path, times_s: list[float], *, rate: float = 10.0, size: tuple[int, int] = (64, 48)) -> VideoEncoder:
    """Write a frame of its own shade of gray for each time."""
    with VideoEncoder(path, frame_rate=rate) as encoder:
        for time_s, shade in zip(times_s, SHADES, strict=False):
            encoder.add(np.full((size[1], size[0], 3), shade, np.uint8), time_s)
        encoder.finish()
    return encoder


def shown(path: Path) -> list[int]:
    """The number of the shade that each frame shows."""
    means = [image.mean() for image in read_video(path)]
    return [int(np.argmin([abs(mean - shade) for shade in SHADES])) for mean in means]


@pytest.mark.parametrize("suffix", ["mp4", "webm"])
def test_frames_are_written_in_order_and_the_file_is_recorded(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / "out" / f"a.{suffix}"
    encode(path, [number / 10 for number in range(12)])
    assert shown(path) == list(range(12))
    capture = cv2.VideoCapture(str(path))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(10)
    assert OwnFiles().is_unchanged(path, DRAWING)
    assert sorted(one.name for one in path.parent.iterdir()) == [".d2tune-outputs.jsonl", path.name]


def test_frames_are_placed_by_their_times(tmp_path: Path) -> None:
    """At 10 frames a second: 0, 40 ms and 80 ms are in the first two places, then a pause of half a second."""
    encoder = encode(tmp_path / "a.mp4", [0.0, 0.04, 0.08, 0.2, 0.7, 0.8])
    # places 0 and 0 and 1, 2 until 6, 7, 8: the first frame is omitted, the fourth one is shown five times
    assert shown(tmp_path / "a.mp4") == [1, 2, 3, 3, 3, 3, 3, 4, 5]
    assert (encoder.omitted, encoder.repeated, encoder.cut_s) == (1, 4, 0.0)


def test_a_long_pause_is_cut(tmp_path: Path) -> None:
    encoder = encode(tmp_path / "a.mp4", [5.0, 5.1, 3600.0, 3600.1])
    assert encoder.cut_s == pytest.approx(5.0 + 3594.9 - 10.0)
    places = shown(tmp_path / "a.mp4")
    assert (places.count(0), places.count(1), places.count(2), places.count(3)) == (1, 100, 1, 1)


def test_odd_sizes_get_another_column_and_row(tmp_path: Path) -> None:
    with VideoEncoder(tmp_path / "a.mp4", frame_rate=10) as encoder:
        image = frame(63, 47, ((40, 30, 63, 47), 0, 250))
        encoder.add(image, 0.0)
        encoder.finish()
    (read,) = read_video(tmp_path / "a.mp4")
    assert read.shape == (48, 64, 3)
    assert np.abs(read[:47, :63].astype(int) - image).mean() < 8
    assert read[46:48, 50, 0].min() > 200 and read[40, 62:64, 0].min() > 200


def test_a_changed_size_is_fitted(tmp_path: Path) -> None:
    with VideoEncoder(tmp_path / "a.mp4", frame_rate=10) as encoder:
        encoder.add(frame(64, 48), 0.0)
        encoder.add(frame(128, 96), 0.1)
        encoder.finish()
    assert [image.shape for image in read_video(tmp_path / "a.mp4")] == [(48, 64, 3)] * 2


def test_an_error_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), VideoEncoder(tmp_path / "a.mp4", frame_rate=10) as encoder:
        for number in range(5):
            encoder.add(frame(64, 48), number / 10)
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_has_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    left, mine = tmp_path / ".a.mp4.abcdefgh.tmp", tmp_path / ".b.mp4.abcdefgh.tmp"
    for folder in (left, mine):
        folder.mkdir()
        (folder / "a.mp4").write_bytes(b"half a video")
    with VideoEncoder(tmp_path / "a.mp4", frame_rate=10) as first:
        for number in range(3):
            first.add(frame(64, 48), number / 10)
        assert not left.exists() and mine.exists()
        (of_first,) = tmp_path.glob(".a.mp4.*.tmp")
        encode(tmp_path / "a.mp4", [0.0, 0.1, 0.2])  # another one, while the first one writes
        assert of_first.exists()
        first.finish()
    assert not of_first.exists() and len(read_video(tmp_path / "a.mp4")) == 3


def test_a_size_that_no_codec_takes_is_a_line(tmp_path: Path) -> None:
    with (
        pytest.raises(MachineError, match="this OpenCV cannot write"),
        VideoEncoder(tmp_path / "a.webm", frame_rate=10) as encoder,
    ):
        encoder.add(np.zeros((2, 20000, 3), np.uint8), 0.0)
        encoder.finish()


def test_a_disk_that_is_full_ends_the_video_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_module, "_LEAST_FREE_BYTES", 2 * shutil.disk_usage(tmp_path).total)
    with (
        pytest.raises(MachineError, match=r"the disk is full; found .* MB free after 50 frames"),
        VideoEncoder(tmp_path / "a.mp4", frame_rate=10) as encoder,
    ):
        for number in range(1000):
            encoder.add(frame(64, 48), number / 10)
    assert list(tmp_path.iterdir()) == []


def test_writing_webm_is_quiet(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    encode(tmp_path / "a.webm", [0.0, 0.1])
    assert capfd.readouterr().err == ""


def test_items_ahead_come_in_order_and_wait() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(50):
            taken.append(number)
            yield number

    with Ahead(items(), waiting=3) as ahead:
        iterator = iter(ahead)
        first = next(iterator)
        time.sleep(0.1)
        assert len(taken) <= 6
        assert [first, *iterator] == list(range(50))
    assert ahead.dropped == 0


def test_an_error_ahead_is_raised_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    got = []
    with Ahead(items(), waiting=3) as ahead, pytest.raises(ValueError, match="broken"):
        for item in ahead:
            got.append(item)
    assert got == [1]


def test_leaving_early_ends_the_thread() -> None:
    def items() -> Iterator[int]:
        while True:
            yield 1

    before = threading.active_count()
    with Ahead(items(), waiting=2) as ahead:
        assert next(iter(ahead)) == 1
    assert threading.active_count() == before


def test_the_newest_item_is_taken_and_the_others_are_counted() -> None:
    def items() -> Iterator[int]:
        for number in range(40):
            yield number
            time.sleep(0.005)

    got = []
    with Ahead(items(), waiting=1, newest=True) as ahead:
        for item in ahead:
            got.append(item)
            time.sleep(0.03)
    assert got == sorted(got) and got[-1] == 39
    assert len(got) + ahead.dropped == 40
    assert ahead.dropped >= 10


def test_items_that_are_stopped_end_after_those_that_wait() -> None:
    def items() -> Iterator[int]:
        number = 0
        while True:
            yield number
            number += 1

    got = []
    with Ahead(items(), waiting=2) as ahead:
        for item in ahead:
            got.append(item)
            if item == 5:
                ahead.stop()
    assert got == list(range(len(got))) and 6 <= len(got) <= 10


def test_work_behind_is_done_in_order_before_the_end() -> None:
    done: list[int] = []

    def work(item: int) -> None:
        time.sleep(0.001)
        done.append(item)

    with Behind(work, waiting=2) as behind:
        for number in range(30):
            behind.put(number)
    assert done == list(range(30))


def test_an_error_behind_is_raised_and_nothing_blocks() -> None:
    done: list[int] = []

    def work(item: int) -> None:
        if item == 3:
            raise ValueError("full")
        done.append(item)

    with pytest.raises(ValueError, match="full"), Behind(work, waiting=1) as behind:
        for number in range(100):
            behind.put(number)
    assert done == [0, 1, 2]


def test_objects_have_the_color_of_their_track_and_nothing_else_changes() -> None:
    image = np.full((200, 300, 3), 128, np.uint8)
    crops = crops_of(detections((200, 300), (40, 90, 100, 150), (180, 100, 260, 180)))
    one = draw_objects(image, [ObjectToDraw(crops[0], "car #1 0.97", 1), ObjectToDraw(crops[1], "car #7 0.5", 7)])
    for place, track in (((120, 70), 1), ((150, 220), 7)):
        mixed = 0.68 * 128 + 0.32 * np.array(track_color(track))
        np.testing.assert_allclose(one[place], mixed, atol=2)
    assert (image == 128).all()
    changed = (one != 128).any(axis=2)
    changed[60:160, 20:120] = False  # the mask, its outline and its label above
    changed[70:190, 150:290] = False
    assert not changed.any()
    alone = draw_objects(image, [ObjectToDraw(crops[1], "car #7 0.5", 7)])
    np.testing.assert_array_equal(alone[60:200, 150:], one[60:200, 150:])


def test_tracks_that_follow_each_other_have_different_colors() -> None:
    colors = [track_color(number) for number in range(1, COLORS + 1)]
    assert len(set(colors)) == COLORS
    assert track_color(1) == track_color(1 + COLORS)


def test_labels_do_not_overlap_and_stay_inside() -> None:
    image = np.full((120, 160, 3), 128, np.uint8)
    crops = crops_of(detections((120, 160), (0, 0, 30, 20), (2, 1, 32, 21), (130, 100, 160, 120)))
    painted = draw_objects(image, [ObjectToDraw(crop, f"car #{n} 0.9", n) for n, crop in enumerate(crops, start=1)])
    full = [(painted == np.array(track_color(number), np.uint8)).all(axis=2) for number in (1, 2, 3)]
    for mask in full:
        assert mask.sum() > 150
    (tiny,) = crops_of(detections((8, 12), (2, 2, 8, 6)))
    assert draw_objects(np.zeros((8, 12, 3), np.uint8), [ObjectToDraw(tiny, "car #1", 1)]).any()


def test_classes_have_their_colors_and_ignored_pixels_stay() -> None:
    image = np.full((60, 200, 3), 100, np.uint8)
    labels = np.zeros((60, 200), np.uint8)
    labels[:, 100:150], labels[:, 150:] = 1, 255
    painted = draw_classes(image, labels, ("road", "car"))
    left, right = painted[50, 60], painted[50, 125]
    assert not (left == right).all()
    assert (painted[:, 152:] == 100).all()
    assert (draw_classes(image, labels, ("road", "car"), legend=[])[:20, :20] == left).all()
    on_background = draw_classes(image, labels, ("road", "car"), legend=[0], background=0)
    assert (on_background[:, :100] == 100).all() and (on_background[50, 125] == right).all()
