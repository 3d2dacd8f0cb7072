"""A batch has the same losses and gradients in one process and divided over two."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from tests.engine.rank_losses import measured, work
from tests.forked import together

TEXT = """\
task: {task}
data: {{root: {root}, sample: null{data}}}
{classes}
model: {{preset: {preset}{model}}}
weights: scratch
train: {{iterations: 4, batch_size: 4, image_size: 64, precision: float32, validation_loss: false}}
detectron2: {{MODEL.DEVICE: cpu{more}}}
"""

CLASSES = {
    "instance": "classes: [balloon]",
    "semantic": "classes: [scene, balloon]",
    "panoptic": "things: [balloon]\nstuff: [scene]",
}

FAMILIES = {
    "pointrend": ("instance", "pointrend_mobilenet_v2_fpn", "", ""),
    "yolact": ("instance", "yolact_mobilenet_v2", "", ""),
    "panoptic": ("panoptic", "panoptic_fpn_mobilenet_v2", "", ""),
    "semantic": ("semantic", "semantic_fpn_mobilenet_v2", "", ""),
    "bridge": ("semantic", "unet_2015", ", loss: {cross_entropy: 1, focal: 1, dice: 0.5}", ", MODEL.BRIDGE.WIDTH: 4"),
}


def write_projects(families: Sequence[str], root: Path, folder: Path) -> list[Path]:
    files = []
    for name in families:
        task, preset, model, more = FAMILIES[name]
        data = "" if task == "instance" else ", background: scene"
        files.append(folder / f"{name}.yaml")
        text = TEXT.format(
            task=task, root=root, data=data, classes=CLASSES[task], preset=preset, model=model, more=more
        )
        files[-1].write_text(text, encoding="utf-8")
    return files


@pytest.mark.slow
@pytest.mark.parametrize(
    "families", [("pointrend",), pytest.param(tuple(FAMILIES)[1:], marks=pytest.mark.extended)], ids=len
)
def test_a_batch_has_the_same_losses_and_gradients_on_one_and_two_processes(
    balloon_sample: Path, tmp_path: Path, families: tuple[str, ...]
) -> None:
    projects = write_projects(families, balloon_sample, tmp_path)
    together(work, projects, f"file://{tmp_path}/meeting", tmp_path / "two.pth", processes=2)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        alone = [measured(project) for project in projects]
    finally:
        torch.set_num_threads(threads)
    for name, one, two in zip(families, alone, torch.load(tmp_path / "two.pth"), strict=True):
        assert len(set(one["sizes"])) > 1 and one["sizes"] == two["sizes"], name
        assert one["losses"].keys() == two["losses"].keys(), name
        assert two["losses"] == pytest.approx(one["losses"], abs=1e-5), name
        assert two["gradients"] == pytest.approx(one["gradients"], rel=1e-3, abs=1e-5), name
