"""Running a model on many images: the next batches are loaded and previous ones finished while the network runs."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import nn
from tqdm import tqdm

from d2tune.errors import DataError, ProjectError
from d2tune.inference.fused import fused_norms
from d2tune.timing import StageTimes

Raw = TypeVar("Raw")
Finished = TypeVar("Finished")

Sample = dict[str, Any]
"""The input of a Detectron2 model: ``image`` ``(C, h, w)``, ``height`` and ``width`` of the original image."""

LOOKAHEAD = 64
"""Number of consecutive images that are grouped into batches of equal size; a result waits for at most as many."""

_CUDA_BATCH = 8
_CPU_BATCH, _CPU_BATCH_PX = 4, 1_000_000
"""Measured against single images: four of 384 x 512 px are a quarter faster, three of 544 x 832 px a tenth slower."""
_BATCHES_BEHIND = 2
"""Batches whose masks wait to be encoded; more would take memory without a gain in speed."""


class Samples(Protocol):
    """The samples of images, in order."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample:
        """Load a sample.

        Raises:
            DataError: The image cannot be read.
        """

    def input_size(self, index: int) -> tuple[int, int]:
        """Height and width of the ``image`` of a sample in pixels, without loading it."""


@dataclass(slots=True)
class _Use:
    """The use of a model by this process.

    Attributes:
        users: Number of contexts of `inference_mode`.
        kept: Restores the state of the model.
        turn: Held during a forward pass.
    """

    users: int = 0
    kept: ExitStack = field(default_factory=ExitStack)
    turn: threading.Lock = field(default_factory=threading.Lock)


_USES: WeakKeyDictionary[nn.Module, _Use] = WeakKeyDictionary()
_LOCK = threading.RLock()
"""Held while `_USES` or a model is changed; the garbage collector may end a context while its thread holds it."""


@contextmanager
def inference_mode(model: Any, *, is_own: bool = False) -> Iterator[None]:
    """Set a model to evaluation mode with fused norms; its previous state is restored when no context is left.

    Contexts for the same model, nested or in several threads, share one state, so that norms are fused once. Gradients
    are not disabled here but in `forward_pass`, because a generator may be suspended inside this context.

    Args:
        model: A module; other callables are not changed.
        is_own: Whether the norms may be fused into the parameters themselves; see `fused_norms`.
    """
    if not isinstance(model, nn.Module):
        yield
        return
    is_ending = sys.is_finalizing  # where Python ends inside this context, globals are gone before it is left
    with _LOCK:
        use = _USES.setdefault(model, _Use())
        if not use.users:
            use.kept.callback(model.train, model.training)
            model.eval()
            use.kept.enter_context(fused_norms(model, is_own=is_own))
        use.users += 1
    try:
        yield
    finally:
        if not is_ending():
            with _LOCK:
                use.users -= 1
                if not use.users:
                    use.kept.close()


@contextmanager
def forward_pass(model: Any) -> Iterator[None]:
    """Let the calling thread alone run a model, without gradients.

    Detectron2's networks do not change in evaluation mode, so that threads could run one at the same time. But a pass
    takes all cores, and several passes wait for each other's parts.

    Args:
        model: A module; other callables look after themselves.
    """
    with ExitStack() as stack:
        if isinstance(model, nn.Module):
            with _LOCK:
                turn = _USES.setdefault(model, _Use()).turn
            stack.enter_context(turn)
        stack.enter_context(torch.no_grad())
        yield


def stream(
    model: Any,
    samples: Samples,
    forward: Callable[[Any, Sequence[Sample]], Sequence[Raw]],
    finish: Callable[[int, Sample, Raw], Finished],
    *,
    description: str = "evaluating",
    unit: str = " images",
    show_progress: bool | None = None,
    batch_size: int | None = None,
    times: StageTimes | None = None,
    done: Collection[int] = (),
) -> Iterator[Finished | DataError]:
    """Run a model on samples, and yield the finished results in the order of the samples.

    Only images that the network pads to the same size share a batch, so results do not depend on the batch. The images
    of a few batches and the results of at most twice `LOOKAHEAD` images are in memory.

    Args:
        model: The model, a module or a callable.
        samples: The images.
        forward: Runs the model on a batch and moves its output off the device; returns an entry for each sample.
        finish: Called with the index of a sample, the sample and its entry, in a single thread, not in the order of
            the samples.
        description: Text of the progress bar.
        unit: What samples are, for the progress bar, with a space before it.
        show_progress: Whether to show a progress bar; None shows it on a terminal.
        batch_size: Images per forward pass; None is 8 on CUDA, and on the CPU up to 4, fewer for large images.
        times: Receives the time of each stage.
        done: Indices of samples without a result. Batches of such samples alone are not run; other batches are the
            same as without, so that their results have the same bits.

    Yields:
        The value that ``finish`` returned for each sample that is not done, or the error of an image that cannot be
        read.

    Raises:
        ProjectError: The batch size is not a whole number of 1 or more.
    """
    check_batch_size(batch_size)
    times = times or StageTimes()
    began = time.perf_counter()
    whole = batches_of(samples, batch_size, on_cuda=is_on_cuda(model), divisibility=divisibility_of(model))
    left = [index for index in range(len(samples)) if index not in done]
    batches = (batch for batch in whole if not all(index in done for index in batch))

    def finish_batch(loaded: Sequence[tuple[int, Sample]], raw: Sequence[Raw]) -> dict[int, Finished]:
        start = time.perf_counter()
        outputs = zip(loaded, raw, strict=True)
        finished = {index: finish(index, sample, output) for (index, sample), output in outputs if index not in done}
        times.postprocess_s += time.perf_counter() - start
        return finished

    quiet = None if show_progress is None else not show_progress
    bar = tqdm(
        total=len(samples), initial=len(samples) - len(left), desc=description, unit=unit, leave=False, disable=quiet
    )
    behind: deque[Future[dict[int, Finished]]] = deque()
    order = _InOrder[Finished](left, bar.update)
    with (
        inference_mode(model),
        bar,
        _Loading(samples, batches, times) as loading,
        ThreadPoolExecutor(1) as finisher,
    ):
        for loaded, failed in loading:
            order.add(failed)
            if loaded:
                start = time.perf_counter()
                with forward_pass(model):
                    raw = forward(model, [sample for _, sample in loaded])
                times.forward_s += time.perf_counter() - start
                behind.append(finisher.submit(finish_batch, loaded, raw))
            while len(behind) > _BATCHES_BEHIND or (behind and behind[0].done()):
                order.add(behind.popleft().result())
            yield from order.ready()
        while behind:
            order.add(behind.popleft().result())
            yield from order.ready()
    times.total_s += time.perf_counter() - began


class _InOrder(Generic[Finished]):
    """Puts finished results back into the order of the samples.

    Args:
        indices: The samples in order; results of others are ignored.
        on_count: Called with the number of results that were added.
    """

    def __init__(self, indices: Sequence[int], on_count: Callable[[int], object]) -> None:
        self._waiting: dict[int, Finished | DataError] = {}
        self._left = deque(indices)
        self._wanted = set(indices)
        self._on_count = on_count

    def add(self, finished: Mapping[int, Finished | DataError]) -> None:
        """Add finished results by index."""
        wanted = {index: result for index, result in finished.items() if index in self._wanted}
        self._waiting.update(wanted)
        self._on_count(len(wanted))

    def ready(self) -> Iterator[Finished | DataError]:
        """Yield all results whose predecessors have been yielded."""
        while self._left and self._left[0] in self._waiting:
            yield self._waiting.pop(self._left.popleft())


def check_batch_size(batch_size: int | None) -> None:
    """Refuse a batch size that is not a whole number of 1 or more.

    Raises:
        ProjectError: It is not.
    """
    if batch_size is not None and (not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1):
        raise ProjectError(
            "the batch size must be a whole number of 1 or more", place="--batch-size", found=repr(batch_size)
        )


def is_on_cuda(model: Any) -> bool:
    """Whether the model's parameters are on a CUDA device."""
    parameter = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return parameter is not None and parameter.is_cuda


def divisibility_of(model: Any) -> int:
    """The number of pixels to whose multiples a model pads the sides of images."""
    own = model if hasattr(model, "size_divisibility") else getattr(model, "backbone", None)
    return max(1, int(getattr(own, "size_divisibility", 1)))


def batches_of(
    samples: Samples, batch_size: int | None, *, on_cuda: bool = False, divisibility: int = 1
) -> Iterator[list[int]]:
    """Yield batches of image indices; the network pads the images of a batch to the same size.

    Among each `LOOKAHEAD` images the batches are in the order of the first image of each size.

    Args:
        samples: The images.
        batch_size: Images per batch; None chooses by their size and the device.
        on_cuda: Whether the model is on a CUDA device.
        divisibility: The network pads sides to multiples of this many pixels.
    """
    for start in range(0, len(samples), LOOKAHEAD):
        groups: dict[tuple[int, int], list[int]] = {}
        for index in range(start, min(start + LOOKAHEAD, len(samples))):
            height_px, width_px = (-(-side // divisibility) * divisibility for side in samples.input_size(index))
            groups.setdefault((height_px, width_px), []).append(index)
        for (height_px, width_px), group in groups.items():
            size = batch_size or fitting_batch(height_px, width_px, on_cuda=on_cuda)
            yield from (group[at : at + size] for at in range(0, len(group), size))


def fitting_batch(height_px: int, width_px: int, *, on_cuda: bool) -> int:
    """The number of images of a size that a forward pass takes at best: 8 on CUDA, and up to 4 on the CPU."""
    return _CUDA_BATCH if on_cuda else max(1, min(_CPU_BATCH, _CPU_BATCH_PX // max(1, height_px * width_px)))


class _Loading:
    """Loads the images of the next batches in threads, so that a loaded batch is always waiting."""

    def __init__(self, samples: Samples, batches: Iterator[Sequence[int]], times: StageTimes) -> None:
        self._samples = samples
        self._times = times
        self._batches = batches
        self._waiting: deque[list[tuple[int, Future[tuple[Sample, float]]]]] = deque()
        self._pool = ThreadPoolExecutor(max(1, min(8, (os.cpu_count() or 2) // 2)))

    def __enter__(self) -> _Loading:
        self._submit()
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _submit(self) -> None:
        batch = next(self._batches, None)
        if batch is not None:
            self._waiting.append([(index, self._pool.submit(self._load, index)) for index in batch])

    def _load(self, index: int) -> tuple[Sample, float]:
        start = time.perf_counter()
        return self._samples[index], time.perf_counter() - start

    def __iter__(self) -> Iterator[tuple[list[tuple[int, Sample]], dict[int, DataError]]]:
        """Yield the samples of each batch by index, and the errors of images that cannot be read."""
        while self._waiting:
            self._submit()
            loaded: list[tuple[int, Sample]] = []
            failed: dict[int, DataError] = {}
            for index, future in self._waiting.popleft():
                try:
                    sample, seconds = future.result()
                except DataError as error:
                    failed[index] = error
                else:
                    self._times.load_s += seconds
                    loaded.append((index, sample))
            yield loaded, failed
