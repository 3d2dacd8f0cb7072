"""``/v1/models`` and ``/v1/models/NAME``: what the served models are."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from d2tune.serving.schemas import ErrorAnswer, ModelDetails, ModelEntry, ModelList
from d2tune.serving.service import Service


def router(service: Service) -> APIRouter:
    """The routes of a server."""
    routes = APIRouter(tags=["models"])

    @routes.get("/v1/models", summary="The models")
    async def list_models() -> ModelList:
        """The models of the server; the first is used where a request names none."""
        return ModelList(
            models=[
                ModelEntry(
                    name=name,
                    task=model.description.project.task,
                    classes=list(model.description.class_names),
                    is_ready=service.workers[name].is_ready,
                )
                for name, model in service.models.items()
            ]
        )

    @routes.get(
        "/v1/models/{name}",
        summary="A model",
        response_model=ModelDetails,
        responses={404: {"model": ErrorAnswer}, 503: {"model": ErrorAnswer}},
    )
    async def model_details(name: str) -> dict[str, Any]:
        """Classes, thresholds, what the network takes, metrics with 95 % intervals, hashes, and the card."""
        return {"name": name, **service.worker(name).ready.details}

    return routes
