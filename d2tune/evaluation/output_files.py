"""The files of an evaluation: they replace those of an earlier evaluation, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from d2tune import files
from d2tune.annotations.io.output_record import EVALUATION, NAME, claim, settle
from d2tune.annotations.io.outputs import protected, refuse_existing
from d2tune.evaluation.predicted_images import NAME as PREDICTED_IMAGES

_USUAL = (
    "evaluation.json",
    "contact_sheet.png",
    *(f"plots/{name}.png" for name in ("precision_recall", "calibration", "confusion", "errors", "sizes")),
    *(f"plots/{name}.png" for name in ("class_iou", "class_pq")),
)


class EvaluationFiles:
    """The files of an evaluation in a folder.

    Args:
        folder: The output folder.
        predictions: The files with the predictions of a run; empty where they are not written.
        inputs: Gives the files that are read.

    Raises:
        DataError: A file exists that is not of an earlier evaluation.
    """

    def __init__(
        self, folder: Path, *, predictions: Sequence[Path] = (), inputs: Callable[[], Iterable[Path]] = tuple
    ) -> None:
        tables = [folder / PREDICTED_IMAGES] if predictions else []
        self._paths = [*(folder / name for name in _USUAL), *tables, *predictions]
        earlier = _earlier_evaluation(folder)
        with protected(inputs):
            refuse_existing(
                self._paths, force=True, kind=EVALUATION, is_own=lambda path: self._is_of_earlier_version(path, earlier)
            )

    def _is_of_earlier_version(self, path: Path, earlier: dict[str, Any] | None) -> bool:
        """Whether a file is of an evaluation by an earlier version, which kept no record."""
        if earlier is None or (path.parent / NAME).exists():
            return False
        return path.name != "predictions.json" or files.sha256_file(path) == earlier.get("predictions_sha256")

    @contextmanager
    def written(self) -> Iterator[None]:
        """A context in which the files are written; at its end their content is recorded."""
        claim(self._paths, EVALUATION)
        yield
        settle(self._paths, EVALUATION)


def _earlier_evaluation(folder: Path) -> dict[str, Any] | None:
    """The content of an ``evaluation.json``; None where there is none, and for the folder of a run."""
    if (folder / "record.json").exists():
        return None
    try:
        value = json.loads((folder / "evaluation.json").read_bytes())
    except (OSError, ValueError):
        return None
    keys = {"schema", "metrics", "data_sha256", "predictions_sha256"}
    return value if isinstance(value, dict) and keys <= value.keys() else None
