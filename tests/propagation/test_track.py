"""``d2tune track`` as a person uses it: Labelme files in, Labelme files out, and the next round."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from d2tune import api, cli
from d2tune.annotations.model.types import Mask
from d2tune.errors import DataError
from d2tune.propagation.clip import open_clip
from d2tune.propagation.files import without_small_holes
from d2tune.propagation.methods.base import Frames, Propagated, Reference
from d2tune.propagation.methods.flow import Flow
from d2tune.propagation.track import least_confident, track
from d2tune.run_lock import LOCK
from tests.propagation.clips import (
    GREEN,
    RED,
    Clip,
    Mover,
    iou,
    label,
    labelme_shapes,
    mask_in,
    read_json,
    render,
    write_labelme,
)
from tests.test_run_lock import holding
from tests.video.encoded import FRAMES, TIMES_MS, write_encoded

SLOW = replace(RED, step_px=(2, 1))
CAR = [("car", None)]


@pytest.fixture
def clip(tmp_path: Path) -> Clip:
    return render(tmp_path / "frames", [SLOW], count=6)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "track.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def video_of(clip: Clip, path: Path) -> Path:
    """The frames of a clip as a video."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (128, 80))
    for frame in clip.paths:
        writer.write(cv2.imread(str(frame)))
    writer.release()
    return path


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one line with which the command ends."""
    capsys.readouterr()
    assert cli.main(["track", *map(str, words)]) == 1
    output = capsys.readouterr()
    assert not output.out
    (line,) = output.err.splitlines()
    return line


def test_the_command_writes_labelme_files_and_says_where_to_look(
    clip: Clip, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    init = label(clip, 0, tmp_path / "a.json", [("car", 7)])
    before = init.read_bytes()
    words = ["track", str(clip.folder), "--init", str(init), "--to", "labelme", "--out", str(tmp_path / "out")]
    assert cli.main([*words, "--method", "flow"]) == 0
    first, second, _ = capsys.readouterr().out.splitlines()
    assert first == f"1 object from 1 reference: 5 Labelme files written into {tmp_path / 'out'}"
    assert second.startswith("look here first: 0")
    assert init.read_bytes() == before
    assert sorted(path.name for path in (tmp_path / "out").glob("*.json")) == [f"{i:03d}.json" for i in range(1, 6)]
    for index in range(1, 6):
        place = tmp_path / "out" / f"{index:03d}.json"
        value = read_json(place)
        assert (place.parent / value["imagePath"]).resolve() == clip.paths[index]
        assert (value["imageWidth"], value["imageHeight"], value["imageData"]) == (128, 80, None)
        (shape,) = value["shapes"]
        assert (shape["label"], shape["group_id"], shape["shape_type"]) == ("car", 7, "polygon")
        assert shape["flags"] == {"prediction": True}
        assert 0 < shape["score"] <= 1
        assert iou(mask_in(place, "car", (80, 128)), clip.masks[index][0]) > 0.75
    table = rows(tmp_path / "out")
    assert [row["kind"] for row in table] == ["reference"] + ["tracked"] * 5
    assert table[0] == {
        **{"frame": "0", "image": "000.png", "time_s": "", "kind": "reference", "label": "car", "group_id": "7"},
        **{"area_px2": str(int(clip.masks[0][0].sum())), "confidence": ""},
    }


def test_by_default_files_lie_beside_the_frames_and_a_corrected_one_is_the_next_reference(clip: Clip) -> None:
    init = label(clip, 0, clip.folder / "000.json", CAR)
    result = api.track(clip.folder, method="flow")  # without --init: the person's file in the folder
    assert (result.out, result.references, result.written) == (clip.folder, ("000.png",), 5)
    proposal = read_json(clip.folder / "004.json")
    moved = np.roll(clip.masks[4][0], 30, axis=1)
    corrected = proposal | {"shapes": labelme_shapes(moved, "car")}
    (clip.folder / "004.json").write_text(json.dumps(corrected), encoding="utf-8")
    saved = (clip.folder / "004.json").read_bytes(), init.read_bytes()
    again = api.track(clip.folder, init=[init], method="flow")
    assert again.references == ("000.png", "004.png")
    assert again.written == 4
    assert ((clip.folder / "004.json").read_bytes(), init.read_bytes()) == saved
    # frame 5 now follows from the corrected frame, where the object is 30 px further right
    assert iou(mask_in(clip.folder / "005.json", "car", (80, 128)), np.roll(clip.masks[5][0], 30, axis=1)) > 0.7


def test_a_changed_file_with_the_flag_stays_and_becomes_a_reference_when_it_is_checked(clip: Clip) -> None:
    label(clip, 0, clip.folder / "000.json", CAR)
    api.track(clip.folder, method="flow")
    place = clip.folder / "002.json"
    value = read_json(place) | {"otherData": 1}
    place.write_text(json.dumps(value), encoding="utf-8")
    result = api.track(clip.folder, method="flow")
    assert (result.references, result.kept) == (("000.png",), ("002.png",))
    assert read_json(place) == value
    assert any(line.startswith("kept as they are") and "002.png" in line for line in result.lines)
    place.write_text(json.dumps(value | {"flags": {"checked": True}}), encoding="utf-8")
    assert api.track(clip.folder, method="flow").references == ("000.png", "002.png")


def test_an_empty_file_that_a_person_saved_says_that_the_object_is_not_there(tmp_path: Path) -> None:
    clip = render(tmp_path / "frames", [replace(SLOW, hidden=range(3, 6))], count=6)
    label(clip, 0, clip.folder / "000.json", CAR)
    write_labelme(clip.folder / "005.json", [], image="005.png")
    result = api.track(clip.folder, method="flow")
    assert result.references == ("000.png", "005.png")
    assert read_json(clip.folder / "004.json")["shapes"] == []


class Stopping(Flow):
    """Optical flow during which Ctrl-C is pressed."""

    def __init__(self, after: int) -> None:
        self.after = after

    def propagate(
        self, frames: Frames, references: Sequence[Reference], *, finished: Mapping[int, Mapping[int, Mask]]
    ) -> Iterator[Propagated]:
        for count, result in enumerate(super().propagate(frames, references, finished=finished)):
            if count == self.after:
                raise KeyboardInterrupt
            yield result


def test_an_interrupted_call_goes_on_with_the_same_files(clip: Clip, tmp_path: Path) -> None:
    init, out = label(clip, 0, tmp_path / "a.json", CAR), tmp_path / "out"
    whole = track(clip.folder, [init], out=tmp_path / "whole", method=Flow())
    stopped = track(clip.folder, [init], out=out, method=Stopping(3))
    assert (stopped.is_interrupted, stopped.written, stopped.lines[-1]) == (
        True, 3, "interrupted; the same command goes on",
    )  # fmt: skip
    assert [row["frame"] for row in rows(out)] == ["0", "1", "2", "3"]
    times = {path: path.stat().st_mtime_ns for path in out.glob("00*.json")}
    rest = track(clip.folder, [init], out=out, method=Flow())
    assert (rest.is_interrupted, rest.written) == (False, 2)
    assert {path: path.stat().st_mtime_ns for path in times} == times
    for path in (tmp_path / "whole").glob("00*.json"):
        assert iou(mask_in(path, "car", (80, 128)), mask_in(out / path.name, "car", (80, 128))) > 0.9
    assert len(rows(out)) == len(rows(whole.out)) == 6
    assert rest.lines[0] == f"1 object from 1 reference: 2 Labelme files written into {out}, 3 stood already"
    again = track(clip.folder, [init], out=out, method=Flow())
    assert (again.written, again.stood) == (0, 5)
    assert again.lines[0] == (
        f"1 object from 1 reference: nothing to do, 5 Labelme files of an earlier call stand in {out}; remove those of "
        "frames that are to be tracked again"
    )
    (out / "004.json").unlink()
    assert track(clip.folder, [init], out=out, method=Flow()).written == 1
    assert track(clip.folder, [init], out=out, method=Flow(), tolerance_px=2).written == 5


def test_a_file_that_a_person_saves_while_frames_come_is_not_overwritten(clip: Clip, tmp_path: Path) -> None:
    out = tmp_path / "out"

    class Saving(Flow):
        def propagate(self, *arguments: Any, **more: Any) -> Iterator[Propagated]:
            for result in super().propagate(*arguments, **more):
                if result.index == 3:
                    write_labelme(out / "004.json", [], image="../frames/004.png")
                yield result

    result = track(clip.folder, [label(clip, 0, tmp_path / "a.json", CAR)], out=out, method=Saving())
    assert (result.written, result.kept, result.saved) == (4, (), ("004.png",))
    assert result.lines[1] == (
        "saved by a person during the tracking, and kept as they are; the same command uses those without the flag "
        "prediction: 004.png"
    )
    assert not any("still have the flag" in line for line in result.lines)
    assert read_json(out / "004.json")["shapes"] == []


@pytest.mark.parametrize("gray", [False, True])
def test_names_of_any_kind_are_taken_in_the_order_of_their_numbers(tmp_path: Path, gray: bool) -> None:
    names = ["a b (2).png", "a b (9).PNG", "a b (10).bmp", "a b (11)#ü.png", "a b (11)#ü.tif"]
    clip = render(tmp_path / "frames", [SLOW], count=5, size=(80, 128), names=names, gray=gray)
    (clip.folder / "notes.txt").write_text("not a frame", encoding="utf-8")
    init = label(clip, 1, tmp_path / "init.json", CAR)
    result = api.track(clip.folder, init=[init], out=tmp_path / "out", method="flow")
    assert [row["image"] for row in rows(result.out)] == names
    written = sorted(path.name for path in result.out.glob("*.json"))
    assert written == ["a b (10).json", "a b (11)#ü.png.json", "a b (11)#ü.tif.json", "a b (2).json"]
    for index, name in ((0, "a b (2).json"), (2, "a b (10).json"), (4, "a b (11)#ü.tif.json")):
        assert iou(mask_in(result.out / name, "car", (128, 80)), clip.masks[index][0]) > 0.7


def test_objects_keep_their_groups_and_get_numbers_where_they_have_none(tmp_path: Path) -> None:
    other = Mover((60, 60, 220), 9, (30, 60), (2, 0))
    clip = render(tmp_path / "frames", [SLOW, replace(GREEN, step_px=(-2, 0)), other], count=4)
    init = label(clip, 0, tmp_path / "a.json", [("disc", None), ("disc", None), ("ball", 1)])
    out = tmp_path / "out"
    result = api.track(clip.folder, init=[init], out=out, method="flow")
    assert result.objects == ("disc (group 2)", "disc (group 3)", "ball (group 1)")
    for index in range(1, 4):
        shapes = read_json(out / f"{index:03d}.json")["shapes"]
        assert [(shape["label"], shape["group_id"]) for shape in shapes] == [("disc", 2), ("disc", 3), ("ball", 1)]
    # in the next round, the numbers that were written are the same objects
    corrected = label(clip, 3, out / "003.json", [("disc", 2), ("disc", 3), ("ball", 1)])
    again = api.track(clip.folder, init=[init], out=out, method="flow")
    assert (again.objects, again.references) == (result.objects, ("000.png", "003.png"))
    assert corrected.is_file()


def test_outlines_of_one_object_in_several_pieces_share_a_group(tmp_path: Path) -> None:
    clip = render(tmp_path / "frames", [SLOW], count=3)
    height, width = clip.masks[0][0].shape
    halves = clip.masks[0][0].copy()
    halves[:, 22:26] = False
    init = write_labelme(tmp_path / "a.json", labelme_shapes(halves, "car", 5), image="000.png")
    api.track(clip.folder, init=[init], out=tmp_path / "out", method="flow")
    shapes = read_json(tmp_path / "out" / "001.json")["shapes"]
    assert len(shapes) == 2 and {shape["group_id"] for shape in shapes} == {5}
    assert (width, height) == (128, 80)


def test_frames_of_a_video_are_written_with_their_times_and_its_init_is_recognized(tmp_path: Path) -> None:
    videos = write_encoded(tmp_path)
    capture = cv2.VideoCapture(str(videos / "h264_variable_rate.mp4"))
    images = [capture.read()[1] for _ in range(FRAMES)]
    (tmp_path / "mine").mkdir()
    cv2.imwrite(str(tmp_path / "mine" / "000007.png"), images[2])  # named by another tool, of frame 2
    square = [[8, 10], [20, 10], [20, 26], [8, 26]]
    shape: dict[str, Any] = {"label": "box", "points": square, "group_id": None, "shape_type": "polygon", "flags": {}}
    init = write_labelme(tmp_path / "mine" / "000007.json", [shape], image="000007.png", size=(64, 48))
    out = tmp_path / "out"
    result = api.track(videos / "h264_variable_rate.mp4", init=[init], out=out, method="flow")
    assert (result.frames, result.references, result.written) == (FRAMES, ("000002.jpg",), FRAMES - 1)
    assert [float(row["time_s"]) * 1000 for row in rows(out)] == pytest.approx(TIMES_MS, abs=1)
    expected = np.zeros((48, 64), bool)
    expected[10:26, 11:23] = True
    assert iou(mask_in(out / "000003.json", "box", (48, 64)), expected) > 0.7
    assert (out / "000003.jpg").is_file()
    times = {path: path.stat().st_mtime_ns for path in out.glob("*.jpg")}
    api.track(videos / "h264_variable_rate.mp4", init=[init], out=out, method="flow")
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_frames_to_look_at_first_are_apart() -> None:
    confidences: dict[int, dict[int, float]] = {index: {0: 0.9, 1: 0.8} for index in range(100)}
    confidences |= {50: {0: 0.9, 1: 0.1}, 51: {0: 0.15, 1: 0.9}, 53: {0: 0.2, 1: 0.9}, 70: {0: 0.3, 1: 0.3}, 9: {}}
    chosen = least_confident(confidences, 100)
    assert chosen[:2] == [(50, 0.1), (70, 0.3)]
    assert len(chosen) == 5
    assert least_confident({}, 10) == []


def test_a_clip_or_an_init_that_cannot_be_used_is_refused_with_one_line(
    clip: Clip, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    good = label(clip, 0, tmp_path / "good.json", CAR)
    same = label(clip, 0, tmp_path / "same.json", CAR)
    large = write_labelme(tmp_path / "large.json", [], image="000.png", size=(256, 160))
    elsewhere = write_labelme(tmp_path / "elsewhere.json", [], image="other.png")
    empty = write_labelme(tmp_path / "empty.json", [], image="000.png")
    shapes = labelme_shapes(clip.masks[0][0], "car", 3) + labelme_shapes(clip.masks[0][0], "bus", 3)
    shared = write_labelme(tmp_path / "shared.json", shapes, image="000.png")
    two = [*labelme_shapes(clip.masks[0][0], "car"), *labelme_shapes(np.roll(clip.masks[0][0], 40, axis=1), "car")]
    first = write_labelme(tmp_path / "first.json", two, image="000.png")
    last = write_labelme(tmp_path / "last.json", two, image="005.png")
    broken = tmp_path / "broken.json"
    broken.write_text('{"shapes": [', encoding="utf-8")
    text = tmp_path / "clip.mp4"
    text.write_text("not a video", encoding="utf-8")
    cases: list[tuple[list[object], str]] = [
        ([clip.folder, "--init", large], "size than the frames of the clip; found 256 x 160 px; expected 128 x 80 px"),
        ([clip.folder, "--init", shared], "two objects have the group_id 3: 'bus' here, and 'car' in this file"),
        ([clip.folder, "--init", first, last], "'car' has objects without a group_id in several frames"),
        ([clip.folder, "--init", good, same], "two files belong to the frame 000.png; found"),
        ([clip.folder, "--init", elsewhere], "imagePath: the file belongs to no frame of the clip; found 'other.png'"),
        ([clip.folder, "--init", empty], "no object is drawn in the labeled frames"),
        ([clip.folder, "--init", broken], "broken.json"),
        ([clip.folder, "--init", tmp_path / "none.json"], "the Labelme file does not exist"),
        ([clip.folder], "--init: no frame is labeled. Annotate a frame of"),
        ([text, "--init", good], "clip.mp4: is not a video that can be read"),
        ([tmp_path / "none", "--init", good], "does not exist"),
        ([clip.folder, "--init", good, "--tolerance", "-1"], "--tolerance: must be between 0 and 1000; found -1"),
        ([clip.folder, "--init", good, "--weights", "a.pth"], "--weights: --method flow has no weights"),
        (["rtsp://host/stream", "--init", good], "rtsp://host/stream: only video files and folders of frames"),
        ([good, "--init", good], "good.json: is neither a video nor a folder of frames"),
    ]
    for words, expected in cases:
        assert expected in refused(capsys, *words, "--out", out, "--method", "flow")
        assert not list(out.glob("*.json"))


def test_frames_of_several_sizes_and_foreign_outputs_are_refused(clip: Clip, tmp_path: Path) -> None:
    init = label(clip, 0, tmp_path / "a.json", CAR)
    out = tmp_path / "out"
    out.mkdir()
    (out / "track.csv").write_text("mine", encoding="utf-8")
    with pytest.raises(DataError, match=r"track\.csv: the file is already there and is not overwritten"):
        api.track(clip.folder, init=[init], out=out, method="flow")
    os.remove(out / "track.csv")  # noqa: PTH107
    cv2.imwrite(str(clip.folder / "900.png"), np.zeros((80, 100, 3), np.uint8))
    with pytest.raises(DataError, match=r"900\.png: the frames of a clip must have the same size; found 100 x 80 px"):
        api.track(clip.folder, init=[init], out=out, method="flow")
    assert (tmp_path / "a.json").is_file() and not list(out.glob("*.json"))


class Splitting(Flow):
    """Optical flow that cuts each object into two halves."""

    def propagate(self, *arguments: Any, **more: Any) -> Iterator[Propagated]:
        for result in super().propagate(*arguments, **more):
            for mask in result.masks.values():
                middle = int(np.nonzero(mask)[1].mean())
                mask[:, middle - 2 : middle + 2] = False
            yield result


def test_objects_without_a_group_that_split_get_different_groups_with_which_the_next_call_goes_on(
    tmp_path: Path,
) -> None:
    clip = render(tmp_path / "frames", [SLOW, replace(GREEN, step_px=(-1, 0))], count=3)
    init, out = label(clip, 0, tmp_path / "a.json", [("car", None), ("bus", None)]), tmp_path / "out"
    track(clip.folder, [init], out=out, method=Splitting())
    expected = [("car", 1), ("car", 1), ("bus", 2), ("bus", 2)]
    shapes = read_json(out / "001.json")["shapes"]
    assert [(shape["label"], shape["group_id"]) for shape in shapes] == expected
    (out / "002.json").unlink()
    assert track(clip.folder, [init], out=out, method=Flow()).written == 1  # follows from the file of frame 1
    checked = read_json(out / "001.json") | {"flags": {"checked": True}}
    (out / "001.json").write_text(json.dumps(checked), encoding="utf-8")
    again = track(clip.folder, [init], out=out, method=Flow())
    assert again.objects == ("car (group 1)", "bus (group 2)")


def test_a_line_of_the_journal_that_was_cut_off_costs_its_frame_once(clip: Clip, tmp_path: Path) -> None:
    init, out = label(clip, 0, tmp_path / "a.json", CAR), tmp_path / "out"
    track(clip.folder, [init], out=out, method=Flow())
    journal = out / ".d2tune-track.jsonl"
    journal.write_bytes(journal.read_bytes()[:-9])
    assert [track(clip.folder, [init], out=out, method=Flow()).written for _ in range(2)] == [1, 0]


def test_frames_of_other_weights_are_not_finished_ones(clip: Clip, tmp_path: Path) -> None:
    class Weighted(Flow):
        def __init__(self, identity: str) -> None:
            self.identity = identity

    init, out = label(clip, 0, tmp_path / "a.json", CAR), tmp_path / "out"
    written = [track(clip.folder, [init], out=out, method=Weighted(name)).written for name in ("a", "a", "b")]
    assert written == [5, 0, 5]


def test_a_folder_with_the_frames_of_another_video_is_refused(tmp_path: Path) -> None:
    out, files = tmp_path / "out", []
    for name, movers in (("a", [SLOW]), ("b", [replace(GREEN, radius_px=25)])):
        clip = render(tmp_path / name / "frames", movers, count=3)
        video = video_of(clip, tmp_path / name / "clip.avi")
        files.append((video, label(clip, 0, tmp_path / f"{name}.json", CAR)))
    api.track(files[0][0], init=[files[0][1]], out=out, method="flow")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(DataError, match=r"000000\.jpg: the folder has the frames of another video than .*clip\.avi"):
        api.track(files[1][0], init=[files[1][1]], out=out, method="flow")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_person_s_file_of_a_frame_that_init_labels_too_is_named(
    clip: Clip, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    init = label(clip, 0, tmp_path / "a.json", CAR)
    mine = write_labelme(tmp_path / "out" / "000.json", [], image="../frames/000.png")
    words = ["track", str(clip.folder), "--init", str(init), "--out", str(tmp_path / "out"), "--method", "flow"]
    assert cli.main(words) == 0
    assert f"{mine}: not used, because a file of --init labels the same frame" in capsys.readouterr().err
    assert cli.main(["track", str(clip.folder), "--out", str(tmp_path / "out"), "--method", "flow"]) == 1
    assert f"{mine}: no object is drawn in the labeled frames" in capsys.readouterr().err


def test_nothing_is_written_of_a_video_before_all_inputs_are_known_to_be_good(
    clip: Clip, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = video_of(clip, tmp_path / "clip.avi")
    square = [[8, 10], [20, 10], [20, 26], [8, 26]]
    box: dict[str, Any] = {"label": "box", "points": square, "group_id": 1, "shape_type": "polygon", "flags": {}}
    cases = [
        (write_labelme(tmp_path / "large.json", [box], image="000000.jpg", size=(64, 48)), "expected 128 x 80 px"),
        (write_labelme(tmp_path / "other.json", [box], image="x.jpg"), "belongs to no frame"),
        (
            write_labelme(tmp_path / "two.json", [box, box | {"label": "bus"}], image="000000.jpg"),
            "two objects have the group_id 1",
        ),
        (write_labelme(tmp_path / "none.json", [], image="000000.jpg"), "no object is drawn"),
    ]
    out = tmp_path / "out"
    for init, expected in cases:
        assert expected in refused(capsys, video, "--init", init, "--out", out, "--method", "flow")
        assert not out.exists()
    assert "--init: no frame is labeled" in refused(capsys, video, "--out", out, "--method", "flow")
    assert not out.exists()


def test_a_frame_of_a_video_that_a_person_changed_is_not_overwritten(clip: Clip, tmp_path: Path) -> None:
    video, out = video_of(clip, tmp_path / "clip.avi"), tmp_path / "out"
    init = label(clip, 0, tmp_path / "a.json", CAR)
    api.track(video, init=[init], out=out, method="flow")
    cv2.imwrite(str(out / "000003.jpg"), np.full((80, 128, 3), 255, np.uint8))
    changed = (out / "000003.jpg").read_bytes()
    with pytest.raises(DataError, match=r"000003\.jpg: the folder has the frames of another video than"):
        api.track(video, init=[init], out=out, method="flow")
    assert (out / "000003.jpg").read_bytes() == changed


def test_an_output_that_is_a_file_and_an_init_that_is_a_folder_are_named(
    clip: Clip, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    init = label(clip, 0, tmp_path / "a.json", CAR)
    taken = tmp_path / "taken"
    taken.write_text("mine", encoding="utf-8")
    for out in (taken, taken / "below"):
        line = refused(capsys, clip.folder, "--init", init, "--out", out, "--method", "flow")
        assert line == f"error: {taken}: --out: is a file, not a folder. Name another folder with --out."
    line = refused(capsys, init, "--init", init, "--method", "flow")
    assert line == f"error: {init}: is neither a video nor a folder of frames. Name the folder of the frames."
    line = refused(capsys, clip.folder, "--init", tmp_path, "--out", tmp_path / "out", "--method", "flow")
    assert line.startswith(f"error: {tmp_path}: --init: is a folder, not a Labelme file")
    assert taken.read_text(encoding="utf-8") == "mine"


def test_a_folder_into_which_another_process_tracks_is_refused(
    clip: Clip, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    init, out = label(clip, 0, tmp_path / "a.json", CAR), tmp_path / "out"
    out.mkdir()
    process = holding(out)
    line = refused(capsys, clip.folder, "--init", init, "--out", out, "--method", "flow")
    assert f"{out}: the output folder is in use by process {process.pid} on " in line
    assert [path.name for path in out.iterdir()] == [LOCK]
    process.communicate("\n")
    assert api.track(clip.folder, init=[init], out=out, method="flow").written == 5
    assert not (out / LOCK).exists()


@pytest.mark.parametrize(("largest", "white"), [(4000, 4095), (200, 255), (1023, 1023), (40_000, 65_535)])
def test_frames_of_16_bits_are_as_bright_as_the_bits_that_they_use(tmp_path: Path, largest: int, white: int) -> None:
    values = np.linspace(0, largest, 40 * 30).reshape(30, 40).astype(np.uint16)
    for index, share in enumerate((0.2, 1.0, 0.5)):
        cv2.imwrite(str(tmp_path / f"{index}.png"), (values * share).astype(np.uint16))
    clip = open_clip(tmp_path, tmp_path / "out")
    for index, share in enumerate((0.2, 1.0, 0.5)):
        expected = (values * share).astype(np.uint16) * 255.0 / white
        assert np.abs(clip[index].astype(float) - expected[..., None]).max() <= 0.5


def test_frames_of_8_bits_keep_their_values(tmp_path: Path) -> None:
    values = np.arange(100, dtype=np.uint8).reshape(10, 10)
    cv2.imwrite(str(tmp_path / "0.png"), values)
    assert (open_clip(tmp_path, tmp_path / "out")[0] == values[..., None]).all()


def test_a_file_that_is_named_twice_counts_once(clip: Clip, tmp_path: Path) -> None:
    init = label(clip, 0, tmp_path / "a.json", CAR)
    again = tmp_path / "frames" / ".." / "a.json"
    assert api.track(clip.folder, init=[init, again], out=tmp_path / "out", method="flow").references == ("000.png",)


def test_weights_of_another_network_are_refused_before_anything_is_written(
    clip: Clip, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    init, out, weights = label(clip, 0, tmp_path / "a.json", CAR), tmp_path / "out", tmp_path / "other.pth"
    torch.save({"conv1.weight": torch.zeros(3)}, weights)
    line = refused(capsys, clip.folder, "--init", init, "--out", out, "--weights", weights)
    assert line.startswith(f"error: {weights}: ") and "expected ImageNet weights of torchvision's mobilenet_v2" in line
    assert not out.exists()


def test_small_holes_are_filled_so_that_the_shape_is_a_polygon(tmp_path: Path) -> None:
    clip = render(tmp_path / "frames", [replace(SLOW, radius_px=20, starts_px=(50, 40))], count=2)

    class Holed(Flow):
        def propagate(self, *arguments: Any, **more: Any) -> Iterator[Propagated]:
            for result in super().propagate(*arguments, **more):
                (mask,) = result.masks.values()
                mask[38:40, 50:53] = False
                yield result

    init = label(clip, 0, tmp_path / "a.json", CAR)
    track(clip.folder, [init], out=tmp_path / "out", method=Holed())
    (shape,) = read_json(tmp_path / "out" / "001.json")["shapes"]
    assert shape["shape_type"] == "polygon"


def test_large_holes_and_holes_with_another_object_stay() -> None:
    large, inner = np.zeros((2, 100, 120), bool)
    large[10:90, 10:110] = True  # 8000 px, so that holes below 80 px are filled
    expected = large.copy()
    for rows_, columns, stays in ((20, 8, False), (40, 12, True)):  # of 64 px, and of 144 px
        large[rows_ : rows_ + columns, 20 : 20 + columns] = False
        expected[rows_ : rows_ + columns, 20 : 20 + columns] = not stays
    large[60:64, 60:64] = expected[60:64, 60:64] = False
    inner[61:63, 61:63] = True
    filled = without_small_holes({3: large, 5: inner})
    assert (filled[3] == expected).all() and (filled[5] == inner).all()
    assert without_small_holes({}) == {}
    corner = np.zeros((6, 6), bool)
    corner[2:, :4] = True
    corner[:, 3] = True  # the ground at the upper left corner touches the border of the image on the left alone
    assert (without_small_holes({1: corner})[1] == corner).all()
