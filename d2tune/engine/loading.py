"""What a process that loads training images does about signals and about images that cannot be read."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import torch

from d2tune.data.batches import SampleKey
from d2tune.errors import DataError
from d2tune.text import reason_of

FILE = "file_name"
"""Entry of a sample with the path of its image, for messages."""


class ReportedErrors(torch.utils.data.Dataset[Any]):
    """Training samples with the path of their image; in place of one that cannot be read there is the `DataError`.

    An error that a loading process raises itself would reach the trainer as the text of its traceback.

    Args:
        samples: The samples, by ``SampleKey``.
        files: The file of each image, for messages.
    """

    def __init__(self, samples: torch.utils.data.Dataset[dict[str, Any]], files: Sequence[Path | None]) -> None:
        self._samples = samples
        self._files = files

    def __getitem__(self, key: SampleKey) -> dict[str, Any] | DataError:
        try:
            sample, file = self._samples[key], self._files[key.index]
            return sample if file is None else {**sample, FILE: str(file)}
        except DataError as error:
            return error
        except (OSError, ValueError, MemoryError, cv2.error) as error:
            hint = "Correct or remove the image."
            return DataError(f"cannot be loaded: {reason_of(error)}", file=self._files[key.index], hint=hint)


class ImageLoader(torch.utils.data.DataLoader[Any]):
    """PyTorch's loader, whose processes block SIGTERM from their start on, for `outlive_stop_signals` to look at.

    Blocked in the process itself it would still reach the threads that libraries start in it before.
    """

    def __iter__(self) -> Any:
        if not hasattr(signal, "pthread_sigmask"):
            return super().__iter__()
        earlier = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            return super().__iter__()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, earlier)


def outlive_stop_signals(number: int) -> None:
    """Leave it to the trainer to end this loading process.

    Ctrl-C, ``timeout`` and batch systems send their signals to all processes of a training. Without those that load
    its images the trainer could not complete the step. SIGTERM is obeyed where it comes from the trainer.

    Args:
        number: Number of the loading process of an `ImageLoader`, which is not used.
    """
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(signal.Signals[name], signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return
    threading.Thread(target=_obey, args=(os.getppid(),), daemon=True).start()


def _obey(trainer: int) -> None:
    """End this process when its trainer asks for it."""
    while True:
        received = signal.sigwaitinfo({signal.SIGTERM})
        if received.si_pid == trainer or os.getppid() != trainer:
            os._exit(0)
