"""The base class of predictors: an image, a batch or a stream of images in, typed results out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack
from typing import Any, Generic, TypeVar

from detectron2.config import CfgNode

from d2tune.data.image_reader import ImageReader, Pixels
from d2tune.errors import DataError
from d2tune.inference.images import ImageLike, InputSize, PredictionSamples
from d2tune.inference.loop import (
    Sample,
    batches_of,
    check_batch_size,
    divisibility_of,
    forward_pass,
    inference_mode,
    is_on_cuda,
    stream,
)
from d2tune.text import counted
from d2tune.timing import StageTimes

_NAMED = 5
"""Classes that the text of a predictor names."""

Result = TypeVar("Result")
Raw = TypeVar("Raw")
Converted = TypeVar("Converted")


class Predictor(ABC, Generic[Raw, Result]):
    """Predicts with a model.

    ``predictor(image)`` returns the result of an image, ``predictor.batch(images)`` a list of results, and
    ``predictor.stream(images)`` yields results in memory that does not grow with the number of images. Images are files
    or arrays in RGB; a result has the size of its image. Several threads can use a predictor at the same time: their
    images are loaded and their masks pasted at the same time, and the network takes turns.

    Args:
        model: A Detectron2 model, or a callable with the inputs and outputs of a Detectron2 model.
        cfg: The config of the run, with the sizes of images and windows.
        class_names: The classes in the order of their ids.
        reader: Reader of image files.
        is_model_own: Whether only this predictor uses the model, which then stays in evaluation mode with its norms
            fused into its parameters.
        min_scores: Lowest score of the instances of each class, in the order of ``class_names``, compared with scores
            rounded to six digits; None keeps all that the model gives. Where the model allows it, masks of instances
            with lower scores are not predicted.

    Raises:
        ValueError: The number of lowest scores is not that of the classes.
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
        min_scores: Sequence[float] | None = None,
    ) -> None:
        self.model = model
        self.class_names = tuple(class_names)
        self.min_scores = None if min_scores is None else tuple(map(float, min_scores))
        if self.min_scores is not None and len(self.min_scores) != len(self.class_names):
            raise ValueError(f"{len(self.min_scores)} lowest scores for {len(self.class_names)} classes")
        self.reader = reader
        self._cfg = cfg
        self._size = InputSize(short_side_px=cfg.INPUT.MIN_SIZE_TEST, max_side_px=cfg.INPUT.MAX_SIZE_TEST)
        self._kept_ready = ExitStack()
        if is_model_own:
            self._kept_ready.enter_context(inference_mode(model, is_own=True))

    def __repr__(self) -> str:
        classes = ", ".join(self.class_names[:_NAMED]) + (", ..." if len(self.class_names) > _NAMED else "")
        lowest = "" if self.min_scores is None else f", scores from {min(self.min_scores):g}"
        return f"{type(self).__name__}({counted(len(self.class_names), 'class')}: {classes}{lowest})"

    def __call__(self, image: ImageLike) -> Result:
        """Predict on an image.

        Raises:
            DataError: The image cannot be read.
        """
        return self.batch([image])[0]

    def batch(self, images: Sequence[ImageLike], *, batch_size: int | None = None) -> list[Result]:
        """Predict on images of any sizes; the results are in the order of the images.

        Args:
            images: Files or arrays.
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
        done: Collection[int] = (),
    ) -> Iterator[Any]:
        """Predict on images of any sizes, while later images are read ahead.

        Args:
            images: Files or arrays.
            convert: Called with the index of an image, its result and its pixels; its return value is yielded instead
                of the result. It may run in another thread, for a single image at a time and not in the order of the
                images, so that large results and pixels are not kept in memory.
            keep_pixels: Whether ``convert`` gets the pixels, photos as RGB ``(H, W, 3)``; otherwise it gets None.
            description: Text of the progress bar.
            batch_size: As in `batch`.
            show_progress: Whether to show a progress bar; None shows it on a terminal.
            times: Receives the time of each stage.
            done: Indices of images that are skipped; see `loop.stream`.

        Yields:
            In the order of the images, the result of each image, or the `DataError` of an image that cannot be read.

        Raises:
            ProjectError: The batch size is not a whole number of 1 or more.
        """
        check_batch_size(batch_size)
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
            done=done,
        )

    def batches(self, images: Sequence[ImageLike]) -> Iterator[list[int]]:
        """The indices of images, together those on which `stream` runs the model together."""
        samples = PredictionSamples(images, reader=self.reader, size=self._size, is_semantic=self._is_semantic)
        return batches_of(samples, None, on_cuda=is_on_cuda(self.model), divisibility=divisibility_of(self.model))

    def input_px(self, image: ImageLike) -> int:
        """The number of pixels that an image has for the network, which gets it at once; 0 if it cannot be read."""
        samples = PredictionSamples([image], reader=self.reader, size=self._size, is_semantic=self._is_semantic)
        height_px, width_px = samples.input_size(0)
        return height_px * width_px

    @property
    def takes_whole_images(self) -> bool:
        """Whether the network gets an image at once, so that `prepare`, `run` and `finish` are separate work."""
        return True

    def prepare(self, image: ImageLike) -> Sample:
        """The first of three steps for images that come one after the other, each step in a thread of its own: read it.

        Raises:
            DataError: The image cannot be read.
        """
        if not self.takes_whole_images:
            return {"image": image}
        samples = PredictionSamples([image], reader=self.reader, size=self._size, is_semantic=self._is_semantic)
        return samples[0]

    def run(self, samples: Sequence[Sample]) -> Sequence[Any]:
        """The second step: run the network on what `prepare` returned for images of the same size."""
        if not self.takes_whole_images:
            return self.batch([sample["image"] for sample in samples])
        with inference_mode(self.model), forward_pass(self.model):
            return self._forward(self.model, samples)

    def run_full(self, samples: Sequence[Sample], instances: int) -> Sequence[Any]:
        """As `run`, with instances that each fill their image in place of those that are predicted.

        It takes the time and memory of an image that is full of large objects. A model that predicts no instances, and
        one that predicts in windows, does the same as in `run`.

        Args:
            samples: What `prepare` returned for images of the same size.
            instances: Instances of an image.
        """
        if not self.takes_whole_images:
            return self.run(samples)
        with inference_mode(self.model), forward_pass(self.model):
            return self._forward_full(self.model, samples, instances)

    def finish(self, raw: Any, sample: Sample) -> Result:
        """The last step: the result of an image from what `run` and `prepare` returned for it."""
        result: Result = self._result(raw, sample) if self.takes_whole_images else raw
        return result

    def highest(self, raw: Any, count: int) -> tuple[Any, int]:
        """Keep the instances with the highest scores, before their masks are pasted.

        Args:
            raw: What `run` returned for an image.
            count: The largest number of instances.

        Returns:
            What `finish` takes, and the number of instances that were dropped; predictions without instances of their
            own masks are unchanged.
        """
        return raw, 0

    @abstractmethod
    def _forward(self, model: Any, batch: Sequence[Sample]) -> Sequence[Raw]:
        """Run the model on a batch and move its output off the device."""

    def _forward_full(self, model: Any, batch: Sequence[Sample], instances: int) -> Sequence[Raw]:
        """What `run_full` does, for a model that takes whole images."""
        return self._forward(model, batch)

    @abstractmethod
    def _result(self, raw: Raw, sample: Sample) -> Result:
        """The result of an image from the output of the model for its sample."""
