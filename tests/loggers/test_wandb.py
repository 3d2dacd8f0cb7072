import json
import logging
from pathlib import Path

import pytest

import d2tune
from d2tune.loggers.wandb import Wandb
from d2tune.run_folder import RunFolder
from tests.loggers.test_family import run_info
from tests.system.commands import succeeded, train_net


@pytest.mark.slow
def test_without_a_key_scalars_and_the_contact_sheet_are_recorded_offline(tiny_project: Path, tmp_path: Path) -> None:
    words = ["--config", str(tiny_project), "--wandb", "--output-dir", str(tmp_path / "run")]
    done = train_net(*words, folder=tmp_path, HOME=str(tmp_path))
    assert "W&B" in succeeded(done) and "recording offline" in done.stderr
    (offline,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    recorded = next(offline.glob("*.wandb")).read_bytes()
    for key in (b"total_loss", b"val/segm/AP", b"contact_sheet", b"image-file"):
        assert key in recorded, key
    assert list((offline / "files" / "media").rglob("contact_sheet*.png"))
    assert json.loads((tmp_path / "run" / "record.json").read_text(encoding="utf-8"))["wandb_id"]


@pytest.mark.parametrize(("variable", "value"), [("WANDB_MODE", "offline"), ("WANDB_API_KEY", "")])
def test_the_mode_that_the_user_has_set_is_obeyed_without_a_warning(
    variable: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(variable, value)
    RunFolder(tmp_path / "run").update_record({"project": "circles"})
    wandb = Wandb()
    with caplog.at_level(logging.WARNING, "d2tune"):
        wandb.start(run_info(tmp_path / "run", first_iteration=0))
    wandb.finish()
    assert ("recording offline" in caplog.text) == (variable != "WANDB_MODE")
    assert len(list((tmp_path / "run" / "wandb").glob("offline-run-*"))) == 1


def test_off_by_default(tiny_project: Path) -> None:
    assert d2tune.load_project(tiny_project).project.tracking == "none"
    assert d2tune.load_project(tiny_project, wandb=True).project.tracking == "wandb"
    assert d2tune.load_project(tiny_project, overrides=["tracking=wandb"]).project.tracking == "wandb"
