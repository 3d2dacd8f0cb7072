"""A project on rendered balloons whose training takes a second, and what a person does with the images of a round."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PROJECT = """\
name: loop
data: {{root: data, train: {train}, val: {val}}}
classes: [balloon]
model: {{preset: pointrend_mobilenet_v2_fpn, backbone: timm/test_byobnet}}
weights: scratch
train: {{iterations: 4, batch_size: 2, image_size: 64, eval_every: 0, precision: float32, learning_rate: 0.002}}
detectron2:
  MODEL.FPN.OUT_CHANNELS: 16
  MODEL.FPN.NORM: ''
  MODEL.ROI_BOX_HEAD.FC_DIM: 32
  MODEL.ROI_MASK_HEAD.FC_DIM: 32
  MODEL.ROI_MASK_HEAD.CONV_DIM: 16
  MODEL.POINT_HEAD.FC_DIM: 16
  TEST.DETECTIONS_PER_IMAGE: 5
"""
"""The architecture of the old instance run, so that a round can begin with its weights."""


def make_place(
    sample: Path,
    folder: Path,
    *,
    train: str = "train",
    val: str = "val",
    labeled: int = 3,
    in_val: int = 6,
    new: int = 5,
) -> list[Path]:
    """Put a project file ``loop.yaml``, labeled images in ``data`` and images without labels in ``new`` into a folder.

    Args:
        sample: Rendered balloons with Labelme files.
        folder: The folder.
        train: The folder of the training split.
        val: The folder of the validation split, or a fraction.
        labeled: Number of images of the training split.
        in_val: Number of images of the validation split.
        new: Number of images without labels.

    Returns:
        The images of the sample that ``new`` has, with their Labelme files.
    """
    photos = sorted(sample.rglob("*.jpg"))
    (folder / "data" / train).mkdir(parents=True)
    for photo in photos[:labeled]:
        copy_labeled(photo, folder / "data" / train)
    if "." not in val:
        (folder / "data" / val).mkdir()
        for photo in photos[labeled : labeled + in_val]:
            copy_labeled(photo, folder / "data" / val)
    (folder / "new").mkdir()
    unlabeled = photos[labeled + in_val : labeled + in_val + new]
    for photo in unlabeled:
        shutil.copy(photo, folder / "new")
    (folder / "loop.yaml").write_text(PROJECT.format(train=train, val=val), encoding="utf-8")
    return unlabeled


def copy_labeled(photo: Path, folder: Path) -> None:
    shutil.copy(photo, folder)
    shutil.copy(photo.with_suffix(".json"), folder)


def editor(folder: Path, code: str) -> str:
    """A command that takes Labelme's arguments and runs Python code, in which ``folder`` is that of the images."""
    script = folder / "editor.py"
    text = f"import json, pathlib, sys\nfolder = pathlib.Path(sys.argv[1])\n{code}\n"
    script.write_text(text, encoding="utf-8")
    return f"{sys.executable} {script}"


def annotated(sample: Path, places: Sequence[int] | None = None) -> str:
    """Code that writes the right shapes of the sample into the files of a round, for all or for some places in it."""
    return f"""
truth = {{path.name: path.with_suffix(".json") for path in pathlib.Path({str(sample)!r}).rglob("*.jpg")}}
images = sorted(folder.glob("*.jpg"))
for place in {list(places) if places is not None else "range(len(images))"}:
    value = json.loads(truth[images[place].name.split("_", 1)[1]].read_text("utf-8"))
    value["imagePath"] = images[place].name
    images[place].with_suffix(".json").write_text(json.dumps(value), "utf-8")
"""


def state_of(folder: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((folder / "runs/loop/label_loop/label_loop.json").read_text("utf-8"))
    return value


def read_json(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return value
