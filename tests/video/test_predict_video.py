"""Videos through everything: files whose content is known, truncated and live videos, Ctrl-C, and memory."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO
from tqdm import TMonitor

from d2tune.errors import DataError, ProjectError
from d2tune.inference.predictors.panoptic import PanopticPredictor
from d2tune.inference.predictors.semantic import SemanticPredictor
from d2tune.video import VideoOptions, predict_video
from d2tune.video.result import VideoResult
from tests.runs.random_runs import random_run
from tests.video.scenes import GRAY, SpotNetwork, frame, read_video, spot_predictor, write_video

FRAMES = 12


def two_spots(number: int) -> NDArray[np.uint8]:
    """A red spot moves right by 3 px a frame, a blue one stays; red is dim in frames 5 and 6."""
    red = ((10 + 3 * number, 20, 34 + 3 * number, 40), 0, 150 if number in (5, 6) else 242)
    return frame(128, 96, red, ((90, 60, 110, 90), 1, 255))


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return write_video(tmp_path / "spots.mkv", [two_spots(number) for number in range(FRAMES)], rate=10)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def content_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "frames.json").read_text("utf-8"))
    return content


def own_threads() -> set[threading.Thread]:
    """All threads but the one that tqdm starts with the first progress bar of a process."""
    return {thread for thread in threading.enumerate() if not isinstance(thread, TMonitor)}


def run(source: str | Path, out: Path, **options: Any) -> VideoResult:
    network = options.pop("network", None)
    return predict_video(spot_predictor(network), source, out=out, options=VideoOptions(**options))


def test_everything_that_is_written_of_a_video_with_two_objects(video: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run(video, out, mm_per_px=0.5, min_scores=[0.7, 0.5])
    assert (result.frames, result.tracks, result.objects, result.dropped) == (FRAMES, 2, 2 * FRAMES, 0)
    assert result.notes == ()
    content = content_of(out)
    assert content["videos"] == [
        {
            "id": 1, "file_name": str(video), "width": 128, "height": 96, "fps": 10.0, "length": FRAMES,
            "rotation_deg": 0, "dropped": 0, "is_complete": True,
        }
    ]  # fmt: skip
    assert content["categories"] == [{"id": 1, "name": "red"}, {"id": 2, "name": "blue"}]
    assert [image["time_s"] for image in content["images"]] == pytest.approx([n / 10 for n in range(FRAMES)])
    assert [image["frame_index"] for image in content["images"]] == list(range(FRAMES))
    coco, track_ids = COCO(str(out / "frames.json")), []
    for number in range(FRAMES):
        red, blue = sorted(coco.loadAnns(coco.getAnnIds(number + 1)), key=lambda row: row["category_id"])
        assert red["bbox"] == [10 + 3 * number, 20, 24, 20] and blue["bbox"] == [90, 60, 20, 30]
        assert red["score"] == (0.59 if number in (5, 6) else 0.95)
        mask = coco.annToMask(red)
        assert mask.sum() == red["area"] == 480 and mask[20:40, 10 + 3 * number : 34 + 3 * number].all()
        track_ids.append((red["track_id"], blue["track_id"]))
    assert set(track_ids) <= {(1, 2), (2, 1)} and len(set(track_ids)) == 1
    by_class = {row["class"]: row for row in rows_of(out / "tracks.csv")}
    red = by_class["red"]
    assert (red["frames"], red["first_frame"], red["last_frame"]) == ("12", "0", "11")
    assert float(red["duration_s"]) == pytest.approx(1.1) and float(red["mean_area_px2"]) == 480
    assert float(red["path_px"]) == pytest.approx(33) and float(red["displacement_px"]) == pytest.approx(33)
    assert float(red["mean_speed_px_s"]) == pytest.approx(30) and float(red["mean_area_mm2"]) == 120
    assert float(red["path_mm"]) == pytest.approx(16.5) and float(red["mean_speed_mm_s"]) == pytest.approx(15)
    assert float(red["mean_score"]) == pytest.approx((10 * 0.95 + 2 * 0.59) / 12, abs=1e-5)
    blue = by_class["blue"]
    assert (blue["path_px"], blue["mean_speed_px_s"]) == ("0.0", "0.0")
    objects = [row for row in rows_of(out / "frames.csv") if row["class"] == "red"]
    assert [float(row["x_px"]) for row in objects] == [22 + 3 * number for number in range(FRAMES)]
    assert {row["y_px"] for row in objects} == {"30.0"} and {row["area_mm2"] for row in objects} == {"120.0"}


def test_the_drawn_video_shows_the_masks_in_the_color_of_their_track(video: Path, tmp_path: Path) -> None:
    run(video, tmp_path / "out")
    images = read_video(tmp_path / "out" / "predicted.mp4")
    assert len(images) == FRAMES
    blues = np.array([image[75, 100] for image in images], int)
    assert np.abs(blues - blues[0]).max() < 25  # the same color in every frame
    plain = two_spots(0)
    assert np.abs(images[0][75, 100].astype(int) - plain[75, 100]).max() > 40
    assert np.abs(images[0][90, 5].astype(int) - GRAY).max() < 15


def test_batches_do_not_change_the_result(video: Path, tmp_path: Path) -> None:
    networks = [SpotNetwork() for _ in range(3)]
    for network, size in zip(networks, (None, 1, 5), strict=True):
        run(video, tmp_path / str(size), network=network, batch_size=size, video="none")
    contents = [(tmp_path / name / "frames.json").read_bytes() for name in ("None", "1", "5")]
    assert contents[0] == contents[1] == contents[2]
    assert [network.batches for network in networks] == [[4, 4, 4], [1] * 12, [5, 5, 2]]


def test_a_score_between_the_thresholds_begins_no_track_but_continues_one(tmp_path: Path) -> None:
    def scene(number: int) -> NDArray[np.uint8]:
        dim = ((10, 20, 30, 40), 0, 160)
        return frame(128, 96, dim, ((60 + number, 20, 90 + number, 50), 0, 160 if number > 2 else 250))

    video = write_video(tmp_path / "a.mkv", map(scene, range(8)))
    result = run(video, tmp_path / "out", min_scores=[0.7, 0.7])
    assert (result.tracks, result.objects) == (1, 8)
    assert all(row["left_px"] != "10.0" for row in rows_of(tmp_path / "out" / "frames.csv"))


def test_an_object_of_a_single_frame_is_in_the_json_without_a_track(tmp_path: Path) -> None:
    spots = [frame(64, 48), frame(64, 48, ((10, 10, 30, 30), 0, 255)), frame(64, 48)]
    result = run(write_video(tmp_path / "a.mkv", spots), tmp_path / "out")
    (row,) = content_of(tmp_path / "out")["annotations"]
    assert "track_id" not in row and row["score"] == 1.0
    assert (result.tracks, result.objects) == (0, 1)
    (written,) = rows_of(tmp_path / "out" / "frames.csv")
    assert (written["track_id"], written["frame"], written["time_s"]) == ("", "1", "0.04")
    x, y, width, height = row["bbox"]
    box = [float(written[name]) for name in ("left_px", "top_px", "box_width_px", "box_height_px")]
    assert box == [x, y, width, height] == [10, 10, 20, 20]
    assert rows_of(tmp_path / "out" / "tracks.csv") == []


def test_a_video_of_nothing_has_all_files(tmp_path: Path) -> None:
    result = run(write_video(tmp_path / "a.mkv", [frame(64, 48)] * 3), tmp_path / "out")
    assert (result.frames, result.tracks, result.objects) == (3, 0, 0)
    assert len(read_video(tmp_path / "out" / "predicted.mp4")) == 3
    assert COCO(str(tmp_path / "out" / "frames.json")).anns == {}


def test_a_variable_rate_keeps_all_frames_and_times_in_the_files(encoded: Path, tmp_path: Path) -> None:
    result = run(encoded / "h264_variable_rate.mp4", tmp_path / "out")
    times = [0, 0.04, 0.08, 0.2, 0.24, 0.28, 1.28, 1.32, 1.4, 1.5, 1.6, 1.64]
    assert [image["time_s"] for image in content_of(tmp_path / "out")["images"]] == pytest.approx(times)
    rows = rows_of(tmp_path / "out" / "frames.csv")
    assert sorted({float(row["time_s"]) for row in rows}) == pytest.approx(times)
    assert result.tracks == 1
    capture = read_video(tmp_path / "out" / "predicted.mp4")
    assert len(capture) == pytest.approx(1.68 * 12 / 1.68, abs=1)
    assert result.omitted > 0 and "does not show" in result.notes[0] and "frames.json has all" in result.notes[0]


@pytest.mark.parametrize("name", ["vp9_odd.webm", "hevc_10_bit.mp4", "vp9_audio.webm"])
def test_odd_sizes_depths_and_sound_give_one_track(encoded: Path, name: str, tmp_path: Path) -> None:
    result = run(encoded / name, tmp_path / "out", video="webm")
    assert (result.frames, result.tracks) == (12, 1)
    assert len(read_video(tmp_path / "out" / "predicted.webm")) == 12
    first = content_of(tmp_path / "out")["annotations"][0]
    np.testing.assert_allclose(first["bbox"], (2, 10, 12, 16), atol=2)


def test_a_truncated_video_keeps_what_was_decoded(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    noise = [random.integers(60, 90, (96, 128, 3), dtype=np.uint8) for _ in range(20)]
    for number, image in enumerate(noise):
        image[20:40, 10 + number : 40 + number] = (250, 0, 0)
    whole = write_video(tmp_path / "whole.avi", noise, codec="MJPG")
    (tmp_path / "cut.avi").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    result = run(tmp_path / "cut.avi", tmp_path / "out")
    assert 6 <= result.frames < 14
    assert (
        len(content_of(tmp_path / "out")["images"])
        == len(read_video(tmp_path / "out" / "predicted.mp4"))
        == result.frames
    )
    assert content_of(tmp_path / "out")["videos"][0]["is_complete"] is False
    assert "truncated or damaged after frame" in result.notes[0] and "announces 20 frames" in result.notes[0]


def test_frames_are_dropped_with_realtime_only(tmp_path: Path) -> None:
    """25 frames in a second, and a network that takes 0.1 s for each."""
    video = write_video(tmp_path / "a.mkv", [two_spots(number) for number in range(25)], rate=25)
    slow = run(video, tmp_path / "slow", network=SpotNetwork(0.1), realtime=True, video="none")
    assert slow.dropped > 5 and slow.frames + slow.dropped == 25
    assert f"{slow.dropped} frames dropped with --realtime" in slow.notes[0]
    images = content_of(tmp_path / "slow")["images"]
    assert [image["time_s"] for image in images] == pytest.approx([image["frame_index"] / 25 for image in images])
    assert slow.tracks == 2  # times, not the number of frames, decide
    every = run(video, tmp_path / "all", network=SpotNetwork(0.01), video="none")
    assert (every.frames, every.dropped) == (25, 0)


def test_ctrl_c_ends_with_whole_files(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mkv", [two_spots(number % 20) for number in range(100)])
    threading.Timer(0.8, os.kill, (os.getpid(), signal.SIGINT)).start()
    result = run(video, tmp_path / "out", network=SpotNetwork(0.04), batch_size=1)
    assert result.is_interrupted and 1 <= result.frames < 100
    assert result.notes[0].startswith("interrupted after ")
    content = content_of(tmp_path / "out")
    assert len(content["images"]) == result.frames and not content["videos"][0]["is_complete"]
    assert len(read_video(tmp_path / "out" / "predicted.mp4")) == result.frames
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_of_the_network_leaves_no_files(video: Path, tmp_path: Path) -> None:
    class Broken(SpotNetwork):
        def __call__(self, samples: Any) -> Any:
            if len(self.batches) == 2:
                raise MemoryError("too large")
            return super().__call__(samples)

    threads = own_threads()
    with pytest.raises(MemoryError, match="too large"):
        run(video, tmp_path / "out", network=Broken(), batch_size=1)
    assert not (tmp_path / "out").exists()
    assert own_threads() == threads


def test_earlier_files_are_replaced_and_those_of_a_person_are_not(video: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(video, out)
    run(video, out, video="webm")
    names = {path.name for path in out.iterdir() if not path.name.startswith(".")}
    assert names == {"frames.json", "frames.csv", "tracks.csv", "predicted.webm"}
    (out / "tracks.csv").write_text("mine", encoding="utf-8")
    with pytest.raises(DataError, match=r"tracks\.csv: the file is already there and is not overwritten"):
        run(video, out)
    assert (out / "tracks.csv").read_text("utf-8") == "mine"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"video": "gif"}, "--video: is not a format of videos; found gif; expected mp4, webm or none"),
        ({"mm_per_px": 0.0}, "--scale: must be above 0; found 0"),
        ({"lost_s": -1.0}, "--lost-seconds: must be 0 or more; found -1"),
        ({"batch_size": 0}, "--batch-size: must be 1 or more; found 0"),
        ({"timeout_s": 0.0}, "--timeout: must be above 0; found 0"),
    ],
)
def test_invalid_options_are_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ProjectError) as refused:
        predict_video(spot_predictor(), "nothing.mp4", out=tmp_path, options=VideoOptions(**options))
    assert str(refused.value) == message


def test_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.avi", (two_spots(number % 20) for number in range(600)), codec="MJPG")
    process, sizes = psutil.Process(), []

    class Watched(SpotNetwork):
        def __call__(self, samples: Any) -> Any:
            sizes.append(process.memory_info().rss)
            return super().__call__(samples)

    result = run(video, tmp_path / "out", network=Watched())
    assert result.frames == 600
    early, late = np.median(sizes[50:100]), np.median(sizes[-50:])
    assert late - early < 10e6  # 500 frames of 128 x 96 px are 18 MB


class ColumnNetwork:
    """Classes by the column: the left third, the middle, and the right third, which moves right with brightness."""

    def __call__(self, samples: Any) -> list[dict[str, Any]]:
        import torch

        outputs = []
        for sample in samples:
            scores = torch.zeros(3, sample["height"], sample["width"])
            third = sample["width"] // 3
            scores[0, :, :third], scores[1, :, third : 2 * third], scores[2, :, 2 * third :] = 1, 1, 1
            outputs.append({"sem_seg": scores})
        return outputs


def test_semantic_videos_have_the_shares_of_their_classes(tmp_path: Path) -> None:
    from d2tune.data.image_reader import ImageReader
    from tests.video.scenes import whole_size

    cfg = whole_size()
    cfg.TEST.WINDOW_PX = 0
    predictor = SemanticPredictor(ColumnNetwork(), cfg, class_names=("road", "car", "sky"), reader=ImageReader())
    video = write_video(tmp_path / "a.mkv", [frame(90, 60)] * 4, rate=10)
    result = predict_video(predictor, video, out=tmp_path / "out", options=VideoOptions(mm_per_px=2.0))
    assert result.summary.startswith("classes of 4 frames of ")
    content = content_of(tmp_path / "out")
    assert content["annotations"] == []
    expected = [{"category_id": n, "area_px2": 1800, "share_percent": 33.3333} for n in (1, 2, 3)]
    assert [image["classes"] for image in content["images"]] == [expected] * 4
    rows = rows_of(tmp_path / "out" / "classes.csv")
    assert len(rows) == 12
    assert list(rows[4].values()) == ["1", "0.1", "car", "1800", "33.3333", "7200.0"]
    assert not (tmp_path / "out" / "tracks.csv").exists()
    (image, *_) = read_video(tmp_path / "out" / "predicted.mp4")
    means = [image[45:55, x - 10 : x + 10].reshape(-1, 3).mean(axis=0) for x in (15, 45, 75)]
    assert min(np.abs(means[a] - means[b]).max() for a, b in ((0, 1), (1, 2), (0, 2))) > 25


def test_panoptic_videos_track_things_and_measure_stuff(tmp_path: Path) -> None:
    """The left half is stuff, and a thing of 20 x 20 px moves in the right half."""
    import torch

    from d2tune.data.image_reader import ImageReader
    from tests.video.scenes import whole_size

    class Network:
        def __init__(self) -> None:
            self.frame = 0

        def __call__(self, samples: Any) -> list[dict[str, Any]]:
            outputs = []
            for sample in samples:
                ids = torch.zeros(sample["height"], sample["width"], dtype=torch.int32)
                ids[:, :64] = 1
                ids[20:40, 70 + 2 * self.frame : 90 + 2 * self.frame] = 2
                self.frame += 1
                infos = [
                    {"id": 1, "isthing": False, "category_id": 1, "area": 64 * 96},
                    {"id": 2, "isthing": True, "category_id": 0, "score": 0.4, "instance_id": 0},
                ]
                outputs.append({"panoptic_seg": (ids, infos)})
            return outputs

    predictor = PanopticPredictor(Network(), whole_size(), class_names=("car", "road"), things=1, reader=ImageReader())
    video = write_video(tmp_path / "a.mkv", [frame(128, 96)] * 6)
    result = predict_video(predictor, video, out=tmp_path / "out")
    assert (result.frames, result.tracks) == (6, 1)
    content = content_of(tmp_path / "out")
    things = [row for row in content["annotations"] if row["category_id"] == 1]
    assert [row["track_id"] for row in things] == [1] * 6
    assert [row["bbox"] for row in things] == [[70 + 2 * n, 20, 20, 20] for n in range(6)]
    stuff = [row for row in content["annotations"] if row["category_id"] == 2]
    assert len(stuff) == 6 and all("track_id" not in row and "score" not in row for row in stuff)
    assert mask_utils.area(stuff[0]["segmentation"]) == 64 * 96
    shares = content["images"][0]["classes"]
    assert [one["area_px2"] for one in shares] == [400, 64 * 96]
    (track,) = rows_of(tmp_path / "out" / "tracks.csv")
    assert (track["class"], track["frames"]) == ("car", "6")
    assert len(rows_of(tmp_path / "out" / "frames.csv")) == 6
    assert len(rows_of(tmp_path / "out" / "classes.csv")) == 12


@pytest.mark.parametrize("task", ["instance", "semantic", "panoptic"])
def test_the_three_steps_give_what_a_predictor_gives(task: str, tmp_path: Path) -> None:
    from d2tune.runs.load import load_predictor

    predictor = load_predictor(random_run(tmp_path / "run", task))
    images = [np.random.default_rng(seed).integers(0, 255, (60, 90, 3), dtype=np.uint8) for seed in range(2)]
    samples = [predictor.prepare(image) for image in images]
    stepwise = [predictor.finish(raw, sample) for raw, sample in zip(predictor.run(samples), samples, strict=True)]
    for one, other in zip(stepwise, predictor.batch(images), strict=True):
        for name in ("class_ids", "scores", "boxes_xyxy", "segment_ids"):
            if hasattr(one, name):
                np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("task", ["instance", "semantic", "panoptic"])
def test_a_run_predicts_on_a_video(task: str, tmp_path: Path) -> None:
    import d2tune

    folder = random_run(tmp_path / "run", task)
    video = write_video(tmp_path / "clip.mkv", [two_spots(number) for number in range(3)])
    result = d2tune.predict_video(folder, video)
    assert result.out == folder / "predictions" / "clip" and result.frames == 3
    assert COCO(str(result.out / "frames.json")).getImgIds() == [1, 2, 3]
    assert len(read_video(result.out / "predicted.mp4")) == 3
    with pytest.raises(DataError, match="would replace an input"):
        d2tune.predict_video(
            folder, write_video(result.out / "predicted.mp4", [two_spots(0)], codec="mp4v"), out=result.out
        )


@pytest.fixture(scope="module")
def instance_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_run(tmp_path_factory.mktemp("random") / "run", "instance")


def test_the_command_predicts_on_a_video(
    instance_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from d2tune.cli import main

    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "clip.mkv", [two_spots(number) for number in range(4)])
    assert main(["predict", str(instance_run), "clip.mkv", "--out", "out", "--min-score", "0.2", "--scale", "2"]) == 0
    shown = capsys.readouterr()
    first, second = shown.out.splitlines()
    assert first.endswith("on 4 frames of clip.mkv: out") and "tracked object" in first
    assert "frames/s; of each frame: decoding " in second and "latency" in second
    assert shown.err == "" and "area_mm2" in (tmp_path / "out" / "frames.csv").read_text("utf-8").splitlines()[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["text.mp4"], "error: text.mp4: is not a video that can be read; found a file that begins with 'hello'"),
        (["97"], "error: camera 97: the camera does not open."),
        (["a.mp4", "b.jpg"], "error: a.mp4: a video is predicted on alone. Call the command once for each video."),
        (["a.mp4", "--to", "coco"], "error: --to goes with images, not with a video. Remove it."),
        (["a.jpg", "--realtime"], "error: --realtime goes with a video, a camera or a stream. Remove it."),
        (["av1.mp4"], "error: av1.mp4: no frame of the video can be decoded; found codec 'AV01'"),
    ],
)
def test_what_cannot_be_predicted_on_is_a_line(
    encoded: Path,
    words: list[str],
    message: str,
    instance_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from d2tune.cli import main

    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.mp4").write_text("hello", encoding="utf-8")
    shutil.copy2(encoded / "av1.mp4", tmp_path)
    assert main(["predict", str(instance_run), *words]) == 1
    shown = capsys.readouterr()
    assert shown.err.startswith(message) and shown.err.count("\n") == 1 and shown.out == ""
    assert not (instance_run / "predictions").exists()


@pytest.mark.slow
def test_a_stream_without_an_end_ends_with_ctrl_c(instance_run: Path, tmp_path: Path) -> None:
    """A Motion JPEG stream that never ends, interrupted by a signal to the command: whole files and status 0."""
    server_code = (
        "import cv2, http.server, time, numpy as np\n"
        "image = cv2.imencode('.jpg', np.full((48, 64, 3), 90, np.uint8))[1].tobytes()\n"
        "class Handler(http.server.BaseHTTPRequestHandler):\n"
        "    def log_message(self, *args): pass\n"
        "    def do_GET(self):\n"
        "        self.send_response(200)\n"
        "        self.send_header('Content-Type', 'multipart/x-mixed-replace; boundary=frame')\n"
        "        self.end_headers()\n"
        "        try:\n"
        "            while True:\n"
        "                head = '--frame\\r\\nContent-Type: image/jpeg\\r\\n'\n"
        "                head += f'Content-Length: {len(image)}\\r\\n\\r\\n'\n"
        "                self.wfile.write(head.encode() + image + b'\\r\\n')\n"
        "                time.sleep(0.02)\n"
        "        except OSError:\n"
        "            pass\n"
        "server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)\n"
        "print(server.server_port, flush=True)\n"
        "server.serve_forever()\n"
    )
    with subprocess.Popen([sys.executable, "-c", server_code], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline())
            code = "from d2tune.cli import main; raise SystemExit(main())"
            words = ["predict", str(instance_run), f"http://127.0.0.1:{port}/live", "--out", "out", "--realtime"]
            with subprocess.Popen(
                [sys.executable, "-c", code, *words],
                cwd=tmp_path,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            ) as process:
                deadline = time.monotonic() + 120
                begun = tmp_path / "out"
                while not list(begun.glob(".predicted*/*")) and process.poll() is None and time.monotonic() < deadline:
                    time.sleep(0.1)
                process.send_signal(signal.SIGINT)
                out, err = process.communicate(timeout=120)
        finally:
            server.kill()
    assert process.returncode == 0, err
    frames = len(content_of(tmp_path / "out")["images"])
    assert frames >= 1 and f"on {frames} frame" in out
    assert len(read_video(tmp_path / "out" / "predicted.mp4")) >= 1
