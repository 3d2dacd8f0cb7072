"""What loggers have written, read from their files: scalars and images by iteration and name."""

from __future__ import annotations

import io
import json
import struct
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


@dataclass
class Record:
    """Scalars and image pixels ``(H, W, 3)`` by iteration, counted from 0, and name."""

    scalars: dict[int, dict[str, float]] = field(default_factory=lambda: defaultdict(dict))
    images: dict[int, dict[str, np.ndarray]] = field(default_factory=lambda: defaultdict(dict))

    def add(self, iteration: int, name: str, value: float) -> None:
        assert name not in self.scalars[iteration], f"{name} of iteration {iteration} is there twice"
        self.scalars[iteration][name] = value


def read_json_lines(run: Path) -> Record:
    record = Record()
    for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        assert list(row) == sorted(row)
        iteration = row.pop("iteration")
        for name, value in row.items():
            record.add(iteration, name, value)
    return record


def read_tensorboard(run: Path) -> Record:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    record = Record()
    for name in events.Tags()["scalars"]:
        for event in events.Scalars(name):
            record.add(event.step, name, event.value)
    for name in events.Tags()["images"]:
        for image in events.Images(name):
            record.images[image.step][name] = pixels(image.encoded_image_string)
    return record


def read_wandb(run: Path) -> Record:
    """All starts of the run together; where an iteration is in two of them W&B shows the first."""
    record = Record()
    for offline in sorted((run / "wandb").glob("offline-run-*")):
        for iteration, row in wandb_history(next(offline.glob("*.wandb"))):
            for name, value in row.items():
                if isinstance(value, dict):
                    record.images[iteration][name] = pixels((offline / "files" / value["path"]).read_bytes())
                else:
                    record.scalars[iteration].setdefault(name, value)
    return record


def wandb_history(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a finished run; W&B's own process may still be writing the last of them when ``finish`` returns."""
    from wandb.proto.wandb_internal_pb2 import Record as Message

    end = time.monotonic() + 30
    messages: list[Any] = []
    while not any(message.WhichOneof("record_type") == "exit" for message in messages):
        assert time.monotonic() < end, f"{file} has no end"
        time.sleep(0.05)
        messages = [Message.FromString(content) for content in log_records(file.read_bytes())]
    for message in messages:
        if message.WhichOneof("record_type") == "history":
            row: dict[str, Any] = {}
            for item in message.history.item:
                name, *inner = item.nested_key or [item.key]
                if inner:
                    row.setdefault(name, {})[inner[0]] = json.loads(item.value_json)
                elif not name.startswith("_"):
                    row[name] = json.loads(item.value_json)
            yield message.history.step.num - 1, row


def log_records(content: bytes) -> Iterator[bytes]:
    """The records of a file in LevelDB's log format: blocks of 32 KiB; full, first, middle and last fragments."""
    assert content[:4] == b":W&B"
    place, whole = 7, b""
    while place + 7 <= len(content):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        if place + 7 + length > len(content):
            return
        whole += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield whole
            whole = b""


def pixels(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGB"))
