"""The answers to a prediction: polygons, run lengths, a PNG, or the JSON of Roboflow's inference server."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import cv2
import numpy as np
import orjson
from numpy.typing import NDArray
from PIL import Image as PilImage
from PIL.PngImagePlugin import PngInfo

from d2tune.annotations.geometry.tracing import RaggedMaskError, mask_outlines, simplify
from d2tune.inference.paste import encode_crop
from d2tune.inference.results import Detections, LabelMap, PanopticMap
from d2tune.inference.writers.objects import PredictedObject, objects_of
from d2tune.serving.batching import Predicted
from d2tune.serving.metrics import Times
from d2tune.serving.problems import ApiError

Format = Literal["polygons", "rle", "png", "roboflow"]
FORMATS: tuple[Format, ...] = get_args(Format)

JSON, PNG = "application/json", "image/png"
_MOST_NUMBERS = 65_535
_LEAST_POINTS = 3


@dataclass(frozen=True, slots=True)
class Answer:
    """The body of an answer.

    Attributes:
        content: Its bytes.
        media_type: Their type.
        times: The stages of the image, whose last one ends after this.
    """

    content: bytes
    media_type: str
    times: Times


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerOptions:
    """What a client asks for.

    Attributes:
        format: The format.
        tolerance_px: Largest distance of outlines from the edges of the mask.
        min_score: Lowest score of objects that have one.
        model: Name of the model.
        request_id: Id of the request.
        background: Class of label maps without objects; None for none.
        most_objects: Most objects of an answer.
    """

    format: Format
    tolerance_px: float
    min_score: float
    model: str
    request_id: str
    background: str | None
    most_objects: int


def answer(predicted: Predicted, options: AnswerOptions) -> Answer:
    """The answer to a prediction.

    Raises:
        ApiError: The outlines of a mask are too long for polygons, or a PNG cannot number the objects.
    """
    if options.format == "png":
        return Answer(_png(predicted, options), PNG, predicted.times)
    content = answer_object(predicted, options)
    return Answer(orjson.dumps(content), JSON, predicted.times)


def answer_object(predicted: Predicted, options: AnswerOptions) -> dict[str, Any]:
    """The JSON object of an answer; see `answer`."""
    result = predicted.result
    objects, dropped = _listed(predicted, options)
    if options.format == "roboflow":
        return _roboflow(result, objects, options)
    rows = []
    for one in objects:
        shape = _run_length(one, result) if options.format == "rle" else _polygons(one, options.tolerance_px)
        rows.append({**_facts(one, result), **shape})
    return {
        "model": options.model,
        "request_id": options.request_id,
        "image": {"width_px": result.width_px, "height_px": result.height_px},
        "objects": rows,
        "objects_dropped": dropped,
    }


def _listed(predicted: Predicted, options: AnswerOptions) -> tuple[list[PredictedObject], int]:
    """The objects of an answer, and how many a limit dropped: of regions, which have no scores, the smallest."""
    result = predicted.result
    objects = [
        one
        for one in objects_of(result, background=options.background)
        if one.score is None or one.score >= options.min_score
    ]
    over = len(objects) - options.most_objects
    if over > 0:
        order = sorted(range(len(objects)), key=lambda index: -_rank(objects[index]))
        objects = [objects[index] for index in sorted(order[: options.most_objects])]
    return objects, predicted.dropped + max(0, over)


def _rank(one: PredictedObject) -> float:
    return one.score if one.score is not None else float(one.mask.sum())


def _facts(one: PredictedObject, result: Any) -> dict[str, Any]:
    """What every JSON format gives of an object; the box is that of its pixels."""
    height_px, width_px = one.mask.shape
    return {
        "class": result.class_names[one.class_id],
        "class_id": one.class_id + 1,
        "score": one.score,
        "box_xywh": _box(one, result) or [one.left_px, one.top_px, width_px, height_px],
        "area_px2": int(np.count_nonzero(one.mask)),
    }


def _box(one: PredictedObject, result: Any) -> list[float] | None:
    """The box that the model predicts for an instance, with three digits; None for regions and segments."""
    if not isinstance(result, Detections):
        return None
    x0, y0, x1, y1 = result.boxes_xyxy[one.number - 1].tolist()
    return [round(side, 3) for side in (x0, y0, x1 - x0, y1 - y0)]


def _polygons(one: PredictedObject, tolerance_px: float) -> dict[str, Any]:
    outer, holes = _outlines(one, tolerance_px)
    return {"polygons": [_rows(points) for points in outer], "holes": [_rows(points) for points in holes]}


def _outlines(one: PredictedObject, tolerance_px: float) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
    """Outer outlines and holes of an object, each ``(V, 2)``, in pixels of the image."""
    try:
        outer, holes = mask_outlines(one.mask)
    except RaggedMaskError as error:
        raise ApiError(422, "ragged_mask", f"{error}; ask for format=rle or format=png") from None
    offset = np.array([one.left_px, one.top_px], dtype=np.float64)

    def placed(outlines: Iterable[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
        kept = outlines if tolerance_px <= 0 else (simplify(points, tolerance_px=tolerance_px) for points in outlines)
        return [points + offset for points in kept]

    return placed(outer), placed(holes)


def _rows(points: NDArray[np.float64]) -> list[list[int]]:
    """The corners of an outline, which lie on the edges of pixels and so are whole numbers."""
    rows: list[list[int]] = points.astype(np.int64).tolist()
    return rows


def _run_length(one: PredictedObject, result: Any) -> dict[str, Any]:
    size = {"height_px": result.height_px, "width_px": result.width_px}
    return {"segmentation": encode_crop(one.mask, one.left_px, one.top_px, **size)}


def _roboflow(result: Any, objects: Sequence[PredictedObject], options: AnswerOptions) -> dict[str, Any]:
    """The shape that clients of Roboflow's inference server read: boxes by their centers, and one outline."""
    rows = []
    for one in objects:
        facts = _facts(one, result)
        x, y, width, height = facts["box_xywh"]
        rows.append(
            {
                "x": x + width / 2,
                "y": y + height / 2,
                "width": width,
                "height": height,
                "confidence": 1.0 if one.score is None else one.score,
                "class": facts["class"],
                "class_id": one.class_id,
                "detection_id": f"{options.request_id}-{one.number}",
                "points": [{"x": x, "y": y} for x, y in _outer_pixels(one, options.tolerance_px)],
            }
        )
    return {"image": {"width": result.width_px, "height": result.height_px}, "predictions": rows}


def _outer_pixels(one: PredictedObject, tolerance_px: float) -> list[list[int]]:
    """The pixels along the outer edge of the largest piece of an object, at least three of them.

    Clients fill an outline with the pixels below it, as OpenCV does, and drop outlines of fewer points.
    """
    contours, _ = cv2.findContours(one.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    largest = max(contours, key=lambda contour: (cv2.contourArea(contour), len(contour)))
    simple = cv2.approxPolyDP(largest, tolerance_px, closed=True)
    points = (largest if len(simple) < _LEAST_POINTS else simple)[:, 0] + (one.left_px, one.top_px)
    rows: list[list[int]] = points.tolist()
    return rows + rows[-1:] * max(0, _LEAST_POINTS - len(rows))


def _png(predicted: Predicted, options: AnswerOptions) -> bytes:
    """The numbers of the objects, or the class ids of a label map, of each pixel, as a PNG of 8 or 16 bits.

    Its text ``d2tune`` is the list of objects or classes, as JSON.
    """
    result = predicted.result
    if isinstance(result, LabelMap):
        canvas: NDArray[Any] = result.class_ids
        legend: Any = [{"value": value, "class": name} for value, name in enumerate(result.class_names)]
    else:
        canvas, legend = _numbered(predicted, options)
    text = PngInfo()
    text.add_text("d2tune", orjson.dumps(legend).decode())
    stream = io.BytesIO()
    PilImage.fromarray(canvas).save(stream, "PNG", pnginfo=text, compress_level=1)
    return stream.getvalue()


def _numbered(predicted: Predicted, options: AnswerOptions) -> tuple[NDArray[Any], list[dict[str, Any]]]:
    """The number of the object of each pixel, 0 for none; of overlapping objects that with the highest score."""
    result: Detections | PanopticMap = predicted.result
    canvas = np.zeros((result.height_px, result.width_px), np.uint16)
    legend = []
    for one in _listed(predicted, options)[0]:
        if one.number > _MOST_NUMBERS:
            raise ApiError(422, "too_many_objects", "a PNG of 16 bits cannot number the objects; ask for format=rle")
        inside = one.window(canvas)
        inside[one.mask & (inside == 0)] = one.number
        legend.append({"value": one.number, **_facts(one, result)})
    highest = max((row["value"] for row in legend), default=0)
    return (canvas if highest > 255 else canvas.astype(np.uint8)), legend
