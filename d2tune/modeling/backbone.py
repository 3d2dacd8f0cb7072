"""Feature pyramids on torchvision and timm networks with features of strides 4, 8, 16 and 32."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from detectron2.config import CfgNode
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN, Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from torch import Tensor, nn

from d2tune.errors import ProjectError, nearest
from d2tune.modeling.frozen_stages import run_stages

STRIDES = (4, 8, 16, 32)
"""Strides of the features, in pixels of the input."""


class FeatureBackbone(Backbone):  # type: ignore[misc]  # Detectron2 has no types
    """The feature stages of a classification network, as a Detectron2 backbone.

    Outputs ``stride4``, ``stride8``, ``stride16`` and ``stride32``, each ``(N, C, H / stride, W / stride)``.

    Args:
        name: ``torchvision/NAME`` or ``timm/NAME``.
        freeze_norm: Whether batch norms are replaced by frozen norms, which are not trained and use no batch
            statistics.
        freeze_at: Number of frozen stages, as in Detectron2's ResNet: 0 and 1 for none, 2 up to stride 4, 3 up to
            stride 8, and so on. On a CPU the first stages take half the time of a training step.

    Raises:
        ProjectError: The library does not have this network, or the network lacks a stride.
    """

    def __init__(self, name: str, *, freeze_norm: bool, freeze_at: int) -> None:
        super().__init__()
        library, _, model_name = name.partition("/")
        build = {"torchvision": _torchvision_stages, "timm": _timm_stages}[library]
        body, taps = build(model_name)
        self.body = _with_frozen_norms(body, library) if freeze_norm else body
        self._taps = taps
        with _one_thread():
            channels = self._measure()
        missing = [stride for stride in STRIDES if stride not in channels]
        if missing:
            raise ProjectError(
                f"backbone {name!r} has no features of stride {missing[0]}",
                place="model.backbone",
                found=f"strides {sorted(channels)}",
                expected=f"strides {list(STRIDES)}",
            )
        if freeze_at >= 2:
            with _one_thread():
                self._freeze(STRIDES[min(freeze_at, 5) - 2])
        self._out_features = [f"stride{stride}" for stride in STRIDES]
        self._out_feature_strides = {f"stride{stride}": stride for stride in STRIDES}
        self._out_feature_channels = {f"stride{stride}": channels[stride] for stride in STRIDES}

    def _measure(self) -> dict[int, int]:
        """Measure the channels of each stride with an empty image; also records the output of each stride."""
        height_px, width_px = 96, 160
        was_training = self.body.training
        self.body.eval()
        try:
            with torch.no_grad():
                outputs = self._taps(self.body, torch.zeros(1, 3, height_px, width_px))
        except (AssertionError, RuntimeError, ValueError) as error:
            raise ProjectError(
                f"the backbone fails on an image of {width_px} x {height_px} px: {str(error).splitlines()[0]}",
                place="model.backbone",
                hint="Use a network for images of any size, such as a convolutional network.",
            ) from None
        self.body.train(was_training)
        self._index_of: dict[int, int] = {}
        self._channels_last: set[int] = set()
        channels: dict[int, int] = {}
        for index, output in enumerate(outputs):
            for stride in STRIDES:
                size = (height_px // stride, width_px // stride)
                if output.ndim == 4 and tuple(output.shape[2:]) == size:
                    channels[stride] = int(output.shape[1])
                elif output.ndim == 4 and tuple(output.shape[1:3]) == size:
                    channels[stride] = int(output.shape[3])
                    self._channels_last.add(index)
                else:
                    continue
                self._index_of[stride] = index
        return channels

    def _freeze(self, stride: int) -> None:
        """Freeze the parameters that the features of ``stride`` depend on, those with a gradient."""
        parameters = list(self.body.parameters())
        features = self._taps(self.body.eval(), torch.zeros(1, 3, 96, 160))[self._index_of[stride]]
        gradients = torch.autograd.grad(features.sum(), parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                parameter.requires_grad = False

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """The features ``(N, C, H / stride, W / stride)`` of images ``(N, 3, H, W)``, by name."""
        outputs = self._outputs(x)
        features = {}
        for stride in STRIDES:
            index = self._index_of[stride]
            output = outputs[index]
            features[f"stride{stride}"] = output.permute(0, 3, 1, 2) if index in self._channels_last else output
        return features

    def _outputs(self, x: Tensor) -> dict[int, Tensor]:
        """The outputs of the stages by their index, at least those of the features."""
        if self._taps is not _run_in_sequence:
            return dict(enumerate(self._taps(self.body, x)))
        return run_stages(list(self.body.children()), x, wanted=self._index_of.values())

    @property
    def size_divisibility(self) -> int:
        """Multiple to which the sides of images are padded, in pixels."""
        return max(STRIDES)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch compute in one thread: on an image as small as the measured one, threads wait more than they compute.

    On a busy machine two threads take a second where one takes 40 ms.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _with_frozen_norms(body: nn.Module, library: str) -> nn.Module:
    """Replace batch norms by affine maps; timm's batch norms contain activations, which Detectron2 would drop."""
    if library == "timm":
        from timm.layers import freeze_batch_norm_2d

        frozen: nn.Module = freeze_batch_norm_2d(body)
        return frozen
    converted: nn.Module = FrozenBatchNorm2d.convert_frozen_batchnorm(body)
    return converted


Taps = Callable[[nn.Module, Tensor], list[Tensor]]
"""Runs a network on images ``(N, 3, H, W)`` and returns the outputs of its stages."""


def _run_in_sequence(body: nn.Module, x: Tensor) -> list[Tensor]:
    outputs = []
    for child in body.children():
        x = child(x)
        outputs.append(x)
    return outputs


def _torchvision_stages(name: str) -> tuple[nn.Module, Taps]:
    """The children of a torchvision classifier before its pooling, with their original names."""
    import torchvision

    try:
        model = torchvision.models.get_model(name, weights=None)
    except (ValueError, TypeError):
        known = torchvision.models.list_models(module=torchvision.models)
        raise _unknown("torchvision", name, known) from None
    stages: OrderedDict[str, nn.Module] = OrderedDict()
    if hasattr(model, "layer4"):
        stem = [(key, child) for key, child in model.named_children() if key not in ("avgpool", "fc")]
        stages.update(stem)
        return nn.Sequential(stages), _run_in_sequence
    if hasattr(model, "trunk_output"):
        stages["stem"] = model.stem
        stages.update((f"trunk_output_{key}", child) for key, child in model.trunk_output.named_children())
        return nn.Sequential(stages), _run_in_sequence
    if isinstance(getattr(model, "features", None), nn.Sequential):
        children = list(model.features.named_children())
        if _is_pointwise(children[-1][1]) and len(children) > 1:
            children = children[:-1]
        stages.update((f"features_{key}", child) for key, child in children)
        return nn.Sequential(stages), _run_in_sequence
    raise ProjectError(
        f"backbone 'torchvision/{name}' has no stages to take features from",
        place="model.backbone",
        hint="Use a ResNet, ResNeXt, RegNet, MobileNet, EfficientNet, ConvNeXt, DenseNet or Swin.",
    )


def _is_pointwise(module: nn.Module) -> bool:
    """Whether a block is the 1 x 1 convolution before a classifier, which a pyramid does not need."""
    convolutions = [child for child in module.modules() if isinstance(child, nn.Conv2d)]
    return len(convolutions) == 1 and convolutions[0].kernel_size == (1, 1)


def _timm_stages(name: str) -> tuple[nn.Module, Taps]:
    import timm

    if not timm.is_model(name):
        raise _unknown("timm", name, timm.list_models())
    try:
        probe = timm.create_model(name, pretrained=False, features_only=True)
        wanted = [index for index, stride in enumerate(probe.feature_info.reduction()) if stride in STRIDES]
        body = timm.create_model(name, pretrained=False, features_only=True, out_indices=wanted)
    except (RuntimeError, AttributeError, AssertionError) as error:
        raise ProjectError(
            f"backbone 'timm/{name}' gives no feature maps: {error}",
            place="model.backbone",
            hint="Use a network for which timm supports feature map extraction.",
        ) from None
    return body, lambda module, x: module(x)


def _unknown(library: str, name: str, known: list[str]) -> ProjectError:
    similar = nearest(name, known)
    hint = f"Did you mean '{library}/{similar}'?" if similar else None
    return ProjectError(f"{library} has no network {name!r}", place="model.backbone", hint=hint)


@BACKBONE_REGISTRY.register()  # type: ignore[untyped-decorator]
def build_feature_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """An FPN with levels p2 to p6 on ``MODEL.FEATURES.NAME``; see ``modeling/config.py`` for the config."""
    bottom_up = FeatureBackbone(
        cfg.MODEL.FEATURES.NAME,
        freeze_norm=cfg.MODEL.FEATURES.NORM == "frozen",
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
    )
    return FPN(
        bottom_up=bottom_up,
        in_features=bottom_up._out_features,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )
