"""``d2tune report``: one page about runs, to be opened in any browser."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from d2tune.errors import DataError, RunError, check_range
from d2tune.files import write_text
from d2tune.report.templates import refuse_foreign_page
from d2tune.review.page import GENERATOR, report_page
from d2tune.review.sources import distinct_names, read_predictions_of, read_run
from d2tune.review.standing import standing
from d2tune.text import counted, printable

logger = logging.getLogger(__name__)

NAME = "report.html"
"""The file in a run folder."""

SLIDER_IMAGES = 12
"""How many images are shown by default: four of the worst, the median and the best each."""

_MOST_MODELS = 8
_MOST_IMAGES = 200


@dataclass(frozen=True, slots=True)
class ReportResult:
    """A report.

    Attributes:
        path: The page.
        sentence: The result in a sentence; empty without an evaluation.
        problems: A line about each thing that it cannot show.
        size_bytes: Size of the page.
    """

    path: Path
    sentence: str
    problems: tuple[str, ...]
    size_bytes: int

    @property
    def summary(self) -> str:
        """The sentence, and where the page is."""
        place = f"The report is {self.path} ({self.size_bytes / 1e6:.1f} MB)."
        return f"{self.sentence}\n{place}" if self.sentence else place


def write_report(
    runs: Sequence[Path],
    *,
    predictions: Mapping[str, Path] | None = None,
    out: Path | None = None,
    images: int = SLIDER_IMAGES,
) -> ReportResult:
    """Write a page about runs, and about predictions of other models on the images of the first run.

    What cannot be read is a line on the page and in the log; the rest of the page is made.

    Args:
        runs: The run folders; others are compared with the first one.
        predictions: Files of COCO results by the names of their models.
        out: The page; None is ``report.html``, in the run folder if there is one run, else in the working folder.
        images: How many images are shown under a slider at most.

    Raises:
        RunError: No run is given, or a path is not a run folder.
        DataError: The file exists and is not such a page, or the number of images is out of range.
    """
    predictions = predictions or {}
    _check(runs, predictions, images)
    path = out or (runs[0] / NAME if len(runs) == 1 else Path(NAME))
    refuse_foreign_page(path, GENERATOR)
    sides = [read_run(run, name) for run, name in zip(runs, distinct_names(list(runs)), strict=True)]
    others = [read_predictions_of(file, name, sides[0]) for name, file in predictions.items()]
    everything = [*sides, *others]
    projects = list(dict.fromkeys(str(side.record.get("project") or side.name) for side in sides))
    title = projects[0] if len(projects) == 1 else ", ".join(projects[:3])
    result = standing(everything)
    text, problems = report_page(everything, result, title=title, images=images)
    for line in problems:
        logger.warning(printable(line))
    write_text(path, text)
    best = result.best or everything[0]
    return ReportResult(path, result.sentence or best.sentence, tuple(problems), len(text.encode()))


def _check(runs: Sequence[Path], predictions: Mapping[str, Path], images: int) -> None:
    if not runs:
        raise RunError("no run is given", expected="a run folder", hint="Name a run, or a project file for its latest.")
    if len({run.resolve() for run in runs}) < len(runs):
        raise RunError("a run is given twice", found=", ".join(map(str, runs)), hint="Name each run once.")
    total = len(runs) + len(predictions)
    if total > _MOST_MODELS:
        raise RunError(
            "there are too many models for a page", found=counted(total, "model"), expected=f"at most {_MOST_MODELS}"
        )
    check_range(images, place="--images", least=3, most=_MOST_IMAGES)
    for name, file in predictions.items():
        if not file.is_file():
            hint = "Correct the path after `NAME=`."
            raise DataError("the file of predictions does not exist", file=file, place=name, hint=hint)
