"""The result of a training, from its run folder."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from d2tune.errors import RunError
from d2tune.evaluation.summaries import Metrics, closing_sentence
from d2tune.run_folder import RunFolder
from d2tune.tasks import metrics_from_json
from d2tune.text import reason_of


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a training has made.

    Attributes:
        run: The run folder.
        metrics: Scores of the best weights on the validation split: `InstanceMetrics`, or `MapMetrics` of a semantic
            or panoptic task.
        best_iteration: When those weights were reached.
        seconds: Wall time of training, evaluations included.
        sentence: The result in one sentence.
    """

    run: Path
    metrics: Metrics
    best_iteration: int
    seconds: float
    sentence: str


def read_result(folder: RunFolder) -> TrainResult:
    """The result of a run that has ended, from its folder.

    Raises:
        RunError: Its record or its evaluation is damaged.
    """
    record, evaluation = folder.read_record(), folder.read_evaluation()
    try:
        metrics = metrics_from_json(evaluation)
        best_iteration, seconds = int(record["best"]["iteration"]), float(record["durations"]["training_s"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"{type(error).__name__}: {reason_of(error)}"
        raise RunError(f"the evaluation or the record is damaged: {reason}", file=folder.path) from error
    sentence = closing_sentence(metrics, best_iteration=best_iteration, contact_sheet=folder.contact_sheet)
    return TrainResult(folder.path, metrics, best_iteration, seconds, sentence)


class Stopwatch:
    """Keeps the time of training in the record: of all starts together, and of each.

    Args:
        folder: The run folder, with its record.
    """

    def __init__(self, folder: RunFolder) -> None:
        earlier = folder.read_record().get("durations") or {}
        self._folder = folder
        self._earlier_s: list[float] = earlier.get("starts_s") or ([earlier["training_s"]] if earlier else [])
        self._began_s = time.perf_counter()

    def write(self) -> None:
        """Write the time up to now, which a start that is killed then keeps."""
        starts_s = [*self._earlier_s, round(time.perf_counter() - self._began_s, 1)]
        self._folder.update_record({"durations": {"training_s": round(sum(starts_s), 1), "starts_s": starts_s}})
