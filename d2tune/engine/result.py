"""The result of a training, from its run folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from d2tune.evaluation.summaries import Metrics, closing_sentence
from d2tune.run_folder import RunFolder
from d2tune.tasks import metrics_from_json


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
    """The result of a run that has ended, from its folder."""
    record = folder.read_record()
    evaluation = json.loads(folder.evaluation.read_text(encoding="utf-8"))
    metrics = metrics_from_json(evaluation)
    best_iteration = int(record["best"]["iteration"])
    sentence = closing_sentence(metrics, best_iteration=best_iteration, contact_sheet=folder.contact_sheet)
    return TrainResult(folder.path, metrics, best_iteration, float(record["durations"]["training_s"]), sentence)


def add_duration(folder: RunFolder, seconds: float) -> None:
    """Add the time since training was started or resumed to that of earlier starts."""
    earlier_s = folder.read_record().get("durations", {}).get("training_s", 0.0)
    folder.update_record({"durations": {"training_s": round(earlier_s + seconds, 1)}})
