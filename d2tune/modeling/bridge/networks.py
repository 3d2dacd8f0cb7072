"""The networks of the bridge by name: of segmentation-models-pytorch, torchvision and d2tune."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from d2tune.errors import ProjectError, nearest
from d2tune.modeling.bridge.deeplab_mobilenet import DeepLabV3MobileNetV2
from d2tune.modeling.bridge.lightnet import SHUFFLENETS, LightNetMobileNetV2, LightNetShuffleNetV2
from d2tune.modeling.bridge.lightnet import STRIDE as LIGHTNET_STRIDE
from d2tune.modeling.bridge.norms import with_steady_norms
from d2tune.modeling.bridge.unet import UNet2015

ATROUS_RATES = {8: (12, 24, 36), 16: (6, 12, 18)}
"""Dilation of DeepLab's branches by output stride (Chen et al., arXiv:1706.05587, section 4.1)."""

TORCHVISION_CHANNELS = {"resnet50": 2048, "resnet101": 2048, "mobilenet_v3_large": 960}
"""Channels of the last features of torchvision's encoders, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A type of network and its options.

    Attributes:
        build: Function that builds the network from ``in_channels``, ``classes`` and the options of the architecture
            among ``encoder``, ``output_stride``, ``padding`` and ``width``.
        encoder: The default encoder; None without an encoder.
        encoders: All valid encoders; None for those of segmentation-models-pytorch.
        encoder_attribute: The attribute of the network with the encoder; None without an encoder.
        output_strides: The valid output strides, the default first; empty without a choice.
        divisibility_px: Sides of images must be multiples of this.
        windows_are_patches: Whether images are predicted in windows as large as the patches of training, because the
            statistics of features depend on the size, such as those behind dilations wider than small patches.
    """

    build: Callable[..., nn.Module]
    encoder: str | None = None
    encoders: tuple[str, ...] | None = ()
    encoder_attribute: str | None = None
    output_strides: tuple[int, ...] = ()
    divisibility_px: int = 1
    windows_are_patches: bool = False


def _smp_network(
    class_name: str, *, encoder: str, in_channels: int, classes: int, output_stride: int | None = None
) -> nn.Module:
    import segmentation_models_pytorch

    dilated = {}
    if output_stride is not None:
        dilated = {"encoder_output_stride": output_stride, "decoder_atrous_rates": ATROUS_RATES[output_stride]}
    build = getattr(segmentation_models_pytorch, class_name)
    try:
        network: nn.Module = build(
            encoder_name=encoder, encoder_weights=None, in_channels=in_channels, classes=classes, **dilated
        )
    except (RuntimeError, ValueError, KeyError, AttributeError, AssertionError) as error:
        raise ProjectError(
            f"{class_name} cannot be built on this encoder: {str(error).splitlines()[0] or type(error).__name__}",
            place="model.encoder",
            found=f"{encoder!r} with {in_channels} channels",
            hint="Use another encoder, such as resnet34.",
        ) from None
    return network


class TorchvisionNetwork(nn.Module):
    """Torchvision's segmentation networks without their auxiliary head, with torchvision's names of layers.

    Args:
        head: ``fcn`` or ``deeplab_v3``.
        encoder: ``resnet50``, ``resnet101`` or ``mobilenet_v3_large``.
        in_channels: Channels of the images.
        classes: Channels of the logits.
        output_stride: 8 or 16.
    """

    def __init__(self, head: str, *, encoder: str, in_channels: int, classes: int, output_stride: int) -> None:
        from torchvision.models.segmentation.deeplabv3 import DeepLabHead
        from torchvision.models.segmentation.fcn import FCNHead

        super().__init__()
        self.backbone = _torchvision_encoder(encoder, in_channels, output_stride)
        channels = TORCHVISION_CHANNELS[encoder]
        if head == "fcn":
            self.classifier = FCNHead(channels, classes)
        else:
            self.classifier = DeepLabHead(channels, classes, ATROUS_RATES[output_stride])

    def forward(self, x: Tensor) -> Tensor:
        """The logits ``(N, K, h, w)`` of images ``(N, C, h, w)``."""
        coarse = self.classifier(self.backbone(x)["out"])
        return F.interpolate(coarse, x.shape[-2:], mode="bilinear", align_corners=False)


def _torchvision_encoder(name: str, in_channels: int, output_stride: int) -> nn.Module:
    import torchvision
    from torchvision.models._utils import IntermediateLayerGetter

    if name == "mobilenet_v3_large":
        if output_stride != 16:
            raise ProjectError(
                "the output stride of torchvision's mobilenet_v3_large must be 16",
                place="model.output_stride",
                found=str(output_stride),
                hint="Remove it, or use resnet50.",
            )
        features = torchvision.models.mobilenet_v3_large(weights=None, dilated=True).features
        features[0][0] = _like(features[0][0], in_channels)
        stages: nn.Module = IntermediateLayerGetter(features, {str(len(features) - 1): "out"})
        return stages
    dilation = [False, output_stride == 8, True]
    resnet = torchvision.models.get_model(name, weights=None, replace_stride_with_dilation=dilation)
    resnet.conv1 = _like(resnet.conv1, in_channels)
    last: nn.Module = IntermediateLayerGetter(resnet, {"layer4": "out"})
    return last


def _like(first: nn.Conv2d, in_channels: int) -> nn.Conv2d:
    """A first convolution like ``first`` for another number of channels."""
    if in_channels == first.in_channels:
        return first
    changed = nn.Conv2d(
        in_channels,
        first.out_channels,
        kernel_size=first.kernel_size,  # type: ignore[arg-type]
        stride=first.stride,  # type: ignore[arg-type]
        padding=first.padding,  # type: ignore[arg-type]
        bias=False,
    )
    nn.init.kaiming_normal_(changed.weight, mode="fan_out", nonlinearity="relu")
    return changed


def _deeplab_v3_mobilenet_v2(*, encoder: str, in_channels: int, classes: int) -> nn.Module:
    return DeepLabV3MobileNetV2(in_channels=in_channels, classes=classes)


def _smp(class_name: str, encoder: str, output_strides: tuple[int, ...] = ()) -> Architecture:
    return Architecture(
        build=partial(_smp_network, class_name),
        encoder=encoder,
        encoders=None,
        encoder_attribute="encoder",
        output_strides=output_strides,
        divisibility_px=32,
    )


def _torchvision(head: str, encoders: tuple[str, ...]) -> Architecture:
    return Architecture(
        build=partial(TorchvisionNetwork, head),
        encoder=encoders[0],
        encoders=encoders,
        encoder_attribute="backbone",
        output_strides=(16, 8),
        divisibility_px=16,
    )


def _lightnet(build: Callable[..., nn.Module], encoders: tuple[str, ...]) -> Architecture:
    return Architecture(
        build=build,
        encoder=encoders[-1],
        encoders=encoders,
        encoder_attribute="features",
        divisibility_px=LIGHTNET_STRIDE,
        windows_are_patches=True,
    )


ARCHITECTURES: dict[str, Architecture] = {
    "unet": _smp("Unet", "resnet34"),
    "unet_plus_plus": _smp("UnetPlusPlus", "resnet34"),
    "deeplab_v3": _smp("DeepLabV3", "resnet50", (16, 8)),
    "deeplab_v3_plus": _smp("DeepLabV3Plus", "resnet50", (16, 8)),
    "fpn": _smp("FPN", "resnet34"),
    "torchvision_fcn": _torchvision("fcn", ("resnet50", "resnet101")),
    "torchvision_deeplab_v3": _torchvision("deeplab_v3", ("resnet50", "resnet101", "mobilenet_v3_large")),
    "unet_2015": Architecture(build=UNet2015, divisibility_px=16),
    "deeplab_v3_mobilenet_v2": Architecture(
        build=_deeplab_v3_mobilenet_v2,
        encoder="mobilenet_v2",
        encoders=("mobilenet_v2",),
        encoder_attribute="features",
    ),
    "lightnet_shufflenet_v2": _lightnet(LightNetShuffleNetV2, tuple(SHUFFLENETS)),
    "lightnet_mobilenet_v2": _lightnet(LightNetMobileNetV2, ("mobilenet_v2",)),
}
"""The architectures by their names in ``MODEL.BRIDGE.ARCHITECTURE``."""


def architecture_named(name: str) -> Architecture:
    """The architecture with this name.

    Raises:
        ProjectError: The name is unknown.
    """
    if name not in ARCHITECTURES:
        raise _unknown("architecture", name, ARCHITECTURES, "MODEL.BRIDGE.ARCHITECTURE")
    return ARCHITECTURES[name]


def build_network(
    *,
    architecture: str,
    encoder: str | None,
    in_channels: int,
    classes: int,
    output_stride: int | None = None,
    padding: str = "same",
    width: int = 64,
) -> nn.Module:
    """Build a network with random weights, without a download.

    Args:
        architecture: A name of ``ARCHITECTURES``.
        encoder: Name of the encoder; None takes the default.
        in_channels: Channels of the images.
        classes: Channels of the logits.
        output_stride: 8 or 16, if the architecture has both; None takes the default.
        padding: ``same`` or, for ``unet_2015``, ``valid``.
        width: Channels of the first level of ``unet_2015``.

    Returns:
        A module from ``(N, in_channels, h, w)`` to logits ``(N, classes, h, w)``, for h and w that are multiples of the
        architecture's ``divisibility_px``.

    Raises:
        ProjectError: A name is unknown, or the architecture does not take an option.
    """
    kind = architecture_named(architecture)
    options: dict[str, int | str] = {}
    _check_padding(architecture, padding)
    if kind.build is UNet2015:
        options |= {"padding": padding, "width": width}
    if encoder is not None or kind.encoder is not None:
        options["encoder"] = _checked_encoder(architecture, kind, encoder or str(kind.encoder))
    if output_stride is not None and output_stride not in kind.output_strides:
        raise ProjectError(
            f"{architecture} does not have output stride {output_stride}",
            place="model.output_stride",
            expected=" or ".join(map(str, sorted(kind.output_strides))) or None,
            hint=None if kind.output_strides else "Remove it, or use deeplab_v3 or deeplab_v3_plus.",
        )
    if kind.output_strides:
        options["output_stride"] = output_stride or kind.output_strides[0]
    return with_steady_norms(kind.build(in_channels=in_channels, classes=classes, **options))


def _check_padding(architecture: str, padding: str) -> None:
    if padding not in ("same", "valid"):
        raise ProjectError(f"the padding {padding!r} is unknown", place="model.padding", expected="'same' or 'valid'")
    if padding == "valid" and architecture != "unet_2015":
        raise ProjectError(
            f"{architecture} cannot be built without padding",
            place="model.padding",
            found=repr(padding),
            hint="Remove it, or use the preset unet_2015.",
        )


def _checked_encoder(architecture: str, kind: Architecture, name: str) -> str:
    if kind.encoder is None:
        raise ProjectError(
            f"{architecture} has no encoder",
            place="model.encoder",
            found=repr(name),
            hint="Remove it, or use the preset unet.",
        )
    known = _smp_encoders(name) if kind.encoders is None else kind.encoders
    without_tag = name.split(".")[0] if name.startswith("tu-") else name
    if without_tag not in known:
        raise _unknown("encoder", name, known, "model.encoder", of=f" of {architecture}")
    return name


def _smp_encoders(wanted: str) -> list[str]:
    """The encoders of segmentation-models-pytorch, or those of timm if ``wanted`` begins with their prefix ``tu-``."""
    if wanted.startswith("tu-"):
        import timm

        return [f"tu-{name}" for name in timm.list_models()]
    from segmentation_models_pytorch.encoders import get_encoder_names

    return list(get_encoder_names())


def _unknown(what: str, name: str, known: Iterable[str], place: str, of: str = "") -> ProjectError:
    names = list(known)
    similar = nearest(name, names)
    valid = f"Valid are {', '.join(names)}." if len(names) < 20 else None
    hint = " ".join(text for text in (f"Did you mean {similar!r}?" if similar else None, valid) if text)
    return ProjectError(f"the {what} {name!r}{of} is unknown", place=place, hint=hint or None)
