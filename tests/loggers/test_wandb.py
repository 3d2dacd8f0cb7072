import json
from pathlib import Path

import pytest

from tests.system.commands import succeeded, train_net


@pytest.mark.slow
def test_offline_run_holds_scalars_and_the_contact_sheet(tiny_project: Path, tmp_path: Path) -> None:
    words = ["--config", str(tiny_project), "--wandb", "--output-dir", str(tmp_path / "run")]
    out = succeeded(train_net(*words, folder=tmp_path, WANDB_MODE="offline"))
    assert "W&B" in out
    (offline,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    recorded = next(offline.glob("*.wandb")).read_bytes()
    for key in (b"total_loss", b"val/segm/AP", b"contact_sheet", b"image-file"):
        assert key in recorded, key
    assert list((offline / "files" / "media").rglob("contact_sheet*.png"))
    assert json.loads((tmp_path / "run" / "record.json").read_text(encoding="utf-8"))["wandb_id"]


@pytest.mark.slow
def test_without_a_key_the_run_is_recorded_offline(tiny_project: Path, tmp_path: Path) -> None:
    words = ["--config", str(tiny_project), "--output-dir", str(tmp_path / "run"), "tracking=wandb"]
    done = train_net(*words, folder=tmp_path, HOME=str(tmp_path))
    succeeded(done)
    assert "recording offline" in done.stderr
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*"))


def test_off_by_default(tiny_project: Path) -> None:
    from d2tune.project import load_project

    assert load_project(tiny_project).project.tracking == "none"
