import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import timm
import torch
import torchvision
from PIL import Image
from torch import Tensor

from d2tune.errors import ProjectError, WeightsError
from d2tune.modeling.bridge.meta_arch import SemanticBridge
from d2tune.modeling.bridge.weights import automatic_source, fit_bridge
from d2tune.modeling.config import default_config
from d2tune.modeling.weights import read_state_dict
from tests.shared_files import SHARED

FILE = Path("given.pth")


def bridge(architecture: str, encoder: str = "", *, channels: int = 3, classes: int = 5, norm: str = "trainable"):
    cfg = default_config()
    cfg.MODEL.BRIDGE.ARCHITECTURE = architecture
    cfg.MODEL.BRIDGE.ENCODER = encoder
    cfg.MODEL.BRIDGE.NUM_CLASSES = classes
    cfg.MODEL.FEATURES.NORM = norm
    cfg.MODEL.PIXEL_MEAN = [127.5] * channels
    cfg.MODEL.PIXEL_STD = [127.5] * channels
    return SemanticBridge(cfg).eval()


def with_statistics(network: torch.nn.Module) -> torch.nn.Module:
    """The network with running statistics that are not the initial ones."""
    torch.manual_seed(1)
    for name, value in network.state_dict().items():
        if name.endswith(("running_mean", "running_var")):
            value.add_(torch.rand_like(value))
    return network.eval()


def rows(model: torch.nn.Module, state: dict[str, Tensor]) -> dict[str, tuple[int, int, str]]:
    return {row.component: (row.loaded, row.total, row.why) for row in fit_bridge(model, state, file=FILE).rows}


class TestEncoders:
    """After loading, the encoder's deepest features are those of the library's own network."""

    @pytest.mark.parametrize("norm", ["trainable", "frozen"])
    @pytest.mark.parametrize("library", ["torchvision", "timm"])
    def test_resnet(self, library: str, norm: str) -> None:
        make: Any = (
            torchvision.models.resnet18
            if library == "torchvision"
            else functools.partial(timm.create_model, "resnet18")
        )
        origin = with_statistics(make())
        model = bridge("unet", "resnet18", norm=norm)
        table = rows(model, origin.state_dict())
        assert table["encoder"] == (60, 60, "")
        assert table["decoder"][0] == 0 and table["segmentation_head"] == (0, 2, "2 not in the file")
        x = torch.rand(1, 3, 64, 64)
        with torch.no_grad():
            expected = torch.nn.Sequential(*list(origin.children())[:-2])(x)
            assert torch.allclose(model.network.encoder(x)[-1], expected, atol=1e-5)

    @pytest.mark.parametrize("architecture", ["fpn", "deeplab_v3_mobilenet_v2"])
    @pytest.mark.parametrize("library", ["torchvision", "timm"])
    def test_mobilenet_v2(self, library: str, architecture: str) -> None:
        origin = with_statistics(
            torchvision.models.mobilenet_v2() if library == "torchvision" else timm.create_model("mobilenetv2_100")
        )
        model = bridge(architecture, "mobilenet_v2" if architecture == "fpn" else "")
        loaded, total, why = rows(model, origin.state_dict())["encoder"]
        assert loaded == total and why == ""
        x = torch.rand(1, 3, 65, 65)
        with torch.no_grad():
            if library == "torchvision":
                middle = origin.features[:14](x)
            else:
                middle = origin.blocks[:5](origin.bn1(origin.conv_stem(x)))
            features = model.network.encoder.features if architecture == "fpn" else model.network.features
            assert torch.allclose(features[:14](x), middle, atol=1e-5)

    def test_mobilenet_v3_of_torchvision(self) -> None:
        origin = with_statistics(torchvision.models.mobilenet_v3_large())
        table = rows(bridge("torchvision_deeplab_v3", "mobilenet_v3_large"), origin.state_dict())
        assert table["encoder"] == (170, 170, "")
        assert table["classifier.4"] == (0, 2, "2 not in the file")

    def test_timm_with_stages(self) -> None:
        origin = timm.create_model("convnext_atto").eval()
        model = bridge("unet", "tu-convnext_atto")
        loaded, total, _ = rows(model, origin.state_dict())["encoder"]
        assert loaded == total
        x = torch.rand(1, 3, 64, 64)
        with torch.no_grad():
            expected = origin.stages(origin.stem(x))
            assert torch.allclose(model.network.encoder(x)[-1], expected, atol=1e-5)

    def test_those_of_the_shared_folder(self) -> None:
        state = read_state_dict(SHARED / "weights" / "mobilenet_v2_imagenet.pth")
        assert rows(bridge("unet", "mobilenet_v2", norm="frozen"), state)["encoder"] == (156, 156, "")


class TestWholeNetworks:
    def test_torchvisions_network_predicts_the_same(self) -> None:
        origin = with_statistics(
            torchvision.models.segmentation.deeplabv3_mobilenet_v3_large(
                weights=None, weights_backbone=None, num_classes=5, aux_loss=True
            )
        )
        model = bridge("torchvision_deeplab_v3", "mobilenet_v3_large")
        report = fit_bridge(model, origin.state_dict(), file=FILE)
        assert report.loaded == report.total and report.unused > 0  # the auxiliary head is not used
        x = torch.rand(1, 3, 64, 48)
        with torch.no_grad():
            network = model.network
            deepest = network.backbone(x)["out"]
            assert torch.allclose(deepest, origin.backbone(x)["out"], atol=1e-5)
            # torchvision's rates are those of output stride 8; the weights are the same
            for mine, theirs in zip(network.classifier[0].convs, origin.classifier[0].convs, strict=True):
                for module, original in zip(mine.modules(), theirs.modules(), strict=True):
                    if isinstance(module, torch.nn.Conv2d):
                        module.dilation, module.padding = original.dilation, original.padding
            assert torch.allclose(network(x), origin(x)["out"], atol=1e-5)

    def test_segmentation_models_network_predicts_the_same(self) -> None:
        origin = with_statistics(smp.Unet("resnet18", encoder_weights=None, classes=5))
        model = bridge("unet", "resnet18")
        report = fit_bridge(model, origin.state_dict(), file=FILE)
        assert (report.loaded, report.unused) == (report.total, 0)
        x = torch.rand(1, 3, 64, 64)
        with torch.no_grad():
            assert torch.equal(model.network(x), origin(x))

    @pytest.mark.parametrize("prefix", ["network.", ""])
    def test_layers_of_another_number_of_classes_are_reported(self, prefix: str) -> None:
        origin = {f"{prefix}{key}": value for key, value in bridge("fpn", "resnet18").network.state_dict().items()}
        table = rows(bridge("fpn", "resnet18", classes=2), origin)
        assert table["segmentation_head"][0] == 0
        assert "[5, 128, 1, 1] in the file, [2, 128, 1, 1] here" in table["segmentation_head"][2]
        assert all(loaded == total for name, (loaded, total, _) in table.items() if name != "segmentation_head")

    def test_the_original_unet(self) -> None:
        origin = bridge("unet_2015")
        model = bridge("unet_2015", classes=2)
        table = rows(model, origin.state_dict())
        assert table["head"][0] == 0 and table["down"][0] == table["down"][1]
        assert torch.equal(model.network.down[1][0].weight, origin.network.down[1][0].weight)


class TestFirstConvolution:
    @pytest.mark.parametrize("channels", [1, 4, 60])
    def test_an_even_image_gives_the_same_response(self, channels: int) -> None:
        origin = torchvision.models.resnet18().eval()
        model = bridge("unet", "resnet18", channels=channels)
        why = rows(model, origin.state_dict())["encoder"][2]
        if channels == 1:
            assert why == "first convolution narrowed from 3 channels to 1 by their sum"
        else:
            assert why.startswith(f"first convolution widened from 3 to {channels} channels by the mean over red")
        x = torch.rand(1, 1, 32, 32)
        with torch.no_grad():
            response = model.network.encoder.conv1(x.expand(-1, channels, -1, -1))
            assert torch.allclose(response, origin.conv1(x.expand(-1, 3, -1, -1)), atol=1e-5)
            assert torch.equal(model.network.encoder.layer4[1].conv2.weight, origin.layer4[1].conv2.weight)

    def test_four_channels_do_not_fit_into_sixty(self) -> None:
        why = rows(bridge("unet", "resnet18", channels=60), bridge("unet", "resnet18", channels=4).state_dict())
        assert why["encoder"] == (59, 60, "1 of another shape ([64, 4, 7, 7] in the file, [64, 60, 7, 7] here)")


class TestRefused:
    @pytest.mark.parametrize(
        ("architecture", "encoder", "origin"),
        [
            ("unet", "resnet18", torchvision.models.resnet50),
            ("unet", "resnet18", torchvision.models.mobilenet_v2),
            ("unet_2015", "", torchvision.models.resnet18),
            ("deeplab_v3_mobilenet_v2", "", torchvision.models.mobilenet_v3_large),
        ],
    )
    def test_weights_of_another_architecture(self, architecture: str, encoder: str, origin: Any) -> None:
        model = bridge(architecture, encoder)
        before = {key: value.clone() for key, value in model.state_dict().items()}
        with pytest.raises(WeightsError, match=r"given\.pth: these are the weights of another architecture"):
            fit_bridge(model, origin().state_dict(), file=FILE)
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


class TestAutomaticSource:
    @pytest.mark.parametrize(
        ("architecture", "encoder", "source"),
        [
            ("unet", None, "https://download.pytorch.org/models/resnet34-"),
            ("deeplab_v3", None, "https://download.pytorch.org/models/resnet50-"),
            ("torchvision_deeplab_v3", "mobilenet_v3_large", "https://download.pytorch.org/models/mobilenet_v3_large-"),
            ("deeplab_v3_mobilenet_v2", None, "https://download.pytorch.org/models/mobilenet_v2-7ebf99e0.pth"),
            ("fpn", "efficientnet-b0", "https://huggingface.co/smp-hub/efficientnet-b0.imagenet/resolve/"),
            ("fpn", "tu-convnext_tiny", "https://huggingface.co/timm/convnext_tiny."),
        ],
    )
    def test_known(self, architecture: str, encoder: str | None, source: str) -> None:
        address = automatic_source(architecture, encoder)
        assert address is not None and address.startswith(source)

    def test_unknown(self) -> None:
        assert automatic_source("unet_2015") is None
        assert automatic_source("unet", "tu-no_such_network") is None
        with pytest.raises(ProjectError, match=r"the architecture 'unet2015' is unknown\. Did you mean 'unet_2015'"):
            automatic_source("unet2015")


@pytest.mark.slow
def test_pascal_voc_weights_segment_the_car_without_training() -> None:
    model = bridge("deeplab_v3_mobilenet_v2", classes=21, norm="frozen")
    file = SHARED / "weights" / "deeplabv3_mobilenet_v2_voc.pth"
    report = fit_bridge(model, read_state_dict(file), file=file)
    assert (report.loaded, report.unused) == (report.total, 0)
    frames = sorted((SHARED / "data" / "car_video" / "JPEGImages").rglob("*.jpg"))[::8]
    scores = []
    for frame in frames:
        pixels = np.asarray(Image.open(frame).convert("RGB").resize((513, 288)))
        truth = np.asarray(Image.open(str(frame.with_suffix(".png")).replace("JPEGImages", "Annotations"))) > 0
        sample = {"image": torch.from_numpy(pixels.transpose(2, 0, 1).copy()), "height": 480, "width": 854}
        with torch.no_grad():
            car = (model([sample])[0]["sem_seg"].argmax(0) == 7).numpy()
        scores.append((car & truth).sum() / (car | truth).sum())
    assert len(frames) == 5 and np.mean(scores) >= 0.8
