"""OpenVINO files, made from ONNX files."""

from __future__ import annotations

import re
from pathlib import Path

from d2tune.errors import ProjectError

_SIZE = re.compile(r"(\d+)x(\d+)")


def write_openvino(onnx_path: Path, path: Path, *, halves_weights: bool) -> None:
    """Convert an ONNX file.

    Args:
        onnx_path: The ONNX file.
        path: The ``.xml`` file; the weights are written beside it.
        halves_weights: Whether weights are stored as float16.
    """
    import openvino

    openvino.save_model(openvino.Core().read_model(onnx_path), path, compress_to_fp16=halves_weights)


def fixed_sizes(
    wanted: str | None, *, short_side_px: int, max_side_px: int, window_px: int, divisor_px: int
) -> tuple[tuple[int, int], ...]:
    """Heights and widths that images are padded to, one for landscape and one for portrait.

    Args:
        wanted: ``HEIGHTxWIDTH``; None takes the sizes that resizing gives.
        short_side_px: Short side of resized images; 0 keeps the size of images.
        max_side_px: Largest long side of resized images.
        window_px: Side of the windows of large images; 0 takes whole images.
        divisor_px: Sides must be multiples of this.

    Raises:
        ProjectError: The size is not valid, or none is given and images keep their sizes.
    """
    if wanted is None:
        if window_px:
            short_side_px = max_side_px = window_px
        if not short_side_px:
            hint = "Name the largest size, such as --size 512x768."
            raise ProjectError("images of this model keep their sizes, and OpenVINO needs a fixed one", hint=hint)
        sides = sorted(-(-side_px // divisor_px) * divisor_px for side_px in (short_side_px, max_side_px))
    else:
        sides = sorted(_parsed(wanted, divisor_px))
    return tuple(dict.fromkeys([(sides[0], sides[1]), (sides[1], sides[0])]))


def _parsed(text: str, divisor_px: int) -> tuple[int, int]:
    match = _SIZE.fullmatch(text)
    if match is None or "0" in match.groups():
        raise ProjectError("the size is invalid", place="--size", found=text, expected="HEIGHTxWIDTH, such as 384x640")
    sides = int(match[1]), int(match[2])
    if any(side % divisor_px for side in sides):
        height, width = (max(1, round(side / divisor_px)) * divisor_px for side in sides)
        raise ProjectError(
            f"the sides must be multiples of {divisor_px} px", place="--size", found=text, expected=f"{height}x{width}"
        )
    return sides
