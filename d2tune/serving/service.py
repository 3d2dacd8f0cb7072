"""What the routes of a server share: its models, their threads, and its state."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from starlette.requests import Request

from d2tune.serving.answers import Answer, AnswerOptions, answer
from d2tune.serving.batching import ModelWorker, Pools, Predicted
from d2tune.serving.images import preparing
from d2tune.serving.keys import read_keys
from d2tune.serving.limits import ByteBudget
from d2tune.serving.metrics import ServingMetrics
from d2tune.serving.models import ServedModel
from d2tune.serving.problems import ApiError
from d2tune.serving.settings import ServingSettings


class Service:
    """A server's models and state.

    Args:
        models: The models by name; the first is used where a request names none.
        settings: The settings.

    Raises:
        ProjectError: The file of keys cannot be read.

    Attributes:
        draining_since: The value of ``time.monotonic()`` at which the server began to end; None while it does not.
        on_failure: Called in a thread with the error that ended the thread of a model.
    """

    def __init__(self, models: Mapping[str, ServedModel], settings: ServingSettings) -> None:
        self.models = dict(models)
        self.settings = settings
        self.metrics = ServingMetrics()
        self.budget = ByteBudget(settings.limits.waiting_bytes)
        self.keys = None if settings.keys is None else read_keys(settings.keys)
        self.draining_since: float | None = None
        self.on_failure: Callable[[BaseException], object] = lambda error: None
        self._pools = Pools()
        self.workers = {
            name: ModelWorker(
                name,
                model.load,
                pools=self._pools,
                metrics=self.metrics,
                most_waiting=settings.queue,
                most_instances=settings.limits.instances,
                batch_wait_s=settings.batch_wait_s,
                on_failure=lambda error: self.on_failure(error),
            )
            for name, model in models.items()
        }

    def start(self) -> None:
        """Start the threads of the models, which load them."""
        for worker in self.workers.values():
            worker.start()

    def close(self) -> None:
        """End all threads."""
        for worker in self.workers.values():
            worker.close()
        self._pools.close()

    def drain(self) -> None:
        """Begin to end: not ready any more, and the requests in progress are answered."""
        self.draining_since = self.draining_since or time.monotonic()

    @property
    def is_draining(self) -> bool:
        """Whether the server ends."""
        return self.draining_since is not None

    @property
    def is_alive(self) -> bool:
        """Whether the thread of each model loads or predicts."""
        return all(worker.is_alive for worker in self.workers.values())

    @property
    def is_ready(self) -> bool:
        """Whether all models are loaded, their threads are alive, and the server does not end."""
        return not self.is_draining and all(worker.is_ready for worker in self.workers.values())

    def worker(self, name: str | None) -> ModelWorker:
        """The thread of a model; of the first one where no name is given.

        Raises:
            ApiError: There is no such model.
        """
        chosen = next(iter(self.workers), None) if name is None else name
        if chosen is None or chosen not in self.workers:
            known = ", ".join(self.workers) or "none"
            raise ApiError(404, "unknown_model", f"there is no such model; the models are {known}")
        return self.workers[chosen]

    async def predict(
        self, content: bytes, options: AnswerOptions, *, request: Request, deadline: float | None = None
    ) -> Answer:
        """The answer to an image; see `ModelWorker.predict`.

        Args:
            content: The content of an image file.
            options: What the client asks for.
            request: The request, whose body has been read.
            deadline: See `ModelWorker.predict`; None is that of the settings from now.
        """
        until = time.monotonic() + self.settings.deadline_s if deadline is None else deadline
        gone = asyncio.ensure_future(_disconnected(request))

        def encode(predicted: Predicted) -> Answer:
            return answer(predicted, options)

        try:
            prepare = preparing(content, self.settings.limits)
            done: Answer = await self.worker(options.model).predict(prepare, encode, deadline=until, gone=gone)
            return done
        finally:
            gone.cancel()


async def _disconnected(request: Request) -> None:
    """Wait until the client closes the connection."""
    while True:
        message: Any = await request.receive()
        if message["type"] == "http.disconnect":
            return
