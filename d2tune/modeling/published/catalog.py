"""The published networks by name: their files, classes and published metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from d2tune.errors import WeightsError, nearest

VOC_CLASSES = (
    *("__background__", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""The classes of Pascal VOC in the order of their ids."""

CITYSCAPES_CLASSES = (
    *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation"),
    *("terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
)
"""The 19 classes of Cityscapes that networks are trained on, in the order of their training ids."""

TORCHVISION_NAMES = (
    "fcn_resnet50",
    "fcn_resnet101",
    "deeplabv3_resnet50",
    "deeplabv3_resnet101",
    "deeplabv3_mobilenet_v3_large",
)
"""Torchvision's names of its FCN and DeepLabV3."""

_METRICS_DATA = "COCO-val2017-VOC-labels"
_SIZES_BYTES = {"deeplabv3_resnet50": 168_312_152}
_MOBILENET_V2_VOC = "deeplabv3_mobilenet_v2_voc"
_LIGHTNET = "lightnetpp_shufflenetv2plus_x0.5_cityscapes"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedNetwork:
    """A network and the file of its weights.

    Attributes:
        name: Its name here, which is torchvision's for torchvision's networks.
        library: Who builds the network: ``torchvision``, or ``d2tune`` by the preset ``architecture``.
        architecture: The name of the network in the library.
        encoder: The encoder, where the network has a choice; None takes the default.
        file_name: The name of the file of weights. Torchvision's names end in the first digits of the SHA-256.
        url: Where the file is published; None where a person must have it.
        size_bytes: Size of the file; None where it is not known.
        class_names: The classes in the order of their ids.
        background: The class of pixels without an object; None for none.
        short_side_px: The short side that images are resized to.
        max_side_px: The largest long side.
        channel_order: ``RGB`` or ``BGR``.
        pixel_mean: Mean of each channel in this order, from 0 to 255.
        pixel_std: Standard deviation of each channel in this order, from 0 to 255.
        metrics: The published metrics by name, from 0 to 100; empty where none are known.
        metrics_data: What they were measured on.
    """

    name: str
    library: Literal["torchvision", "d2tune"]
    architecture: str
    encoder: str | None = None
    file_name: str
    url: str | None
    size_bytes: int | None
    class_names: tuple[str, ...]
    background: str | None
    short_side_px: int
    max_side_px: int
    channel_order: Literal["RGB", "BGR"] = "RGB"
    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]
    metrics: Mapping[str, float]
    metrics_data: str

    @property
    def metrics_text(self) -> str:
        """``mIoU 60.5, pixel accuracy 91.4 on COCO val2017``; empty where no metrics are known."""
        values = ", ".join(f"{name} {value:.1f}" for name, value in self.metrics.items())
        return f"{values} on {self.metrics_data}" if values else ""


def published_names() -> tuple[str, ...]:
    """The names of all published networks."""
    return (*TORCHVISION_NAMES, _MOBILENET_V2_VOC, _LIGHTNET)


@lru_cache
def published_network(name: str) -> PublishedNetwork:
    """The published network with a name.

    Raises:
        WeightsError: There is none.
    """
    if name in TORCHVISION_NAMES:
        return _of_torchvision(name)
    if name == _MOBILENET_V2_VOC:
        return _mobilenet_v2_voc()
    if name == _LIGHTNET:
        return _lightnet_cityscapes()
    guess = nearest(name, published_names())
    raise WeightsError(
        "there is no published network of this name",
        found=name,
        expected=", ".join(published_names()),
        hint=f"Did you mean {guess}?" if guess else None,
    )


def _of_torchvision(name: str) -> PublishedNetwork:
    """What torchvision says of its network: file, classes, input and metrics."""
    import torchvision

    weights = torchvision.models.get_model_weights(name).DEFAULT
    transforms, values = weights.transforms(), weights.meta["_metrics"][_METRICS_DATA]
    short_side_px = int(transforms.resize_size[0])
    return PublishedNetwork(
        name=name,
        library="torchvision",
        architecture=name,
        file_name=weights.url.rpartition("/")[2],
        url=weights.url,
        size_bytes=_SIZES_BYTES.get(name),
        class_names=tuple(weights.meta["categories"]),
        background=weights.meta["categories"][0],
        short_side_px=short_side_px,
        max_side_px=4 * short_side_px,  # torchvision has no limit; a panorama would take all memory
        pixel_mean=tuple(255 * value for value in transforms.mean),
        pixel_std=tuple(255 * value for value in transforms.std),
        metrics={"mIoU": values["miou"], "pixel accuracy": values["pixel_acc"]},
        metrics_data="COCO val2017 with the classes of Pascal VOC",
    )


def _mobilenet_v2_voc() -> PublishedNetwork:
    """The compact DeepLabV3 of TensorFlow's model zoo, as the preset ``deeplab_v3_mobilenet_v2`` takes it."""
    half = (127.5, 127.5, 127.5)
    return PublishedNetwork(
        name=_MOBILENET_V2_VOC,
        library="d2tune",
        architecture="deeplab_v3_mobilenet_v2",
        file_name=f"{_MOBILENET_V2_VOC}.pth",
        url=None,
        size_bytes=None,
        class_names=VOC_CLASSES,
        background=VOC_CLASSES[0],
        short_side_px=513,
        max_side_px=4 * 513,
        pixel_mean=half,
        pixel_std=half,
        metrics={},
        metrics_data="",
    )


def _lightnet_cityscapes() -> PublishedNetwork:
    """The ShuffleNetV2Plus x0.5 of LightNet++, with the scaling of its own evaluation."""
    return PublishedNetwork(
        name=_LIGHTNET,
        library="d2tune",
        architecture="lightnet_shufflenet_v2",
        encoder="shufflenet_v2_x0_5",
        file_name=f"{_LIGHTNET}.pth",
        url=None,
        size_bytes=None,
        class_names=CITYSCAPES_CLASSES,
        background=None,
        short_side_px=768,  # at 512 px it recognizes less of the car of a video
        max_side_px=4 * 768,
        channel_order="BGR",
        pixel_mean=(76.42, 86.75, 78.34),
        pixel_std=(39.50, 40.26, 39.58),
        metrics={},
        metrics_data="",
    )
