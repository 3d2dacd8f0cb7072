"""The predictor of the class of each pixel: of whole images, or of large images in overlapping windows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from numpy.typing import NDArray
from tqdm import tqdm

from d2tune.annotations.formats.semantic import IGNORE_LABEL
from d2tune.annotations.io.rasters import Georeference
from d2tune.data.image_reader import Pixels
from d2tune.data.semantic_mapper import resized_labels
from d2tune.errors import DataError
from d2tune.inference.images import ImageLike, open_image, read_pixels
from d2tune.inference.loop import Sample, check_batch_size, inference_mode
from d2tune.inference.predictors.base import Predictor
from d2tune.inference.results import LabelMap
from d2tune.inference.sliding_window import DEFAULT_OVERLAP, FinishedRows, predict_rows, scaled_model
from d2tune.inference.windows import WindowedImage, Windows
from d2tune.timing import StageTimes


@dataclass(frozen=True, slots=True)
class LabelRows:
    """A label map whose rows are predicted while they are iterated over.

    Attributes:
        height_px: Height of the image.
        width_px: Width of the image.
        georeference: Position of the image on earth; None without one.
        rows: ``(h, W)`` uint8 from top to bottom, ``h`` of any height; see `LabelMap.class_ids`.
        class_names: All classes in the order of their ids.
    """

    height_px: int
    width_px: int
    georeference: Georeference | None
    rows: Iterator[NDArray[np.uint8]]
    class_names: tuple[str, ...]

    def whole(self) -> LabelMap:
        """Predict all rows and return them as a map."""
        class_ids = np.empty((self.height_px, self.width_px), np.uint8)
        top_px = 0
        for rows in self.rows:
            class_ids[top_px : top_px + len(rows)] = rows
            top_px += len(rows)
        return LabelMap(class_ids, self.class_names)


class SemanticPredictor(Predictor[NDArray[np.uint8], LabelMap]):
    """Predicts `LabelMap`, in windows if the config sets ``TEST.WINDOW_PX``."""

    _is_semantic = True

    @property
    def takes_whole_images(self) -> bool:
        """Whether images are not predicted in windows."""
        return not self._cfg.TEST.WINDOW_PX

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
        done: Collection[int] = (),
    ) -> Iterator[Any]:
        """See `Predictor.stream`; with windows, a single image is predicted at a time, window by window."""
        check_batch_size(batch_size)
        if self._cfg.TEST.WINDOW_PX:
            return self._stream_windows(
                images, convert, keep_pixels, description, batch_size, show_progress, times or StageTimes(), done
            )
        return super().stream(
            images,
            convert=convert,
            keep_pixels=keep_pixels,
            description=description,
            batch_size=batch_size,
            show_progress=show_progress,
            times=times,
            done=done,
        )

    def batches(self, images: Sequence[ImageLike]) -> Iterator[list[int]]:
        """See `Predictor.batches`; with windows, each image is predicted alone."""
        return ([index] for index in range(len(images))) if self._cfg.TEST.WINDOW_PX else super().batches(images)

    @contextmanager
    def open_rows(
        self, image: ImageLike, *, batch_size: int | None = None, show_progress: bool | None = None
    ) -> Iterator[LabelRows]:
        """Predict on an image row by row, in memory that the window bounds; without windows, all rows at once.

        Args:
            image: A file or an array.
            batch_size: Windows per forward pass; None is 8 on CUDA and 1 on the CPU.
            show_progress: Whether to show a progress bar of the windows; None shows it on a terminal.

        Raises:
            DataError: The image cannot be read.
        """
        with open_image(image, self.reader) as opened:
            size_px = opened.height_px, opened.width_px
            if not self._cfg.TEST.WINDOW_PX:
                label_map = self(self.reader.shown(opened.read()))
                yield LabelRows(*size_px, opened.georeference, iter([label_map.class_ids]), self.class_names)
                return
            windows = window_rows(
                self.model,
                opened,
                self._cfg,
                short_side_px=self._size.short_side_px,
                classes=len(self.class_names),
                batch_size=batch_size,
                show_progress=show_progress,
            )
            with closing(windows):
                rows = (finished.class_ids for finished in windows)
                yield LabelRows(*size_px, opened.georeference, rows, self.class_names)

    def _stream_windows(
        self,
        images: Sequence[ImageLike],
        convert: Callable[[int, LabelMap, Pixels | None], Any] | None,
        keep_pixels: bool,
        description: str,
        batch_size: int | None,
        show_progress: bool | None,
        times: StageTimes,
        done: Collection[int],
    ) -> Iterator[Any]:
        hidden = None if show_progress is None else not show_progress
        bar = tqdm(images, desc=description, unit=" images", leave=False, disable=hidden)
        with inference_mode(self.model):
            for index, image in enumerate(bar):
                if index in done:
                    continue
                try:
                    with times.running():
                        with self.open_rows(image, batch_size=batch_size, show_progress=show_progress) as rows:
                            result = rows.whole()
                        pixels = self.reader.shown(read_pixels(image, self.reader)) if keep_pixels else None
                except DataError as error:
                    yield error
                    continue
                yield result if convert is None else convert(index, result, pixels)

    def _forward(self, model: Any, batch: Sequence[Sample]) -> list[NDArray[np.uint8]]:
        return forward_labels(model, batch)

    def _result(self, raw: NDArray[np.uint8], sample: Sample) -> LabelMap:
        return LabelMap(raw, self.class_names)


def window_rows(
    model: Any,
    image: WindowedImage,
    cfg: CfgNode,
    *,
    short_side_px: int,
    classes: int,
    with_confidence: bool = False,
    batch_size: int | None = None,
    show_progress: bool | None = None,
) -> Generator[FinishedRows, None, None]:
    """The rows of an image, predicted in the windows that a config sets; see `sliding_window.predict_rows`.

    Args:
        model: The model.
        image: The open image.
        cfg: The config, with ``TEST.WINDOW_PX``.
        short_side_px: The short side that windows are resized to; 0 keeps their size.
        classes: Number of classes.
        with_confidence: Whether rows have the probability of their class.
        batch_size: Windows per forward pass.
        show_progress: Whether to show a progress bar; None shows it on a terminal.
    """
    chosen = Windows.of_config(cfg, overlap=DEFAULT_OVERLAP)
    return predict_rows(
        scaled_model(model, chosen.scale(short_side_px)),
        image,
        classes=classes,
        window_px=chosen.window_px,
        overlap=chosen.overlap_px / chosen.window_px,
        scores="probabilities",
        with_confidence=with_confidence,
        batch_size=batch_size,
        show_progress=show_progress,
    )


def forward_labels(model: Any, batch: Sequence[Sample]) -> list[NDArray[np.uint8]]:
    """The class indices ``(H, W)`` of each image of a batch, off the device."""
    label_maps = [output["sem_seg"].argmax(dim=0).to(torch.uint8).cpu().numpy() for output in model(batch)]
    return [ignore_without_data(labels, sample) for labels, sample in zip(label_maps, batch, strict=True)]


def ignore_without_data(labels: NDArray[np.uint8], sample: Sample) -> NDArray[np.uint8]:
    """The labels ``(H, W)``, with 255 (ignored) where all channels of the model's input are NaN."""
    image = sample["image"]
    if not image.is_floating_point():
        return labels
    empty = resized_labels(image.isnan().all(dim=0).numpy().astype(np.uint8), labels.shape)
    return np.where(empty == 1, np.uint8(IGNORE_LABEL), labels)
