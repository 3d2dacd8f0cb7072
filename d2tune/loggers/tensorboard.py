"""A run's scalars and images as TensorBoard's event files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from d2tune import files
from d2tune.loggers.base import LoggedFile, LoggedImage, Logger, RunInfo
from d2tune.loggers.exhibits import as_pixels
from d2tune.report.sheets.cards import png_bytes


class TensorBoard(Logger):
    """Writes an event file into ``tensorboard`` of the run folder: ``tensorboard --logdir runs`` shows it.

    A resumed run gets a further file, which makes TensorBoard ignore what an earlier one has of the same iterations.
    An event file holds no other files: of those it has the path, the size and the SHA-256.
    """

    _writer: Any

    def start(self, run: RunInfo) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = run.folder.path / "tensorboard"
        goes_on = folder.is_dir() and any(folder.iterdir())
        self._writer = SummaryWriter(str(folder), purge_step=run.first_iteration if goes_on else None)
        self._writer.add_text("config", _as_code(run.settings()), run.first_iteration)

    def log(self, scalars: Mapping[str, float], *, iteration: int) -> None:
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, iteration)

    def log_images(self, images: Mapping[str, LoggedImage], *, iteration: int) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        for name, image in images.items():
            pixels = as_pixels(image)
            height, width, channels = pixels.shape
            # what `add_image` writes, whose own compression takes twice as long
            png = Summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=png_bytes(pixels))
            self._writer.file_writer.add_summary(Summary(value=[Summary.Value(tag=name, image=png)]), iteration)

    def log_file(self, file: LoggedFile, *, iteration: int) -> None:
        facts = {
            "path": str(file.path),
            "kind": file.kind,
            "aliases": list(file.aliases),
            "size_bytes": file.path.stat().st_size,
            "sha256": files.sha256_file(file.path),
            **file.metadata,
        }
        self._writer.add_text(file.name, _as_code(facts), iteration)

    def finish(self) -> None:
        self._writer.close()


def _as_code(values: Mapping[str, Any]) -> str:
    """JSON as a code block of Markdown, which TensorBoard draws."""
    return "\n".join(f"    {line}" for line in json.dumps(values, indent=2, ensure_ascii=False).splitlines())
