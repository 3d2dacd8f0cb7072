"""The result of a baseline, and its file, which reports read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2tune.annotations.io.output_record import EVALUATION
from d2tune.annotations.io.outputs import refuse_existing, write_output_json
from d2tune.errors import RunError
from d2tune.metrics.metric import Metric, with_interval
from d2tune.report.tables import format_table
from d2tune.run_schema import read_object

NAME = "baseline.json"
FOLDER = "baseline"
"""Beside the run folders of a project."""

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class BaselineRow:
    """A method.

    Attributes:
        name: Its name in ``--methods``.
        title: Its name in tables.
        chosen: What was chosen in training.
        main: The main metric of the task, with its interval.
        ms_per_image: Milliseconds of an image, without reading it.
        classes: The metric of each class by its name.
    """

    name: str
    title: str
    chosen: str
    main: Metric
    ms_per_image: float
    classes: Mapping[str, Metric]


@dataclass(frozen=True, slots=True)
class BaselineResult:
    """The methods on the validation split of a project.

    Attributes:
        folder: Where `NAME` is.
        metric: The name of the main metric.
        images: Number of validation images.
        data_sha256: Hash of the validation split.
        rows: The methods, the best first.
        model: The latest run on the same data: its folder and its main metric; None where there is none.
    """

    folder: Path
    metric: str
    images: int
    data_sha256: str
    rows: tuple[BaselineRow, ...]
    model: tuple[Path, Metric] | None = None

    @property
    def table(self) -> str:
        """A row for each method, and for the latest run."""
        rows = [
            [row.title, with_interval(row.main), f"{row.ms_per_image:.0f} ms", row.chosen or "-"] for row in self.rows
        ]
        if self.model is not None:
            rows.append([f"the network of {self.model[0]}", with_interval(self.model[1]), "-", "-"])
        header = ["method", f"{self.metric} (95 % interval)", "an image", "chosen in training"]
        return format_table(rows, header=header, align="lrrl")

    @property
    def sentence(self) -> str:
        """The best method, and what it says of a network."""
        best = self.rows[0]
        where = f"See {self.folder / NAME}."
        if best.main.value is None:
            return f"No {self.metric} can be computed: {best.main.reason}. {where}"
        line = f"The best classical method is {best.title}: {self.metric} {with_interval(best.main)}."
        if self.model is None or self.model[1].value is None:
            return f"{line} A network is worth its training where it is better than that. {where}"
        other = self.model[1]
        if other.low is not None and best.main.high is not None and other.low > best.main.high:
            return f"{line} The latest run is better, {with_interval(other)}: these data need a network. {where}"
        if other.high is not None and best.main.low is not None and other.high < best.main.low:
            return f"{line} The latest run is worse, {with_interval(other)}: it is not trained well. {where}"
        return f"{line} The latest run, {with_interval(other)}, cannot be distinguished from it. {where}"

    def to_json(self) -> dict[str, Any]:
        """The content of `NAME`."""
        rows = [
            {
                "name": row.name,
                "title": row.title,
                "chosen": row.chosen,
                "main": row.main.to_json(),
                "ms_per_image": round(row.ms_per_image, 3),
                "classes": {name: metric.to_json() for name, metric in row.classes.items()},
            }
            for row in self.rows
        ]
        return {
            "schema": SCHEMA,
            "metric": self.metric,
            "images": self.images,
            "data_sha256": self.data_sha256,
            "methods": rows,
        }


def check_output(folder: Path, inputs: Sequence[Path]) -> None:
    """Refuse to replace a file that is not of an earlier baseline.

    Raises:
        DataError: There is one.
    """
    from d2tune.annotations.io.outputs import protected

    with protected(lambda: inputs):
        refuse_existing([folder / NAME], force=True, kind=EVALUATION)


def write_baseline(result: BaselineResult) -> None:
    """Write `NAME`."""
    result.folder.mkdir(parents=True, exist_ok=True)
    write_output_json(result.folder / NAME, result.to_json(), kind=EVALUATION)


def read_baseline(folder: Path) -> BaselineResult | None:
    """What an earlier call wrote; None where there is nothing.

    Raises:
        RunError: The file is damaged, or was written by a later version.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    hint = "Run `d2tune baseline` again."
    content = read_object(path, "baseline")
    try:
        if content["schema"] != SCHEMA:
            raise RunError("was written by another version of d2tune", file=path, hint=hint)
        rows = tuple(
            BaselineRow(
                row["name"],
                row["title"],
                row["chosen"],
                Metric(**row["main"]),
                row["ms_per_image"],
                {name: Metric(**metric) for name, metric in row["classes"].items()},
            )
            for row in content["methods"]
        )
        return BaselineResult(folder, content["metric"], content["images"], content["data_sha256"], rows)
    except (KeyError, TypeError, AttributeError) as error:
        raise RunError(f"is damaged ({error!r})", file=path, hint=hint) from None
