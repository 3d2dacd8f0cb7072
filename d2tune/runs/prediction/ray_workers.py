"""Predicting on a Ray cluster: workers load the model once and write the files of images, this process the rest."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from d2tune.errors import D2TuneError, DataError, MachineError, RunError
from d2tune.inference.loop import LOOKAHEAD
from d2tune.inference.writers.base import Writer
from d2tune.runs.load import load_model
from d2tune.runs.prediction.job import Entries, Prediction
from d2tune.text import reason_of

OBJECT_STORE_BYTES = 150_000_000
"""Shared memory of a cluster that is started here; the entries of images are some kilobytes each."""

MOST_ATTEMPTS = 3
"""How many workers may die on the same images. Ray itself starts new workers without an end."""

_ATTEMPTS = ".d2tune-ray-attempts"
_GROUPS_A_WORKER = 4
_QUIET = {"RAY_DATA_DISABLE_PROGRESS_BARS": "1", "RAY_BACKEND_LOG_LEVEL": "fatal"}
_CONNECT_S = 10.0
_HOST = re.compile(r"(?:ray://)?(?P<host>[^/:\[\]]+|\[[^\]]+\]):(?P<port>\d+)")


class PredictionWorker:
    """Predicts on groups of images, with a model that is loaded once.

    A worker has as many threads as the process that asked for it, because they decide how sums are rounded. To be
    used as a context manager, or in a process that ends with it.

    Args:
        prediction: What to predict, its model without the network.
        threads: Number of threads.

    Raises:
        D2TuneError: The model cannot be read here, or its weights are others.
    """

    def __init__(self, prediction: Prediction, threads: int) -> None:
        torch.set_num_threads(threads)
        given = prediction.loaded
        loaded = load_model(given.source, weights=str(given.weights) if given.run is not None else "best")
        if loaded.weights_sha256 != given.weights_sha256:
            raise RunError("the weights differ from those on the first machine", file=loaded.weights)
        cfg = given.cfg.clone()
        cfg.defrost()
        cfg.MODEL.DEVICE = loaded.cfg.MODEL.DEVICE
        cfg.freeze()
        ready = replace(given, model=loaded.model, cfg=cfg)
        self._attempts = _attempts_folder(prediction)
        everything = frozenset(range(len(prediction.images.paths)))
        options = replace(prediction.options, force=True, finished=everything)
        self._writer = replace(prediction, loaded=ready).writer(options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason: object) -> None:
        self._writer.__exit__(*reason)

    def __call__(self, rows: Mapping[str, Any]) -> dict[str, Any]:
        """Predict on the group of each row of a batch of Ray Data."""
        return {"entries": np.array([json.dumps(self.predict(json.loads(group))) for group in rows["group"]])}

    def predict(self, group: Sequence[int]) -> list[tuple[int, str, Any]]:
        """Predict on images of one stretch of `loop.LOOKAHEAD` images, and write their files.

        Returns:
            For each image its index, and ``entry`` with what `Writer.convert` returned or ``error`` with a line.

        Raises:
            RunError: Several workers have died on these images.
        """
        indices = sorted(group)
        with self._attempt(indices):
            return self._predicted(indices)

    def _predicted(self, indices: Sequence[int]) -> list[tuple[int, str, Any]]:
        first = indices[0] // LOOKAHEAD * LOOKAHEAD
        within = range(first, min(first + LOOKAHEAD, len(self._writer.images.paths)))
        results = self._writer.predictions(set(within) - set(indices), within=within)
        return [
            (index, "error", result.one_line()) if isinstance(result, DataError) else (index, "entry", result)
            for index, result in zip(indices, results, strict=True)
        ]

    @contextmanager
    def _attempt(self, indices: Sequence[int]) -> Iterator[None]:
        """Count the workers that begin with images and do not end."""
        file = self._attempts / str(indices[0])
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab") as stream:
            earlier = stream.tell()
            stream.write(b".")
        if earlier >= MOST_ATTEMPTS:
            image = self._writer.images.paths[indices[0]]
            hint = "It may need more memory than a worker has. Remove it, or give workers more."
            raise RunError(f"{earlier} workers died on this image or those with it", file=image, hint=hint)
        yield
        file.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class RayWorkers:
    """Workers on a Ray cluster; see `job.Workers`.

    Attributes:
        address: ``auto`` for the cluster of this machine, ``local`` for one that is started for this prediction, or
            the address of a cluster, such as ``ray://host:10001``.
    """

    address: str

    def check(self) -> None:
        """Make sure that the library is installed and that the address answers.

        Raises:
            MachineError: Ray is not installed.
            RunError: The address does not answer.
        """
        import_ray()
        hit = _HOST.fullmatch(self.address)
        if hit is None:
            return
        try:
            socket.create_connection((hit["host"].strip("[]"), int(hit["port"])), timeout=_CONNECT_S).close()
        except (OSError, OverflowError) as error:
            raise _unreachable(self.address, error) from None

    def entries(self, prediction: Prediction, writer: Writer[Any, Any], left: Sequence[int]) -> Entries:
        """Predict on images, and write the files of each.

        Raises:
            MachineError: Ray is not installed.
            RunError: The cluster cannot be reached, a worker died repeatedly, or a worker cannot use the model.
        """
        if not left:
            return
        ray = import_ray()
        threads = torch.get_num_threads()
        _forget_attempts(prediction)
        with _connected(ray, self.address), _one_line(ray):
            resources = ray.cluster_resources()
            workers, needs = _workers(resources, threads)
            groups = groups_of(writer.batches(), set(left), workers=workers)
            rows = ray.data.from_items(
                [{"group": json.dumps(group)} for group in groups], override_num_blocks=len(groups)
            )
            predicted = rows.map_batches(
                PredictionWorker,
                fn_constructor_kwargs={"prediction": sent(prediction), "threads": threads},
                batch_size=1,
                compute=ray.data.ActorPoolStrategy(size=min(workers, len(groups))),
                **needs,
            )
            for row in predicted.iter_rows():
                for index, kind, value in json.loads(row["entries"]):
                    yield index, DataError(value) if kind == "error" else value
        _forget_attempts(prediction)


def _attempts_folder(prediction: Prediction) -> Path:
    target = prediction.target
    return (target.parent if target.suffix.lower() == ".csv" else target) / _ATTEMPTS


def _forget_attempts(prediction: Prediction) -> None:
    shutil.rmtree(_attempts_folder(prediction), ignore_errors=True)


def groups_of(batches: Sequence[Sequence[int]], left: set[int], *, workers: int) -> list[list[int]]:
    """The images that a worker gets at a time: those of one or more batches of one stretch of `LOOKAHEAD` images.

    Args:
        batches: See `Writer.batches`.
        left: The images to predict on.
        workers: Number of workers, each of which gets about four groups or more.
    """
    wanted = [kept for batch in batches if (kept := [index for index in batch if index in left])]
    together = max(1, len(wanted) // (_GROUPS_A_WORKER * workers))
    groups: list[list[int]] = []
    sizes: list[int] = []
    for batch in wanted:
        if groups and sizes[-1] < together and groups[-1][0] // LOOKAHEAD == batch[0] // LOOKAHEAD:
            groups[-1] += batch
            sizes[-1] += 1
        else:
            groups.append(list(batch))
            sizes.append(1)
    return groups


def import_ray() -> Any:
    """The library, which reports no usage.

    Raises:
        MachineError: It is not installed.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
        import ray.data
    except ImportError:
        hint = 'Install it: pip install "d2tune[ray]".'
        raise MachineError("the library Ray is not installed", place="--ray", hint=hint) from None
    return ray


def _workers(resources: Mapping[str, float], threads: int) -> tuple[int, dict[str, float]]:
    """How many workers a cluster has room for, and what each of them needs."""
    gpus = int(resources.get("GPU", 0))
    if gpus:
        return gpus, {"num_gpus": 1}
    cpus = resources.get("CPU", 1)
    return max(1, math.floor(cpus / threads)), {"num_cpus": min(threads, cpus)}


def sent(prediction: Prediction) -> Prediction:
    """The prediction for a worker: with absolute paths, and without the network."""
    loaded = prediction.loaded
    source, weights = loaded.source.absolute(), loaded.weights.absolute()
    images = prediction.images
    absolute = replace(
        images,
        root=images.root.absolute(),
        paths=[path.absolute() for path in images.paths],
        source=[path.absolute() for path in images.source],
    )
    return replace(
        prediction,
        loaded=replace(loaded, model=None, source=source, weights=weights),
        images=absolute,
        target=prediction.target.absolute(),
        workers=None,
    )


@contextmanager
def _connected(ray: Any, address: str) -> Iterator[None]:
    """A connection to a cluster, or a cluster that ends with the context."""
    is_local = address == "local"
    options: dict[str, Any] = (
        {"object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False} if is_local else {}
    )
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        with _silent():
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **options)
    except (ConnectionError, OSError, ValueError, RuntimeError) as error:
        raise _unreachable(address, error) from None
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        context.max_consecutive_actor_init_deaths = MOST_ATTEMPTS
        yield
    finally:
        ray.shutdown()


def _unreachable(address: str, error: BaseException) -> RunError:
    hint = "Name the address of a running cluster, auto, or local to start one here."
    message = f"the Ray cluster cannot be reached ({reason_of(error)})"
    return RunError(message, place="--ray", found=address, hint=hint)


@contextmanager
def _silent() -> Iterator[None]:
    """Discard what libraries write to the standard error themselves, as Ray's does about its log level."""
    sys.stderr.flush()
    earlier = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        os.dup2(earlier, 2)
        os.close(earlier)


@contextmanager
def _one_line(ray: Any) -> Iterator[None]:
    """Turn an error of a worker into the one that it raised there, or into a line."""
    try:
        yield
    except D2TuneError:
        raise
    except ray.exceptions.RayError as error:
        cause: BaseException | None = error
        while cause is not None:
            inner = getattr(cause, "cause", None)
            if isinstance(inner, D2TuneError):
                raise inner from None
            cause = inner if isinstance(inner, BaseException) else cause.__cause__
        hint = "The same command goes on from the images that are finished."
        raise RunError(f"a worker failed: {_last_line(error)}", place="--ray", hint=hint) from None


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__).rstrip(".")
