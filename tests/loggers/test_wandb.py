import json
import logging
from pathlib import Path

import pytest

import d2tune
from d2tune.loggers import wandb_file
from d2tune.loggers.wandb import Wandb
from d2tune.run_folder import RunFolder
from tests.loggers.read_back import finished_wandb
from tests.loggers.test_family import run_info
from tests.system.commands import d2tune_here, succeeded


@pytest.mark.slow
def test_without_a_key_scalars_and_the_contact_sheet_are_recorded_offline(tiny_project: Path, tmp_path: Path) -> None:
    words = ["train", "--config", tiny_project, "--wandb", "--output-dir", tmp_path / "run"]
    done = d2tune_here(*words, folder=tmp_path, HOME=str(tmp_path))
    assert "W&B" in succeeded(done) and "recording offline" in done.stderr
    run = tmp_path / "run"
    content = finished_wandb(*wandb_file.files_of(run))
    record, evaluation = (json.loads((run / name).read_bytes()) for name in ("record.json", "evaluation.json"))
    assert content.run_id == record["wandb_id"] and content.project == "d2tune-tiny"
    assert content.config["train"]["iterations"] == 4 and content.config["record"]["machine"] == record["machine"]
    rows = dict(content.history)
    assert sorted(rows) == [step for step, _ in content.history] == [1, 2, 3, 4, 5]
    assert {"total_loss", "lr", "val/segm/AP", "predictions"} <= set(rows[2])
    for name, metric in evaluation["metrics"]["segm"].items():
        logged = [rows[5].get(f"evaluation/segm/{name}{end}") for end in ("", "_low", "_high")]
        assert logged == pytest.approx([metric["value"], metric["low"], metric["high"]]), name
    shown = {name for name, value in rows[5].items() if isinstance(value, dict)}
    charts = {f"evaluation/{name}_table" for name in ("classes", "precision_recall", "confusion")}
    assert charts | {"contact_sheet", "predictions", "evaluation/calibration", "evaluation/errors"} <= shown
    artifacts = [(one.type, set(one.aliases) - {"latest"}, one.is_input) for one in content.artifacts]
    assert ("dataset", set(), True) in artifacts
    assert ("model", {"best"}, False) in artifacts and ("model", {"final"}, False) in artifacts
    files = [file for one in content.artifacts for file in one.files if not file.reference]
    assert all(file.is_present() and file.local and file.local.is_relative_to(run) for file in files)
    assert not [path for path in tmp_path.rglob("*wandb*") if not path.is_relative_to(run)]


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
