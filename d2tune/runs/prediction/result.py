"""What a prediction returns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from d2tune.evaluation.summaries import lower_scores_in_words
from d2tune.modeling.loaded import DEFAULT_THRESHOLD
from d2tune.runs.most_uncertain import CSV_NAME
from d2tune.tasks import TASKS
from d2tune.text import counted


@dataclass(frozen=True, slots=True)
class PredictionResult:
    """The result of a prediction.

    Attributes:
        out: The folder with the predictions and drawn images, the folder with the Labelme files, or the CSV file.
        images: Number of images with predictions.
        instances: Number of instances with at least the lowest score; for semantic and panoptic runs, of regions.
        skipped: A line for each skipped image, with the reason.
        task: Name of the task of the run.
        min_score: Lowest score of written instances; of several thresholds, the highest.
        lower: Number of instances below it.
        highest_lower: Their highest score; 0 where there are none.
        selection: How the images were chosen, on a line; empty if all were predicted on.
        shard: Which shard of how many this is, ``2/8``; empty for all images.
    """

    out: Path
    images: int
    instances: int
    skipped: tuple[str, ...]
    task: str = "instance"
    min_score: float = DEFAULT_THRESHOLD
    lower: int = 0
    highest_lower: float = 0.0
    selection: str = ""
    shard: str = ""

    @property
    def summary(self) -> str:
        """The numbers and the output folder; further lines say what was skipped, and whether lower scores exist."""
        noun = TASKS[self.task].predictions_noun
        of_what = f"{self.instances} {noun} on " if self.instances or TASKS[self.task].has_scores else "label maps of "
        shard = f"shard {self.shard}: " if self.shard else ""
        lines = [f"{shard}{of_what}{counted(self.images, 'image')}: {self.out}"]
        if self.selection:
            lines.append(f"{self.selection}: {self.out / CSV_NAME}")
        if self.skipped:
            lines.append(f"{counted(len(self.skipped), 'image')} skipped")
        if not self.instances and self.lower:
            words = lower_scores_in_words("instance", self.lower, self.highest_lower, least=self.min_score)
            lines.append(f"{words[0].upper()}{words[1:]}; write them with --min-score.")
        if self.shard:
            lines.append("Join all shards with `d2tune merge`.")
        return "\n".join(lines)
