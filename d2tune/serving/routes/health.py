"""``/healthz``, ``/readyz`` and ``/metrics``: whether the server lives, whether it can predict, and how it does."""

from __future__ import annotations

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from d2tune.serving.schemas import Health
from d2tune.serving.service import Service


def router(service: Service) -> APIRouter:
    """The routes of a server."""
    routes = APIRouter(tags=["health"])

    @routes.get("/healthz", summary="Whether the server lives", responses={503: {"model": Health}})
    async def healthz(response: Response) -> Health:
        """200 while the thread of every model loads or predicts; 503 where one ended: start the server again."""
        response.status_code = 200 if service.is_alive else 503
        return Health(status="alive" if service.is_alive else "a model is not running")

    @routes.get("/readyz", summary="Whether the server can predict", responses={503: {"model": Health}})
    async def readyz(response: Response) -> Health:
        """200 when all models are loaded and have predicted once; 503 before, after SIGTERM, and where one ended."""
        response.status_code = 200 if service.is_ready else 503
        status = "ready" if service.is_ready else "draining" if service.is_draining else "not ready"
        return Health(status=status)

    @routes.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
    async def metrics() -> Response:
        """Requests, refusals, queues, and the time of each stage: decode, queue, forward, encode."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return routes
