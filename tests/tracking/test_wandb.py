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
    rows, keys = recorded(next(offline.glob("*.wandb")))
    assert {"total_loss", "lr", "val/segm/AP"} <= keys
    assert any(row.get("contact_sheet", {}).get("format") == "png" for row in rows)
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


def recorded(file: Path) -> tuple[list[dict], set[str]]:
    """History rows of a W&B record file, and all their keys."""
    from wandb.proto import wandb_internal_pb2
    from wandb.sdk.internal.datastore import DataStore

    store = DataStore()
    store.open_for_scan(str(file))
    rows = []
    while (data := store.scan_data()) is not None:
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            rows.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
    return rows, {key for row in rows for key in row}
