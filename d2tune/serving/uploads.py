"""Image files in the body of a request: as they are, or in a form."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from d2tune.serving.problems import ApiError
from d2tune.text import printable, shortened

MULTIPART = "multipart/form-data"
_RAW = "application/octet-stream"
_MOST_FIELDS = 16
_LONGEST_NAME = 255


@dataclass(frozen=True, slots=True)
class UploadedFile:
    """A file of a form.

    Attributes:
        name: Its name as the client gives it, for answers alone.
        content: Its content.
    """

    name: str
    content: bytes


def media_type_of(request: Request) -> str:
    """The type of the body without parameters, in lower case."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def is_image_type(kind: str) -> bool:
    """Whether a body of a type is read as the content of an image file, whose own bytes then say what it is."""
    return kind.startswith("image/") or kind == _RAW


async def uploaded_files(request: Request, body: bytes, *, most: int) -> list[UploadedFile]:
    """The files of a form, whose body has been read.

    Args:
        request: The request, with the boundary in its head.
        body: Its body.
        most: Most files.

    Raises:
        ApiError: The form is invalid, has no files or too many.
    """

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(request.headers, stream(), max_files=most, max_fields=_MOST_FIELDS)
    parser.spool_max_size = len(body) + 1  # everything stays in memory
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise ApiError(400, "bad_form", f"the form is invalid: {error.message}") from None
    except (ValueError, KeyError, UnicodeDecodeError):
        raise ApiError(400, "bad_form", "the form is invalid") from None
    try:
        uploads = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        files = [UploadedFile(_name(value), await value.read()) for value in uploads]
    finally:
        await form.close()
    if not files:
        raise ApiError(422, "no_file", "the form has no file; send the image as a file, not as a field")
    return files


def _name(file: UploadFile) -> str:
    return shortened(printable(file.filename or ""), _LONGEST_NAME)
