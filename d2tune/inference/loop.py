"""Running a model over a dataset: images are loaded ahead, and masks encoded behind, while the network works."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.modeling import GeneralizedRCNN
from numpy.typing import NDArray
from pycocotools import mask as mask_utils
from torch import nn
from tqdm import tqdm

from d2tune.annotations.model.dataset import Dataset
from d2tune.data.catalog import detectron2_dicts
from d2tune.data.mapper import EvaluationSamples
from d2tune.inference.fused import fused_norms
from d2tune.inference.paste import paste_rle

T = TypeVar("T")

CocoResult = dict[str, Any]
"""One detection as COCO's results format has it: image_id, category_id, bbox (XYWH), score, segmentation (RLE)."""

_CUDA_BATCH = 8
_CPU_BATCH, _CPU_BATCH_PX = 4, 1_000_000
"""Four of 384 x 512 px were measured to be a quarter faster than one by one, three of 544 x 832 px a tenth slower."""
_BATCHES_BEHIND = 2
"""Batches whose masks may still be waiting to be encoded; more would only take memory."""


class Samples(Protocol):
    """Images to run on, in order."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]:
        """``image`` ``(3, h, w)``, the image's own ``height`` and ``width``, and ``image_id``."""

    def input_size(self, index: int) -> tuple[int, int]:
        """Height and width of the ``image`` of a sample, known without loading it."""


@dataclass(slots=True)
class StageTimes:
    """Where the time of an evaluation went, in seconds.

    Stages overlap, so that their sum can exceed ``total_s``.

    Attributes:
        load_s: Reading and decoding images, and resizing them.
        forward_s: The network.
        postprocess_s: Pasting and encoding masks.
        score_s: Matching and metrics.
        total_s: On the clock, from the first image to the last figure.
    """

    load_s: float = 0.0
    forward_s: float = 0.0
    postprocess_s: float = 0.0
    score_s: float = 0.0
    total_s: float = 0.0

    @contextmanager
    def scoring(self) -> Iterator[None]:
        """What happens inside is scoring."""
        with self._into("score_s"):
            yield

    @contextmanager
    def running(self) -> Iterator[None]:
        """What happens inside is the network, with all that belongs to it."""
        with self._into("forward_s"):
            yield

    @contextmanager
    def _into(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        spent_s = time.perf_counter() - start
        setattr(self, stage, getattr(self, stage) + spent_s)
        self.total_s += spent_s

    def to_json(self) -> dict[str, float]:
        """The times rounded to milliseconds."""
        return {name: round(value, 3) for name, value in asdict(self).items()}


@contextmanager
def inference_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients, norms within their convolutions; what was is restored."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), fused_norms(model):
            yield
    finally:
        model.train(was_training)


def predict_dataset(
    model: nn.Module,
    dataset: Dataset,
    cfg: CfgNode,
    *,
    show_progress: bool | None = None,
    batch_size: int | None = None,
    times: StageTimes | None = None,
    on_image: Callable[[int, list[CocoResult]], None] | None = None,
) -> list[CocoResult]:
    """What the model finds on every image of ``dataset``, in COCO's results format and the order of its images.

    Args:
        model: A Detectron2 model whose contiguous class ``i`` is the dataset's thing category ``i``.
        dataset: Images to run on; its instances are not looked at.
        cfg: For image size and channel order.
        show_progress: Whether to draw a progress bar; None draws one on a terminal.
        batch_size: Images per forward pass; None is 8 on CUDA, and on the CPU up to 4, fewer for large images.
        times: Takes the time of each stage.
        on_image: Called with the index of an image and what was found on it, in the thread that encodes masks.
    """
    samples = EvaluationSamples(
        detectron2_dicts(dataset),
        channel_order=cfg.INPUT.FORMAT,
        short_side_px=cfg.INPUT.MIN_SIZE_TEST,
        max_side_px=cfg.INPUT.MAX_SIZE_TEST,
    )
    category_ids = [category.id for category in dataset.categories if category.isthing]
    found = run(
        model,
        samples,
        category_ids,
        show_progress=show_progress,
        batch_size=batch_size,
        times=times,
        on_image=on_image,
    )
    return [one for results in found for one in results]


def run(
    model: Any,
    samples: Samples,
    category_ids: Sequence[int],
    *,
    show_progress: bool | None = None,
    batch_size: int | None = None,
    times: StageTimes | None = None,
    on_image: Callable[[int, list[CocoResult]], None] | None = None,
) -> list[list[CocoResult]]:
    """What a model finds on each sample.

    Takes any model that Detectron2's ``inference_on_dataset`` takes and whose outputs hold ``instances``: called with a
    list of samples, it gives one dict for each. Detectron2's own R-CNN is asked for its box-sized masks, which are
    pasted here.

    Only images that the network would pad to the same size share a batch, so that the batch changes no result.

    Args:
        model: The model, a module or a callable.
        samples: The images.
        category_ids: Category id by contiguous class.
        show_progress: As in `predict_dataset`, like all that follow.
        batch_size: As there.
        times: As there.
        on_image: As there.
    """
    results: list[list[CocoResult]] = [[] for _ in range(len(samples))]

    def finish(index: int, sample: dict[str, Any], raw: _Raw) -> None:
        results[index] = _results(raw, sample, category_ids)
        if on_image is not None:
            on_image(index, results[index])

    stream(model, samples, _forward, finish, show_progress=show_progress, batch_size=batch_size, times=times)
    return results


def stream(
    model: Any,
    samples: Samples,
    forward: Callable[[Any, Sequence[dict[str, Any]]], Sequence[T]],
    finish: Callable[[int, dict[str, Any], T], None],
    *,
    show_progress: bool | None = None,
    batch_size: int | None = None,
    times: StageTimes | None = None,
) -> None:
    """Run a model over samples: the next batch is loaded, and the last one finished, while the network works.

    Args:
        model: The model, a module or a callable.
        samples: The images.
        forward: Runs the model on a batch and brings what is found off the device, one entry for each sample.
        finish: Takes the index of a sample, the sample and its entry, in a thread of its own, one after the other.
        show_progress: As in `predict_dataset`, like all that follow.
        batch_size: As there.
        times: As there.
    """
    times = times or StageTimes()
    began = time.perf_counter()
    batches = _batches(samples, batch_size, on_cuda=_is_on_cuda(model), divisibility=_divisibility(model))

    def finish_batch(batch: Sequence[int], loaded: Sequence[dict[str, Any]], found: Sequence[T]) -> None:
        start = time.perf_counter()
        for index, sample, one in zip(batch, loaded, found, strict=True):
            finish(index, sample, one)
        times.postprocess_s += time.perf_counter() - start

    quiet = None if show_progress is None else not show_progress
    bar = tqdm(total=len(samples), desc="evaluating", unit="image", leave=False, disable=quiet)
    behind: deque[tuple[int, Future[None]]] = deque()
    with _mode(model), bar, _Loading(samples, batches, times) as loading, ThreadPoolExecutor(1) as encoder:
        for batch in batches:
            loaded = loading.next()
            start = time.perf_counter()
            found = forward(model, loaded)
            times.forward_s += time.perf_counter() - start
            behind.append((len(batch), encoder.submit(finish_batch, batch, loaded, found)))
            while len(behind) > _BATCHES_BEHIND or (behind and behind[0][1].done()):
                bar.update(_done(behind.popleft()))
        while behind:
            bar.update(_done(behind.popleft()))
    times.total_s += time.perf_counter() - began


def _done(entry: tuple[int, Future[None]]) -> int:
    """Wait for a batch, pass on what went wrong in it, and give its number of images."""
    entry[1].result()
    return entry[0]


@contextmanager
def _mode(model: Any) -> Iterator[None]:
    if isinstance(model, nn.Module):
        with inference_mode(model):
            yield
    else:
        with torch.no_grad():
            yield


def _is_on_cuda(model: Any) -> bool:
    parameter = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return parameter is not None and parameter.is_cuda


def _divisibility(model: Any) -> int:
    own = model if hasattr(model, "size_divisibility") else getattr(model, "backbone", None)
    return max(1, int(getattr(own, "size_divisibility", 1)))


def _batches(
    samples: Samples, batch_size: int | None, *, on_cuda: bool = False, divisibility: int = 1
) -> list[list[int]]:
    """Indices of images that the network pads to one size, in the order of the first image of each size."""
    groups: dict[tuple[int, int], list[int]] = {}
    for index in range(len(samples)):
        height_px, width_px = (-(-side // divisibility) * divisibility for side in samples.input_size(index))
        groups.setdefault((height_px, width_px), []).append(index)
    batches = []
    for (height_px, width_px), group in groups.items():
        fitting = max(1, min(_CPU_BATCH, _CPU_BATCH_PX // max(1, height_px * width_px)))
        size = batch_size or (_CUDA_BATCH if on_cuda else fitting)
        batches += [group[at : at + size] for at in range(0, len(group), size)]
    return batches


class _Loading:
    """Loads the images of the coming batches in threads, so many ahead that one batch is always waiting."""

    def __init__(self, samples: Samples, batches: Sequence[Sequence[int]], times: StageTimes) -> None:
        self._samples = samples
        self._times = times
        self._batches = iter(batches)
        self._waiting: deque[list[Future[tuple[dict[str, Any], float]]]] = deque()
        self._pool = ThreadPoolExecutor(max(1, min(8, (os.cpu_count() or 2) // 2)))

    def __enter__(self) -> _Loading:
        self._submit()
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _submit(self) -> None:
        batch = next(self._batches, None)
        if batch is not None:
            self._waiting.append([self._pool.submit(self._load, index) for index in batch])

    def _load(self, index: int) -> tuple[dict[str, Any], float]:
        start = time.perf_counter()
        return self._samples[index], time.perf_counter() - start

    def next(self) -> list[dict[str, Any]]:
        """The samples of the next batch; the one after it starts loading."""
        self._submit()
        loaded = [future.result() for future in self._waiting.popleft()]
        self._times.load_s += sum(seconds for _, seconds in loaded)
        return [sample for sample, _ in loaded]


@dataclass(frozen=True, slots=True)
class _Raw:
    """What the network found on one image, off the device.

    Attributes:
        boxes_xyxy: ``(N, 4)`` in pixels of the image, float32.
        scores: ``(N,)``.
        classes: ``(N,)`` contiguous.
        masks: ``(N, M, M)`` probabilities over the boxes, or ``(N, H, W)`` bool on the image, or None.
        is_pasted: Whether the masks are on the image already.
    """

    boxes_xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int64]
    masks: NDArray[Any] | None
    is_pasted: bool


def _forward(model: Any, batch: Sequence[dict[str, Any]]) -> list[_Raw]:
    """Run the network on a batch and bring what it found off the device, once."""
    is_rcnn = isinstance(model, GeneralizedRCNN)
    found = model.inference(batch, do_postprocess=False) if is_rcnn else [one["instances"] for one in model(batch)]
    if is_rcnn:
        for one, sample in zip(found, batch, strict=True):
            size = sample["height"], sample["width"]
            one.pred_boxes.scale(size[1] / one.image_size[1], size[0] / one.image_size[0])
            one.pred_boxes.clip(size)
            if one.has("pred_masks"):
                one.pred_masks = one.pred_masks[:, 0]
    return [_off_device(one, is_pasted=not is_rcnn) for one in found]


def _off_device(found: Any, *, is_pasted: bool) -> _Raw:
    kept = found[found.pred_boxes.nonempty()].to("cpu")
    masks = kept.pred_masks if kept.has("pred_masks") else None
    return _Raw(
        kept.pred_boxes.tensor.float().numpy(),
        kept.scores.float().numpy(),
        kept.pred_classes.numpy(),
        None if masks is None else np.asarray(masks if is_pasted else masks.float()),
        is_pasted,
    )


def _results(raw: _Raw, sample: dict[str, Any], category_ids: Sequence[int]) -> list[CocoResult]:
    """The detections on one image in COCO's format, by falling score."""
    size = {"height_px": sample["height"], "width_px": sample["width"]}
    results: list[CocoResult] = []
    for at, box in enumerate(raw.boxes_xyxy):
        x0, y0, x1, y1 = box.tolist()
        result: CocoResult = {
            "image_id": sample["image_id"],
            "category_id": category_ids[int(raw.classes[at])],
            "bbox": [round(side, 3) for side in (x0, y0, x1 - x0, y1 - y0)],
            "score": round(float(raw.scores[at]), 6),
        }
        if raw.masks is not None and raw.is_pasted:
            rle = mask_utils.encode(np.asfortranarray(raw.masks[at].astype(np.uint8)))
            result["segmentation"] = {"size": list(rle["size"]), "counts": rle["counts"].decode()}
        elif raw.masks is not None:
            result["segmentation"] = paste_rle(raw.masks[at], box, **size)
        results.append(result)
    return sorted(results, key=lambda result: -result["score"])


def detect(model: Any, sample: dict[str, Any], image_id: int, category_ids: Sequence[int]) -> list[CocoResult]:
    """The detections on one image, by falling score.

    Args:
        model: A Detectron2 model in evaluation mode.
        sample: ``image`` ``(3, h, w)`` and the image's own ``height`` and ``width``.
        image_id: ``Image.id``.
        category_ids: Category id by contiguous class.
    """
    (raw,) = _forward(model, [sample])
    return _results(raw, sample | {"image_id": image_id}, category_ids)
