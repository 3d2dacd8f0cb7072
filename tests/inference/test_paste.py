import numpy as np
import pytest
import torch
from detectron2.layers import paste_masks_in_image
from pycocotools import mask as mask_utils

from d2tune.inference.paste import encode_crop, paste_rle


@pytest.mark.parametrize("seed", range(12))
def test_the_same_pixels_as_detectron2s_pasting(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    height, width = 97, 143
    masks = torch.nn.functional.avg_pool2d(torch.rand(6, 1, 34, 34, generator=draw), 7, 1)[:, 0]
    corners = torch.rand(6, 2, generator=draw) * torch.tensor([width * 0.8, height * 0.8])
    sizes = 1 + torch.rand(6, 2, generator=draw) * 60
    boxes = torch.cat([corners, torch.minimum(corners + sizes, torch.tensor([float(width), float(height)]))], 1)
    expected = paste_masks_in_image(masks, boxes, (height, width), 0.5)
    for mask, box, reference in zip(masks, boxes, expected, strict=True):
        rle = paste_rle(mask.numpy(), box.numpy(), height_px=height, width_px=width)
        decoded = mask_utils.decode({**rle, "counts": rle["counts"].encode()}).astype(bool)
        assert np.array_equal(decoded, reference.numpy())


@pytest.mark.parametrize(
    ("crop", "left", "top"),
    [
        (np.ones((5, 7), bool), 0, 0),
        (np.ones((5, 7), bool), 3, 5),
        (np.zeros((5, 7), bool), 2, 2),
        (np.eye(5, 7, dtype=bool), 3, 0),
        (np.ones((10, 10), bool), 0, 0),
        (np.ones((10, 4), bool), 3, 0),
        (np.ones((2, 7), bool), 1, 8),
        (np.ones((2, 7), bool), 3, 8),
    ],
)
def test_run_lengths_of_a_crop_are_pycocotools_own(crop: np.ndarray, left: int, top: int) -> None:
    whole = np.zeros((10, 10), np.uint8)
    whole[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
    expected = mask_utils.encode(np.asfortranarray(whole))["counts"].decode()
    assert encode_crop(crop, left, top, height_px=10, width_px=10) == {"size": [10, 10], "counts": expected}
