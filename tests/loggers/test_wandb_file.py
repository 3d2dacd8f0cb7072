"""The reader of W&B's files, on files written here byte by byte."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest
from wandb.proto.wandb_internal_pb2 import HistoryRecord, Record, RunExitRecord, RunRecord

from d2tune.errors import RunError
from d2tune.loggers import wandb_file

HEADER = b":W&B\xe1\xbe\x00"


def chunk(kind: int, content: bytes) -> bytes:
    return struct.pack("<IHB", zlib.crc32(bytes([kind]) + content), len(content), kind) + content


def history(step: int, **values: str) -> bytes:
    record = HistoryRecord()
    record.step.num = step
    for name, value in {**values, "_timestamp": "1.5"}.items():
        record.item.add(nested_key=name.split("__"), value_json=value)
    return Record(history=record).SerializeToString()


def written(path: Path, *chunks: bytes) -> Path:
    path.write_bytes(HEADER + b"".join(chunks))
    return path


def test_records_of_every_kind(tmp_path: Path) -> None:
    run = RunRecord(run_id="abc", project="p", display_name="n", run_group="g")
    run.config.update.add(key="train", value_json='{"lr": 0.5}')
    contents = [
        Record(run=run).SerializeToString(),
        history(1, loss="2.5", image___type='"image-file"', image__path='"a.png"'),
        history(4, loss="1.5"),
        Record(exit=RunExitRecord()).SerializeToString(),
    ]
    content = wandb_file.read(written(tmp_path / "run-abc.wandb", *(chunk(1, one) for one in contents)))
    assert (content.run_id, content.project, content.name, content.group) == ("abc", "p", "n", "g")
    assert content.config == {"train": {"lr": 0.5}}
    assert content.history == [
        (1, {"loss": 2.5, "image": {"_type": "image-file", "path": "a.png"}}),
        (4, {"loss": 1.5}),
    ]
    assert content.last_step == 4 and content.is_finished
    assert content.records == {"run": 1, "history": 2, "exit": 1}


def test_a_record_over_three_blocks_and_a_block_that_ends_in_six_bytes(tmp_path: Path) -> None:
    """Blocks have 32,768 bytes, the first with the header in it; what is too short for a chunk is filled with zeros."""
    long, short = history(1, text='"' + "x" * 70_000 + '"'), history(2, text='"y"')
    room = 32_768 - len(HEADER) - 7
    first, middle, last = long[:room], long[room : room + 32_761], long[room + 32_761 :]
    # what the third block has left for the content of a chunk that ends six bytes before its end
    left = 32_768 - (7 + len(last)) - 7 - 6
    filled = history(3, text='"' + "z" * (left - len(history(3, text='"' + "z" * 20_000 + '"')) + 20_000) + '"')
    assert len(filled) == left
    chunks = [chunk(2, first), chunk(3, middle), chunk(4, last), chunk(1, filled), bytes(6), chunk(1, short)]
    content = wandb_file.read(written(tmp_path / "run-a.wandb", *chunks))
    assert [step for step, _ in content.history] == [1, 3, 2]
    assert content.history[0][1]["text"] == "x" * 70_000


@pytest.mark.parametrize("cut", [1, 6, 7, 8, 20])
def test_what_a_killed_run_has_cut_off_is_ignored(cut: int, tmp_path: Path) -> None:
    whole = chunk(1, history(1, loss="2.5"))
    path = written(tmp_path / "run-a.wandb", whole, chunk(1, history(2, loss="1.5"))[:cut])
    content = wandb_file.read(path)
    assert content.history == [(1, {"loss": 2.5})] and not content.is_finished


def test_damaged_and_foreign_files(tmp_path: Path) -> None:
    whole = chunk(1, history(1, loss="2.5"))
    damaged = written(tmp_path / "run-a.wandb", whole, whole[:-3] + b"zzz")
    with pytest.raises(RunError, match=f"byte {7 + len(whole)}: W&B's file is damaged: a checksum does not match"):
        wandb_file.read(damaged)
    foreign = tmp_path / "run-b.wandb"
    foreign.write_bytes(b"PK\x03\x04 a zip")
    with pytest.raises(RunError, match="is not a file of a W&B run"):
        wandb_file.read(foreign)
    with pytest.raises(RunError, match="cannot be read"):
        wandb_file.read(tmp_path / "run-c.wandb")
    no_message = written(tmp_path / "run-d.wandb", chunk(1, b"\xff\xff\xff"))
    with pytest.raises(RunError, match="record 1"):
        wandb_file.read(no_message)


def test_starts_are_in_the_order_of_time(tmp_path: Path) -> None:
    names = ["offline-run-20261128_120000-abc", "run-20261128_110000-abc", "offline-run-20261128_130000-abc"]
    for name in names:
        (tmp_path / "wandb" / name).mkdir(parents=True)
        written(tmp_path / "wandb" / name / "run-abc.wandb")
    assert [path.parent.name for path in wandb_file.files_of(tmp_path)] == [names[1], names[0], names[2]]
