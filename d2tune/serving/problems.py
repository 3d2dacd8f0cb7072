"""The errors of the API: a status, a code for programs, and a sentence for people."""

from __future__ import annotations

from collections.abc import Mapping

from d2tune.errors import DataError


class ApiError(Exception):
    """A request that is not answered with a prediction.

    Args:
        status: The HTTP status.
        code: A word for programs.
        message: A sentence for people, without paths of the server.
        headers: Further headers of the answer.
        closes: Whether the connection is closed, because the rest of the request is not read.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        headers: Mapping[str, str] | None = None,
        closes: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = {**(headers or {}), **({"Connection": "close"} if closes else {})}


class ClientGoneError(Exception):
    """The client closed the connection before its answer."""


def bad_image(error: DataError) -> ApiError:
    """The answer to an image that cannot be read, without the file that the error names."""
    message = error.message
    for label, text in (("found", error.found), ("expected", error.expected)):
        message += f"; {label} {text}" if text else ""
    return ApiError(422, "bad_image", message)


def internal_error() -> ApiError:
    """The answer to an error that is not the client's."""
    return ApiError(500, "internal", "an internal error; the log of the server has the id of this request")


def busy(what: str, retry_s: float) -> ApiError:
    """The answer where too much waits already."""
    seconds = str(max(1, round(retry_s)))
    return ApiError(429, "busy", f"{what}; send the request again in {seconds} s", headers={"Retry-After": seconds})
