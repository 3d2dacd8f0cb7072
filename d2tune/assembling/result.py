"""What `assemble` has measured and decided."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
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
class FoldRow:
    """A candidate in the table of folds.

    Attributes:
        name: What it is.
        passes: Forward passes of a network for an image.
        value: The main metric over all folds; None where it was tried on some of them only, or is not defined.
        folds: The main metric on each fold; None where it was not tried on the fold, or is not defined.
        chosen: How many folds it was chosen for by all others.
    """

    name: str
    passes: int
    value: float | None
    folds: tuple[float | None, ...]
    chosen: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AssemblyResult(ABC):
    """What was measured and decided.

    Attributes:
        folder: The output folder.
        metric: Name of the main metric, such as ``mask AP``.
        best_member: Name of the best run.
        chosen: Name of the chosen candidate.
        proof: The comparison of the chosen candidate with the best run; None where that was chosen.
        is_written: Whether the folder has the model.
    """

    folder: Path
    metric: str
    best_member: str
    chosen: str
    proof: Comparison | None
    is_written: bool

    @property
    def sentence(self) -> str:
        """The result in a sentence or two."""
        if self.proof is None:
            return f"Nothing beat the best run, {self.best_member}: no model is written."
        low, high = self.proof.interval.low, self.proof.interval.high
        if self.proof.difference is None or low is None or high is None:
            reason = self.proof.interval.reason or self.proof.verdict
            return f"{self._was_chosen}, but nothing is proven on {self._images}: {reason}. No model is written."
        gain = f"{self.proof.difference:+.1f} points of {self.metric}, 95 % interval {low:+.1f} to {high:+.1f}"
        if self.is_written:
            return f"{self._better} is better than {self.best_member} on {self._images}: {gain}.{self._note}"
        return (
            f"{self._was_chosen}, but it is not proven to be better than {self.best_member} on {self._images}: {gain}."
            f"{self._note} No model is written."
        )

    @property
    def _was_chosen(self) -> str:
        return f"{self.chosen} was chosen"

    @property
    def _better(self) -> str:
        """What is better, where it is proven."""
        return self.chosen

    @property
    def _note(self) -> str:
        """A sentence about the choice, with a blank before it."""
        return ""

    @property
    @abstractmethod
    def _images(self) -> str:
        """What it was proven on."""

    @abstractmethod
    def table(self) -> str:
        """A row for each candidate."""

    @abstractmethod
    def _measured(self) -> dict[str, Any]:
        """The images and the candidates for `to_json`."""

    def _marked(self, name: str) -> str:
        return f"{name} *" if name == self.chosen else name

    def to_json(self) -> dict[str, Any]:
        """The content of `NAME` but for what it belongs to."""
        return {
            "metric": self.metric,
            **self._measured(),
            "best_member": self.best_member,
            "chosen": self.chosen,
            "proof": None if self.proof is None else asdict(self.proof),
            "written": self.is_written,
            "sentence": self.sentence,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class HalvesResult(AssemblyResult):
    """A candidate chosen on one half of the validation images and proven on the other.

    Attributes:
        rows: All candidates, in the order in which they were tried.
        images: Number of images of the half that is chosen on, and of the half that is proven on.
    """

    rows: tuple[Row, ...]
    images: tuple[int, int]

    @property
    def _images(self) -> str:
        return counted(self.images[1], "other image")

    def table(self) -> str:
        """A row for each candidate, with both halves."""
        rows = [
            [self._marked(row.name), str(row.passes), *(_cell(value) for value in (row.choosing, row.proving))]
            for row in self.rows
        ]
        of = [counted(count, "image") for count in self.images]
        header = ["candidate", "passes", f"{self.metric} on {of[0]}", f"on {of[1]}"]
        return format_table(rows, header=header, align="lrrr")

    def _measured(self) -> dict[str, Any]:
        return {
            "images": {"choosing": self.images[0], "proving": self.images[1]},
            "candidates": [asdict(row) for row in self.rows],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldsResult(AssemblyResult):
    """A candidate chosen on all folds; what is proven is the choice for each fold, made by the others.

    Attributes:
        rows: All candidates, in the order in which they were tried.
        images: Number of images of each fold.
        groups: Number of groups of images that are alike, by which draws are made.
        choices: For each fold, the name of the candidate that the others chose.
    """

    rows: tuple[FoldRow, ...]
    images: tuple[int, ...]
    groups: int
    choices: tuple[str, ...]

    @property
    def _is_one_choice(self) -> bool:
        return set(self.choices) == {self.chosen}

    @property
    def _images(self) -> str:
        return f"the {counted(sum(self.images), 'image')} of {len(self.images)} folds"

    @property
    def _better(self) -> str:
        return self.chosen if self._is_one_choice else "What is chosen by the other folds"

    @property
    def _note(self) -> str:
        if self._is_one_choice:
            return ""
        counts = Counter(self.choices)
        listed = ", ".join(f"{name} ({count} of {len(self.choices)})" for name, count in counts.most_common())
        return f" For each fold, the others chose: {listed}; all together chose {self.chosen}."

    def table(self) -> str:
        """A row for each candidate, with the metric over all folds."""
        rows = [
            [self._marked(row.name), str(row.passes), _cell(row.value), f"{row.chosen} of {len(self.choices)}"]
            for row in self.rows
        ]
        header = ["candidate", "passes", f"{self.metric} over {len(self.images)} folds", "chosen"]
        return format_table(rows, header=header, align="lrrr")

    def _measured(self) -> dict[str, Any]:
        return {
            "images": {"folds": list(self.images), "groups": self.groups},
            "candidates": [asdict(row) for row in self.rows],
            "choices": list(self.choices),
        }


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
