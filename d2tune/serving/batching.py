"""A model in one thread, with a bounded queue before it and micro-batches of images of one size.

A forward pass cannot be stopped. So nothing waits that could not be predicted in time: the number of images that are
decoded, waiting or being predicted is bounded, and deadlines and clients that went away are noticed before the pass.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from d2tune.errors import D2TuneError
from d2tune.hardware import usable_cores
from d2tune.inference.loop import Sample, divisibility_of, fitting_batch, is_on_cuda
from d2tune.inference.predictors.base import Predictor
from d2tune.serving.metrics import ServingMetrics, Times
from d2tune.serving.models import Ready
from d2tune.serving.problems import ApiError, ClientGoneError, busy

logger = logging.getLogger(__name__)

_WARM_UP_PX = 64
_MEMORY = 0.1
"""Weight of the newest image in the running mean of the seconds that an image takes."""


@dataclass(frozen=True, slots=True)
class Predicted:
    """The result of an image.

    Attributes:
        result: `Detections`, a `LabelMap` or a `PanopticMap`.
        dropped: Instances that the limit on instances dropped.
        times: The stages until here.
    """

    result: Any
    dropped: int
    times: Times


@dataclass(slots=True, eq=False)
class _Job:
    sample: Sample
    size_hw: tuple[int, int]
    deadline: float
    encode: Callable[[Predicted], Any]
    times: Times
    future: Future[Any] = field(default_factory=Future)
    began: float = field(default_factory=time.monotonic)


class Pools:
    """The threads that decode images and encode answers, and the turn of the device, shared by all models."""

    def __init__(self) -> None:
        cores = usable_cores()
        # as many as `loop.stream` has; more would take the cores from the forward pass
        self.decoding = ThreadPoolExecutor(max(1, min(4, cores // 2)), thread_name_prefix="decode")
        self.encoding = ThreadPoolExecutor(max(1, min(4, cores // 2)), thread_name_prefix="encode")
        self.turn = threading.Lock()

    def close(self) -> None:
        """End the threads."""
        for pool in (self.decoding, self.encoding):
            pool.shutdown(wait=False, cancel_futures=True)


class ModelWorker:
    """The thread that holds a model, and its queue.

    Args:
        name: Name of the model in metrics and logs.
        load: Loads the model, in the thread.
        pools: The shared threads.
        metrics: The metrics of the server.
        most_waiting: Most images that are decoded, waiting or being predicted.
        most_instances: Most instances of an image.
        batch_wait_s: Seconds that a forward pass waits for images that are being decoded.
        on_failure: Called in the thread with the error that ended it.
    """

    def __init__(
        self,
        name: str,
        load: Callable[[], Ready],
        *,
        pools: Pools,
        metrics: ServingMetrics,
        most_waiting: int,
        most_instances: int,
        batch_wait_s: float,
        on_failure: Callable[[BaseException], object],
    ) -> None:
        self.name = name
        self._load = load
        self._pools = pools
        self._metrics = metrics
        self._most_waiting = most_waiting
        self._most_instances = most_instances
        self._batch_wait_s = batch_wait_s
        self._on_failure = on_failure
        self._ready: Ready | None = None
        self._has_failed = False
        self._is_closed = False
        self._changed = threading.Condition()
        self._queue: deque[_Job] = deque()
        self._admitted = 0
        self._preparing = 0
        self._image_s = 0.1
        self._thread = threading.Thread(target=self._main, name=f"model-{name}", daemon=True)

    def start(self) -> None:
        """Load the model in the thread, and begin to predict."""
        self._thread.start()

    def close(self) -> None:
        """End the thread after the forward pass in progress; what waits is refused."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout=30)

    @property
    def is_alive(self) -> bool:
        """Whether the thread loads or predicts."""
        return self._thread.is_alive() and not self._has_failed

    @property
    def is_ready(self) -> bool:
        """Whether the model is loaded and has predicted once, and its thread is alive."""
        return self.is_alive and self._ready is not None

    @property
    def ready(self) -> Ready:
        """The loaded model.

        Raises:
            ApiError: It is not ready.
        """
        if self._ready is None or not self.is_ready:
            state = "loading" if self.is_alive else "not running"
            message = f"the model {self.name} is {state}"
            raise ApiError(503, "not_ready", message, headers={"Retry-After": "5"})
        return self._ready

    def wait_until_ready(self) -> None:
        """Wait, in a thread, until the model is loaded or its thread has ended."""
        with self._changed:
            self._changed.wait_for(lambda: self._ready is not None or not self.is_alive)

    def check_ready(self) -> None:
        """Refuse a request before its body is read.

        Raises:
            ApiError: The model is not ready, or too many images wait.
        """
        self.ready  # noqa: B018
        if self._admitted >= self._most_waiting:
            self._metrics.refused(self.name, "busy")
            raise busy(f"{self._admitted} images wait for the model {self.name}", self._admitted * self._image_s)

    @property
    def waiting(self) -> int:
        """Images that are decoded, waiting or being predicted."""
        return self._admitted

    async def predict(
        self,
        prepare: Callable[[Predictor[Any, Any]], Sample],
        encode: Callable[[Predicted], Any],
        *,
        deadline: float,
        gone: Awaitable[object] | None = None,
    ) -> Any:
        """Predict on an image.

        Args:
            prepare: Decodes the image for a predictor, in a thread.
            encode: Makes the answer, in a thread.
            deadline: The value of ``time.monotonic()`` until which the network must begin with it.
            gone: Is done when the client has closed the connection.

        Returns:
            What ``encode`` returned.

        Raises:
            ApiError: The model is not ready, too many images wait, the image cannot be read, or the deadline passed.
            ClientGoneError: The client closed the connection before the network began.
        """
        self.check_ready()
        predictor = self.ready.predictor
        self._count(admitted=1)
        try:
            job = await self._prepared(predictor, prepare, encode, deadline)
            return await self._answer(job, gone)
        finally:
            self._count(admitted=-1)

    async def _prepared(
        self,
        predictor: Predictor[Any, Any],
        prepare: Callable[[Predictor[Any, Any]], Sample],
        encode: Callable[[Predicted], Any],
        deadline: float,
    ) -> _Job:
        times = Times()
        self._count(preparing=1)
        try:
            began = time.perf_counter()
            loop = asyncio.get_running_loop()
            sample = await loop.run_in_executor(self._pools.decoding, prepare, predictor)
            times.decode_s = time.perf_counter() - began
            return self._put(_Job(sample, _padded(predictor, sample), deadline, encode, times))
        finally:
            self._count(preparing=-1)

    def _put(self, job: _Job) -> _Job:
        with self._changed:
            if self._is_closed or self._has_failed:
                raise _not_running(self.name)
            self._queue.append(job)
            self._changed.notify_all()
        return job

    def predict_here(self, prepare: Callable[[Predictor[Any, Any]], Sample], *, deadline: float) -> Any:
        """The result of an image, for a thread that waits for it; see `predict`.

        Raises:
            ApiError: As in `predict`.
        """
        self.check_ready()
        predictor = self.ready.predictor
        self._count(admitted=1)
        try:
            sample = prepare(predictor)
            job = _Job(sample, _padded(predictor, sample), deadline, _result_of, Times())
            return self._put(job).future.result()
        finally:
            self._count(admitted=-1)

    async def _answer(self, job: _Job, gone: Awaitable[object] | None) -> Any:
        """Wait for the answer; before the network begins, no longer than the deadline and the client."""
        answer = asyncio.wrap_future(job.future)
        waited = {answer} if gone is None else {answer, asyncio.ensure_future(gone)}
        done, _ = await asyncio.wait(
            waited, timeout=max(0.0, job.deadline - time.monotonic()), return_when=asyncio.FIRST_COMPLETED
        )
        if answer not in done and job.future.cancel():
            if done:
                raise ClientGoneError
            self._metrics.refused(self.name, "deadline")
            raise _late(self.name)
        return await answer

    def _count(self, *, admitted: int = 0, preparing: int = 0) -> None:
        with self._changed:
            self._admitted += admitted
            self._preparing += preparing
            self._metrics.waits(self.name, self._admitted)
            self._changed.notify_all()

    # in the thread

    def _main(self) -> None:
        try:
            ready = self._load()
            predictor = ready.predictor
            self._warm_up(predictor)
            with self._changed:
                self._ready = ready
                self._changed.notify_all()
            self._metrics.ready(self.name, is_ready=True)
            logger.info("the model %s is ready", self.name)
            while (batch := self._next_batch(predictor)) is not None:
                self._predict(predictor, batch)
        except BaseException as error:
            self._has_failed = True
            if not isinstance(error, D2TuneError):
                logger.critical("the thread of the model %s ended", self.name, exc_info=True)
            self._on_failure(error)
        finally:
            self._metrics.ready(self.name, is_ready=False)
            self._refuse_all()

    def _warm_up(self, predictor: Predictor[Any, Any]) -> None:
        """Predict on a black image, so that a model that cannot is not ready."""
        channels = predictor.reader.channels or 3
        pixels = np.zeros((_WARM_UP_PX, _WARM_UP_PX, channels), np.uint8)
        sample = predictor.prepare(pixels)
        with self._pools.turn:
            raw = predictor.run([sample])[0]
        predictor.finish(raw, sample)

    def _refuse_all(self) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            waiting, self._queue = list(self._queue), deque()
        for job in waiting:
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(_not_running(self.name))

    def _next_batch(self, predictor: Predictor[Any, Any]) -> list[_Job] | None:
        """The first image that waits, with others of its size; None when the worker is closed."""
        with self._changed:
            while (first := self._take(None)) is None:
                if self._is_closed:
                    return None
                self._changed.wait()
            batch = [first]
            most = _most_together(predictor, first.size_hw)
            until = time.monotonic() + self._batch_wait_s
            while len(batch) < most:
                job = self._take(first.size_hw)
                if job is not None:
                    batch.append(job)
                    continue
                left = until - time.monotonic()
                if left <= 0 or not self._preparing:
                    break
                self._changed.wait(left)
        return batch

    def _take(self, size_hw: tuple[int, int] | None) -> _Job | None:
        """The first image in the queue, of a size if one is given, that is neither canceled nor late."""
        for job in list(self._queue):
            if size_hw is not None and job.size_hw != size_hw:
                continue
            self._queue.remove(job)
            if not job.future.set_running_or_notify_cancel():
                continue
            if time.monotonic() > job.deadline:
                self._metrics.refused(self.name, "deadline")
                job.future.set_exception(_late(self.name))
                continue
            return job
        return None

    def _predict(self, predictor: Predictor[Any, Any], batch: Sequence[_Job]) -> None:
        began = time.monotonic()
        try:
            with self._pools.turn:
                raws = predictor.run([job.sample for job in batch])
        except Exception as error:
            if len(batch) > 1:  # one image must not cost the others their answers
                self._predict_each(predictor, batch)
                return
            logger.exception("the model %s failed on an image", self.name)
            batch[0].future.set_exception(error)
            self._warm_up(predictor)  # fails where the device or the model is broken: the thread ends
            return
        except BaseException:
            for job in batch:
                job.future.set_exception(_not_running(self.name))
            raise
        forward_s = time.monotonic() - began
        self._image_s += _MEMORY * (forward_s / len(batch) - self._image_s)
        self._metrics.batch(self.name, len(batch), forward_s)
        for job, raw in zip(batch, raws, strict=True):
            job.times.queue_s, job.times.forward_s, job.times.batch = began - job.began, forward_s, len(batch)
            with suppress(RuntimeError):  # the pool is closed
                self._pools.encoding.submit(self._finish, predictor, job, raw)

    def _predict_each(self, predictor: Predictor[Any, Any], batch: Sequence[_Job]) -> None:
        for at, job in enumerate(batch):
            try:
                self._predict(predictor, [job])
            except BaseException:
                for other in batch[at + 1 :]:
                    other.future.set_exception(_not_running(self.name))
                raise

    def _finish(self, predictor: Predictor[Any, Any], job: _Job, raw: Any) -> None:
        began = time.monotonic()
        try:
            kept, dropped = predictor.highest(raw, self._most_instances)
            result = predictor.finish(kept, job.sample)
            answer = job.encode(Predicted(result, dropped, job.times))
            job.times.encode_s = time.monotonic() - began
            self._metrics.image(self.name, job.times)
            job.future.set_result(answer)
        except Exception as error:
            job.future.set_exception(error)


def _result_of(predicted: Predicted) -> Any:
    return predicted.result


def _not_running(name: str) -> ApiError:
    return ApiError(503, "not_ready", f"the model {name} is not running", headers={"Retry-After": "5"})


def _late(name: str) -> ApiError:
    message = f"the model {name} did not begin with the image before the deadline"
    return ApiError(503, "deadline", message, headers={"Retry-After": "5"})


def _padded(predictor: Predictor[Any, Any], sample: Sample) -> tuple[int, int]:
    """Height and width that the network pads an image to; only images of one such size share a pass."""
    step = divisibility_of(predictor.model)
    height_px, width_px = (-(-int(side) // step) * step for side in sample["image"].shape[-2:])
    return height_px, width_px


def _most_together(predictor: Predictor[Any, Any], size_hw: tuple[int, int]) -> int:
    if not predictor.takes_whole_images:
        return 1
    return fitting_batch(*size_hw, on_cuda=is_on_cuda(predictor.model))
