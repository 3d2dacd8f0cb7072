"""A run's scalars, images and files on a trackio dashboard."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

from d2tune.loggers.base import LoggedFile, LoggedImage, Logger, RunInfo
from d2tune.loggers.exhibits import as_pixels


class Trackio(Logger):
    """One run in trackio's database, which ``trackio show --project d2tune-<project>`` shows.

    The database is where trackio keeps it: in ``TRACKIO_DIR``, or in the cache of Hugging Face. The name of the run,
    ``trackio_name`` in the record, is that of the run folder; a resumed run goes on with it. Without
    ``TRACKIO_SPACE_ID`` and ``TRACKIO_SERVER_URL`` nothing leaves the machine.
    """

    takes_galleries = True
    _run: Any

    def start(self, run: RunInfo) -> None:
        os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
        import trackio

        self._project = f"d2tune-{run.project}"
        earlier = run.folder.record_entries().get("trackio_name")
        name = earlier or _new_name(self._project, run.folder.path.name)
        self._last = _last_iteration(self._project, name) if earlier else -1
        with _quiet():
            self._run = trackio.init(
                project=self._project,
                name=name,
                group=run.group,
                config=run.settings(),
                resume="allow" if earlier else "never",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        run.folder.update_record({"trackio_name": name})
        print(f'trackio      trackio show --project "{self._project}", run {name}', flush=True)

    def log(self, scalars: Mapping[str, float], *, iteration: int) -> None:
        if iteration > self._last:
            self._run.log(dict(scalars), step=iteration)

    def log_images(self, images: Mapping[str, LoggedImage], *, iteration: int) -> None:
        import trackio

        if iteration <= self._last:
            return
        self._run.log({name: trackio.Image(as_pixels(image)) for name, image in images.items()}, step=iteration)

    def log_file(self, file: LoggedFile, *, iteration: int) -> None:
        import trackio

        artifact = trackio.Artifact(file.name, file.kind, metadata={"iteration": iteration, **file.metadata})
        artifact.add_file(str(file.path))
        self._run.log_artifact(artifact, aliases=list(file.aliases) or None)

    def finish(self) -> None:
        self._run.finish()


def _new_name(project: str, name: str) -> str:
    """The name, with a number where the project has a run of it."""
    from trackio import SQLiteStorage

    known = set(SQLiteStorage.get_runs(project))
    return next(free for number in count(1) if (free := name if number == 1 else f"{name}_{number}") not in known)


def _last_iteration(project: str, name: str) -> int:
    """The last iteration that an earlier start has logged; -1 without one."""
    from trackio import SQLiteStorage

    return max((row.get("step") or -1 for row in SQLiteStorage.get_logs(project, name)), default=-1)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what trackio prints; the log has its warnings."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
