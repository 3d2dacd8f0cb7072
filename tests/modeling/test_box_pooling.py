"""Boxes are pooled as by Detectron2's pooler with torchvision's operator."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes

from d2tune.inference.fused import fused_norms
from d2tune.modeling.box_pooling import has_a_sample_for_each_cell, pool_boxes

SIDES = (160, 224)
SCALES = [1 / 4, 1 / 8, 1 / 16, 1 / 32]


def maps_of(images: int, scales: list[float]) -> list[torch.Tensor]:
    sizes = [(round(SIDES[0] * scale), round(SIDES[1] * scale)) for scale in scales]
    return [torch.randn(images, 5, *size).contiguous(memory_format=torch.channels_last) for size in sizes]


def boxes_of(count: int, seed: int) -> Boxes:
    """Boxes of all sizes, some of them over the whole image or along its border."""
    generator = np.random.default_rng(seed)
    corners = generator.uniform(-0.1, 1.1, (count, 2, 2)).clip(0, 1) * (SIDES[1], SIDES[0])
    corners[: count // 4] = [(0, 0), (SIDES[1], SIDES[0])]
    rows = np.concatenate([corners.min(1), corners.max(1)], axis=1)
    return Boxes(torch.from_numpy(rows.astype(np.float32).reshape(-1, 4)))


@pytest.mark.parametrize("scales", [SCALES, SCALES[:1]])
@pytest.mark.parametrize("counts", [[40, 0, 25], [0], [1]])
@pytest.mark.parametrize("size", [7, (14, 3)])
def test_the_features_of_detectron2s_pooler(
    scales: list[float], counts: list[int], size: int | tuple[int, int]
) -> None:
    if isinstance(size, tuple) and len(scales) > 1:
        scales = scales[1:2]
    torch.manual_seed(2)
    pooler, maps = ROIPooler(size, scales, 1, "ROIAlignV2"), maps_of(len(counts), scales)
    boxes = [boxes_of(count, seed) for seed, count in enumerate(counts)]
    assert has_a_sample_for_each_cell(pooler)
    with torch.no_grad():
        expected, ours = pooler(maps, boxes), pool_boxes(pooler, maps, boxes)
        assert ours.shape == expected.shape == (sum(counts), 5, *pooler.output_size)
        assert torch.allclose(ours, expected, atol=1e-3)
        with fused_norms(pooler):
            assert torch.equal(pooler(maps, boxes), ours)
    with fused_norms(pooler):
        maps[0].requires_grad_()
        assert torch.equal(pooler(maps, boxes), expected)


@pytest.mark.parametrize(("ratio", "kind"), [(0, "ROIAlignV2"), (2, "ROIAlignV2"), (1, "ROIAlign"), (1, "ROIPool")])
def test_other_poolers_do_not_change(ratio: int, kind: str) -> None:
    pooler = ROIPooler(7, SCALES, ratio, kind)
    assert not has_a_sample_for_each_cell(pooler)
    with fused_norms(pooler):
        assert "forward" not in vars(pooler)
