"""Files of a run folder without an entry, of another type, or of a later version are refused in a line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from d2tune.errors import RunError
from d2tune.run_folder import RunFolder
from d2tune.run_schema import EVALUATION_VERSION, RECORD_VERSION

OLD = Path(__file__).parent / "old_runs"
RECORD = json.loads((OLD / "semantic" / "record.json").read_text("utf-8"))
EVALUATION = json.loads((OLD / "semantic" / "evaluation.json").read_text("utf-8"))


def changed(content: dict[str, Any], key: str, value: object = None, *, remove: bool = False) -> dict[str, Any]:
    """A copy with another value of a dotted key, or without it."""
    copy = json.loads(json.dumps(content))
    *sections, last = key.split(".")
    place = copy
    for section in sections:
        place = place[section]
    if remove:
        del place[last]
    else:
        place[last] = value
    return dict(copy)


@pytest.mark.parametrize("name", ["instance", "semantic"])
def test_runs_of_an_earlier_version_are_read(name: str) -> None:
    folder = RunFolder(OLD / name)
    assert folder.read_record()["classes"] and folder.read_evaluation()["metrics"]


@pytest.mark.parametrize(
    "key",
    [
        "project",
        "classes",
        "data",
        "data.train_sha256",
        "data.val_sha256",
        "weights",
        "weights.line",
        "weights.from_scratch",
        "weights.rgb_resnet",
        "machine",
        "machine.precision",
        "input",
        "best.iteration",
        "best.sha256",
        "best.predictions_sha256",
        "durations.training_s",
    ],
)
def test_a_record_without_an_entry(tmp_path: Path, key: str) -> None:
    (tmp_path / "record.json").write_text(json.dumps(changed(RECORD, key, remove=True)), "utf-8")
    with pytest.raises(RunError, match=rf"record\.json: {key}: the entry is missing\. Restore"):
        RunFolder(tmp_path).read_record()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("classes", "balloon", "should be a valid list; found 'balloon'"),
        ("classes", [], "at least 1 item"),
        ("classes", [1], "should be a valid string; found 1"),
        ("thing_ids", {"a": 1}, "should be a valid list"),
        ("task", "boxes", "should be 'instance', 'semantic', 'panoptic' or 'tracking'; found 'boxes'"),
        ("data", [], "should be"),
        ("data.train_sha256", 3, "should be a valid string; found 3"),
        ("weights.from_scratch", "no", "should be a valid boolean; found 'no'"),
        ("machine", "cpu", "should be an object; found 'cpu'"),
        ("machine.precision", "half", "should be 'float32', 'bfloat16' or 'float16'; found 'half'"),
        ("input", None, "should be an object; found None"),
        ("input.stacked", "yes", "should be a valid boolean"),
        ("best", 3, "should be an object; found 3"),
        ("best.iteration", "30", "should be a valid integer; found '30'"),
        ("durations.training_s", None, "should be a valid number"),
        ("d2tune_record", "1", "should be a valid integer"),
        ("d2tune_record", RECORD_VERSION + 1, "was written by a later version of d2tune; found 2; expected at most 1"),
    ],
)
def test_a_record_with_another_type(tmp_path: Path, key: str, value: object, message: str) -> None:
    (tmp_path / "record.json").write_text(json.dumps(changed(RECORD, key, value)), "utf-8")
    with pytest.raises(RunError) as caught:
        RunFolder(tmp_path).read_record()
    line = caught.value.one_line()
    assert f"record.json: {key}" in line and message in line and "\n" not in line


@pytest.mark.parametrize("key", ["task", "run", "data_sha256", "weights", "predictions_sha256", "metrics"])
def test_an_evaluation_without_an_entry(tmp_path: Path, key: str) -> None:
    (tmp_path / "evaluation.json").write_text(json.dumps(changed(EVALUATION, key, remove=True)), "utf-8")
    with pytest.raises(RunError, match=rf"evaluation\.json: {key}: the entry is missing\. Evaluate the run again"):
        RunFolder(tmp_path).read_evaluation()


def test_a_later_evaluation_and_none(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"the evaluation does not exist.*d2tune eval"):
        RunFolder(tmp_path).read_evaluation()
    later = changed(EVALUATION, "schema", EVALUATION_VERSION + 1)
    (tmp_path / "evaluation.json").write_text(json.dumps(later), "utf-8")
    with pytest.raises(RunError, match="schema: the file was written by a later version"):
        RunFolder(tmp_path).read_evaluation()


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_bytes(b""), "the record cannot be read: the file is empty. Restore"),
        (lambda path: path.write_bytes(b"\xff\xfe{}"), "the record cannot be read"),
        (lambda path: path.write_text("[" * 100_000), "the record cannot be read"),
        (lambda path: path.write_text("3"), "the record is not a JSON object; found int"),
        (lambda path: path.mkdir(), "the record cannot be read"),
    ],
)
def test_what_is_not_a_json_object(tmp_path: Path, write: Callable[[Path], object], message: str) -> None:
    write(tmp_path / "record.json")
    with pytest.raises(RunError, match=message):
        RunFolder(tmp_path).read_record()
