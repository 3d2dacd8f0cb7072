"""What loggers have written, read from their files without their libraries: scalars, images, files and settings."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sqlite3
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from d2tune.loggers import wandb_file


@dataclass
class Record:
    """What was logged.

    Attributes:
        scalars: By iteration, counted from 0, and name.
        images: Pixels ``(H, W, 3)`` by iteration and name; None for what a logger shows in its own way.
        files: The names of logged files, with their aliases.
        config: The settings, nested.
    """

    scalars: dict[int, dict[str, float]] = field(default_factory=lambda: defaultdict(dict))
    images: dict[int, dict[str, Any]] = field(default_factory=lambda: defaultdict(dict))
    files: dict[str, list[str]] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)

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
    for name in events.Tags()["tensors"]:
        content = json.loads(events.Tensors(name)[-1].tensor_proto.string_val[0])
        if name == "config/text_summary":
            record.config = content
        else:
            record.files[name.removesuffix("/text_summary")] = content["aliases"]
    return record


def read_wandb(run: Path) -> Record:
    """All starts of the run together; the steps rise over all of them."""
    record = Record()
    last = -1
    for path in wandb_file.files_of(run):
        content = finished_wandb(path)
        record.config = content.config
        for step, row in content.history:
            assert step > last, f"step {step} comes after {last}"
            last = step
            for name, value in row.items():
                if not isinstance(value, dict):
                    record.add(step - 1, name, value)
                elif value["_type"] == "image-file":
                    image = (path.parent / "files" / value["path"]).read_bytes()
                    record.images[step - 1][name] = pixels(image)
                else:
                    record.images[step - 1][name.removesuffix("_table")] = None
        for artifact in content.artifacts:
            for file in artifact.files:
                record.files[Path(file.name).stem] = [one for one in artifact.aliases if one != "latest"]
    return record


def finished_wandb(path: Path) -> wandb_file.WandbFile:
    """A file of a finished run; W&B's own process may still be writing its end when ``finish`` returns."""
    end = time.monotonic() + 30
    while not (content := wandb_file.read(path)).is_finished:
        assert time.monotonic() < end, f"{path} has no end"
        time.sleep(0.05)
    return content


def read_mlflow(run: Path) -> Record:
    """Of MLflow's file store: a file for each metric, with time, value and step in each line."""
    record = Record()
    (store,) = (run / "mlruns").glob("*/*/meta.yaml")
    metrics, artifacts = store.parent / "metrics", store.parent / "artifacts"
    for path in metrics.rglob("*"):
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
            _, value, step = line.split()
            record.add(int(step), path.relative_to(metrics).as_posix(), float(value))
    for path in (artifacts / "images").glob("*.png"):
        name, _, step, *_ = path.name.split("+")
        record.images[int(step)][name.replace("~", "/")] = pixels(path.read_bytes())
    for path in artifacts.glob("*/*.json"):
        record.files[path.stem] = json.loads(path.read_bytes())["aliases"]
    record.config = json.loads((artifacts / "config.json").read_bytes())
    return record


def read_trackio(run: Path) -> Record:
    """Of trackio's SQLite database in ``TRACKIO_DIR``."""
    record, folder = Record(), Path(os.environ["TRACKIO_DIR"])
    (path,) = folder.glob("*.db")
    run_name = json.loads((run / "record.json").read_bytes())["trackio_name"]
    with contextlib.closing(sqlite3.connect(path)) as database:
        (number,) = database.execute("SELECT run_id FROM configs WHERE run_name = ?", [run_name]).fetchone()
        for step, content in database.execute("SELECT step, metrics FROM metrics WHERE run_id = ?", [number]):
            for name, value in json.loads(content).items():
                if isinstance(value, dict):
                    record.images[step][name] = pixels((folder / "media" / value["file_path"]).read_bytes())
                else:
                    record.add(step, name, value)
        (content,) = database.execute("SELECT config FROM configs WHERE run_id = ?", [number]).fetchone()
        record.config = json.loads(content)
        aliases = "SELECT name, alias FROM artifacts JOIN artifact_aliases ON artifact_id = artifacts.id"
        for name, alias in database.execute(aliases):
            record.files.setdefault(name, []).extend([] if alias == "latest" else [alias])
    return record


def pixels(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGB"))
