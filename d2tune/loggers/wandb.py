"""A run's scalars and images on a Weights & Biases dashboard."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2tune.loggers.base import Logger, RunInfo

logger = logging.getLogger(__name__)


class Wandb(Logger):
    """One W&B run; its id is ``wandb_id`` in the record, and a resumed run goes on with it.

    Without an API key the run is recorded offline, in the run folder. ``WANDB_MODE`` is obeyed. The step of a W&B run
    is the number of completed iterations. W&B smooths curves itself, so it gets the latest values.
    """

    window = 1
    _run: Any

    def start(self, run: RunInfo) -> None:
        import wandb

        mode: Any = os.environ.get("WANDB_MODE") or None
        if mode is None and not has_key():
            mode = "offline"
            logger.warning("W&B has no API key (`wandb login`): recording offline; `wandb sync` uploads it later")
        earlier_id = run.folder.record_entries().get("wandb_id")
        self._run = wandb.init(
            project=f"d2tune-{run.project}",
            name=run.folder.path.name,
            config=dict(run.config),
            dir=str(run.folder.path),
            mode=mode,
            id=earlier_id,
            resume="allow" if earlier_id else None,
            settings=wandb.Settings(silent=True),
        )
        run.folder.update_record({"wandb_id": str(self._run.id)})
        address = self._run.url or Path(self._run.dir).parent
        print(f"W&B          {address}", flush=True)

    def log(self, scalars: Mapping[str, float], *, iteration: int) -> None:
        self._run.log(dict(scalars), step=iteration + 1)

    def log_images(self, images: Mapping[str, NDArray[np.uint8]], *, iteration: int) -> None:
        import wandb

        self._run.log({name: wandb.Image(image) for name, image in images.items()}, step=iteration + 1)

    def finish(self) -> None:
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
