"""The formats of exported models: their libraries, precisions and bounds."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Literal

from d2tune.errors import MachineError, ProjectError, nearest

FormatName = Literal["onnx", "torchscript", "openvino"]
PrecisionName = Literal["float32", "float16", "int8"]

OPSET = 17
"""Version of ONNX's operators: the first one that has all that the graphs need; runtimes since 2022 read it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A format of exported models.

    Attributes:
        name: Its name.
        file: Name of the file of the network.
        extra: The extra of d2tune with its libraries; None where torch is enough.
        modules: The modules that it needs.
        precisions: Types of the numbers in its file, the default first.
        is_fixed: Whether it takes images of fixed sizes only.
    """

    name: FormatName
    file: str
    extra: str | None = None
    modules: tuple[str, ...] = ()
    precisions: tuple[PrecisionName, ...] = ("float32",)
    is_fixed: bool = False


FORMATS: dict[str, Format] = {
    one.name: one
    for one in (
        Format(
            name="onnx",
            file="model.onnx",
            extra="onnx",
            modules=("onnx", "onnxruntime"),
            precisions=("float32", "float16", "int8"),
        ),
        Format(name="torchscript", file="model.pt"),
        Format(
            name="openvino",
            file="model.xml",
            extra="openvino",
            modules=("onnx", "openvino"),
            precisions=("float32", "float16"),
            is_fixed=True,
        ),
    )
}
"""The formats by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What an export may differ in from the model that it was made of.

    Attributes:
        same_count: Whether each image must have the same number of instances.
        box_px: Largest difference of a side of a box, in pixels of the image; None sets no bound.
        mask_iou: Lowest IoU of the masks of an instance, or of the regions of a class; None sets no bound.
        kept: Lowest share of the instances that must be kept, or of the pixels that must have the same class.
        main_metric: Largest loss of the main metric, in points.
        size: Largest size as a share of the size of the float32 weights; None sets no bound.
    """

    same_count: bool
    box_px: float | None
    mask_iou: float | None
    kept: float
    main_metric: float
    size: float | None = None


BOUNDS: dict[str, Bounds] = {
    "float32": Bounds(same_count=True, box_px=0.01, mask_iou=0.999, kept=0.999, main_metric=0.1),
    "float16": Bounds(same_count=False, box_px=None, mask_iou=None, kept=0.99, main_metric=0.3, size=0.6),
    "int8": Bounds(same_count=False, box_px=None, mask_iou=None, kept=0.98, main_metric=1.0, size=0.5),
}
"""The bounds by precision."""


_NOT_WRITTEN = {
    "tensorrt": "d2tune writes no engines of TensorRT, which belong to one card; onnxruntime runs ONNX with TensorRT.",
}
"""What to do instead of formats that d2tune does not write."""


def format_named(name: str) -> Format:
    """The format of a name.

    Raises:
        ProjectError: There is none.
    """
    if name in FORMATS:
        return FORMATS[name]
    similar = nearest(name, FORMATS)
    hint = _NOT_WRITTEN.get(name.lower(), f"Did you mean {similar}?" if similar else None)
    raise ProjectError("the format is unknown", place="--format", found=name, expected=", ".join(FORMATS), hint=hint)


def check_precision(chosen: Format, precision: str) -> None:
    """Refuse a precision that a format does not have.

    Raises:
        ProjectError: It does not have it.
    """
    if precision not in chosen.precisions:
        expected = " or ".join(chosen.precisions)
        raise ProjectError(
            f"{chosen.name} has no such precision", place="--precision", found=precision, expected=expected
        )


def check_installed(chosen: Format) -> None:
    """Refuse a format whose libraries are missing.

    Raises:
        MachineError: A library is missing.
    """
    for module in chosen.modules:
        if importlib.util.find_spec(module) is None:
            hint = f'Install it with pip install "d2tune[{chosen.extra}]".'
            raise MachineError(f"{chosen.name} needs the library {module}, which is not installed", hint=hint)
