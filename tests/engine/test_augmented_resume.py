"""A run with every augmentation goes on to the same bits after a stop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.engine import HookBase

import d2tune
from d2tune.errors import RunError

AUGMENTED = (
    *("train.large_scale_jitter=true", "train.scale_jitter=[0.3,1.5]", "train.crop=0.5", "train.copy_paste=0.7"),
    *("train.gray=0.3", "train.blur=0.5", "train.eval_every=2", "train.iterations=4"),
)


class FailInTheThird(HookBase):
    def after_step(self) -> None:
        if self.trainer.iter == 2:
            raise OSError(28, "No space left on device", "some/file")


@pytest.mark.extended
def test_augmented_batches_are_those_of_an_uninterrupted_run(tiny_project: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"overrides": AUGMENTED, "num_gpus": 0}
    d2tune.train(tiny_project, output_dir=tmp_path / "straight", **options)
    with pytest.raises(RunError):
        d2tune.train(tiny_project, output_dir=tmp_path / "stopped", hooks=[FailInTheThird()], **options)
    d2tune.train(tiny_project, output_dir=tmp_path / "stopped", resume=True, **options)
    one, other = (
        torch.load(tmp_path / name / "checkpoints" / "last.pth", weights_only=True)["model"]
        for name in ("straight", "stopped")
    )
    assert list(one) == list(other) and all(torch.equal(one[key], other[key]) for key in one)
