"""Prediction on a video: reading, the network, tracking and encoding at the same time."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from d2tune.errors import ProjectError, check_range
from d2tune.inference.predictors.base import Predictor
from d2tune.inference.results import PanopticMap
from d2tune.video.annotators import Annotated, Annotator, annotator_of
from d2tune.video.encoder import CODECS, VideoEncoder
from d2tune.video.files import FrameFiles, check_outputs, remove_earlier, video_path
from d2tune.video.reader import TIMEOUT_S, Frame, VideoReader, source_of
from d2tune.video.result import StageSeconds, VideoResult
from d2tune.video.threads import Ahead, Behind
from d2tune.video.tracker import LOST_S, LOW_SCORE, MIN_SCORE, Tracker
from d2tune.video.tracks import TrackTable

VideoFormat = Literal["mp4", "webm", "none"]

_BATCHES_AHEAD = 2
_FRAMES_BEHIND = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoOptions:
    """How a video is predicted on.

    Attributes:
        video: Format of the drawn video: MPEG-4 in ``mp4``, VP8 in ``webm``, or ``none``.
        realtime: Whether the newest frame is taken and those that came meanwhile are dropped; a file is then read at
            its own speed.
        min_scores: Score from which an object begins a track, for each class; None is 0.5.
        low_score: Lowest score of detections that may continue a track; the predictor must give them.
        lost_s: Seconds that a track waits for its object.
        mm_per_px: Millimeters that a pixel stands for; None measures in pixels alone.
        background: The class of label maps whose pixels are drawn as they are; None for none.
        batch_size: Frames in a forward pass; None chooses by their size and the device.
        timeout_s: Seconds that a stream may take to open, and to give the next frame.
    """

    video: VideoFormat = "mp4"
    realtime: bool = False
    min_scores: Sequence[float] | None = None
    low_score: float = LOW_SCORE
    lost_s: float = LOST_S
    mm_per_px: float | None = None
    background: str | None = None
    batch_size: int | None = None
    timeout_s: float = TIMEOUT_S

    def check(self) -> None:
        """Refuse values outside of their ranges.

        Raises:
            ProjectError: There is one.
        """
        if self.video not in (*CODECS, "none"):
            expected = "mp4, webm or none"
            raise ProjectError("is not a format of videos", place="--video", found=self.video, expected=expected)
        if self.mm_per_px is not None:
            check_range(self.mm_per_px, place="--scale", above=0)
        check_range(self.lost_s, place="--lost-seconds", least=0)
        check_range(self.timeout_s, place="--timeout", above=0)
        if self.batch_size is not None:
            check_range(self.batch_size, place="--batch-size", least=1)


def predict_video(
    predictor: Predictor[Any, Any], source: str | Path, *, out: str | Path, options: VideoOptions | None = None
) -> VideoResult:
    """Predict on a video, and write a drawn video, ``frames.json`` and CSV tables.

    Ctrl-C ends the prediction after the frames that are under way, with whole files of what was done; a second one
    ends it at once, without files.

    Args:
        predictor: The predictor of a model; for tracks, with ``min_scores`` of at most ``options.low_score``.
        source: A file, the number of a camera, or an address of a stream.
        out: The output folder. Files of an earlier prediction in it are replaced, others never are.
        options: The options; None for the usual ones.

    Raises:
        DataError: The video cannot be read, or an output would replace a file that is not of an earlier prediction.
        ProjectError: An option is outside of its range.
        MachineError: The drawn video cannot be written.
        KeyboardInterrupt: Interrupted before the first frame was done.
    """
    chosen = options or VideoOptions()
    chosen.check()
    folder = Path(out)
    video = source_of(source)
    check_outputs(folder)
    with _without_empty_folder(folder), ExitStack() as stack:
        reader = stack.enter_context(VideoReader(video, timeout_s=chosen.timeout_s))
        job = _Job(predictor, reader, folder, chosen, stack)
        return job.run()


@dataclass(slots=True, eq=False)
class _Item:
    """A frame on its way."""

    frame: Frame
    read_s: float
    sample: Any = None
    raw: Any = None


@dataclass(slots=True)
class _Job:
    """A prediction on a video whose arguments are checked."""

    predictor: Predictor[Any, Any]
    reader: VideoReader
    out: Path
    options: VideoOptions
    stack: ExitStack
    seconds: StageSeconds = field(default_factory=StageSeconds)
    tracks: TrackTable = field(init=False)
    annotator: Annotator[Any] | None = None
    files: FrameFiles | None = None
    encoder: VideoEncoder | None = None
    objects: int = 0

    def __post_init__(self) -> None:
        self.tracks = TrackTable(self.predictor.class_names, mm_per_px=self.options.mm_per_px)
        if self.options.video != "none":
            path = video_path(self.out, self.options.video)
            self.encoder = self.stack.enter_context(VideoEncoder(path, frame_rate=self.reader.frame_rate))

    def run(self) -> VideoResult:
        """Predict on all frames and write everything."""
        size = self._batch_size()
        began_s = time.perf_counter()
        ahead = Ahead(self._items(), waiting=_BATCHES_AHEAD * size, newest=self.options.realtime)
        with (
            tqdm(total=self.reader.frame_count, desc="video", unit=" frames", leave=False, disable=None) as bar,
            ahead,
            Behind[tuple[Annotated, float]](
                lambda done: self._write(*done, bar, ahead), waiting=_FRAMES_BEHIND
            ) as writing,
            Behind[_Item](lambda item: writing.put(self._follow(item)), waiting=_FRAMES_BEHIND + size) as following,
            _interrupts(ahead.stop) as was_interrupted,
        ):
            for items in self._batches(ahead, size):
                start_s = time.perf_counter()
                for item in items:
                    if not self.options.realtime and not self.reader.is_live:
                        item.read_s = start_s  # frames of a file wait for as long as the queue is
                    item.sample = item.sample or self.predictor.prepare(item.frame.image_rgb)
                raws = self.predictor.run([item.sample for item in items])
                self.seconds.forward_s += time.perf_counter() - start_s
                for item, raw in zip(items, raws, strict=True):
                    item.raw = raw
                    following.put(item)
        self.seconds.total_s = time.perf_counter() - began_s
        return self._finish(is_interrupted=bool(was_interrupted), dropped=ahead.dropped)

    def _batch_size(self) -> int:
        """Frames in a forward pass."""
        if self.options.realtime:
            return 1
        if self.options.batch_size is not None:
            return self.options.batch_size
        if not self.predictor.takes_whole_images:
            return 1
        return self.reader.batch_of(self.predictor.batches)

    def _items(self) -> Iterator[_Item]:
        """Read and prepare the frames; in a thread of its own."""
        began_s = time.monotonic()
        frames = iter(self.reader)
        while True:
            start_s = time.perf_counter()
            frame = next(frames, None)
            if frame is None:
                return
            if self.options.realtime and not self.reader.is_live:
                self.seconds.decode_s += time.perf_counter() - start_s
                time.sleep(max(0.0, began_s + frame.time_s - time.monotonic()))
                start_s = time.perf_counter()
            item = _Item(frame, time.perf_counter())
            if not self.options.realtime:
                item.sample = self.predictor.prepare(frame.image_rgb)
            self.seconds.decode_s += time.perf_counter() - start_s
            yield item

    def _batches(self, ahead: Ahead[_Item], size: int) -> Iterator[list[_Item]]:
        """Frames of one size in order: of files always as many as fit, of live sources those that are there."""
        items: list[_Item] = []
        for item in ahead:
            if items and item.frame.image_rgb.shape != items[0].frame.image_rgb.shape:
                yield items
                items = []
            items.append(item)
            if len(items) == size or (self.reader.is_live and not ahead.has_ready()):
                yield items
                items = []
        if items:
            yield items

    def _follow(self, item: _Item) -> tuple[Annotated, float]:
        """Give the objects of a frame their tracks; in a thread of its own."""
        start_s = time.perf_counter()
        result = self.predictor.finish(item.raw, item.sample)
        if self.annotator is None:
            least = self.options.min_scores or [MIN_SCORE] * len(self.predictor.class_names)
            tracker = Tracker(
                min_score=0.0 if isinstance(result, PanopticMap) else least,
                low_score=self.options.low_score,
                lost_s=self.options.lost_s,
            )
            self.annotator = annotator_of(
                self.predictor, result, self.tracks, tracker, least, background=self.options.background
            )
        annotated = self.annotator.follow(item.frame, result)
        self.seconds.follow_s += time.perf_counter() - start_s
        return annotated, item.read_s

    def _write(self, annotated: Annotated, read_s: float, bar: Any, ahead: Ahead[_Item]) -> None:
        """Draw, encode and write a frame; in a thread of its own."""
        start_s = time.perf_counter()
        assert self.annotator is not None
        if self.files is None:
            has_classes = annotated.class_area_px2 is not None
            self.files = self.stack.enter_context(
                FrameFiles(
                    self.out,
                    self.predictor.class_names,
                    self.tracks,
                    has_objects=self.annotator.has_objects,
                    has_classes=has_classes,
                    mm_per_px=self.options.mm_per_px,
                )
            )
        if self.encoder is not None:
            self.encoder.add(self.annotator.draw(annotated), annotated.frame.time_s)
        self.files.add(annotated, stem=self.reader.source.stem)
        self.objects += len(annotated.objects)
        now_s = time.perf_counter()
        self.seconds.write_s += now_s - start_s
        self.seconds.latency_s += now_s - read_s
        dropped = f", {ahead.dropped} dropped" if ahead.dropped else ""
        bar.set_postfix_str(f"{1000 * (now_s - read_s):.0f} ms behind{dropped}", refresh=False)
        bar.update()

    def _finish(self, *, is_interrupted: bool, dropped: int) -> VideoResult:
        """Write the files of all frames."""
        if self.files is None:
            raise KeyboardInterrupt("interrupted before the first frame was done")
        reader, encoder = self.reader, self.encoder
        path = None
        if encoder is not None:
            encoder.finish()
            path = video_path(self.out, self.options.video)
        self.files.finish(
            {
                "file_name": reader.source.name,
                "width": reader.width_px,
                "height": reader.height_px,
                "fps": round(reader.frame_rate, 6),
                "length": self.files.frames,
                "rotation_deg": reader.rotation_deg,
                "dropped": dropped,
                "is_complete": reader.ending is None and not is_interrupted,
            }
        )
        remove_earlier(self.out, [*self.files.paths, *([path] if path else [])])
        return VideoResult(
            out=self.out,
            source=reader.source.name,
            video=path,
            frames=self.files.frames,
            tracks=len(self.tracks),
            objects=self.objects,
            has_objects=bool(self.annotator and self.annotator.has_objects),
            dropped=dropped,
            omitted=encoder.omitted if encoder else 0,
            cut_s=encoder.cut_s if encoder else 0.0,
            ending=None if is_interrupted else reader.ending,
            is_live=reader.is_live,
            is_interrupted=is_interrupted and not reader.is_live,
            seconds=self.seconds,
        )


@contextmanager
def _without_empty_folder(folder: Path) -> Iterator[None]:
    """Remove the output folder after an error if it was not there before."""
    existed = folder.exists()
    try:
        yield
    except BaseException:
        if not existed:
            with suppress(OSError):
                folder.rmdir()
        raise


@contextmanager
def _interrupts(stop: Callable[[], object]) -> Iterator[list[bool]]:
    """Let the first Ctrl-C call a function instead; the list that is given has an entry then."""
    interrupted: list[bool] = []
    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return

    def handle(number: int, frame: Any) -> None:
        interrupted.append(True)
        signal.signal(signal.SIGINT, before)
        stop()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)
