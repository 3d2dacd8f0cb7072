"""Predictors on images that are much larger than those of training: in overlapping windows."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from tqdm import tqdm

from d2tune.data.image_reader import Pixels
from d2tune.errors import DataError
from d2tune.inference.images import ImageLike, open_image
from d2tune.inference.loop import Sample, check_batch_size, inference_mode, stream
from d2tune.inference.predictors.base import Predictor, Raw, Result
from d2tune.inference.predictors.instance import InstancePredictor, RawDetections
from d2tune.inference.results import Detections
from d2tune.inference.stitching import Stitcher
from d2tune.inference.windows import WindowedImage, Windows, WindowSamples, grid
from d2tune.timing import StageTimes


class PredictsInWindows(Predictor[Raw, Result]):
    """Predicts on overlapping windows of an image, and puts together what they give.

    A square window is resized to the short side at which the model is evaluated, and windows of narrower images by the
    same factor. Of large TIFFs only windows are read.

    Args:
        model: As in `Predictor`.
        cfg: The config of the run, which sets ``TEST.WINDOW_PX``.
        class_names: As in `Predictor`.
        reader: As in `Predictor`.
        is_model_own: As in `Predictor`.
        min_scores: As in `Predictor`; compared with the scores in each window.
    """

    @property
    def takes_whole_images(self) -> bool:
        """False: the network gets windows."""
        return False

    def batches(self, images: Sequence[ImageLike]) -> Iterator[list[int]]:
        """See `Predictor.batches`; each image is predicted alone."""
        return ([index] for index in range(len(images)))

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
        """See `Predictor.stream`; a single image is predicted at a time, ``batch_size`` windows in a forward pass.

        ``lower_scores`` of detections are those of all windows, where an object can have several.
        """
        check_batch_size(batch_size)
        shown = {"batch_size": batch_size, "show_progress": show_progress, "times": times or StageTimes()}
        return self._stream(images, convert, keep_pixels, description, done, shown)

    def _stream(
        self,
        images: Sequence[ImageLike],
        convert: Callable[[int, Result, Pixels | None], Any] | None,
        keep_pixels: bool,
        description: str,
        done: Collection[int],
        options: dict[str, Any],
    ) -> Iterator[Any]:
        show_progress = options["show_progress"]
        left = [index for index in range(len(images)) if index not in done]
        with (
            inference_mode(self.model),
            tqdm(
                total=len(images),
                initial=len(images) - len(left),
                desc=description,
                unit=" images",
                leave=False,
                disable=None if show_progress is None else not show_progress,
            ) as bar,
        ):
            for index in left:
                try:
                    with open_image(images[index], self.reader) as opened:
                        result = self._stitched(opened, options)
                        pixels = self.reader.shown(opened.read()) if keep_pixels else None
                except DataError as error:
                    yield error
                else:
                    yield result if convert is None else convert(index, result, pixels)
                bar.update()

    @abstractmethod
    def _stitched(self, image: WindowedImage, options: dict[str, Any]) -> Result:
        """The result of an open image.

        Args:
            image: The image.
            options: ``batch_size``, ``show_progress`` and ``times`` of `stream`.

        Raises:
            DataError: A window cannot be read.
        """

    def _of_windows(
        self,
        samples: WindowSamples,
        forward: Callable[[Any, Sequence[Sample]], Sequence[Any]],
        finish: Callable[[int, Sample, Any], Any],
        options: dict[str, Any],
    ) -> Iterator[Any]:
        """Yield the finished result of each window, row by row.

        Raises:
            DataError: A window cannot be read.
        """
        for result in stream(self.model, samples, forward, finish, description="windows", unit=" windows", **options):
            if isinstance(result, DataError):
                raise result
            yield result


class WindowedPredictor(PredictsInWindows[RawDetections, Detections], InstancePredictor):
    """Predicts `Detections` in overlapping windows, and stitches those of one object; see `stitching`."""

    def _stitched(self, image: WindowedImage, options: dict[str, Any]) -> Detections:
        chosen = Windows.of_config(self._cfg)
        windows = grid(image.height_px, image.width_px, chosen)
        stitcher = Stitcher(image.height_px, image.width_px, windows, self.class_names)
        samples = WindowSamples(image, windows, scale=chosen.scale(self._size.short_side_px))

        def finish(index: int, sample: Sample, raw: RawDetections) -> Detections:
            return self._result(raw, sample)

        for index, detections in enumerate(self._of_windows(samples, self._forward, finish, options)):
            stitcher.add(index, detections)
        return stitcher.finish()
