"""What the files of a run folder hold, with the version of each; checked wherever one is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from d2tune.errors import RunError
from d2tune.text import describe, reason_of

RECORD_VERSION = 1
"""Version of ``record.json``, its entry ``d2tune_record``."""

EVALUATION_VERSION = 2
"""Version of ``evaluation.json``, its entry ``schema``."""


class _Entries(BaseModel):
    """Entries that readers need; others may stand beside them."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class _Data(_Entries):
    train_sha256: str
    val_sha256: str


class _Weights(_Entries):
    line: str
    from_scratch: bool
    rgb_resnet: bool


class _Machine(_Entries):
    precision: Literal["float32", "bfloat16", "float16"]


class _Input(_Entries):
    stacked: bool = False
    image_short_side_px: int | None = None


class _Best(_Entries):
    iteration: int = Field(ge=0)
    sha256: str
    predictions_sha256: str


class _Durations(_Entries):
    training_s: float = Field(ge=0)
    starts_s: list[float] | None = None


class _Finished(_Entries):
    iterations: int = Field(ge=0)


class Record(_Entries):
    """``record.json``: what was decided for a run, and how it went.

    Attributes:
        d2tune_record: Version of the record.
        project: Name of the project.
        task: The task.
        classes: Names in the order of their ids.
        thing_ids: Ids of the things; None where all classes are things.
        data: Hashes of the splits.
        weights: What the model started from.
        machine: The precision, and what it ran on.
        input: How images are read.
        best: The best weights; None before the first evaluation.
        durations: Seconds of training; None before the first checkpoint.
        finished: The iterations whose end was evaluated and drawn completely; None before.
    """

    d2tune_record: int = Field(default=RECORD_VERSION, ge=1)
    project: str
    task: Literal["instance", "semantic", "panoptic", "tracking"] = "instance"
    classes: list[str] = Field(min_length=1)
    thing_ids: list[int] | None = None
    data: _Data
    weights: _Weights
    machine: _Machine
    input: _Input
    best: _Best | None = None
    durations: _Durations | None = None
    finished: _Finished | None = None


class Evaluation(_Entries):
    """``evaluation.json`` of a run: the metrics, and the hashes of all that they were computed from.

    Attributes:
        version: Version of the file, its entry ``schema``.
        task: The task.
        run: The run folder when it was written.
        data: The data that it was evaluated on; None for the validation split.
        data_sha256: Their hash.
        weights: The checkpoint.
        weights_sha256: Its hash.
        config_sha256: Hash of the config.
        predictions_sha256: Hash of the predictions.
        metrics: Values by kind and name.
    """

    version: int = Field(default=1, ge=1, alias="schema")
    task: Literal["instance", "semantic", "panoptic", "tracking"]
    run: str
    data: str | None
    data_sha256: str
    weights: str
    weights_sha256: str
    config_sha256: str
    predictions_sha256: str
    metrics: dict[str, dict[str, Any]]


def read_record(path: Path) -> dict[str, Any]:
    """The content of a ``record.json``.

    Raises:
        FileNotFoundError: There is no such file.
        RunError: It cannot be read, or is not the record of a run.
    """
    content = read_object(path, "record")
    _check(content, Record, path, version=("d2tune_record", RECORD_VERSION), hint="Restore the file from a copy.")
    return content


def chosen_on_images(record: dict[str, Any]) -> str:
    """What is too good in the validation metrics of an assembled model, and what is proven; empty for other runs."""
    assembled = record.get("assembled")
    if not isinstance(assembled, dict):
        return ""
    images = "all" if "folds" in assembled else "half of"
    proven = f" Proven: {assembled['sentence']}" if isinstance(assembled.get("sentence"), str) else ""
    return (
        f"was assembled, and {images} its validation images helped to choose it: its metrics are a little high.{proven}"
    )


def read_evaluation(path: Path) -> dict[str, Any]:
    """The content of the ``evaluation.json`` of a run.

    Raises:
        FileNotFoundError: There is no such file.
        RunError: It cannot be read, or is not the evaluation of a run.
    """
    content = read_object(path, "evaluation")
    hint = "Evaluate the run again with `d2tune eval RUN`."
    _check(content, Evaluation, path, version=("schema", EVALUATION_VERSION), hint=hint)
    return content


def read_object(path: Path, what: str) -> dict[str, Any]:
    """The JSON object in a file.

    Args:
        path: The file.
        what: What it is, for messages.

    Raises:
        FileNotFoundError: There is no such file.
        RunError: It cannot be read, or is not a JSON object.
    """
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise RunError(f"the {what} cannot be read: it is not a file", file=path)
    try:
        text = path.read_bytes()
        if not text.strip():
            hint = "Restore the file from a copy."
            raise RunError(f"the {what} cannot be read: the file is empty", file=path, hint=hint)
        content = json.loads(text)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"the {what} cannot be read: {reason_of(error)}", file=path) from None
    if not isinstance(content, dict):
        raise RunError(f"the {what} is not a JSON object", file=path, found=type(content).__name__)
    return content


def _check(content: dict[str, Any], model: type[_Entries], path: Path, *, version: tuple[str, int], hint: str) -> None:
    key, newest = version
    given = content.get(key, newest)
    if isinstance(given, int) and given > newest:
        raise RunError(
            "the file was written by a later version of d2tune",
            file=path,
            place=key,
            found=str(given),
            expected=f"at most {newest}",
            hint="Install that version.",
        )
    try:
        model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        if first["type"] == "missing":
            raise RunError("the entry is missing", file=path, place=place, hint=hint) from None
        wrong_section = first["type"] in ("model_type", "model_attributes_type")
        reason = "should be an object" if wrong_section else first["msg"].removeprefix("Input ")
        raise RunError(
            f"the entry {reason}", file=path, place=place, found=describe(first["input"]), hint=hint
        ) from None
