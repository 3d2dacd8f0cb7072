"""A run on a Weights & Biases dashboard, or recorded in its folder until `wandb sync` uploads it."""

from __future__ import annotations

import logging
import netrc
import os
import secrets
import shutil
import string
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
from d2tune.text import describe, reason_of

logger = logging.getLogger(__name__)

ANSWER_S = 3.0
"""Seconds that W&B has for its first answer before a run is recorded offline."""

_INIT_S = 5.0
_UPLOAD_S = 45.0
_ID_LETTERS = string.ascii_lowercase + string.digits


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
        # a sweep of W&B gives the id of a run in its environment
        new_id = os.environ.get("WANDB_RUN_ID") or "".join(secrets.choice(_ID_LETTERS) for _ in range(8))
        options = {
            "project": f"d2tune-{run.project}",
            "name": run.folder.path.name,
            "group": run.group,
            "config": run.settings(),
            "dir": str(self._folder),
            "id": earlier_id or new_id,
            "resume": "allow" if earlier_id else None,
        }
        with self._own_folders(), valid_settings() as refused:
            self._run = _started(options, sync_folder=self._folder / "wandb", refused=refused)
        self._tables = Tables(self._run, project=run.project)
        self._missed = 0
        if not self._run.offline:
            with self._own_folders(), self._may_fail("the connection for artifacts"):
                self._run._public_api()  # checks the key once; a check after a cut of the network would fail
        run.folder.update_record({"wandb_id": str(self._run.id)})
        place = Path(self._run.dir).parent if self._run.offline else self._run.url
        print(f"W&B          {place}", flush=True)

    def log(self, scalars: Mapping[str, float], *, iteration: int) -> None:
        if self._is_new(iteration):
            self._run.log(dict(scalars), step=iteration + 1)

    def log_images(self, images: Mapping[str, LoggedImage], *, iteration: int) -> None:
        if not self._is_new(iteration):
            return
        for name, image in images.items():
            if not self._answers(name):
                continue
            with self._own_folders(), self._may_fail(name):
                self._run.log({name: self._medium(name, image)}, step=iteration + 1)

    def _medium(self, name: str, image: LoggedImage) -> Any:
        import wandb

        if isinstance(image, Gallery):
            return self._tables.predictions(name, image)
        return chart(image) if isinstance(image, Chart) else wandb.Image(np.asarray(image))

    def log_file(self, file: LoggedFile, *, iteration: int) -> None:
        import wandb

        if not self._answers(file.name):
            return
        artifact = wandb.Artifact(
            f"{self._run.id}-{file.kind}", type=file.kind, metadata={"iteration": iteration, **file.metadata}
        )
        with self._own_folders(), self._may_fail(file.name):
            # the file is in the run folder already, and is replaced as a whole, if at all: no copy is needed
            artifact.add_file(str(file.path.absolute()), name=file.path.name, policy="immutable")
            self._run.log_artifact(artifact, aliases=["latest", *file.aliases])

    def finish(self) -> None:
        with self._own_folders():
            self._run.finish()
        self._tables.close()
        self._remove_cache()

    def _answers(self, what: str) -> bool:
        """Whether W&B's server answers, for which images and files would be waited without a limit."""
        reason = None if self._run.offline else _unreachable(str(self._run.settings.base_url))
        if reason is not None:
            self._miss(what, reason)
        return reason is None

    def _miss(self, what: str, reason: str) -> None:
        self._missed += 1
        if self._missed == 1:
            logger.warning("W&B did not take %s, metrics are still logged: %s", what, reason)

    @contextmanager
    def _may_fail(self, what: str) -> Iterator[None]:
        """Images and files ask the server, scalars do not: where it does not answer, scalars are logged further on."""
        import wandb

        try:
            yield
        except (wandb.Error, TimeoutError) as error:
            self._miss(what, _reason(error))

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
        """W&B's artifacts and logs lie in the run folder instead of the home folder, where no other place was set.

        W&B's reports on itself are off, because a process waits for them at its end where the server hangs.
        """
        own = {
            "WANDB_DATA_DIR": self._folder / "wandb",
            "WANDB_CACHE_DIR": self._folder / "wandb" / "cache",
            "WANDB_ERROR_REPORTING": "false",
        }
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
    steps = [-1]
    for path in wandb_file.files_of(folder):
        try:
            steps.append(wandb_file.read(path).last_step)
        except RunError as error:
            logger.warning("%s: what it holds of this start's steps is logged twice", error.one_line())
            steps.append(first)
    return max(steps)


@contextmanager
def valid_settings() -> Iterator[str]:
    """W&B's settings without those of the environment that it refuses; gives a line about them, empty without any."""
    import wandb
    from pydantic import ValidationError

    removed: dict[str, str] = {}
    reasons: list[str] = []
    while True:
        try:
            wandb.setup()
            break
        except ValidationError as error:
            names = {f"WANDB_{one['loc'][0]}".upper(): one["msg"] for one in error.errors() if one["loc"]}
            if not names.keys() & os.environ.keys():
                raise
            for name in names.keys() & os.environ.keys():
                reasons.append(f"{name} is {describe(os.environ[name])}, which W&B refuses ({names[name]})")
                removed[name] = os.environ.pop(name)
    try:
        yield "; ".join(reasons)
    finally:
        os.environ.update(removed)


def _started(options: dict[str, Any], *, sync_folder: Path, refused: str) -> Any:
    """The W&B run: online where W&B answers, else offline, which a warning says.

    Args:
        options: Of ``wandb.init``.
        sync_folder: The folder of W&B's runs.
        refused: A line about settings that W&B refuses; where there are any, the run is recorded offline.
    """
    import wandb

    settings = wandb.Settings(silent=True, init_timeout=_INIT_S, finish_timeout=_UPLOAD_S)
    later = f"recording offline; `wandb sync {sync_folder}` uploads it later"
    mode: Any = os.environ.get("WANDB_MODE") or None
    if mode is None or refused:
        reason = refused or why_offline()
        if reason is not None:
            mode = "offline"
            logger.warning("%s: %s", reason, later)
    before = set(sync_folder.glob("run-*"))
    try:
        return wandb.init(**options, mode=mode, settings=settings)
    except (wandb.Error, TimeoutError) as error:
        if mode in ("offline", "disabled", "dryrun"):
            raise
        logger.warning("W&B refused the run (%s): %s", _reason(error), later)
        if wandb.run is None:  # else it would end a run of the caller
            wandb.teardown(exit_code=1)  # its process keeps the id of a run that was refused
        for folder in set(sync_folder.glob("run-*")) - before:  # it has no step, and would be uploaded too
            shutil.rmtree(folder, ignore_errors=True)
        return wandb.init(**options, mode="offline", settings=settings)


def _reason(error: BaseException) -> str:
    """What an error of W&B says; some only say that they have no message."""
    reason = reason_of(error).rstrip(": ")
    return "it does not accept the API key, or does not answer" if reason == "<no message>" else reason


def why_offline() -> str | None:
    """Why W&B cannot be reached with a key; None where it answers."""
    import wandb

    with valid_settings() as refused:
        if refused:
            return refused
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
