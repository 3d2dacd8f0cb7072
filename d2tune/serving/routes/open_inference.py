"""The Open Inference Protocol, version 2: health, metadata and inference, as KServe and others ask for them.

Images are BYTES tensors whose elements are image files in base64; the output ``predictions`` has for each image the
JSON of ``/v1/predict``. See https://github.com/kserve/open-inference-protocol, ``open_inference_rest.yaml``.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import time
from typing import Any, Literal

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from d2tune.serving.answers import JSON, AnswerOptions
from d2tune.serving.limits import read_body
from d2tune.serving.problems import ApiError
from d2tune.serving.service import Service
from d2tune.text import shortened
from d2tune.versions import own_version

INPUT, OUTPUT = "image", "predictions"
PLATFORM = "d2tune"


class Tensor(BaseModel):
    """The description of a tensor."""

    name: str
    datatype: str
    shape: list[int]


class ServerMetadata(BaseModel):
    """What the server is."""

    name: str = PLATFORM
    version: str
    extensions: list[str]


class ModelMetadata(BaseModel):
    """What a model takes and gives."""

    name: str
    versions: list[str]
    platform: str = PLATFORM
    inputs: list[Tensor]
    outputs: list[Tensor]


class State(BaseModel):
    """An answer of a health route."""

    live: bool | None = None
    ready: bool | None = None
    name: str | None = None


class InferError(BaseModel):
    """The body of an error, as the protocol has it."""

    error: str


class InputTensor(BaseModel):
    """The images of a request."""

    name: str = Field(examples=[INPUT])
    shape: list[int] = Field(description="The number of images.", examples=[[1]])
    datatype: Literal["BYTES"]
    data: list[str] = Field(description="Image files in base64.", examples=[["iVBORw0KGgo="]])
    parameters: dict[str, Any] | None = None


class OutputName(BaseModel):
    """An output that is asked for."""

    name: str = Field(examples=[OUTPUT])
    parameters: dict[str, Any] | None = None


class Parameters(BaseModel):
    """The parameters of a request; see those of ``/v1/predict``."""

    model_config = ConfigDict(extra="allow")

    format: Literal["polygons", "rle", "roboflow"] = "polygons"
    tolerance_px: float = Field(default=1.0, ge=0, le=1000, allow_inf_nan=False)
    min_score: float = Field(default=0.0, ge=0, le=1, allow_inf_nan=False)


class InferRequest(BaseModel):
    """Images to predict on."""

    id: str | None = Field(default=None, max_length=256)
    parameters: Parameters | None = None
    inputs: list[InputTensor] = Field(min_length=1, max_length=1)
    outputs: list[OutputName] | None = None


class OutputTensor(Tensor):
    """The predictions: for each image the JSON of ``/v1/predict`` as a string."""

    data: list[str]


class InferAnswer(BaseModel):
    """The predictions on images."""

    model_name: str
    model_version: str
    id: str
    outputs: list[OutputTensor]


_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": InferError} for status in (400, 404, 408, 413, 415, 422, 429, 500, 503)
}


def router(service: Service) -> APIRouter:
    """The routes of a server."""
    routes = APIRouter(prefix="/v2", tags=["open inference protocol"])

    @routes.get("/health/live", summary="Whether the server lives", responses={503: {"model": State}})
    async def live(response: Response) -> State:
        """As `/healthz`."""
        response.status_code = 200 if service.is_alive else 503
        return State(live=service.is_alive)

    @routes.get("/health/ready", summary="Whether all models are ready", responses={503: {"model": State}})
    async def ready(response: Response) -> State:
        """As `/readyz`."""
        response.status_code = 200 if service.is_ready else 503
        return State(ready=service.is_ready)

    @routes.get("", summary="The server")
    async def server_metadata() -> ServerMetadata:
        """Name, version and extensions of the server."""
        return ServerMetadata(version=own_version(), extensions=[])

    @routes.get("/models/{name}/ready", summary="Whether a model is ready", responses=_ERRORS | {503: {"model": State}})
    async def model_ready(name: str, response: Response) -> State:
        """200 when the model is loaded and its thread is alive."""
        is_ready = service.worker(name).is_ready and not service.is_draining
        response.status_code = 200 if is_ready else 503
        return State(ready=is_ready, name=name)

    @routes.get("/models/{name}", summary="A model", responses=_ERRORS)
    async def model_metadata(name: str) -> ModelMetadata:
        """The tensors of a model: a list of image files in, a list of JSON strings out."""
        worker = service.worker(name)
        return ModelMetadata(
            name=worker.name,
            versions=[_version(service, worker.name)],
            inputs=[Tensor(name=INPUT, datatype="BYTES", shape=[-1])],
            outputs=[Tensor(name=OUTPUT, datatype="BYTES", shape=[-1])],
        )

    @routes.post(
        "/models/{name}/infer",
        summary="Predict on images",
        response_model=InferAnswer,
        responses=_ERRORS,
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {JSON: {"schema": _reference(InferRequest)}},
            }
        },
    )
    async def infer(name: str, request: Request) -> Response:
        """One input of the type BYTES, whose elements are image files in base64."""
        deadline = time.monotonic() + service.settings.deadline_s
        worker = service.worker(name)
        worker.check_ready()
        with service.budget.reserving() as take:
            body = await read_body(request, service.settings.limits, take)
            asked = _parsed(body)
            images = _images(asked, service.settings.limits.batch_images)
            options = AnswerOptions(
                **(asked.parameters or Parameters()).model_dump(include={"format", "tolerance_px", "min_score"}),
                model=name,
                request_id=request.state.request_id,
                background=service.models[name].background,
                most_objects=service.settings.limits.instances,
            )
            work = [service.predict(image, options, request=request, deadline=deadline) for image in images]
            answers = await asyncio.gather(*work)
        request.state.model = name
        output = {"name": OUTPUT, "datatype": "BYTES", "shape": [len(answers)]}
        content = {
            "model_name": name,
            "model_version": _version(service, name),
            "id": asked.id or request.state.request_id,
            "outputs": [output | {"data": [answer.content.decode() for answer in answers]}],
        }
        return Response(orjson.dumps(content), media_type=JSON)

    return routes


def _reference(model: type) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def _version(service: Service, name: str) -> str:
    """The version of a model: the beginning of the hash of its weights."""
    worker = service.workers[name]
    return str(worker.ready.details.get("weights_sha256", ""))[:12] if worker.is_ready else ""


def _parsed(body: bytes) -> InferRequest:
    try:
        return InferRequest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ApiError(400, "bad_request", f"{place}: {first['msg']}" if place else first["msg"]) from None


def _images(asked: InferRequest, most: int) -> list[bytes]:
    """The image files of a request."""
    tensor = asked.inputs[0]
    if tensor.shape != [len(tensor.data)] or not tensor.data:
        message = (
            f"the shape {shortened(str(tensor.shape[:9]), 60)} is not that of {len(tensor.data)} images; "
            f"expected [{len(tensor.data) or 1}]"
        )
        raise ApiError(400, "bad_request", message)
    if len(tensor.data) > most:
        raise ApiError(
            413, "too_many_images", f"the request has {len(tensor.data)} images, and at most {most} are read"
        )
    if asked.outputs is not None and any(output.name != OUTPUT for output in asked.outputs):
        raise ApiError(400, "bad_request", f"the only output is {OUTPUT}")
    try:
        return [base64.b64decode(text, validate=True) for text in tensor.data]
    except (binascii.Error, ValueError):
        raise ApiError(400, "bad_request", "the data of the input are not base64") from None
