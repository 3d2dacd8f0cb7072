import json
import os
from pathlib import Path

import pytest

from d2tune.errors import RunError
from d2tune.run_folder import RunFolder, latest_run, new_run


def test_runs_of_one_second_get_folders_of_their_own(tmp_path: Path) -> None:
    runs = []
    for _ in range(3):
        with new_run("p", output_dir=None, root=tmp_path) as run:
            runs.append(run.path)
    assert len(set(runs)) == 3 and all(run.parent == tmp_path / "p" for run in runs)


def test_a_folder_that_is_not_empty_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(RunError, match="not empty"), new_run("p", output_dir=tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    folder = tmp_path / "file" / "run"
    with pytest.raises(RunError, match=r"cannot be written.*--output-dir"), new_run("p", output_dir=folder):
        pass


def test_the_latest_run_is_the_newest_with_the_file(tmp_path: Path) -> None:
    assert latest_run("p", root=tmp_path) is None
    for at, name in enumerate(("a", "b", "c")):
        run = RunFolder(tmp_path / "p" / name)
        run.update_record({"n": at})
        os.utime(run.record, (at, at))
    run = latest_run("p", root=tmp_path)
    assert run is not None and run.path.name == "c"
    assert latest_run("p", root=tmp_path, having="checkpoints/last.pth") is None


def test_record_entries_are_added(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.update_record({"a": 1})
    run.update_record({"b": [2]})
    assert run.record_entries() == {"a": 1, "b": [2]} == json.loads(run.record.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "is not a run folder"), ("{", "the record cannot be read"), ("[]", "the record is not a JSON object")],
)
def test_no_run(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "record.json").write_text(content, encoding="utf-8")
    with pytest.raises(RunError, match=message):
        RunFolder(tmp_path).read_record()
