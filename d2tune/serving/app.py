"""The application: routes, errors and what surrounds them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse

from d2tune.serving.middleware import RequestContext, error_response
from d2tune.serving.problems import ApiError
from d2tune.serving.routes import health, models, open_inference, predict
from d2tune.serving.schemas import ErrorAnswer, Prediction, RoboflowAnswer
from d2tune.serving.service import Service
from d2tune.versions import own_version

_TITLE = "d2tune"
_CODES = {404: "not_found", 405: "not_allowed"}


def create_app(service: Service, *, routers: Sequence[APIRouter] = ()) -> FastAPI:
    """The application of a server; its lifespan starts and ends the threads of the models.

    Args:
        service: The models and their state.
        routers: Further routes, such as those of the page for judging predictions.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        service.close()

    # FastAPI's pages for trying an API load scripts from elsewhere, so only the description itself is served
    app = FastAPI(title=_TITLE, version=own_version(), lifespan=lifespan, docs_url=None, redoc_url=None)
    app.router.redirect_slashes = False  # a redirect would name the host that the client states
    own = (predict, models, open_inference, health)
    for one in (*(module.router(service) for module in own), *routers):
        app.include_router(one)
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(RequestValidationError, _bad_parameter)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_middleware(RequestContext, service=service)
    if service.settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(service.settings.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key", "X-Request-Id"],
            expose_headers=["X-Request-Id", "Retry-After"],
        )  # around everything, so that pages can read errors too
    _describe(app)
    return app


def _describe(app: FastAPI) -> None:
    """Add what FastAPI does not see to the description: the schemas of answers that are made as bytes."""

    def openapi() -> dict[str, object]:
        if app.openapi_schema is None:
            schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
            known = schema.setdefault("components", {}).setdefault("schemas", {})
            for model in (Prediction, RoboflowAnswer, ErrorAnswer, open_inference.InferRequest):
                own = model.model_json_schema(ref_template="#/components/schemas/{model}")
                for name, schema_of in {**own.pop("$defs", {}), model.__name__: own}.items():
                    known.setdefault(name, schema_of)
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


async def _api_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiError)
    return error_response(error, request.state.request_id, path=request.url.path)


async def _bad_parameter(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    return await _api_error(request, ApiError(422, "bad_parameter", f"{place}: {first['msg']}"))


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code = _CODES.get(error.status_code, "http_error")
    return await _api_error(request, ApiError(error.status_code, code, str(error.detail), headers=error.headers))
