"""What is shown of a comparison: overlays, a map of the agreement, a table, and all of it in one file."""

from __future__ import annotations

import csv
import html
import io
import json
import zipfile
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from d2tune.model_comparison.agreement import BACKGROUND, ClassAgreement
from d2tune.model_comparison.compare import Comparison, Side
from d2tune.report.sheets.label_overlay import colors

Pixels = NDArray[np.uint8]

_DIFFERENT = (232, 58, 88)
_SAME = (74, 166, 120)
_IGNORED = (150, 150, 150)

AGREEMENT_TITLE = "Agreement: green where the class is the same, red where it is not"

CLASS_COLUMNS = ("class", "IoU", "pixels of A", "pixels of B", "pixels of both", "known by")
_KNOWN = {"both": "both", "a": "A alone", "b": "B alone"}


def class_colors(comparison: Comparison) -> dict[str, str]:
    """The color of each class that has pixels, as CSS writes it, the largest class first."""
    table = colors(comparison.maps.names)
    place = {name: at for at, name in enumerate(comparison.maps.names)}
    return {row.name: "#{:02x}{:02x}{:02x}".format(*table[place[row.name]]) for row in comparison.maps.classes}


def legend_html(comparison: Comparison) -> str:
    """The colors of the classes with their names as HTML; names are escaped."""
    boxes = (
        f'<span style="display:inline-flex;align-items:center;gap:6px;margin:2px 16px 2px 0">'
        f'<i style="width:13px;height:13px;border-radius:4px;border:1px solid #888;background:{color}"></i>'
        f"{html.escape(name)}</span>"
        for name, color in class_colors(comparison).items()
    )
    return "".join(boxes)


def layer(comparison: Comparison, side: Literal["a", "b"]) -> Pixels:
    """The classes of a prediction as a layer over the image, ``(H, W, 4)`` uint8: background is transparent."""
    ids = comparison.maps.a if side == "a" else comparison.maps.b
    names = comparison.maps.names
    table = np.zeros((len(names) + 1, 4), np.uint8)
    table[:-1, :3], table[:-1, 3] = colors(names), 255
    table[[at for at, name in enumerate(names) if name == BACKGROUND], 3] = 0
    table[-1] = (*_IGNORED, 255)
    painted: Pixels = table[ids]  # -1 is the last
    return painted


def agreement_layer(comparison: Comparison) -> Pixels:
    """Where the predictions agree, as a layer over the image, ``(H, W, 4)`` uint8.

    Pixels with different classes are red, those of the same class but background green, those without data gray. It is
    the same for (A, B) and (B, A).
    """
    a, b, names = comparison.maps.a, comparison.maps.b, comparison.maps.names
    is_object = np.array([*(name != BACKGROUND for name in names), False])
    shown = np.zeros((*a.shape, 4), np.uint8)
    shown[(a == b) & is_object[a]] = (*_SAME, 255)
    shown[a != b] = (*_DIFFERENT, 255)
    shown[(a < 0) | (b < 0)] = (*_IGNORED, 255)
    return shown


def views(comparison: Comparison, *, opacity: float) -> dict[str, Pixels]:
    """The three images of a comparison by title: A and B over the image, the agreement over a gray one.

    Args:
        comparison: The comparison.
        opacity: See `overlay`.
    """
    image = comparison.image_rgb
    gray = np.repeat(np.asarray(Image.fromarray(image).convert("L"))[..., None], 3, axis=2)
    return {
        f"A: {comparison.a.name}": overlay(image, layer(comparison, "a"), opacity=opacity),
        f"B: {comparison.b.name}": overlay(image, layer(comparison, "b"), opacity=opacity),
        AGREEMENT_TITLE: overlay(gray, agreement_layer(comparison), opacity=opacity),
    }


def overlay(image_rgb: Pixels, painted: Pixels, *, opacity: float) -> Pixels:
    """A layer over the image.

    Args:
        image_rgb: ``(H, W, 3)`` uint8.
        painted: ``(H, W, 4)`` uint8.
        opacity: From 0, the image alone, to 1.

    Returns:
        ``(H, W, 3)`` uint8.

    Raises:
        ValueError: The opacity is not between 0 and 1.
    """
    if not 0 <= opacity <= 1:
        raise ValueError(f"an opacity is between 0 and 1, not {opacity}")
    share = painted[..., 3:].astype(np.float32) * (opacity / 255)
    mixed = image_rgb + share * (painted[..., :3].astype(np.float32) - image_rgb)
    result: Pixels = np.rint(mixed).astype(np.uint8)
    return result


def class_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """The table of classes: a dict by `CLASS_COLUMNS` for each; IoU from 0 to 1 with four digits."""
    return [dict(zip(CLASS_COLUMNS, _class_row(row), strict=True)) for row in comparison.maps.classes]


def _class_row(row: ClassAgreement) -> tuple[Any, ...]:
    return row.name, round(row.iou, 4), row.a_px, row.b_px, row.both_px, _KNOWN[row.known_by]


def side_rows(comparison: Comparison) -> list[dict[str, str]]:
    """The table of the two models: names, times, memory and published metrics in words."""
    return [_side_row(letter, side) for letter, side in (("A", comparison.a), ("B", comparison.b))]


def _side_row(letter: str, side: Side) -> dict[str, str]:
    cost = side.cost
    return {
        "": letter,
        "model": side.name,
        "time": f"{1000 * cost.total_s:.0f} ms",
        "in the network": f"{1000 * cost.network_s:.0f} ms",
        "weights": _megabytes(cost.weights_bytes),
        "memory of a prediction": _megabytes(cost.peak_bytes),
        "published": side.published or "none",
    }


def _megabytes(size_bytes: int | None) -> str:
    return "not known" if size_bytes is None else f"{size_bytes / 1e6:.0f} MB"


def to_json(comparison: Comparison) -> dict[str, Any]:
    """Everything but the pixels."""
    maps = comparison.maps
    return {
        "width_px": int(comparison.image_rgb.shape[1]),
        "height_px": int(comparison.image_rgb.shape[0]),
        "agreement": maps.share,
        "mean_iou": maps.mean_iou,
        "pixels": maps.pixels,
        "same_px": maps.same_px,
        "models": [_side_json(side) for side in (comparison.a, comparison.b)],
        "classes": [
            {
                "name": row.name,
                "known_by": row.known_by,
                "iou": row.iou,
                "a_px": row.a_px,
                "b_px": row.b_px,
                "both_px": row.both_px,
            }
            for row in maps.classes
        ],
    }


def _side_json(side: Side) -> dict[str, Any]:
    cost = side.cost
    return {
        "name": side.name,
        "published": side.published,
        "prepare_s": cost.prepare_s,
        "network_s": cost.network_s,
        "finish_s": cost.finish_s,
        "total_s": cost.total_s,
        "weights_bytes": cost.weights_bytes,
        "peak_bytes": cost.peak_bytes,
    }


def png(pixels: Pixels) -> bytes:
    """Pixels ``(H, W, 3)`` or ``(H, W, 4)`` uint8 as a PNG."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def to_csv(comparison: Comparison) -> str:
    """The table of classes as CSV."""
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, CLASS_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(class_rows(comparison))
    return stream.getvalue()


def to_zip(comparison: Comparison, *, opacity: float = 0.5) -> bytes:
    """A ZIP file with the overlays, the map of the agreement, the table and everything as JSON.

    Args:
        comparison: The comparison.
        opacity: See `overlay`.
    """
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        shown = views(comparison, opacity=opacity).values()
        for name, pixels in zip(("a.png", "b.png", "agreement.png"), shown, strict=True):
            archive.writestr(name, png(pixels))
        archive.writestr("image.png", png(comparison.image_rgb))
        archive.writestr("classes.csv", to_csv(comparison))
        archive.writestr("comparison.json", json.dumps(to_json(comparison), indent=2) + "\n")
    return stream.getvalue()
