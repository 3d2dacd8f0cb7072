"""The lock of a run folder: one training at a time, freed by the end of its process."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from d2tune import run_lock
from d2tune.errors import RunError
from d2tune.run_folder import new_run
from d2tune.run_lock import LOCK, Holder, holder_of, left_behind, locked, note

HOLD = """
import sys, time
from pathlib import Path
from d2tune.run_lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def holding(folder: Path) -> subprocess.Popen[str]:
    """Another process that holds the lock until it gets a line."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_another_process_is_refused_with_the_one_that_has_it(tmp_path: Path) -> None:
    process = holding(tmp_path)
    with pytest.raises(RunError) as caught, locked(tmp_path):
        pass
    line = caught.value.one_line()
    assert f"the run folder is in use by process {process.pid} on {socket.gethostname()} since 20" in line
    process.communicate("\n")
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path):
        assert json.loads((tmp_path / LOCK).read_bytes())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_has_it_no_longer(tmp_path: Path) -> None:
    process = holding(tmp_path)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert (tmp_path / LOCK).is_file()
    with locked(tmp_path):
        pass


def test_processes_that_were_forked_do_not_hold_it(tmp_path: Path) -> None:
    """Those that load images may live for some seconds after a kill."""
    fork = multiprocessing.get_context("fork")
    end = fork.Event()
    with locked(tmp_path):
        child = fork.Process(target=end.wait)
        child.start()
    process = holding(tmp_path)
    process.communicate("\n")
    end.set()
    child.join()


def test_the_same_process_is_refused_too(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(RunError, match=f"in use by process {os.getpid()} on"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


@pytest.mark.parametrize(
    ("pid", "host", "is_free"),
    [(os.getpid(), socket.gethostname(), False), (2**22 - 1, socket.gethostname(), True), (1, "elsewhere", False)],
    ids=["running here", "gone here", "elsewhere"],
)
def test_without_locks_of_the_system_the_process_is_looked_for(
    pid: int, host: str, is_free: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_lock, "fcntl", None)
    (tmp_path / LOCK).write_text(json.dumps({"pid": pid, "host": host, "since": "2026-01-01 00:00:00"}), "utf-8")
    if is_free:
        with locked(tmp_path):
            pass
        return
    with (
        pytest.raises(RunError, match=rf"in use by process {pid} on {host} since 2026.*remove \.lock"),
        locked(tmp_path),
    ):
        pass


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"pid": "x", "host": 1, "since": 2}'])
def test_a_damaged_lock_file_holds_nothing(content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / LOCK).write_text(content, "utf-8")
    with locked(tmp_path):
        pass
    (tmp_path / LOCK).write_text(content, "utf-8")
    monkeypatch.setattr(run_lock, "fcntl", None)
    with locked(tmp_path):
        pass


def start_runs(root: str, barrier: object, folders: object, count: int) -> None:
    for _ in range(count):
        barrier.wait()  # type: ignore[attr-defined]
        with new_run("p", output_dir=None, root=Path(root)) as run:
            folders.put(str(run.path))  # type: ignore[attr-defined]


def test_runs_that_start_at_once_get_folders_of_their_own(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    barrier, folders = fork.Barrier(4), fork.Queue()
    starting = [fork.Process(target=start_runs, args=(str(tmp_path), barrier, folders, 25)) for _ in range(4)]
    for process in starting:
        process.start()
    paths = [folders.get(timeout=60) for _ in range(100)]
    for process in starting:
        process.join()
    assert len(set(paths)) == 100 == len(list((tmp_path / "p").iterdir()))


def start_in(folder: str, barrier: object, answers: object) -> None:
    barrier.wait()  # type: ignore[attr-defined]
    try:
        with new_run("p", output_dir=Path(folder)) as run:
            (run.path / "record.json").write_text("{}", "utf-8")
            answers.put("trained")  # type: ignore[attr-defined]
    except RunError as error:
        answers.put(error.message)  # type: ignore[attr-defined]


def test_one_of_several_gets_a_named_folder(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    for number in range(20):
        barrier, answers = fork.Barrier(3), fork.Queue()
        args = (str(tmp_path / str(number)), barrier, answers)
        starting = [fork.Process(target=start_in, args=args) for _ in range(3)]
        for process in starting:
            process.start()
        results = sorted(answers.get(timeout=60) for _ in starting)
        for process in starting:
            process.join()
        assert results.count("trained") == 1, results
        assert all(one == "trained" or "not empty" in one or "in use" in one for one in results)


@pytest.mark.parametrize("has_locks", [True, False])
def test_who_holds_a_lock_is_seen_without_taking_it(
    has_locks: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_locks:
        monkeypatch.setattr(run_lock, "fcntl", None)
    assert holder_of(tmp_path) is None and left_behind(tmp_path) is None
    process = holding(tmp_path)
    holder = holder_of(tmp_path)
    assert holder is not None and (holder.pid, holder.host) == (process.pid, socket.gethostname())
    assert holder_of(tmp_path) == holder and left_behind(tmp_path) is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    killed = left_behind(tmp_path)
    assert holder_of(tmp_path) is None and killed is not None and killed.pid == process.pid


def test_a_note_of_a_process_that_the_holder_started(tmp_path: Path) -> None:
    """With several GPUs the processes that train are not the one that holds the lock."""
    fork = multiprocessing.get_context("fork")
    with locked(tmp_path):
        note(tmp_path, "training " + "x" * 500)
        assert (tmp_path / LOCK).stat().st_size == 512
        code = (
            f"from pathlib import Path; from d2tune.run_lock import note; note(Path({str(tmp_path)!r}), 'evaluating')"
        )
        subprocess.run([sys.executable, "-c", code], check=True)
        holder = holder_of(tmp_path)
        assert holder is not None and (holder.pid, holder.doing) == (os.getpid(), "evaluating")
        looking = fork.Process(target=holder_of, args=(tmp_path,))
        looking.start()
        looking.join()
        with pytest.raises(RunError):
            _try_elsewhere(tmp_path)


def _try_elsewhere(folder: Path) -> None:
    """Take the lock in another process, whose error is raised here."""
    code = f"from pathlib import Path; from d2tune.run_lock import locked\nwith locked(Path({str(folder)!r})): pass"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RunError(done.stderr.splitlines()[-1])


def test_a_lock_file_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    assert Holder.of(b'{"pid": 7, "host": "h", "since": "2026-01-01 00:00:00"}') == Holder(
        7, "h", "2026-01-01 00:00:00"
    )
