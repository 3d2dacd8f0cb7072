"""Processes that load training images: their errors are a line, and signals to all processes do not end them."""

from __future__ import annotations

import pickle
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from d2tune.data.batches import SampleKey
from d2tune.engine.loading import ImageLoader, ReportedErrors, outlive_stop_signals
from d2tune.engine.trainer import next_batch
from d2tune.errors import DataError, RunError


class Samples(torch.utils.data.Dataset[dict[str, Any]]):
    """Fails for the index 1 with an error that is given."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __getitem__(self, key: SampleKey) -> dict[str, Any]:
        if key.index == 1:
            raise self._error
        return {"index": key.index}


def keys(*indices: int) -> list[list[SampleKey]]:
    return [[SampleKey(index, 64, 0)] for index in indices]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("error", "message"),
    [
        (DataError("is truncated", file="a.jpg", hint="Save it again."), "a.jpg: is truncated. Save it again."),
        (OSError(5, "Input/output error"), "b.jpg: cannot be loaded: [Errno 5] Input/output error. Correct or remove"),
        (ValueError("first line\nsecond line"), "b.jpg: cannot be loaded: first line. Correct or remove the image."),
        (MemoryError(), "b.jpg: cannot be loaded: MemoryError."),
    ],
)
def test_an_image_that_cannot_be_loaded_is_a_line(error: Exception, message: str, workers: int) -> None:
    samples = ReportedErrors(Samples(error), [Path("a.jpg"), Path("b.jpg")])
    loader = DataLoader(samples, batch_sampler=keys(0, 1, 0), num_workers=workers, collate_fn=list)
    batches = iter(loader)
    assert next_batch(batches) == [{"index": 0, "file_name": "a.jpg"}]
    with pytest.raises(DataError) as caught:
        next_batch(batches)
    assert caught.value.one_line().startswith(message) and "Traceback" not in caught.value.one_line()


def test_an_error_of_the_program_is_not_one_of_the_image() -> None:
    with pytest.raises(TypeError):
        ReportedErrors(Samples(TypeError("a bug")), [None, None])[SampleKey(1, 64, 0)]


def test_errors_keep_their_place_between_processes() -> None:
    error = pickle.loads(pickle.dumps(DataError("is truncated", file="a.jpg", found="3 bytes", hint="Save it again.")))
    assert error.one_line() == "a.jpg: is truncated; found 3 bytes. Save it again."


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_loading_process_outlives_signals_of_others_and_obeys_its_trainer(name: str) -> None:
    samples = ReportedErrors(Samples(ValueError()), [None, None])
    loader: Any = ImageLoader(
        samples,
        batch_sampler=keys(*[0] * 20),
        num_workers=1,
        collate_fn=list,
        prefetch_factor=1,
        worker_init_fn=outlive_stop_signals,
    )
    batches = iter(loader)
    next_batch(batches)
    (worker,) = batches._workers
    subprocess.run(["kill", f"-{name.removeprefix('SIG')}", str(worker.pid)], check=True)
    for _ in range(5):
        assert next_batch(batches) == [{"index": 0}]
    assert worker.is_alive()
    worker.terminate()
    worker.join(timeout=20)
    assert worker.exitcode == 0, "it ends when its trainer asks for it"


def test_a_loading_process_with_threads_outlives_signals_of_others() -> None:
    samples = ReportedErrors(Samples(ValueError()), [None, None])
    loader: Any = ImageLoader(
        samples, batch_sampler=keys(*[0] * 40), num_workers=1, collate_fn=list, worker_init_fn=with_threads
    )
    batches = iter(loader)
    next_batch(batches)
    (worker,) = batches._workers
    for _ in range(20):
        subprocess.run(["kill", "-TERM", str(worker.pid)], check=True)
        assert next_batch(batches) == [{"index": 0}]
    assert worker.is_alive()
    worker.terminate()
    worker.join(timeout=20)
    assert worker.exitcode == 0, "it ends when its trainer asks for it"
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, set())


def with_threads(number: int) -> None:
    """Threads as libraries start them when a process is forked, which do not block signals."""
    for _ in range(8):
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    outlive_stop_signals(number)


def test_a_loading_process_that_was_killed_is_a_line() -> None:
    loader: Any = DataLoader(Samples(ValueError()), batch_sampler=keys(*[0] * 20), num_workers=1, collate_fn=list)
    batches = iter(loader)
    next_batch(batches)
    batches._workers[0].kill()
    with pytest.raises(RunError, match=r"train\.workers: a process that loads images was killed, .*memory ran out"):
        for _ in range(19):
            next_batch(batches)
    assert signal.getsignal(signal.SIGCHLD) is not None
