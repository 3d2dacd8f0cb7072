"""Predicting the class of every pixel: of whole images, or of large ones in overlapping windows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from d2tune.annotations.formats.semantic import IGNORE_LABEL
from d2tune.annotations.io.rasters import Georeference
from d2tune.annotations.model.dataset import Image
from d2tune.data.image_reader import OpenImage, Pixels
from d2tune.data.semantic_mapper import resized_labels
from d2tune.errors import DataError
from d2tune.inference.images import ImageLike, read_pixels
from d2tune.inference.loop import Sample, inference_mode
from d2tune.inference.predictors.base import Predictor
from d2tune.inference.results import LabelMap
from d2tune.inference.sliding_window import predict_rows
from d2tune.timing import StageTimes


@dataclass(frozen=True, slots=True)
class LabelRows:
    """A label map whose rows are predicted while they are taken.

    Attributes:
        height_px: Height of the image.
        width_px: Width of the image.
        georeference: Where on earth the image lies, if anywhere.
        rows: ``(h, W)`` uint8 from top to bottom, ``h`` of any height; see `LabelMap.class_ids`.
        class_names: All classes in the order of their ids.
    """

    height_px: int
    width_px: int
    georeference: Georeference | None
    rows: Iterator[NDArray[np.uint8]]
    class_names: tuple[str, ...]

    def whole(self) -> LabelMap:
        """All rows as one map."""
        class_ids = np.empty((self.height_px, self.width_px), np.uint8)
        top_px = 0
        for rows in self.rows:
            class_ids[top_px : top_px + len(rows)] = rows
            top_px += len(rows)
        return LabelMap(class_ids, self.class_names)


class SemanticPredictor(Predictor[NDArray[np.uint8], LabelMap]):
    """Predicts `LabelMap`; in windows where the config's ``TEST.WINDOW_PX`` is set."""

    _is_semantic = True

    def stream(
        self,
        images: Sequence[ImageLike],
        *,
        convert: Callable[[int, LabelMap, Pixels | None], Any] | None = None,
        keep_pixels: bool = False,
        description: str = "predicting",
        batch_size: int | None = None,
        show_progress: bool | None = None,
        times: StageTimes | None = None,
    ) -> Iterator[Any]:
        """See `Predictor.stream`; with windows, images are predicted one after the other, window by window."""
        if self._cfg.TEST.WINDOW_PX:
            return self._stream_windows(
                images, convert, keep_pixels, description, batch_size, show_progress, times or StageTimes()
            )
        return super().stream(
            images,
            convert=convert,
            keep_pixels=keep_pixels,
            description=description,
            batch_size=batch_size,
            show_progress=show_progress,
            times=times,
        )

    def open_rows(
        self, image: ImageLike, *, batch_size: int | None = None, show_progress: bool | None = None
    ) -> AbstractContextManager[LabelRows]:
        """The label map of one image row by row, in memory that the window bounds; without windows, at once.

        Args:
            image: A file or an array.
            batch_size: Windows per forward pass; None is 8 on CUDA and 1 on the CPU.
            show_progress: Whether to draw a progress bar of the windows; None draws one on a terminal.

        Raises:
            DataError: The image cannot be read.
        """
        return _OpenRows(self, image, batch_size=batch_size, show_progress=show_progress)

    def _stream_windows(
        self,
        images: Sequence[ImageLike],
        convert: Callable[[int, LabelMap, Pixels | None], Any] | None,
        keep_pixels: bool,
        description: str,
        batch_size: int | None,
        show_progress: bool | None,
        times: StageTimes,
    ) -> Iterator[Any]:
        hidden = None if show_progress is None else not show_progress
        bar = tqdm(images, desc=description, unit="image", leave=False, disable=hidden)
        with inference_mode(self.model):
            for index, image in enumerate(bar):
                began = time.perf_counter()
                try:
                    with self.open_rows(image, batch_size=batch_size, show_progress=show_progress) as rows:
                        result = rows.whole()
                    pixels = self.reader.shown(read_pixels(image, self.reader)) if keep_pixels else None
                except DataError as error:
                    yield error
                    continue
                finally:
                    spent_s = time.perf_counter() - began
                    times.forward_s += spent_s
                    times.total_s += spent_s
                yield result if convert is None else convert(index, result, pixels)

    def _forward(self, model: Any, batch: Sequence[Sample]) -> list[NDArray[np.uint8]]:
        return forward_labels(model, batch)

    def _result(self, raw: NDArray[np.uint8], sample: Sample) -> LabelMap:
        return LabelMap(raw, self.class_names)

    def _rows(self, image: OpenImage, *, batch_size: int | None, show_progress: bool | None) -> LabelRows:
        if not self._cfg.TEST.WINDOW_PX:
            whole = self(self.reader.shown(image.read()))
            rows = iter([whole.class_ids])
            return LabelRows(whole.height_px, whole.width_px, image.georeference, rows, self.class_names)
        windows = predict_rows(
            self.model,
            image,
            classes=len(self.class_names),
            window_px=self._cfg.TEST.WINDOW_PX,
            scores="probabilities",
            batch_size=batch_size,
            show_progress=show_progress,
        )
        return LabelRows(
            image.height_px,
            image.width_px,
            image.georeference,
            (finished.class_ids for finished in windows),
            self.class_names,
        )


class _OpenRows:
    """Opens the image of `SemanticPredictor.open_rows` and closes it again."""

    def __init__(
        self, predictor: SemanticPredictor, image: ImageLike, *, batch_size: int | None, show_progress: bool | None
    ) -> None:
        self._predictor = predictor
        self._image = image
        self._options: dict[str, Any] = {"batch_size": batch_size, "show_progress": show_progress}
        self._opened: AbstractContextManager[Any] = nullcontext()

    def __enter__(self) -> LabelRows:
        image, reader = self._image, self._predictor.reader
        if isinstance(image, np.ndarray):
            opened: Any = _ArrayImage(read_pixels(image, reader))
        else:
            path = image.path if isinstance(image, Image) else image
            if path is None:
                raise DataError("the image has no file", file=str(image))
            opened = reader.open(path)
        self._opened = opened
        return self._predictor._rows(opened.__enter__(), **self._options)

    def __exit__(self, *reason: Any) -> None:
        self._opened.__exit__(*reason)


class _ArrayImage:
    """An array that is read window by window; see `OpenImage`."""

    georeference = None

    def __init__(self, pixels: Pixels) -> None:
        self._pixels = pixels
        self.height_px, self.width_px = pixels.shape[:2]

    def __enter__(self) -> _ArrayImage:
        return self

    def __exit__(self, *reason: object) -> None:
        pass

    def read(
        self, top_px: int = 0, left_px: int = 0, height_px: int | None = None, width_px: int | None = None
    ) -> Pixels:
        """A window ``(h, w, C)``, by default the whole image."""
        bottom_px = None if height_px is None else top_px + height_px
        right_px = None if width_px is None else left_px + width_px
        return self._pixels[top_px:bottom_px, left_px:right_px]


def forward_labels(model: Any, batch: Sequence[Sample]) -> list[NDArray[np.uint8]]:
    """The class of every pixel of each image of a batch, off the device."""
    label_maps = [output["sem_seg"].argmax(dim=0).to(torch.uint8).cpu().numpy() for output in model(batch)]
    return [_without_data(labels, sample) for labels, sample in zip(label_maps, batch, strict=True)]


def _without_data(labels: NDArray[np.uint8], sample: Sample) -> NDArray[np.uint8]:
    """The labels, 255 where no channel of what the model saw has data."""
    image = sample["image"]
    if not image.is_floating_point():
        return labels
    empty = resized_labels(image.isnan().all(dim=0).numpy().astype(np.uint8), labels.shape)
    return np.where(empty == 1, np.uint8(IGNORE_LABEL), labels)
