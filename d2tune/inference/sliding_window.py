"""The class of each pixel of images of any size in overlapping, blended windows; the window bounds the memory."""

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
from typing import IO, Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from d2tune.annotations.formats.semantic import IGNORE_LABEL
from d2tune.data.mapper import to_tensor
from d2tune.data.semantic_mapper import resized
from d2tune.errors import ProjectError, RunError
from d2tune.inference.loop import forward_pass, inference_mode
from d2tune.inference.windows import WindowedImage, Windows, scaled_size, starts

DEFAULT_OVERLAP = 0.25
"""Share of a window that the next window covers as well."""
_CUDA_BATCH, _CPU_BATCH = 8, 1  # memory grows with the batch
_CARRY_IN_MEMORY_BYTES = 1 << 28

SemanticModel = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]
"""From Detectron2's samples (``image`` ``(C, h, w)``, ``height``, ``width``) to ``sem_seg`` ``(K, h, w)`` for each."""


class FinishedRows(NamedTuple):
    """Finished rows of an image.

    Attributes:
        top_px: Index of the first of these rows in the image.
        class_ids: ``(h, W)`` contiguous class ids; 255 for pixels without data in all channels.
        confidence: ``(h, W)`` blended probability of that class, 0 for pixels without data; None without
            ``with_confidence``.
    """

    top_px: int
    class_ids: NDArray[np.uint8]
    confidence: NDArray[np.float32] | None


def predict_rows(
    model: SemanticModel,
    image: WindowedImage,
    *,
    classes: int,
    window_px: int,
    overlap: float = DEFAULT_OVERLAP,
    scores: Literal["logits", "probabilities"] = "logits",
    with_confidence: bool = False,
    batch_size: int | None = None,
    show_progress: bool | None = None,
) -> Generator[FinishedRows, None, None]:
    """Predict the class of each pixel in overlapping windows, and yield rows from top to bottom.

    Windows begin every ``window_px * (1 - overlap)`` pixels; the last window of each axis is moved back to end at the
    border of the image. An image smaller than a window is a single window of the size of the image; nothing is padded.

    Where windows overlap, their probabilities are averaged. The weight of a window is 0 in the outer quarter of the
    overlap, where the window has too little context, rises linearly over the middle half and is 1 further inside. At
    the borders of the image it stays 1. A network whose receptive field reaches at most a quarter of the overlap
    therefore gives the same result as on the whole image.

    Memory is bounded by the window and the batch. Only finished rows have the whole width, with a byte per pixel (five
    with the confidence). Sums for the next row of windows beyond 256 MB go to a temporary file with
    ``window_px * overlap * W * classes`` float32.

    The order of additions does not depend on the batch, so the maps are the same for all batch sizes if the model
    computes each image of a batch as it would alone. The kernels of some libraries differ in the last bit, which
    matters only where two classes are equal except for that bit.

    Args:
        model: A module or callable; a module runs in evaluation mode. All windows of a batch have the same size.
        image: The image.
        classes: K, the number of planes of ``sem_seg``; at most 255.
        window_px: Height and width of a window.
        overlap: Share of a window that the next window covers as well, from 0 to below 1.
        scores: The values of ``sem_seg``; a softmax over the classes is applied to logits.
        with_confidence: Whether to give the probability of the class as well.
        batch_size: Windows per forward pass; None is 8 on CUDA and 1 on the CPU.
        show_progress: Whether to show a progress bar of the windows; None shows it on a terminal.

    Raises:
        ProjectError: ``classes``, ``window_px``, ``overlap`` or ``batch_size`` is invalid.
        RunError: The number of planes or their size is not that of the classes and the window.
    """
    if window_px < 1:
        raise ProjectError("the window size must be at least 1 px", place="window_px", found=str(window_px))
    if not 0 <= overlap < 1:
        raise ProjectError("the overlap must be from 0 to below 1", place="overlap", found=str(overlap))
    if batch_size is not None and batch_size < 1:
        raise ProjectError("the batch size must be at least 1", place="batch_size", found=str(batch_size))
    if not 1 <= classes <= IGNORE_LABEL:
        raise ProjectError("the number of classes must be from 1 to 255", place="classes", found=str(classes))
    overlap_px = min(round(overlap * window_px), window_px - 1)
    rows = _axis(image.height_px, window_px, overlap_px)
    columns = _axis(image.width_px, window_px, overlap_px)
    run = partial(_run, model, classes=classes, are_logits=scores == "logits")
    windows = _windows(run, image, rows, columns, batch_size or (_CUDA_BATCH if _is_on_cuda(model) else _CPU_BATCH))
    return _blended(windows, rows, columns, with_confidence=with_confidence, show_progress=show_progress)


def blend_rows(
    planes: Generator[torch.Tensor, None, None], *, height_px: int, width_px: int, windows: Windows
) -> Generator[FinishedRows, None, None]:
    """Average the probabilities of windows as `predict_rows` does, and yield rows from top to bottom.

    Args:
        planes: Probabilities ``(K, h, w)`` of each window of `windows.grid`, in its order, float32, of at most 255
            classes, in memory that may be changed. The next ones are taken when those before have been added.
        height_px: Height of the image.
        width_px: Width of the image.
        windows: Size and overlap of the windows.
    """
    rows, columns = (_axis(side, windows.window_px, windows.overlap_px) for side in (height_px, width_px))
    return _blended(_all_with_data(planes), rows, columns, with_confidence=False, show_progress=False)


def _all_with_data(planes: Generator[torch.Tensor, None, None]) -> Generator[_Scored, None, None]:
    with closing(planes):
        for probabilities in planes:
            yield _Scored(None, probabilities)


@dataclass(frozen=True, slots=True)
class _Axis:
    """The windows along a side of the image.

    Attributes:
        length_px: Length of the side.
        size_px: Size of each window.
        starts: First pixel of each window.
        weights: Weights ``(size_px,)`` of each window; the weights at a pixel add up to 1.
    """

    length_px: int
    size_px: int
    starts: tuple[int, ...]
    weights: tuple[torch.Tensor, ...]

    def finished_px(self, index: int) -> int:
        """Pixels of a window before the next window begins; for the last window, all of its pixels."""
        return (*self.starts, self.length_px)[index + 1] - self.starts[index]


def _axis(length_px: int, window_px: int, overlap_px: int) -> _Axis:
    size_px = min(window_px, length_px)
    begins = starts(length_px, window_px, overlap_px)
    last = begins[-1]
    raw = [_falloff(size_px, overlap_px, at_start=start > 0, at_end=start < last) for start in begins]
    total = np.zeros(length_px)
    for start, weight in zip(begins, raw, strict=True):
        total[start : start + size_px] += weight
    shares = [weight / total[start : start + size_px] for start, weight in zip(begins, raw, strict=True)]
    return _Axis(length_px, size_px, begins, tuple(torch.from_numpy(share.astype(np.float32)) for share in shares))


def _falloff(size_px: int, overlap_px: int, *, at_start: bool, at_end: bool) -> NDArray[np.float64]:
    """``(size_px,)``: 1, and decreasing to 0 towards the ends with a neighboring window."""
    outer_px = overlap_px // 4
    ramp = np.clip((np.arange(size_px) - outer_px + 0.5) / max(1, overlap_px - 2 * outer_px), 0, 1)
    flat = np.ones(size_px)
    if not overlap_px:
        return flat
    return np.minimum(ramp if at_start else flat, ramp[::-1] if at_end else flat)


class _Window(NamedTuple):
    """A loaded window: ``(h, w)`` pixels without data (None if all pixels have data), and the sample for the model.

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
    image: WindowedImage,
    rows: _Axis,
    columns: _Axis,
    batch_size: int,
) -> Generator[_Scored, None, None]:
    """Yield each window, row by row; a thread reads the next batch while the network runs on the current batch."""
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
    return _Window(no_data, {"image": to_tensor(pixels), "height": pixels.shape[0], "width": pixels.shape[1]})


def _run(model: SemanticModel, samples: list[dict[str, Any]], *, classes: int, are_logits: bool) -> list[torch.Tensor]:
    """Probabilities ``(K, h, w)`` of each sample, float32, on the model's device, in memory that may be changed."""
    if not samples:
        return []
    with inference_mode(model), forward_pass(model):
        planes = [output["sem_seg"] for output in model(samples)]
        for plane, sample in zip(planes, samples, strict=True):
            expected = (classes, sample["height"], sample["width"])
            if tuple(plane.shape) != expected:
                raise RunError(
                    "the shape of the model's scores is not that of the classes and the window",
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
    """Yield the rows that each row of windows finishes."""
    bar = tqdm(
        total=len(rows.starts) * len(columns.starts),
        desc="predicting",
        unit=" windows",
        leave=False,
        disable=None if show_progress is None else not show_progress,
    )
    scratch = partial(tempfile.SpooledTemporaryFile, _CARRY_IN_MEMORY_BYTES // 2)
    with bar, closing(windows), scratch() as above, scratch() as below:
        carry = _Carry(above, below)
        for row, top in enumerate(rows.starts):
            height_px = rows.finished_px(row)
            class_ids = np.full((height_px, columns.length_px), IGNORE_LABEL, np.uint8)
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
                    area = np.s_[:, left : left + width_px]
                    has_data = True if no_data is None else ~no_data[:height_px, :width_px]
                    np.copyto(class_ids[area], best, where=has_data)
                    if confidence is not None:
                        np.copyto(confidence[area], probability.cpu().numpy(), where=has_data)
                carry.put(None if total is None else total[:, height_px:, :width_px])
                from_left = None if total is None else total[:, :, width_px:]
                bar.update()
            carry.next_row()
            yield FinishedRows(top, class_ids, confidence)
        next(windows, None)  # goes on behind its last window, so that it ends and is not cut off


def _best(sums: torch.Tensor) -> tuple[NDArray[np.uint8], torch.Tensor]:
    """The class ``(h, w)`` with the largest sum of ``(K, h, w)``, the first of equal sums, and this sum, at most 1."""
    highest = sums[0].clone()
    best = torch.zeros(highest.shape, dtype=torch.uint8, device=sums.device)
    for class_id in range(1, len(sums)):  # a third of the time that `max(dim=0)` takes
        is_higher = (sums[class_id] > highest).view(torch.uint8)
        torch.maximum(best, is_higher * class_id, out=best)
        torch.maximum(highest, sums[class_id], out=highest)
    return best.cpu().numpy(), highest.clamp_(max=1)


class _Carry:
    """The sums of each row of windows for the next row, in the order of the columns, in memory or in files."""

    def __init__(self, above: IO[bytes], below: IO[bytes]) -> None:
        self._above, self._below = above, below
        self._shapes_above: deque[tuple[int, ...] | None] = deque()
        self._shapes_below: deque[tuple[int, ...] | None] = deque()

    def put(self, sums: torch.Tensor | None) -> None:
        """Keep the sums ``(K, h, w)`` of the next column for the next row; None without sums."""
        if sums is None or not sums.numel():
            self._shapes_below.append(None)
            return
        self._shapes_below.append(tuple(sums.shape))
        self._below.write(sums.contiguous().cpu().numpy().data)

    def take(self) -> torch.Tensor | None:
        """The sums ``(K, h, w)`` that the row above kept for the next column."""
        shape = self._shapes_above.popleft()
        if shape is None:
            return None
        content = bytearray(self._above.read(4 * math.prod(shape)))
        return torch.from_numpy(np.frombuffer(content, np.float32).reshape(shape))

    def next_row(self) -> None:
        """Make the sums of this row of windows those of the row above."""
        self._above, self._below = self._below, self._above
        self._shapes_above, self._shapes_below = self._shapes_below, deque()
        self._above.seek(0)
        self._below.seek(0)
        self._below.truncate()


def scaled_model(model: SemanticModel, scale: float) -> SemanticModel:
    """A model to which windows are given resized by a factor, and which gives planes of the size of the windows.

    Args:
        model: A model that resizes its planes to ``height`` and ``width`` of a sample, as those of Detectron2 do.
        scale: The factor; 1 returns the model itself.
    """
    if scale == 1:
        return model
    return _Scaled(model, scale) if isinstance(model, nn.Module) else partial(_run_scaled, model, scale)


class _Scaled(nn.Module):
    """See `scaled_model`; a module, so that it runs in evaluation mode."""

    def __init__(self, model: nn.Module, scale: float) -> None:
        super().__init__()
        self._model = model
        self._scale = scale
        self.train(model.training)

    def forward(self, samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
        with forward_pass(self._model):
            return _run_scaled(self._model, self._scale, samples)


def _run_scaled(model: SemanticModel, scale: float, samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    def scaled(sample: dict[str, Any]) -> dict[str, Any]:
        pixels = sample["image"].permute(1, 2, 0).numpy()
        size_hw = scaled_size(pixels.shape[0], pixels.shape[1], scale)
        return sample | {"image": to_tensor(resized(pixels, size_hw))}

    return model([scaled(sample) for sample in samples])
