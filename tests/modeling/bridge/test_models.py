"""One tester for every network of the bridge."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from d2tune.errors import DataError, ProjectError
from d2tune.modeling.bridge.meta_arch import SemanticBridge
from d2tune.modeling.bridge.networks import ARCHITECTURES, build_network
from d2tune.modeling.checkpoint import load_weights, plain_state, save
from d2tune.modeling.config import default_config
from tests.cases import on_demand

SMALL = {
    "unet": "resnet18",
    "unet_plus_plus": "resnet18",
    "deeplab_v3": "mobilenet_v2",
    "deeplab_v3_plus": "mobilenet_v2",
    "fpn": "resnet18",
    "torchvision_fcn": "resnet50",
    "torchvision_deeplab_v3": "mobilenet_v3_large",
    "unet_2015": "",
    "deeplab_v3_mobilenet_v2": "",
    "lightnet_shufflenet_v2": "shufflenet_v2_x0_5",
    "lightnet_mobilenet_v2": "",
}
LARGE = [
    ("unet", "resnet34"),
    ("unet", "tu-convnext_atto"),
    ("unet_plus_plus", "efficientnet-b0"),
    ("deeplab_v3", "resnet50"),
    ("deeplab_v3_plus", "resnet50"),
    ("fpn", "tu-resnet18"),
    ("torchvision_fcn", "resnet101"),
    ("torchvision_deeplab_v3", "resnet50"),
]


def bridge(architecture: str, *, channels: int = 3, classes: int = 3, encoder: str | None = None, **keys: Any):
    torch.manual_seed(0)
    cfg = default_config()
    cfg.MODEL.BRIDGE.ARCHITECTURE = architecture
    cfg.MODEL.BRIDGE.ENCODER = SMALL[architecture] if encoder is None else encoder
    cfg.MODEL.BRIDGE.NUM_CLASSES = classes
    cfg.MODEL.BRIDGE.WIDTH = 8
    cfg.MODEL.FEATURES.NORM = keys.pop("norm", "trainable")
    cfg.MODEL.PIXEL_MEAN = [100.0] * channels
    cfg.MODEL.PIXEL_STD = [50.0] * channels
    for key, value in keys.items():
        cfg.MODEL.BRIDGE[key] = value
    return SemanticBridge(cfg)


def samples(*sizes: tuple[int, int], channels: int = 3, classes: int = 3, seed: int = 0) -> list[dict[str, Any]]:
    """Images whose values identify the classes; a corner of each is ignored."""
    random = torch.Generator().manual_seed(seed)
    made = []
    for height, width in sizes:
        labels = (torch.arange(height)[:, None] * classes // height).expand(height, width).clone()
        shades = labels * 150.0 / max(1, classes - 1) + 25
        image = shades.expand(channels, -1, -1) + 10 * torch.randn(channels, height, width, generator=random)
        labels[:3, :3] = 255
        made.append({"image": image, "sem_seg": labels, "height": height, "width": width})
    return made


def total(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).sum()


EVERY = pytest.mark.parametrize("architecture", ARCHITECTURES)
SOME = pytest.mark.parametrize(
    "architecture", on_demand(ARCHITECTURES, "unet", "torchvision_deeplab_v3", "unet_2015", "lightnet_mobilenet_v2")
)
"""A network of each library, for what the code around them does."""


class TestEveryModel:
    @EVERY
    def test_one_image_of_odd_size_trains_every_parameter(self, architecture: str) -> None:
        model = bridge(architecture, channels=4).train()
        losses = model(samples((33, 33), channels=4))
        assert set(losses) == {"loss_cross_entropy"}
        total(losses).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        reached = [bool(parameter.grad.any()) for parameter in model.parameters()]
        assert sum(reached) > 0.9 * len(reached)

    @SOME
    def test_steps_lower_the_loss(self, architecture: str) -> None:
        model = bridge(architecture, LOSS=[["cross_entropy", 1.0], ["dice", 0.5]]).train()
        batch = samples((64, 47), (40, 64))
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
        history = []
        for _ in range(5):
            losses = model(batch)
            assert set(losses) == {"loss_cross_entropy", "loss_dice"}
            optimizer.zero_grad()
            total(losses).backward()
            optimizer.step()
            history.append(total(losses).item())
        assert min(history[2:]) < 0.8 * history[0], history

    @pytest.mark.parametrize(
        ("architecture", "channels", "classes"),
        [
            *((name, 3, 20) for name in ARCHITECTURES),
            *on_demand(
                [(name, *n) for name in ARCHITECTURES for n in ((1, 1), (60, 2))], ("unet", 1, 1), ("unet", 60, 2)
            ),
        ],
    )
    def test_probabilities_at_the_images_own_size(self, architecture: str, channels: int, classes: int) -> None:
        model = bridge(architecture, channels=channels, classes=classes).eval()
        batch = samples((65, 47), (5, 9), channels=channels, classes=1)
        batch[0]["image"] = batch[0]["image"].clamp(0, 255).to(torch.uint8)
        batch[1] |= {"height": 21, "width": 30}
        with torch.no_grad():
            first, second = (output["sem_seg"] for output in model(batch))
        assert first.shape == (classes, 65, 47) and second.shape == (classes, 21, 30)
        for scores in (first, second):
            assert scores.dtype == torch.float32
            assert torch.allclose(scores.sum(0), torch.ones(scores.shape[1:]), atol=1e-5)

    @SOME
    def test_a_saved_and_loaded_model_predicts_the_same(self, architecture: str, tmp_path: Path) -> None:
        model, loaded = bridge(architecture).train(), bridge(architecture)
        with torch.no_grad():
            model(samples((48, 48), (48, 48)))  # moves the running statistics
            for parameter in model.parameters():
                parameter.add_(0.01)
        save(tmp_path / "model.pth", {"model": plain_state(model)})
        load_weights(loaded, tmp_path / "model.pth")
        with torch.no_grad():
            before, after = (network.eval()(samples((50, 38)))[0]["sem_seg"] for network in (model, loaded))
        assert torch.equal(before, after)

    @SOME
    def test_a_seed_makes_training_reproducible(self, architecture: str) -> None:
        def trained() -> list[Tensor]:
            model = bridge(architecture).train()
            optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
            total(model(samples((40, 40), (33, 40)))).backward()
            optimizer.step()
            return [value.clone() for value in model.state_dict().values()]

        first, second = trained(), trained()
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))

    @SOME
    def test_values_without_data_are_replaced_by_the_mean(self, architecture: str) -> None:
        model = bridge(architecture).eval()
        holes, means = samples((32, 32)), samples((32, 32))
        holes[0]["image"][:, 4:20, 4:20] = float("nan")
        holes[0]["image"][1, 0, 0] = float("inf")
        means[0]["image"][:, 4:20, 4:20] = 100.0
        means[0]["image"][1, 0, 0] = 100.0
        with torch.no_grad():
            assert torch.equal(model(holes)[0]["sem_seg"], model(means)[0]["sem_seg"])

    @SOME
    def test_a_batch_without_labels_has_a_loss_of_zero(self, architecture: str) -> None:
        every = [["cross_entropy", 1.0], ["dice", 1.0], ["focal", 1.0], ["lovasz", 1.0]]
        model = bridge(architecture, LOSS=every).train()
        batch = samples((40, 40))
        batch[0]["sem_seg"].fill_(255)
        losses = model(batch)
        total(losses).backward()
        assert [loss.item() for loss in losses.values()] == [0, 0, 0, 0]
        assert all(not parameter.grad.any() for parameter in model.parameters() if parameter.grad is not None)

    @SOME
    def test_frozen_norms_keep_their_statistics(self, architecture: str) -> None:
        model = bridge(architecture, norm="frozen").train()
        encoder = [
            (key, value.clone())
            for key, value in model.state_dict().items()
            if key.endswith("running_mean")
            and key.startswith(("network.encoder", "network.backbone", "network.features"))
        ]
        model(samples((48, 48), (48, 48)))
        after = model.state_dict()
        assert bool(encoder) == (architecture != "unet_2015")
        assert all(torch.equal(after[key], value) for key, value in encoder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "encoder"), on_demand(LARGE, ("unet", "tu-convnext_atto"), ("deeplab_v3_plus", "resnet50"))
)
def test_other_encoders(architecture: str, encoder: str) -> None:
    model = bridge(architecture, encoder=encoder, channels=4, classes=2)
    total(model.train()(samples((33, 33), channels=4, classes=2))).backward()
    with torch.no_grad():
        (output,) = model.eval()(samples((65, 47), channels=4))
    assert output["sem_seg"].shape == (2, 65, 47)


class TestBatches:
    def test_a_result_does_not_depend_on_the_rest_of_the_batch(self) -> None:
        model = bridge("unet").eval()
        batch = samples((33, 50), (64, 64), (40, 60))
        with torch.no_grad():
            together = model(batch)
            alone = [model([sample])[0] for sample in batch]
        for batched, single in zip(together, alone, strict=True):
            assert torch.allclose(batched["sem_seg"], single["sem_seg"], atol=1e-5)

    def test_what_padding_adds_is_not_learned_from(self) -> None:
        seen = []

        class Watch(torch.nn.Module):
            def forward(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
                seen.append((logits.shape, labels))
                return {"loss": logits.sum() * 0}

        network = build_network(architecture="fpn", encoder="resnet18", in_channels=3, classes=3)
        model = SemanticBridge(
            network=network, loss=Watch(), size_divisibility=32, pixel_mean=[0.0] * 3, pixel_std=[1.0] * 3
        ).train()
        batch = samples((33, 50), (64, 70))
        model(batch)
        ((shape, labels),) = seen
        assert shape == (2, 3, 64, 96) and labels.shape == (2, 64, 96)
        assert torch.equal(labels[0, :33, :50], batch[0]["sem_seg"])
        assert (labels[0, 33:] == 255).all() and (labels[:, :, 70:] == 255).all() and (labels[0, :, 50:] == 255).all()

    def test_another_number_of_channels_is_an_error_with_the_file(self) -> None:
        model = bridge("unet").eval()
        with pytest.raises(DataError, match=r"a\.tif: the image does not have.*found 1 channel; expected 3"):
            model([{"image": torch.zeros(1, 40, 40), "file_name": "a.tif"}])

    def test_one_value_for_each_channel_leaves_the_running_statistics(self) -> None:
        model = bridge("deeplab_v3").train()
        pooled = dict(model.named_modules())["network.decoder.aspp.convs.4.2"]
        before = pooled.running_mean.clone()
        model(samples((40, 40)))
        assert torch.equal(pooled.running_mean, before)
        model(samples((40, 40), (40, 40)))
        assert not torch.equal(pooled.running_mean, before)


class TestChoices:
    @pytest.mark.parametrize(
        ("choice", "message"),
        [
            ({"architecture": "u-net"}, r"the architecture 'u-net' is unknown\. Did you mean 'unet'\?"),
            (
                {"encoder": "resnet43"},
                r"model\.encoder: the encoder 'resnet43' of unet is unknown\. .* 'resnet34'\?",
            ),
            ({"encoder": "tu-convnext_tinny"}, "Did you mean 'tu-convnext_tiny'"),
            ({"architecture": "torchvision_fcn", "encoder": "resnet34"}, "Valid are resnet50, resnet101"),
            ({"architecture": "unet_2015", "encoder": "resnet18"}, "unet_2015 has no encoder; found 'resnet18'"),
            ({"architecture": "deeplab_v3_mobilenet_v2", "encoder": "resnet18"}, "Valid are mobilenet_v2"),
            ({"output_stride": 8}, r"model\.output_stride: unet does not have output stride 8"),
            ({"architecture": "deeplab_v3", "output_stride": 4}, "expected 8 or 16"),
            (
                {"architecture": "torchvision_deeplab_v3", "encoder": "mobilenet_v3_large", "output_stride": 8},
                "output stride of torchvision's mobilenet_v3_large must be 16; found 8",
            ),
            ({"padding": "valid"}, "unet cannot be built without padding"),
            ({"padding": "full"}, "the padding 'full' is unknown; expected 'same' or 'valid'"),
            ({"architecture": "unet_plus_plus", "encoder": "mit_b0"}, "cannot be built on this encoder"),
        ],
    )
    def test_invalid_choices(self, choice: dict[str, Any], message: str) -> None:
        wanted = {"architecture": "unet", "encoder": None, "in_channels": 3, "classes": 2} | choice
        with pytest.raises(ProjectError, match=message):
            build_network(**wanted)

    @pytest.mark.parametrize("architecture", ["deeplab_v3", "deeplab_v3_plus", "torchvision_fcn"])
    @pytest.mark.parametrize("stride", [8, 16])
    def test_output_strides(self, architecture: str, stride: int) -> None:
        network = build_network(
            architecture=architecture,
            encoder=SMALL[architecture],
            in_channels=3,
            classes=2,
            output_stride=stride,
        ).eval()
        image = torch.zeros(1, 3, 64, 96)
        with torch.no_grad():
            if architecture == "torchvision_fcn":
                deepest = network.backbone(image)["out"]
            else:
                deepest = network.encoder(image)[-1]
        assert deepest.shape[-2:] == (64 // stride, 96 // stride)

    def test_presets_have_the_encoders_and_strides_of_their_networks(self) -> None:
        from d2tune.modeling.config import preset_config

        for name in ARCHITECTURES:
            cfg = preset_config(name)
            assert cfg.MODEL.META_ARCHITECTURE == "SemanticBridge"
            assert name == cfg.MODEL.BRIDGE.ARCHITECTURE
            kind = ARCHITECTURES[name]
            assert cfg.MODEL.BRIDGE.ENCODER in ("", kind.encoder)
            assert cfg.MODEL.BRIDGE.OUTPUT_STRIDE in ((0, *kind.output_strides))
            assert math.isclose(cfg.SOLVER.BASE_LR, 0.001) and cfg.SOLVER.OPTIMIZER == "ADAMW"


def test_noise_has_the_configured_deviation_and_is_in_training_only() -> None:
    model = bridge("unet_2015", NOISE=0.5).train()
    seen: list[Tensor] = []
    model.network.register_forward_pre_hook(lambda network, inputs: seen.append(inputs[0].detach().clone()))
    (image,) = samples((64, 64))
    model([image])
    model.eval()([image])
    clean = (image["image"] - 100) / 50
    assert torch.equal(seen[1][0], clean)
    added = seen[0][0] - clean
    assert added.std().item() == pytest.approx(0.5, rel=0.03) and abs(added.mean().item()) < 0.02
