"""``POST /v1/predict`` and ``/v1/predict/batch``: images in, predictions out."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request, Response

from d2tune.annotations.io.suffixes import IMAGE_TYPES
from d2tune.serving.answers import FORMATS, JSON, PNG, Answer, AnswerOptions, Format
from d2tune.serving.limits import read_body
from d2tune.serving.problems import ApiError, ClientGoneError, internal_error
from d2tune.serving.schemas import Batch, ErrorAnswer, Prediction, RoboflowAnswer
from d2tune.serving.service import Service
from d2tune.serving.uploads import MULTIPART, is_image_type, media_type_of, uploaded_files

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_ONE_FILE = {
    "schema": {
        "type": "object",
        "properties": {"image": {"type": "string", "format": "binary", "description": "An image file."}},
        "required": ["image"],
    }
}
_SEVERAL_FILES = {
    "schema": {
        "type": "object",
        "properties": {"images": {"type": "array", "items": {"type": "string", "format": "binary"}, "minItems": 1}},
        "required": ["images"],
    }
}
_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorAnswer, "description": "The multipart body is invalid"},
    401: {"model": ErrorAnswer, "description": "The key is missing or unknown"},
    404: {"model": ErrorAnswer, "description": "There is no such model"},
    406: {"model": ErrorAnswer, "description": "None of the accepted types can be answered"},
    408: {"model": ErrorAnswer, "description": "The body arrived too slowly"},
    413: {"model": ErrorAnswer, "description": "The body or the image is too large"},
    415: {"model": ErrorAnswer, "description": "The body is not of a type that is read"},
    422: {"model": ErrorAnswer, "description": "The image cannot be read, or a parameter is invalid"},
    429: {"model": ErrorAnswer, "description": "Too many images wait; see Retry-After"},
    500: {"model": ErrorAnswer, "description": "An internal error"},
    503: {"model": ErrorAnswer, "description": "The model is not ready, or the deadline passed; see Retry-After"},
}

ModelName = Annotated[
    str | None, Query(alias="model", description="Name of the model; without it, the first one of the server.")
]
FormatName = Annotated[
    Format | None, Query(alias="format", description="Format of the answer; without it, by the header Accept.")
]
Tolerance = Annotated[
    float, Query(ge=0, le=1000, description="Largest distance of outlines from the edges of the mask, in pixels.")
]
MinScore = Annotated[
    float, Query(ge=0, le=1, description="Lowest score of objects, above the thresholds of the model.")
]


def router(service: Service) -> APIRouter:
    """The routes of a server."""
    routes = APIRouter(tags=["predict"])

    @routes.post(
        "/v1/predict",
        summary="Predict on an image",
        response_class=Response,
        responses={
            200: {
                "description": "The prediction",
                "content": {
                    JSON: {"schema": {"anyOf": [_reference(Prediction), _reference(RoboflowAnswer)]}},
                    PNG: _BINARY,
                },
            },
            **_ERRORS,
        },
        openapi_extra={
            "requestBody": {
                "required": True,
                "description": "The content of an image file, or a form with one file.",
                "content": {**dict.fromkeys(IMAGE_TYPES, _BINARY), MULTIPART: _ONE_FILE},
            }
        },
    )
    async def predict(
        request: Request,
        model: ModelName = None,
        format_name: FormatName = None,
        tolerance_px: Tolerance = 1.0,
        min_score: MinScore = 0.0,
    ) -> Response:
        """Send the content of an image file as the body, with its type (`image/jpeg`, `image/png` and others).

        The answer is JSON with polygons (`format=polygons`), run lengths (`rle`), the JSON of Roboflow's inference
        server (`roboflow`), or a PNG (`png`) with the number of the object, or the class, of each pixel.
        """
        deadline = time.monotonic() + service.settings.deadline_s
        options = _options(service, request, model, format_name, tolerance_px, min_score)
        with service.budget.reserving() as take:
            kind = _checked_type(request)
            content = await read_body(request, service.settings.limits, take)
            if kind == MULTIPART:
                files = await uploaded_files(request, content, most=1)
                content = files[0].content
            answer = await service.predict(content, options, request=request, deadline=deadline)
        request.state.model, request.state.times_ms = options.model, answer.times.milliseconds()
        stages = ", ".join(f"{name};dur={value}" for name, value in request.state.times_ms.items())
        return Response(answer.content, media_type=answer.media_type, headers={"Server-Timing": stages})

    @routes.post(
        "/v1/predict/batch",
        summary="Predict on several images",
        response_model=Batch,
        responses=_ERRORS,
        openapi_extra={"requestBody": {"required": True, "content": {MULTIPART: _SEVERAL_FILES}}},
    )
    async def predict_batch(
        request: Request,
        model: ModelName = None,
        format_name: FormatName = None,
        tolerance_px: Tolerance = 1.0,
        min_score: MinScore = 0.0,
    ) -> Response:
        """Send a form with several image files. An image that cannot be read has an error in its place."""
        deadline = time.monotonic() + service.settings.deadline_s
        options = _options(service, request, model, format_name or "polygons", tolerance_px, min_score)
        if options.format not in ("polygons", "rle"):
            raise ApiError(422, "bad_parameter", "a batch is answered with format=polygons or format=rle")
        if media_type_of(request) != MULTIPART:
            raise ApiError(415, "bad_type", f"the body must be {MULTIPART}", closes=True)
        with service.budget.reserving() as take:
            content = await read_body(request, service.settings.limits, take)
            files = await uploaded_files(request, content, most=service.settings.limits.batch_images)
            work = [service.predict(file.content, options, request=request, deadline=deadline) for file in files]
            answers = await asyncio.gather(*work, return_exceptions=True)
        rows = [_row(file.name, one, options) for file, one in zip(files, answers, strict=True)]
        request.state.model = options.model
        return Response(b'{"predictions":[' + b",".join(rows) + b"]}", media_type=JSON)

    return routes


def _reference(model: type) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def _options(
    service: Service,
    request: Request,
    model: str | None,
    format_name: Format | None,
    tolerance_px: float,
    min_score: float,
) -> AnswerOptions:
    worker = service.worker(model)
    worker.check_ready()
    return AnswerOptions(
        format=format_name or _accepted(request.headers.get("accept", "*/*")),
        tolerance_px=tolerance_px,
        min_score=min_score,
        model=worker.name,
        request_id=request.state.request_id,
        background=service.models[worker.name].background,
        most_objects=service.settings.limits.instances,
    )


def _accepted(accept: str) -> Format:
    """The format that the header Accept asks for: polygons, or a PNG where its weight is higher (RFC 9110, 12.5.1)."""
    weights = {JSON: 0.0, PNG: 0.0}
    exact: set[str] = set()
    for entry in accept.split(","):
        kind, *parameters = (word.strip().lower() for word in entry.split(";"))
        weight = next((_number(word[2:]) for word in parameters if word.startswith("q=")), 1.0)
        for known in weights:
            if kind == known:
                weights[known] = weight
                exact.add(known)
            elif known not in exact and kind in ("*/*", f"{known.partition('/')[0]}/*"):
                weights[known] = max(weights[known], weight)
    if not any(weights.values()):
        raise ApiError(406, "not_acceptable", f"the answer is {JSON} or {PNG}; or set format= to {', '.join(FORMATS)}")
    return "png" if weights[PNG] > weights[JSON] else "polygons"


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _checked_type(request: Request) -> str:
    """The type of the body.

    Raises:
        ApiError: It is neither an image nor a form.
    """
    kind = media_type_of(request)
    if kind == MULTIPART or is_image_type(kind):
        return kind
    message = "the body must be the content of an image file, with its type such as `Content-Type: image/jpeg`"
    raise ApiError(415, "bad_type", message, closes=True)


def _row(name: str, one: Answer | BaseException, options: AnswerOptions) -> bytes:
    """The JSON of an image of a batch, with the name of its file in front."""
    file = orjson.dumps(name)
    if isinstance(one, Answer):
        return b'{"file":' + file + b"," + one.content[1:]
    if isinstance(one, (ClientGoneError, asyncio.CancelledError)):
        raise one
    error = one if isinstance(one, ApiError) else internal_error()  # the worker has logged it
    problem = {"code": error.code, "message": error.message, "request_id": options.request_id}
    return b'{"file":' + file + b',"error":' + orjson.dumps(problem) + b"}"
