"""The JSON of the API, for its description (OpenAPI), with examples."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

_ID = "6f1c1f0c9c0d4b3c8a5b7b1de1a2b3c4"


class Problem(BaseModel):
    """Why a request was not answered."""

    code: str = Field(description="A word for programs.", examples=["bad_image"])
    message: str = Field(description="A sentence for people.", examples=["the image cannot be read"])
    request_id: str = Field(description="The id of the request in the log of the server.", examples=[_ID])


class ErrorAnswer(BaseModel):
    """The body of every error."""

    error: Problem


class Health(BaseModel):
    """The state of the server."""

    status: str = Field(examples=["ready"])


class ImageSize(BaseModel):
    """Size of an image with its EXIF orientation applied."""

    width_px: int = Field(ge=1)
    height_px: int = Field(ge=1)


class RunLengths(BaseModel):
    """COCO's compressed run lengths of a mask of the whole image."""

    size: list[int] = Field(min_length=2, max_length=2, description="Height and width.")
    counts: str


class PredictedInstance(BaseModel):
    """An instance, a segment, or a connected region of a class."""

    model_config = ConfigDict(populate_by_name=True)

    class_name: str = Field(alias="class")
    class_id: int = Field(ge=1, description="The id of the class, from 1.")
    score: float | None = Field(description="From 0 to 1; null where the model gives none.")
    box_xywh: list[float] = Field(min_length=4, max_length=4, description="Left, top, width, height in pixels.")
    area_px2: int = Field(ge=0)
    polygons: list[list[list[int]]] | None = Field(default=None, description="Outer outlines, each a list of x, y.")
    holes: list[list[list[int]]] | None = Field(default=None, description="Outlines of holes, with polygons.")
    segmentation: RunLengths | None = Field(default=None, description="The mask, with format=rle.")


class Prediction(BaseModel):
    """The prediction on an image."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "model": "balloon",
                "request_id": _ID,
                "image": {"width_px": 1024, "height_px": 768},
                "objects": [
                    {
                        "class": "balloon",
                        "class_id": 1,
                        "score": 0.987,
                        "box_xywh": [410.2, 105.7, 120.4, 151.9],
                        "area_px2": 14012,
                        "polygons": [[[450, 106], [490, 106], [530, 180], [470, 257], [411, 180]]],
                        "holes": [],
                    }
                ],
                "objects_dropped": 0,
            }
        }
    )

    model: str
    request_id: str
    image: ImageSize
    objects: list[PredictedInstance]
    objects_dropped: int = Field(ge=0, description="Objects that the limit of the server dropped.")


class Failure(BaseModel):
    """An image of a batch that was not predicted."""

    file: str
    error: Problem


class BatchEntry(Prediction):
    """The prediction on an image of a batch."""

    file: str = Field(description="The name of the file as it was sent.")


class Batch(BaseModel):
    """The predictions on several images, in their order."""

    predictions: list[BatchEntry | Failure]


class RoboflowPoint(BaseModel):
    """A corner of an outline."""

    x: float
    y: float


class RoboflowInstance(BaseModel):
    """An instance as clients of Roboflow's inference server read it; x and y are those of the center of its box."""

    model_config = ConfigDict(populate_by_name=True)

    x: float
    y: float
    width: float
    height: float
    confidence: float
    class_name: str = Field(alias="class")
    class_id: int = Field(ge=0, description="The index of the class, from 0.")
    detection_id: str
    points: list[RoboflowPoint]


class RoboflowAnswer(BaseModel):
    """The answer to format=roboflow."""

    image: dict[str, int]
    predictions: list[RoboflowInstance]


class ModelEntry(BaseModel):
    """A model of the list."""

    name: str
    task: str
    classes: list[str]
    is_ready: bool


class ModelList(BaseModel):
    """The models of a server; the first is used where a request names none."""

    models: list[ModelEntry]


class ModelDetails(BaseModel):
    """A model with everything that is known of it."""

    model_config = ConfigDict(extra="allow")

    name: str
    task: str
    classes: list[dict[str, Any]]
    thresholds: dict[str, float] = Field(description="Lowest score of instances by class.")
    input: dict[str, Any] = Field(description="What the network takes, and how images become that.")
    metrics: dict[str, Any] | None = Field(description="The evaluation on the validation split, with 95 % intervals.")
    card: str | None = Field(description="The card of a package, in Markdown.")
