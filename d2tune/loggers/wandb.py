"""A run on a Weights & Biases dashboard, or recorded in its folder until `wandb sync` uploads it."""

from __future__ import annotations

import logging
import netrc
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np

from d2tune.errors import RunError
from d2tune.loggers import wandb_file
from d2tune.loggers.base import LoggedFile, LoggedImage, Logger, RunInfo
from d2tune.loggers.exhibits import Chart, Gallery
from d2tune.loggers.wandb_media import Tables, chart

logger = logging.getLogger(__name__)

ANSWER_S = 3.0
"""Seconds that W&B has for its first answer before a run is recorded offline."""

_INIT_S = 6.0
_UPLOAD_S = 45.0


class Wandb(Logger):
    """One W&B run; its id is ``wandb_id`` in the record, and a resumed run goes on with it.

    Without an API key, and where W&B does not answer, the run is recorded offline. ``WANDB_MODE`` is obeyed. All of
    W&B's files of the run lie in ``wandb`` of the run folder, its artifacts included. The step of a W&B run is the
    number of completed iterations; steps that an earlier start of the run has logged are not logged again. W&B smooths
    curves itself, so it gets the latest values.
    """

    window = 1
    takes_galleries = True
    _run: Any

    def start(self, run: RunInfo) -> None:
        self._folder = run.folder.path.absolute()
        self._last_step = _last_step(self._folder, first=run.first_iteration)
        earlier_id = run.folder.record_entries().get("wandb_id")
        options = {
            "project": f"d2tune-{run.project}",
            "name": run.folder.path.name,
            "group": run.group,
            "config": run.settings(),
            "dir": str(self._folder),
            "id": earlier_id,
            "resume": "allow" if earlier_id else None,
        }
        with self._own_folders():
            self._run = _started(options, sync_folder=self._folder / "wandb")
        self._tables = Tables(self._run, project=run.project)
        run.folder.update_record({"wandb_id": str(self._run.id)})
        place = Path(self._run.dir).parent if self._run.offline else self._run.url
        print(f"W&B          {place}", flush=True)

    def log(self, scalars: Mapping[str, float], *, iteration: int) -> None:
        if self._is_new(iteration):
            self._run.log(dict(scalars), step=iteration + 1)

    def log_images(self, images: Mapping[str, LoggedImage], *, iteration: int) -> None:
        if not self._is_new(iteration):
            return
        with self._own_folders():
            self._run.log({name: self._medium(name, image) for name, image in images.items()}, step=iteration + 1)

    def _medium(self, name: str, image: LoggedImage) -> Any:
        import wandb

        if isinstance(image, Gallery):
            return self._tables.predictions(name, image)
        return chart(image) if isinstance(image, Chart) else wandb.Image(np.asarray(image))

    def log_file(self, file: LoggedFile, *, iteration: int) -> None:
        import wandb

        artifact = wandb.Artifact(
            f"{self._run.id}-{file.kind}", type=file.kind, metadata={"iteration": iteration, **file.metadata}
        )
        with self._own_folders():
            # the file is in the run folder already, and is replaced as a whole, if at all: no copy is needed
            artifact.add_file(str(file.path.absolute()), name=file.path.name, policy="immutable")
            self._run.log_artifact(artifact, aliases=["latest", *file.aliases])

    def finish(self) -> None:
        with self._own_folders():
            self._run.finish()
        self._tables.close()
        self._remove_cache()

    def _remove_cache(self) -> None:
        """Remove the logs of W&B's process, and the links to them, which would lead nowhere in a copied run."""
        shutil.rmtree(self._folder / "wandb" / "cache", ignore_errors=True)
        for path in (self._folder / "wandb").glob("*/logs/*.log"):
            if path.is_symlink() and not path.exists():
                path.unlink()

    def _is_new(self, iteration: int) -> bool:
        return iteration + 1 > self._last_step

    @contextmanager
    def _own_folders(self) -> Iterator[None]:
        """W&B's artifacts and logs lie in the run folder instead of the home folder, where no other place was set."""
        own = {"WANDB_DATA_DIR": self._folder / "wandb", "WANDB_CACHE_DIR": self._folder / "wandb" / "cache"}
        added = {name: str(path) for name, path in own.items() if name not in os.environ}
        os.environ.update(added)
        try:
            yield
        finally:
            for name in added:
                os.environ.pop(name, None)


def _last_step(folder: Path, *, first: int) -> int:
    """The last step that earlier starts of a run have logged; -1 without one.

    Args:
        folder: The run folder.
        first: The first step of this start, which is taken where a file of an earlier one is damaged.
    """
    try:
        return max((wandb_file.read(path).last_step for path in wandb_file.files_of(folder)), default=-1)
    except RunError as error:
        logger.warning("%s: what it holds of this start's steps is logged twice", error.one_line())
        return first


def _started(options: dict[str, Any], *, sync_folder: Path) -> Any:
    """The W&B run: online where W&B answers, else offline, which a warning says."""
    import wandb

    settings = wandb.Settings(silent=True, init_timeout=_INIT_S, finish_timeout=_UPLOAD_S)
    later = f"recording offline; `wandb sync {sync_folder}` uploads it later"
    mode: Any = os.environ.get("WANDB_MODE") or None
    if mode is None:
        reason = why_offline()
        if reason is not None:
            mode = "offline"
            logger.warning("%s: %s", reason, later)
    try:
        return wandb.init(**options, mode=mode, settings=settings)
    except (wandb.Error, TimeoutError) as error:
        if mode in ("offline", "disabled", "dryrun"):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        logger.warning("W&B refused the run (%s): %s", reason, later)
        return wandb.init(**options, mode="offline", settings=settings)


def why_offline() -> str | None:
    """Why W&B cannot be reached with a key; None where it answers."""
    import wandb

    address = os.environ.get("WANDB_BASE_URL") or str(wandb.setup().settings.base_url)
    if not has_key(urlparse(address).hostname or ""):
        return "W&B has no API key (`wandb login`)"
    return _unreachable(address)


def _unreachable(address: str) -> str | None:
    """Why a server cannot be reached; None where it answers, whatever it answers."""
    import requests

    try:
        requests.get(address, timeout=(ANSWER_S, ANSWER_S), stream=True, allow_redirects=False).close()
    except requests.exceptions.RequestException as error:
        return f"W&B does not answer at {address} ({type(error).__name__})"
    return None


def has_key(host: str = "api.wandb.ai") -> bool:
    """Whether W&B knows an API key, from the environment or from ``wandb login``."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
