"""The lines of docs/export.md that run an exported model without d2tune."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PilImage

import d2tune
from d2tune.packages.read import Package

DOCS = Path(__file__).resolve().parents[2] / "docs" / "export.md"


def test_its_masks_are_those_of_the_predictor(
    onnx_package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(onnx_package.folder, tmp_path / "exported")
    pixels = np.random.default_rng(5).integers(0, 256, (97, 64, 3), dtype=np.uint8)
    exif = PilImage.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    PilImage.fromarray(pixels).save(tmp_path / "photo.jpg", quality=95, exif=exif)
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert "d2tune" not in block and "torch" not in block
    given: dict[str, Any] = {}
    exec(compile(block, str(DOCS), "exec"), given)
    expected = d2tune.load_predictor(tmp_path / "exported")(tmp_path / "photo.jpg")
    assert (expected.height_px, expected.width_px) == (64, 97) and len(expected) > 2
    assert given["masks"].shape == expected.masks.shape and given["masks"].any()
    np.testing.assert_allclose(given["boxes"], expected.boxes_xyxy, atol=1e-3)
    np.testing.assert_allclose(given["scores"], expected.scores, atol=1e-6)
    assert given["classes"].tolist() == expected.class_ids.tolist()
    assert ((given["masks"] != expected.masks).sum((1, 2)) <= 2).all()
