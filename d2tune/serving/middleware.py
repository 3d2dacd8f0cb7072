"""What surrounds each request: its id, the key of the client, errors, a line in the log, and its metrics."""

from __future__ import annotations

import json
import logging
import re
import time
import uuid
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from d2tune.serving.keys import key_of
from d2tune.serving.problems import ApiError, ClientGoneError, internal_error
from d2tune.serving.service import Service
from d2tune.serving.sites import is_foreign_page, is_known_host

logger = logging.getLogger("d2tune.serving.requests")

OPEN_PATHS = frozenset({"/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"})
"""Paths that need no key, for probes."""

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_CLIENT_GONE = 499


def error_response(error: ApiError, request_id: str, *, path: str) -> JSONResponse:
    """The answer to an error; the routes of the Open Inference Protocol have a sentence alone."""
    content: dict[str, Any] = {"error": {"code": error.code, "message": error.message, "request_id": request_id}}
    if path.startswith("/v2/"):
        content = {"error": error.message}
    return JSONResponse(content, status_code=error.status, headers=error.headers)


class RequestContext:
    """An ASGI application around another; see the module.

    ``scope["state"]["request_id"]`` has the id of the request: that of the header ``X-Request-Id`` if it is at most 64
    letters, digits, dots, dashes and underscores, else a new one. The answer has it too.

    Args:
        app: The application.
        service: The server.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers, method = Headers(scope=scope), scope["method"]
        if method == "HEAD":  # the answer to GET, of which the protocol sends the head alone
            scope = {**scope, "method": "GET"}
        given = headers.get("x-request-id", "")
        request_id = given if _ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        seen: dict[str, Any] = {"status": None, "bytes": 0}
        began = time.perf_counter()

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                seen["status"] = message["status"]
                added = MutableHeaders(scope=message)
                added["X-Request-Id"] = request_id
                added["X-Content-Type-Options"] = "nosniff"
                if self._service.is_draining:
                    added["Connection"] = "close"
            elif message["type"] == "http.response.body":
                seen["bytes"] += len(message.get("body", b""))
            await send(message)

        try:
            _check_framing(headers)
            self._check_client(scope, headers)
            await self._app(scope, receive, sending)
        except ApiError as error:
            if seen["status"] is None:
                await error_response(error, request_id, path=scope["path"])(scope, receive, sending)
        except ClientGoneError:
            seen["status"] = _CLIENT_GONE
        except Exception:
            logger.exception("error in request %s", request_id)
            if seen["status"] is not None:
                raise
            await error_response(internal_error(), request_id, path=scope["path"])(scope, receive, sending)
        finally:
            self._note(scope, method, seen, time.perf_counter() - began)

    def _check_client(self, scope: Scope, headers: Headers) -> None:
        """Refuse requests without a known key, and changes that another site's page asks a browser for."""
        if scope["path"] in OPEN_PATHS or scope["method"] == "OPTIONS":
            return
        settings = self._service.settings
        if is_foreign_page(scope["method"], headers, origins=settings.cors_origins, names=settings.hosts):
            raise ApiError(403, "foreign_page", "pages of other sites may not call this server", closes=True)
        if self._service.keys is None:
            if not is_known_host(headers.get("host", ""), settings.hosts):
                message = "the server is not known by the name in Host; start it with --allow-host NAME, or with keys"
                raise ApiError(403, "unknown_host", message, closes=True)
            return
        key = key_of(headers)
        scope["state"]["client"] = None if key is None else self._service.keys.client(key)
        if scope["state"]["client"] is None:
            challenge = {"WWW-Authenticate": 'Bearer, Basic realm="d2tune", charset="UTF-8"'}
            message = "the key is missing or unknown; send it as `Authorization: Bearer KEY`"
            raise ApiError(401, "no_key", message, headers=challenge, closes=True)

    def _note(self, scope: Scope, method: str, seen: dict[str, Any], seconds: float) -> None:
        """Count the request, and log it; health checks only where they fail."""
        status = seen["status"] or _CLIENT_GONE
        route = getattr(scope.get("route"), "path", "other")
        self._service.metrics.request(route, status, seconds)
        if scope["path"] in OPEN_PATHS and status < 400:
            return
        state = scope["state"]
        fields = {
            "request_id": state["request_id"],
            "method": method,
            "path": scope["path"],
            "status": status,
            "ms": round(1000 * seconds, 1),
            "bytes": seen["bytes"],
            **{name: state[name] for name in ("client", "model", "times_ms") if state.get(name) is not None},
        }
        logger.info("request", extra={"fields": fields})


def _check_framing(headers: Headers) -> None:
    """Refuse what a proxy in front could read as another number of requests (RFC 9112, section 6.1)."""
    if "transfer-encoding" in headers and "content-length" in headers:
        message = "the request has Transfer-Encoding and Content-Length; send one of them"
        raise ApiError(400, "bad_framing", message, closes=True)


class JsonLines(logging.Formatter):
    """Log records as a line of JSON each, with the fields of requests."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True, default=str)
