"""A run's scalars and images on a Weights & Biases dashboard."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from detectron2.utils.events import EventWriter, get_event_storage

logger = logging.getLogger(__name__)


class WandbRun(EventWriter):
    """One W&B run; give it to a ``PeriodicWriter`` and it logs each scalar once.

    Without an API key the run is recorded offline, in ``folder``; ``WANDB_MODE`` is obeyed.

    Args:
        project: W&B project.
        name: Name of the run on the dashboard.
        config: What to show as the run's configuration.
        folder: Where W&B keeps its files.
        run_id: Id to go on with, of a run that is resumed.
    """

    def __init__(
        self, *, project: str, name: str, config: Mapping[str, Any], folder: Path, run_id: str | None = None
    ) -> None:
        import wandb

        mode: Literal["offline"] | None = None
        if not os.environ.get("WANDB_MODE") and not has_key():
            mode = "offline"
            logger.warning("W&B has no API key (`wandb login`): recording offline; `wandb sync` uploads it later")
        self._wandb = wandb
        self._run = wandb.init(
            project=project,
            name=name,
            config=dict(config),
            dir=str(folder),
            mode=mode,
            id=run_id,
            resume="allow" if run_id else None,
            settings=wandb.Settings(silent=True),
        )
        self._written = -1

    @property
    def id(self) -> str:
        """The run's id, to go on with it later."""
        return str(self._run.id)

    @property
    def where(self) -> str:
        """The dashboard's address, or the folder of an offline run."""
        return self._run.url or str(Path(self._run.dir).parent)

    def write(self) -> None:
        """Log the scalars that are newer than the last call's."""
        storage = get_event_storage()
        fresh = {key: value for key, (value, step) in storage.latest().items() if step > self._written}
        if fresh:
            self._run.log(fresh, step=storage.iter + 1)
            self._written = storage.iter

    def log_image(self, key: str, file: Path) -> None:
        """Log a PNG."""
        self._run.log({key: self._wandb.Image(str(file))})

    def close(self) -> None:
        """Upload what is left and end the run."""
        self._run.finish()


def has_key() -> bool:
    """Whether W&B knows an API key, from the environment or from ``wandb login``."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    import netrc

    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False
