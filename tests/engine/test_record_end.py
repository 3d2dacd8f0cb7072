"""How a training ended, in the record of its run."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from d2tune.engine.divergence import DivergenceError
from d2tune.engine.record import noted_end
from d2tune.run_folder import RunFolder


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (SystemExit(130), "stopped", "stopped by a signal"),
        (KeyboardInterrupt(), "stopped", "stopped by a signal"),
        (DivergenceError("training has diverged", hint="Lower it."), "failed", "training has diverged"),
        (RuntimeError("CUDA out of memory.\nmore"), "failed", "RuntimeError: CUDA out of memory"),
    ],
)
def test_why_it_ended(error: BaseException, state: str, reason: str, tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.record.write_text(json.dumps({"project": "p"}), "utf-8")
    with pytest.raises(type(error)), noted_end(run):
        raise error
    record = json.loads(run.record.read_bytes())
    assert record["project"] == "p" and (record["ended"]["state"], record["ended"]["reason"]) == (state, reason)


def test_a_good_end_is_not_noted_and_a_full_disk_hides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(tmp_path)
    run.record.write_text("{}", "utf-8")
    with noted_end(run):
        pass
    assert json.loads(run.record.read_bytes()) == {}

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("d2tune.files.write_json", full)
    with pytest.raises(ValueError, match="the first error"), noted_end(run):
        raise ValueError("the first error")
