"""Any number of processes reads the same."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from d2tune.annotations.convert import check, convert
from d2tune.annotations.formats import labelme
from d2tune.annotations.io.workers import WorkerError, ordered_map, worker_count
from d2tune.annotations.model.options import ReadOptions
from d2tune.errors import DataError, MachineError
from tests.annotations.builders import SQUARE, TRIANGLE, labelme_file, labelme_value, png_base64, shape

BOW_TIE = [[5, 5], [25, 25], [25, 5], [5, 25]]
KEYHOLE = [
    [2, 2],
    [40, 2],
    [40, 40],
    [2, 40],
    [2, 20],
    [10, 20],
    [10, 30],
    [30, 30],
    [30, 10],
    [10, 10],
    [10, 20],
    [2, 20],
]
ODD = [
    [[1, 1], [2, 2]],
    [[-5, 3], [30, 3], [30, 30.5]],
    [[1, 1], [1, 1], [9, 1], [9, 9]],
    [[100, 100], [120, 100], [100, 140]],
    [[1.0, 2.0], [float("nan"), 3], [4, 5]],
    [[0.2, 0.2], [0.3, 0.2], [0.3, 0.3]],
    [[10**400, 1], [2, 2], [3, 1]],
    [[True, 1], [2, 9], [9, 1]],
    "none",
    BOW_TIE,
    KEYHOLE,
    [[3, 3], [30, 3], [30, 9], [9, 9], [9, 30], [3, 30]],
]
"""Polygons that need a word said about them, and sound ones that are not round."""


def folder_of(path: Path, files: int) -> Path:
    """Files with all that can happen: sound shapes, odd ones, broken files, images inside of files, groups."""
    for index in range(files):
        shapes = [
            shape([[x + index / 7, y] for x, y in TRIANGLE], "cat", group_id=1 if index % 3 else None),
            shape(SQUARE, "dog" if index % 2 else "Dog", group_id=1),
            shape(ODD[index % len(ODD)], "cat"),
            shape([[20, 20], [30, 20]], "cat", "circle"),
        ]
        labelme_file(path / f"part{index % 2}" / f"{index:02d}.json", *shapes)
    (path / "part0" / "00.json").write_text('{"shapes": [', "utf-8")
    inside = labelme_value(shape(TRIANGLE), image="inside.png", imageData=png_base64([[[9, 9, 9]] * 64] * 48))
    (path / "inside.json").write_text(json.dumps(inside), "utf-8")
    return path


@pytest.mark.parametrize("workers", [2, 5])
def test_any_number_of_workers_gives_the_same_bytes_and_findings(workers: int, tmp_path: Path) -> None:
    source = folder_of(tmp_path / "source", 26)
    results = []
    for count in (1, workers):
        options = ReadOptions(workers=count, skip_bad=True)
        results.append(convert(source, out=tmp_path / f"out{count}", options=options))
    alone, together = results
    assert len(alone.dataset.instances) > 40
    assert len({finding.code for finding in alone.findings}) > 8
    assert together.findings == alone.findings
    assert together.dataset.content_hash() == alone.dataset.content_hash()
    assert list(together.dataset.ledger) == list(alone.dataset.ledger)
    for name in ("annotations.json", "inside.png"):
        assert (tmp_path / f"out{workers}" / name).read_bytes() == (tmp_path / "out1" / name).read_bytes()


def test_polygons_read_together_are_those_read_alone(tmp_path: Path) -> None:
    for index, points in enumerate(ODD):
        labelme_file(tmp_path / "apart" / f"{index:02d}" / "a.json", shape(points), shape(SQUARE, "dog"))
        labelme_file(tmp_path / "together" / f"{index:02d}.json", shape(points), shape(SQUARE, "dog"))
    together = check(tmp_path / "together", options=ReadOptions(workers=1))
    for index in range(len(ODD)):
        apart = labelme.read(tmp_path / "apart" / f"{index:02d}", ReadOptions(workers=1))
        mine = [finding for finding in together.findings if finding.file == f"{index:02d}.json"]
        assert [(f.code, f.message) for f in mine] == [(f.code, f.message) for f in apart.findings]
        image = together.dataset.images[index]
        cats = [instance for instance in together.dataset.by_image()[image.id] if instance.category_id == 1]
        alone = [one for one in apart.instances if apart.class_names[one.category_id - 1] == "cat"]
        assert [(instance.area_px2, instance.bbox_xywh, instance.coco_segmentation()) for instance in cats] == [
            (instance.area_px2, instance.bbox_xywh, instance.coco_segmentation()) for instance in alone
        ]


@pytest.mark.slow
def test_a_script_without_a_main_guard_may_use_workers(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "source", 26)
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(f"""
            from d2tune.annotations.convert import check
            from d2tune.annotations.model.options import ReadOptions
            print(len(check({str(source)!r}, options=ReadOptions(workers=3)).dataset.images))
        """),
        "utf-8",
    )
    expected = len(check(source, options=ReadOptions(workers=1)).dataset.images)
    for words in ([str(script)], ["-c", script.read_text("utf-8")]):
        done = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{expected}\n", "")


def _squares(items: Sequence[int], *, slow_s: float = 0.0) -> list[int]:
    time.sleep(slow_s)
    return [item * item for item in items]


def _fail(items: Sequence[int], *, parent: int, how: str) -> list[int]:
    if os.getpid() != parent:
        if how == "exit":
            os._exit(3)
        print("a word that must not get among the answers")
        raise KeyError("lost")
    time.sleep(0.3)
    return list(items)


def test_results_keep_their_order() -> None:
    items = list(range(100))
    for workers in (1, 3):
        read = functools.partial(_squares, slow_s=0.005)
        assert ordered_map(read, items, workers=workers, label="x", unit="x") == [item * item for item in items]
    assert ordered_map(_squares, [], workers=1, label="x", unit="x") == []


def test_a_worker_that_fails_is_reported() -> None:
    for how, kind, message in (
        ("exit", MachineError, "ended early; found exit status 3"),
        ("raise", WorkerError, "KeyError: 'lost'"),
    ):
        read = functools.partial(_fail, parent=os.getpid(), how=how)
        with pytest.raises(kind, match=message):
            ordered_map(read, list(range(200)), workers=2, label="x", unit="x")


@pytest.mark.slow
def test_interrupting_leaves_no_process_and_no_traceback(tmp_path: Path) -> None:
    script = f"import time, sys; sys.path.insert(0, {str(Path(__file__).parents[3])!r})\n" + textwrap.dedent("""
        import signal
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin with it ignored
        from tests.annotations.io.test_workers import sleep_long
        from d2tune.annotations.io.workers import ordered_map
        try:
            ordered_map(sleep_long, list(range(100)), workers=3, label="x", unit="x")
        except KeyboardInterrupt:
            print("interrupted")
    """)
    process = psutil.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    until = time.monotonic() + 60
    while len(crew := process.children()) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(1)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (out, err, process.returncode) == (b"interrupted\n", b"", 0)
    assert len(crew) == 2
    assert not any(child.is_running() for child in crew)


def sleep_long(items: Sequence[int]) -> list[int]:
    time.sleep(20)
    return list(items)


@pytest.mark.extended
def test_a_bar_is_shown_on_a_terminal_alone() -> None:
    import fcntl
    import pty
    import struct
    import termios

    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[3])!r})\n" + textwrap.dedent("""
        from tests.annotations.io.test_workers import doze
        from d2tune.annotations.io.workers import ordered_map
        ordered_map(doze, list(range(60)), workers=1, label="reading", unit="file")
    """)
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, timeout=120).stderr == b""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(command, stderr=theirs)
    assert process.wait(timeout=120) == 0
    os.close(theirs)
    assert b"reading:" in os.read(ours, 4096)
    os.close(ours)


def doze(items: Sequence[int]) -> list[int]:
    time.sleep(0.06 * len(items))
    return list(items)


def test_how_many_workers() -> None:
    assert worker_count(None, 10) == 1
    assert worker_count(3, 2) == 2
    assert worker_count(5, 1000) == 5
    with pytest.raises(DataError, match="must be 1 or more"):
        worker_count(0, 10)
