"""A run's scalars, images and files in MLflow."""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from d2tune.loggers.base import LoggedFile, LoggedImage, Logger, RunInfo, flat
from d2tune.loggers.exhibits import as_pixels

_LONGEST_PARAM = 6000
_MOST_METRICS = _MOST_PARAMS = 100
"""Limits of a call of MLflow."""


class Mlflow(Logger):
    """One MLflow run; its id is ``mlflow_id`` in the record, and a resumed run goes on with it.

    ``MLFLOW_TRACKING_URI`` names the server or the store; without it the run is recorded in ``mlruns`` of the run
    folder, which ``mlflow ui --backend-store-uri`` shows. The experiment is ``d2tune-<project>``. Characters that
    MLflow refuses in names become ``_``.
    """

    takes_galleries = True
    _client: Any
    _id: str

    def start(self, run: RunInfo) -> None:
        uri = os.environ.get("MLFLOW_TRACKING_URI") or (run.folder.path.absolute() / "mlruns").as_uri()
        with _file_store_allowed(uri):
            from mlflow import MlflowClient

            self._client = MlflowClient(tracking_uri=uri)
        self._first = run.first_iteration
        earlier = run.folder.record_entries().get("mlflow_id")
        self._id = str(earlier) if earlier else self._new_run(run)
        if earlier:
            self._client.update_run(self._id, status="RUNNING")
        run.folder.update_record({"mlflow_id": self._id})
        self._log_params(run.settings(), known=self._client.get_run(self._id).data.params)
        self._last = self._last_iteration() if earlier else -1
        print(f"MLflow       {uri}, run {self._id}", flush=True)

    def _new_run(self, run: RunInfo) -> str:
        name = f"d2tune-{run.project}"
        experiment = self._client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment else self._client.create_experiment(name)
        tags = {"group": run.group} if run.group else {}
        return str(self._client.create_run(number, run_name=run.folder.path.name, tags=tags).info.run_id)

    def _last_iteration(self) -> int:
        """The last iteration of an earlier start; -1 without one."""
        names = self._client.get_run(self._id).data.metrics
        histories = (self._client.get_metric_history(self._id, name) for name in names)
        return max((metric.step for history in histories for metric in history), default=-1)

    def _log_params(self, settings: Mapping[str, Any], *, known: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        self._client.log_dict(self._id, dict(settings), "config.json")
        values = {_name(key): _text(value) for key, value in flat(settings).items()}
        params = [Param(key, value) for key, value in values.items() if key not in known]
        for start in range(0, len(params), _MOST_PARAMS):
            self._client.log_batch(self._id, params=params[start : start + _MOST_PARAMS])

    def log(self, scalars: Mapping[str, float], *, iteration: int) -> None:
        from mlflow.entities import Metric

        if iteration <= self._last:
            return
        now_ms = int(1000 * time.time())
        metrics = [Metric(_name(name), value, now_ms, iteration) for name, value in scalars.items() if _fits(value)]
        for start in range(0, len(metrics), _MOST_METRICS):
            self._client.log_batch(self._id, metrics=metrics[start : start + _MOST_METRICS])

    def log_images(self, images: Mapping[str, LoggedImage], *, iteration: int) -> None:
        if iteration <= self._last:
            return
        for name, image in images.items():
            self._client.log_image(self._id, as_pixels(image), key=_name(name), step=iteration)

    def log_file(self, file: LoggedFile, *, iteration: int) -> None:
        self._client.log_artifact(self._id, str(file.path), f"{file.kind}/{file.name}")
        facts = {"kind": file.kind, "aliases": list(file.aliases), "iteration": iteration, **file.metadata}
        self._client.log_dict(self._id, facts, f"{file.kind}/{file.name}.json")

    def finish(self) -> None:
        self._client.set_terminated(self._id)


@contextmanager
def _file_store_allowed(uri: str) -> Iterator[None]:
    """MLflow opens a folder as a store only where ``MLFLOW_ALLOW_FILE_STORE`` is set."""
    if not uri.startswith("file:") or "MLFLOW_ALLOW_FILE_STORE" in os.environ:
        yield
        return
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    try:
        yield
    finally:
        del os.environ["MLFLOW_ALLOW_FILE_STORE"]


def _name(name: str) -> str:
    return re.sub(r"[^\w \-./]", "_", name, flags=re.ASCII)[:250]


def _text(value: Any) -> str:
    return (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))[:_LONGEST_PARAM]


def _fits(value: float) -> bool:
    return math.isfinite(value)
