"""What every predictor does: one image, a batch, or a stream of images in, typed results out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any, Generic, TypeVar

from detectron2.config import CfgNode

from d2tune.data.image_reader import ImageReader, Pixels
from d2tune.errors import DataError
from d2tune.inference.images import ImageLike, InputSize, PredictionSamples
from d2tune.inference.loop import Sample, inference_mode, stream
from d2tune.timing import StageTimes

Result = TypeVar("Result")
Raw = TypeVar("Raw")
Converted = TypeVar("Converted")


class Predictor(ABC, Generic[Raw, Result]):
    """Predicts with one model.

    ``predictor(image)`` gives the result of one image, ``predictor.batch(images)`` those of several, and
    ``predictor.stream(images)`` those of as many as there are, in memory that does not grow with their number. Images
    are files or arrays in RGB; results are as large as the image.

    Args:
        model: A Detectron2 model, or a callable that takes and gives what such a model does.
        cfg: The config of the run: sizes of images and windows.
        class_names: The classes in the order of their ids.
        reader: Reads image files.
        is_model_own: Whether nobody else uses the model: it then stays in evaluation mode with its norms fused.
    """

    _is_semantic = False

    def __init__(
        self,
        model: Any,
        cfg: CfgNode,
        *,
        class_names: Sequence[str],
        reader: ImageReader,
        is_model_own: bool = False,
    ) -> None:
        self.model = model
        self.class_names = tuple(class_names)
        self.reader = reader
        self._cfg = cfg
        self._size = InputSize(short_side_px=cfg.INPUT.MIN_SIZE_TEST, max_side_px=cfg.INPUT.MAX_SIZE_TEST)
        self._kept_ready = ExitStack()
        if is_model_own:
            self._kept_ready.enter_context(inference_mode(model))

    def __call__(self, image: ImageLike) -> Result:
        """The result of one image.

        Raises:
            DataError: The image cannot be read.
        """
        return self.batch([image])[0]

    def batch(self, images: Sequence[ImageLike], *, batch_size: int | None = None) -> list[Result]:
        """The results of images, in their order.

        Args:
            images: Files or arrays, of any sizes.
            batch_size: Images per forward pass; None is 8 on CUDA, and on the CPU up to 4, fewer for large images.

        Raises:
            DataError: An image cannot be read.
        """
        results: list[Result] = []
        for result in self.stream(images, batch_size=batch_size, show_progress=False):
            if isinstance(result, DataError):
                raise result
            results.append(result)
        return results

    def stream(
        self,
        images: Sequence[ImageLike],
        *,
        convert: Callable[[int, Result, Pixels | None], Any] | None = None,
        keep_pixels: bool = False,
        description: str = "predicting",
        batch_size: int | None = None,
        show_progress: bool | None = None,
        times: StageTimes | None = None,
    ) -> Iterator[Any]:
        """The results of images, in their order, while later images are read ahead.

        Args:
            images: Files or arrays, of any sizes.
            convert: Takes the index of an image, its result and its pixels, and returns what is given in the place of
                the result. It is called in a thread, one image after the other, not in order, so that large results
                and pixels need not wait for their turn.
            keep_pixels: Whether ``convert`` is given the pixels: photos ``(H, W, 3)`` in RGB. None otherwise.
            description: What the progress bar says.
            batch_size: As in `batch`.
            show_progress: Whether to draw a progress bar; None draws one on a terminal.
            times: Takes the time of each stage.

        Yields:
            The result of each image, or the `DataError` of an image that cannot be read.
        """
        samples = PredictionSamples(
            images, reader=self.reader, size=self._size, is_semantic=self._is_semantic, keep_pixels=keep_pixels
        )

        def finish(index: int, sample: Sample, raw: Raw) -> Any:
            result = self._result(raw, sample)
            return result if convert is None else convert(index, result, sample.get("pixels"))

        return stream(
            self.model,
            samples,
            self._forward,
            finish,
            description=description,
            show_progress=show_progress,
            batch_size=batch_size,
            times=times,
        )

    @abstractmethod
    def _forward(self, model: Any, batch: Sequence[Sample]) -> Sequence[Raw]:
        """Run the model on a batch and bring its output off the device."""

    @abstractmethod
    def _result(self, raw: Raw, sample: Sample) -> Result:
        """The result of one image."""
