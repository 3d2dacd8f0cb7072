"""Running a model over many images: the next batch is loaded, and the last one finished, while the network works."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Generic, Protocol, TypeVar
from weakref import WeakSet

import torch
from torch import nn
from tqdm import tqdm

from d2tune.errors import DataError
from d2tune.inference.fused import fused_norms
from d2tune.timing import StageTimes

Raw = TypeVar("Raw")
Finished = TypeVar("Finished")

Sample = dict[str, Any]
"""What a Detectron2 model takes: ``image`` ``(C, h, w)``, and the image's own ``height`` and ``width``."""

LOOKAHEAD = 64
"""Images whose sizes are looked at together to make batches of equal size; results wait for at most as many."""

_CUDA_BATCH = 8
_CPU_BATCH, _CPU_BATCH_PX = 4, 1_000_000
"""Four of 384 x 512 px were measured to be a quarter faster than one by one, three of 544 x 832 px a tenth slower."""
_BATCHES_BEHIND = 2
"""Batches whose masks may still be waiting to be encoded; more would only take memory."""


class Samples(Protocol):
    """Images to run on, in order."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample:
        """The sample.

        Raises:
            DataError: The image cannot be read.
        """

    def input_size(self, index: int) -> tuple[int, int]:
        """Height and width of the ``image`` of a sample, known without loading it."""


_READY: WeakSet[nn.Module] = WeakSet()
"""Models whose norms are within their convolutions at present."""


@contextmanager
def inference_mode(model: Any) -> Iterator[None]:
    """Evaluation mode, norms within their convolutions; what was is restored at the end.

    Inside another one for the same model this does nothing, so that norms are fused once. Gradients are turned off
    where the network is called, because this may last while a generator is suspended.

    Args:
        model: A module; another callable is left as it is.
    """
    if not isinstance(model, nn.Module) or model in _READY:
        yield
        return
    was_training = model.training
    model.eval()
    _READY.add(model)
    try:
        with fused_norms(model):
            yield
    finally:
        _READY.discard(model)
        model.train(was_training)


def stream(
    model: Any,
    samples: Samples,
    forward: Callable[[Any, Sequence[Sample]], Sequence[Raw]],
    finish: Callable[[int, Sample, Raw], Finished],
    *,
    description: str = "evaluating",
    show_progress: bool | None = None,
    batch_size: int | None = None,
    times: StageTimes | None = None,
) -> Iterator[Finished | DataError]:
    """Run a model over samples, and give what is finished in their order.

    Only images that the network would pad to one size share a batch, so that the batch changes no result. In memory
    there are the images of a few batches, and what is finished of at most twice `LOOKAHEAD` images.

    Args:
        model: The model, a module or a callable.
        samples: The images.
        forward: Runs the model on a batch and brings its output off the device, one entry for each sample.
        finish: Takes the index of a sample, the sample and its entry, in a thread of its own, one after the other, and
            not in order.
        description: What the progress bar says.
        show_progress: Whether to draw a progress bar; None draws one on a terminal.
        batch_size: Images per forward pass; None is 8 on CUDA, and on the CPU up to 4, fewer for large images.
        times: Takes the time of each stage.

    Yields:
        What ``finish`` returned for each sample, or the error of an image that cannot be read.
    """
    times = times or StageTimes()
    began = time.perf_counter()
    batches = batches_of(samples, batch_size, on_cuda=is_on_cuda(model), divisibility=_divisibility(model))

    def finish_batch(loaded: Sequence[tuple[int, Sample]], raw: Sequence[Raw]) -> dict[int, Finished]:
        start = time.perf_counter()
        done = {index: finish(index, sample, one) for (index, sample), one in zip(loaded, raw, strict=True)}
        times.postprocess_s += time.perf_counter() - start
        return done

    quiet = None if show_progress is None else not show_progress
    bar = tqdm(total=len(samples), desc=description, unit="image", leave=False, disable=quiet)
    behind: deque[Future[dict[int, Finished]]] = deque()
    order = _InOrder[Finished](bar.update)
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
                with torch.no_grad():
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
    """Puts what was finished back into the order of the samples."""

    def __init__(self, on_count: Callable[[int], object]) -> None:
        self._waiting: dict[int, Finished | DataError] = {}
        self._next = 0
        self._on_count = on_count

    def add(self, finished: Mapping[int, Finished | DataError]) -> None:
        """Take what was finished, by index."""
        self._waiting.update(finished)
        self._on_count(len(finished))

    def ready(self) -> Iterator[Finished | DataError]:
        """Everything whose predecessors have come."""
        while self._next in self._waiting:
            yield self._waiting.pop(self._next)
            self._next += 1


def is_on_cuda(model: Any) -> bool:
    """Whether the model's parameters are on a CUDA device."""
    parameter = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return parameter is not None and parameter.is_cuda


def _divisibility(model: Any) -> int:
    own = model if hasattr(model, "size_divisibility") else getattr(model, "backbone", None)
    return max(1, int(getattr(own, "size_divisibility", 1)))


def batches_of(
    samples: Samples, batch_size: int | None, *, on_cuda: bool = False, divisibility: int = 1
) -> Iterator[list[int]]:
    """Indices of images that the network pads to one size.

    Among each `LOOKAHEAD` images the batches are in the order of the first image of each size.

    Args:
        samples: The images.
        batch_size: Images in a batch; None chooses by the size and the device.
        on_cuda: Whether the model is on a CUDA device.
        divisibility: The network pads sides to multiples of this many pixels.
    """
    for start in range(0, len(samples), LOOKAHEAD):
        groups: dict[tuple[int, int], list[int]] = {}
        for index in range(start, min(start + LOOKAHEAD, len(samples))):
            height_px, width_px = (-(-side // divisibility) * divisibility for side in samples.input_size(index))
            groups.setdefault((height_px, width_px), []).append(index)
        for (height_px, width_px), group in groups.items():
            fitting = max(1, min(_CPU_BATCH, _CPU_BATCH_PX // max(1, height_px * width_px)))
            size = batch_size or (_CUDA_BATCH if on_cuda else fitting)
            yield from (group[at : at + size] for at in range(0, len(group), size))


class _Loading:
    """Loads the images of the coming batches in threads, so many ahead that one batch is always waiting."""

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
        """The samples of each batch by index, and the errors of those that cannot be read."""
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
