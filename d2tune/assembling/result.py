"""What `assemble` has measured and decided."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from d2tune.metrics.bootstrap import Comparison
from d2tune.report.tables import format_table
from d2tune.text import counted

NAME = "assembly.json"
"""The file with all candidates, in the output folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A candidate in the table.

    Attributes:
        name: What it is.
        passes: Forward passes of a network for an image.
        choosing: The main metric on the half of the images that the candidate is chosen on.
        proving: The main metric on the other half.
    """

    name: str
    passes: int
    choosing: float | None
    proving: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AssemblyResult:
    """What was measured and decided.

    Attributes:
        folder: The output folder.
        metric: Name of the main metric, such as ``mask AP``.
        rows: All candidates, in the order in which they were tried.
        images: Number of images of the half that is chosen on, and of the half that is proven on.
        best_member: Name of the best run, on the half that is chosen on.
        chosen: Name of the chosen candidate.
        proof: The comparison of the chosen candidate with the best run on the other half; None where that was chosen.
        is_written: Whether the folder has the model.
        model: For the model that was written, its main metric on all validation images.
    """

    folder: Path
    metric: str
    rows: tuple[Row, ...]
    images: tuple[int, int]
    best_member: str
    chosen: str
    proof: Comparison | None
    is_written: bool
    model: float | None = None

    @property
    def sentence(self) -> str:
        """The result in a sentence."""
        if self.proof is None:
            return f"Nothing beat the best run, {self.best_member}: no model is written."
        images = counted(self.images[1], "other image")
        low, high = self.proof.interval.low, self.proof.interval.high
        if self.proof.difference is None or low is None or high is None:
            reason = self.proof.interval.reason or self.proof.verdict
            return f"{self.chosen} was chosen, but nothing is proven on {images}: {reason}. No model is written."
        gain = f"{self.proof.difference:+.1f} points of {self.metric}, 95 % interval {low:+.1f} to {high:+.1f}"
        if self.is_written:
            return f"{self.chosen} is better than {self.best_member} on {images}: {gain}."
        return (
            f"{self.chosen} was chosen, but it is not proven to be better than {self.best_member} on {images}: {gain}. "
            "No model is written."
        )

    def table(self) -> str:
        """A row for each candidate."""
        rows = [
            [
                f"{row.name}{' *' if row.name == self.chosen else ''}",
                str(row.passes),
                *("-" if value is None else f"{value:.1f}" for value in (row.choosing, row.proving)),
            ]
            for row in self.rows
        ]
        of = [counted(count, "image") for count in self.images]
        header = ["candidate", "passes", f"{self.metric} on {of[0]}", f"on {of[1]}"]
        return format_table(rows, header=header, align="lrrr")

    def to_json(self) -> dict[str, Any]:
        """The content of `NAME` but for what it belongs to."""
        return {
            "metric": self.metric,
            "images": {"choosing": self.images[0], "proving": self.images[1]},
            "candidates": [asdict(row) for row in self.rows],
            "best_member": self.best_member,
            "chosen": self.chosen,
            "proof": None if self.proof is None else asdict(self.proof),
            "written": self.is_written,
            "sentence": self.sentence,
        }
