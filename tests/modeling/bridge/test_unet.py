import numpy as np
import pytest
import torch

from d2tune.modeling.bridge.padding import mirror_pad
from d2tune.modeling.bridge.unet import UNet2015, valid_input_px, valid_output_px


class TestPaper:
    def test_the_network_of_the_paper(self) -> None:
        network = UNet2015(in_channels=1, classes=2, padding="valid", norm=False, width=2).eval()
        shapes = []
        for block in network.down:
            block.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape[1:])))
        with torch.no_grad():
            assert network.convolve(torch.zeros(1, 1, 572, 572)).shape == (1, 2, 388, 388)
        assert shapes == [(2, 568, 568), (4, 280, 280), (8, 136, 136), (16, 64, 64), (32, 28, 28)]

    def test_its_23_convolutions_and_31_million_parameters(self) -> None:
        network = UNet2015(in_channels=1, classes=2, norm=False)
        convolutions = [
            module for module in network.modules() if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d)
        ]
        assert len(convolutions) == 23
        assert sum(parameter.numel() for parameter in network.parameters()) == 31_030_658

    def test_initial_weights_keep_the_size_of_signals(self) -> None:
        torch.manual_seed(0)
        network = UNet2015(in_channels=1, classes=2, width=64)
        second = network.down[0][3].weight
        assert second.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)


class TestSizes:
    def test_sides_that_fit(self) -> None:
        assert (valid_output_px(572), valid_input_px(388)) == (388, 572)
        assert valid_output_px(571) is None and valid_output_px(100) is None

    @pytest.mark.parametrize("output_px", [1, 4, 5, 100, 388, 389, 512])
    def test_the_smallest_side_that_covers(self, output_px: int) -> None:
        input_px = valid_input_px(output_px)
        fitting = [side for side in range(1, input_px + 1) if (valid_output_px(side) or 0) >= output_px]
        assert fitting == [input_px]

    @pytest.mark.parametrize("size", [(1, 1), (33, 70), (100, 4)])
    def test_valid_covers_the_whole_image(self, size: tuple[int, int]) -> None:
        network = UNet2015(in_channels=2, classes=3, padding="valid", width=2).eval()
        with torch.no_grad():
            assert network(torch.rand(1, 2, *size)).shape == (1, 3, *size)

    def test_valid_sees_the_mirrored_image(self) -> None:
        network = UNet2015(in_channels=1, classes=1, padding="valid", width=2).eval()
        image = torch.rand(1, 1, 100, 116)
        mirrored = np.pad(image[0, 0].numpy(), 92, mode="reflect")
        with torch.no_grad():
            expected = network.convolve(torch.from_numpy(mirrored)[None, None])
            assert torch.equal(network(image), expected)


class TestMirrorPad:
    @pytest.mark.parametrize(
        ("size", "top", "left", "total"),
        [((5, 7), 2, 3, (9, 12)), ((3, 2), 11, 8, (30, 31)), ((1, 4), 2, 0, (6, 4)), ((4, 4), 0, 0, (4, 4))],
    )
    def test_as_numpy_does(self, size: tuple[int, int], top: int, left: int, total: tuple[int, int]) -> None:
        image = torch.rand(2, *size)
        below, right = total[0] - size[0] - top, total[1] - size[1] - left
        expected = np.pad(image.numpy(), ((0, 0), (top, below), (left, right)), mode="reflect")
        padded = mirror_pad(image, top_px=top, left_px=left, height_px=total[0], width_px=total[1])
        assert np.array_equal(padded.numpy(), expected)
