"""Semantic prediction on images of any size: overlapping windows, blended, in memory that the window bounds."""

from __future__ import annotations

import math
import tempfile
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import IO, Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from d2tune.errors import ProjectError, RunError
from d2tune.inference.loop import inference_mode

LEFT_OUT = 255
"""The class id of pixels without data in any channel."""

_CUDA_BATCH, _CPU_BATCH = 8, 1  # four windows at once take four times the memory
_CARRY_IN_MEMORY_BYTES = 1 << 28

SemanticModel = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]
"""Takes Detectron2's samples (``image`` ``(C, h, w)``, ``height``, ``width``); gives ``sem_seg`` ``(K, h, w)`` each."""


class Image(Protocol):
    """An image that is read by windows; `d2tune.annotations.io.rasters.Raster` is one."""

    @property
    def height_px(self) -> int: ...

    @property
    def width_px(self) -> int: ...

    def read(self, top_px: int, left_px: int, height_px: int, width_px: int) -> NDArray[Any]:
        """The window ``(h, w, C)``: uint8, or float32 with NaN where there is no data."""


class FinishedRows(NamedTuple):
    """Rows of an image that no window will change any more.

    Attributes:
        top_px: The first of these rows in the image.
        class_ids: ``(h, W)`` contiguous class ids; 255 where no channel has data.
        confidence: ``(h, W)`` blended probability of that class, 0 where no channel has data; None if not asked for.
    """

    top_px: int
    class_ids: NDArray[np.uint8]
    confidence: NDArray[np.float32] | None


def predict_rows(
    model: SemanticModel,
    image: Image,
    *,
    classes: int,
    window_px: int,
    overlap: float = 0.25,
    scores: Literal["logits", "probabilities"] = "logits",
    with_confidence: bool = False,
    batch_size: int | None = None,
    show_progress: bool | None = None,
) -> Generator[FinishedRows, None, None]:
    """The class of every pixel, found in overlapping windows, as rows from top to bottom.

    Windows begin every ``window_px * (1 - overlap)`` pixels; the last one of each axis is moved back to end with the
    image. An image smaller than a window is one window of its own size; nothing is padded.

    Where windows overlap, their probabilities are averaged. The weight of a window is 0 in the outer quarter of the
    overlap, where it sees too little around a pixel, rises linearly over the middle half and is 1 further in. It does
    not fall towards the borders of the image. So a network that looks no further than a quarter of the overlap gives
    just what it would give on the whole image.

    Memory is bounded by the window and the batch: of the whole width there are only the finished rows, one byte a pixel
    (five with the confidence). What windows leave for those below them beyond 256 MB goes to a temporary file, of
    ``window_px * overlap * W * classes`` float32.

    The blending adds in one order, whatever the batch. So the maps are the same for all batch sizes where the model
    computes each image of a batch as it would alone. Some libraries' kernels differ in a last bit there, which shows
    only where two classes are equal but for that bit.

    Args:
        model: A module or callable; a module runs in evaluation mode. Its batches hold windows of one size.
        image: What to predict on.
        classes: K, the number of planes of ``sem_seg``; at most 255.
        window_px: Height and width of a window.
        overlap: Share of a window that the next one covers too, from 0 to below 1.
        scores: What ``sem_seg`` holds; logits pass a softmax over the classes first.
        with_confidence: Whether to give the probability of the class as well.
        batch_size: Windows in a forward pass; None is 8 on CUDA and 1 on the CPU.
        show_progress: Whether to draw a progress bar of the windows; None draws one on a terminal.

    Raises:
        ProjectError: ``window_px``, ``overlap`` or ``batch_size`` cannot be meant.
        RunError: The model gives another number of planes, or planes of another size.
    """
    if window_px < 1:
        raise ProjectError("a window needs pixels", place="window_px", found=str(window_px), expected="1 or more")
    if not 0 <= overlap < 1:
        raise ProjectError("windows cannot overlap so", place="overlap", found=str(overlap), expected="0 to below 1")
    if batch_size is not None and batch_size < 1:
        raise ProjectError("a batch needs windows", place="batch_size", found=str(batch_size), expected="1 or more")
    if not 1 <= classes <= LEFT_OUT:
        raise ProjectError(
            "a label map has class ids of one byte", place="classes", found=str(classes), expected="1 to 255"
        )
    overlap_px = min(round(overlap * window_px), window_px - 1)
    rows = _axis(image.height_px, window_px, overlap_px)
    columns = _axis(image.width_px, window_px, overlap_px)
    run = partial(_run, model, classes=classes, are_logits=scores == "logits")
    windows = _windows(run, image, rows, columns, batch_size or (_CUDA_BATCH if _is_on_cuda(model) else _CPU_BATCH))
    return _blended(windows, rows, columns, with_confidence=with_confidence, show_progress=show_progress)


@dataclass(frozen=True, slots=True)
class _Axis:
    """How windows lie along one side of the image.

    Attributes:
        length_px: Of the side.
        size_px: Of every window.
        starts: Where each begins.
        weights: ``(size_px,)`` of each; those over one pixel add up to 1.
    """

    length_px: int
    size_px: int
    starts: tuple[int, ...]
    weights: tuple[torch.Tensor, ...]

    def finished_px(self, index: int) -> int:
        """How far a window reaches before the next one begins; the last one reaches to the end."""
        return (*self.starts, self.length_px)[index + 1] - self.starts[index]


def _axis(length_px: int, window_px: int, overlap_px: int) -> _Axis:
    size_px = min(window_px, length_px)
    last = length_px - size_px
    starts = (*range(0, last, window_px - overlap_px), last)
    raw = [_falloff(size_px, overlap_px, at_start=start > 0, at_end=start < last) for start in starts]
    total = np.zeros(length_px)
    for start, weight in zip(starts, raw, strict=True):
        total[start : start + size_px] += weight
    shares = [weight / total[start : start + size_px] for start, weight in zip(starts, raw, strict=True)]
    return _Axis(length_px, size_px, starts, tuple(torch.from_numpy(share.astype(np.float32)) for share in shares))


def _falloff(size_px: int, overlap_px: int, *, at_start: bool, at_end: bool) -> NDArray[np.float64]:
    """``(size_px,)``: 1, and falling to 0 towards those ends that have a neighbor."""
    outer_px = overlap_px // 4
    ramp = np.clip((np.arange(size_px) - outer_px + 0.5) / max(1, overlap_px - 2 * outer_px), 0, 1)
    flat = np.ones(size_px)
    if not overlap_px:
        return flat
    return np.minimum(ramp if at_start else flat, ramp[::-1] if at_end else flat)


class _Window(NamedTuple):
    """What there is in a window: ``(h, w)`` pixels without data (None if all have some), and the sample to run on.

    A window without any data has no sample, and later no probabilities.
    """

    no_data: NDArray[np.bool_] | None
    sample: dict[str, Any] | None


class _Scored(NamedTuple):
    """``(h, w)`` pixels of a window without data, and ``(K, h, w)`` probabilities."""

    no_data: NDArray[np.bool_] | None
    probabilities: torch.Tensor | None


def _windows(
    run: Callable[[list[dict[str, Any]]], list[torch.Tensor]],
    image: Image,
    rows: _Axis,
    columns: _Axis,
    batch_size: int,
) -> Generator[_Scored, None, None]:
    """Every window, row by row; a thread reads the next batch while the network works on one."""
    corners = list(product(rows.starts, columns.starts))
    batches = [corners[at : at + batch_size] for at in range(0, len(corners), batch_size)]

    def load(batch: Sequence[tuple[int, int]]) -> list[_Window]:
        return [_load(image.read(*corner, rows.size_px, columns.size_px)) for corner in batch]

    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(load, batches[0])
        for following in (*batches[1:], []):
            batch = coming.result()
            coming = reader.submit(load, following)
            outputs = iter(run([window.sample for window in batch if window.sample is not None]))
            for window in batch:
                yield _Scored(window.no_data, None if window.sample is None else next(outputs))


def _load(pixels: NDArray[Any]) -> _Window:
    no_data = None
    if pixels.dtype.kind == "f":
        no_data = np.isnan(pixels).all(axis=2)
        if no_data.all():
            return _Window(no_data, None)
        no_data = no_data if no_data.any() else None
    image = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
    return _Window(no_data, {"image": image, "height": pixels.shape[0], "width": pixels.shape[1]})


def _run(model: SemanticModel, samples: list[dict[str, Any]], *, classes: int, are_logits: bool) -> list[torch.Tensor]:
    """Probabilities ``(K, h, w)`` of each sample, float32, on the model's device and nobody else's."""
    if not samples:
        return []
    with inference_mode(model), torch.no_grad():
        planes = [output["sem_seg"] for output in model(samples)]
        for plane, sample in zip(planes, samples, strict=True):
            expected = (classes, sample["height"], sample["width"])
            if tuple(plane.shape) != expected:
                raise RunError(
                    "the model gives other scores than the classes and the window ask for",
                    found=" x ".join(map(str, plane.shape)),
                    expected=" x ".join(map(str, expected)),
                    hint="Predict with the classes that the model was trained on.",
                )
        if are_logits:
            return [torch.softmax(plane, dim=0, dtype=torch.float32) for plane in planes]
        return [plane.to(torch.float32, copy=True) for plane in planes]


def _is_on_cuda(model: SemanticModel) -> bool:
    return isinstance(model, nn.Module) and any(parameter.is_cuda for parameter in model.parameters())


def _blended(
    windows: Generator[_Scored, None, None],
    rows: _Axis,
    columns: _Axis,
    *,
    with_confidence: bool,
    show_progress: bool | None,
) -> Generator[FinishedRows, None, None]:
    """The rows that each row of windows finishes."""
    bar = tqdm(
        total=len(rows.starts) * len(columns.starts),
        desc="predicting",
        unit="window",
        leave=False,
        disable=None if show_progress is None else not show_progress,
    )
    scratch = partial(tempfile.SpooledTemporaryFile, _CARRY_IN_MEMORY_BYTES // 2)
    with bar, closing(windows), scratch() as above, scratch() as below:
        carry = _Carry(above, below)
        for row, top in enumerate(rows.starts):
            height_px = rows.finished_px(row)
            class_ids = np.full((height_px, columns.length_px), LEFT_OUT, np.uint8)
            confidence = np.zeros(class_ids.shape, np.float32) if with_confidence else None
            from_left: torch.Tensor | None = None
            for column, left in enumerate(columns.starts):
                no_data, total = next(windows)
                width_px = columns.finished_px(column)
                from_above = carry.take() if row else None
                if total is not None:
                    total.mul_(torch.outer(rows.weights[row], columns.weights[column]).to(total.device))
                    if from_left is not None:
                        total[:, :, : from_left.shape[2]] += from_left
                    if from_above is not None:
                        total[:, : from_above.shape[1], :width_px] += from_above.to(total.device)
                    best, probability = _best(total[:, :height_px, :width_px])
                    place = np.s_[:, left : left + width_px]
                    has_data = True if no_data is None else ~no_data[:height_px, :width_px]
                    np.copyto(class_ids[place], best, where=has_data)
                    if confidence is not None:
                        np.copyto(confidence[place], probability.cpu().numpy(), where=has_data)
                carry.put(None if total is None else total[:, height_px:, :width_px])
                from_left = None if total is None else total[:, :, width_px:]
                bar.update()
            carry.turn()
            yield FinishedRows(top, class_ids, confidence)


def _best(sums: torch.Tensor) -> tuple[NDArray[np.uint8], torch.Tensor]:
    """The class ``(h, w)`` with the largest sum of ``(K, h, w)``, the first of equal ones, and that sum, at most 1."""
    highest = sums[0].clone()
    best = torch.zeros(highest.shape, dtype=torch.uint8, device=sums.device)
    for class_id in range(1, len(sums)):  # a third of the time that `max(dim=0)` takes
        is_higher = (sums[class_id] > highest).view(torch.uint8)
        torch.maximum(best, is_higher * class_id, out=best)
        torch.maximum(highest, sums[class_id], out=highest)
    return best.cpu().numpy(), highest.clamp_(max=1)


class _Carry:
    """What each row of windows leaves for the one below, in the order of the columns, in memory or in files."""

    def __init__(self, above: IO[bytes], below: IO[bytes]) -> None:
        self._above, self._below = above, below
        self._shapes_above: deque[tuple[int, ...] | None] = deque()
        self._shapes_below: deque[tuple[int, ...] | None] = deque()

    def put(self, sums: torch.Tensor | None) -> None:
        """Keep the sums ``(K, h, w)`` of the next column for the row below; None where there are none."""
        if sums is None or not sums.numel():
            self._shapes_below.append(None)
            return
        self._shapes_below.append(tuple(sums.shape))
        self._below.write(sums.contiguous().cpu().numpy().data)

    def take(self) -> torch.Tensor | None:
        """What the row above kept for the next column."""
        shape = self._shapes_above.popleft()
        if shape is None:
            return None
        content = bytearray(self._above.read(4 * math.prod(shape)))
        return torch.from_numpy(np.frombuffer(content, np.float32).reshape(shape))

    def turn(self) -> None:
        """Go on to the next row of windows: what was below is above."""
        self._above, self._below = self._below, self._above
        self._shapes_above, self._shapes_below = self._shapes_below, deque()
        self._above.seek(0)
        self._below.seek(0)
        self._below.truncate()
