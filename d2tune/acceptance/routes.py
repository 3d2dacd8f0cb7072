"""The routes of the page: two routers, which a server includes.

`page_router` gives the page itself, which holds no data, and `data_router` what it works with, which a server may
protect. All answers have a content security policy that allows nothing from elsewhere and nothing inline.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Coroutine
from importlib import resources
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect
from starlette.types import Message

from d2tune.acceptance.export import labelme_archive, pairs_to_csv, to_csv
from d2tune.acceptance.image_list import SHOWN_PX, THUMBNAIL_PX, NoSuchImageError
from d2tune.acceptance.judgments import KIND_WORDS, Judgment, PairJudgment, SavedJudgment, SignOff, Strict
from d2tune.acceptance.report import comparison_report, judged_report
from d2tune.acceptance.session import Acceptance, NoSuchModelError, StillBlindError
from d2tune.acceptance.statistics import Share
from d2tune.acceptance.store import ConflictError, RevealedError, StoredImage
from d2tune.acceptance.two_models import LAYERS, NoSuchComparisonError, TwoModels, as_shown, layer_png
from d2tune.errors import D2TuneError
from d2tune.model_comparison.drawings import to_zip
from d2tune.text import printable, shortened

PREFIX = "/acceptance"

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The content security policy of the page."""

_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_JSON_BYTES = 8_000_000
_BODY_S = 60.0
_UPLOADS = "/images"
_AGAIN = {"Retry-After": "5"}
_CLOSING = {"Connection": "close"}
_NEVER = {"Cache-Control": "no-store"}
_CHECKED = {"Cache-Control": "no-cache"}
_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}

Model = Annotated[int, Query(description="Place of the model, from 0.", ge=0)]


class ChosenModels(Strict):
    """What the page that compares two models sends.

    Attributes:
        a: Name of the first model.
        b: Name of the second model.
        image: Number of the image.
    """

    a: str
    b: str
    image: int


class JudgmentIn(Strict):
    """A judgment as the page sends it.

    Attributes:
        seen: Revision of the judgment that the person saw; null for none.
        judgment: The judgment.
    """

    seen: int | None = None
    judgment: Judgment


def page_router() -> APIRouter:
    """The page at ``/`` and its files."""
    router = APIRouter(include_in_schema=False)
    files = {one.name: one.read_bytes() for one in (resources.files("d2tune.acceptance") / "static").iterdir()}

    def give(name: str) -> Response:
        headers = _HEADERS | _CHECKED
        return Response(files[name], media_type=_TYPES[name.rpartition(".")[2]], headers=headers)

    @router.get("/")
    def page() -> Response:
        return give("page.html")

    @router.get("/models")
    def models() -> Response:
        return give("models.html")

    @router.get(f"{PREFIX}/static/{{name}}")
    def static(name: str) -> Response:
        if name not in files or name.endswith(".html"):
            raise HTTPException(404, "there is no such file")
        return give(name)

    return router


def data_router(acceptance: Acceptance, *, two_models: TwoModels | None = None) -> APIRouter:
    """What the page works with.

    Args:
        acceptance: Images, predictions and judgments.
        two_models: The models of the page that compares two; None without that page. A blind comparison has none,
            because it would give the models away.
    """
    router = APIRouter(
        prefix=PREFIX, dependencies=[Depends(_refuse_other_sites)], route_class=_LimitedRoute, include_in_schema=False
    )
    shown = None if acceptance.settings.is_blind else two_models
    _add_images(router, acceptance, two_models=shown)
    if shown is not None:
        _add_two_models(router, acceptance, shown)
    if acceptance.settings.is_blind:
        _add_comparison(router, acceptance)
    else:
        _add_judging(router, acceptance)
    return router


class _LimitedRoute(APIRoute):
    """A route whose bodies are read no longer than a minute, and but for images no further than a limit.

    The type of a body does not matter: FastAPI reads a body before it looks at its type.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def limited(request: Request) -> Response:
            size, until = 0, time.monotonic() + _BODY_S

            async def receive() -> Message:
                nonlocal size
                try:
                    async with asyncio.timeout(until - time.monotonic()):
                        message = await request.receive()
                except TimeoutError:
                    raise HTTPException(408, f"the body did not arrive within {_BODY_S:g} s", _CLOSING) from None
                size += len(message.get("body", b""))
                if size > _JSON_BYTES and not self.path.endswith(_UPLOADS):
                    raise HTTPException(413, f"at most {_JSON_BYTES / 1e6:.0f} MB of JSON are taken")
                return message

            try:
                return await handle(Request(request.scope, receive))
            except RequestValidationError as error:
                first = error.errors()[0]
                place = ".".join(str(step) for step in first["loc"])
                raise HTTPException(422, printable(shortened(f"{place}: {first['msg']}"))) from None

        return limited


def _refuse_other_sites(request: Request) -> None:
    """Refuse what a page of another site makes a browser send; see https://www.w3.org/TR/fetch-metadata/."""
    site = request.headers.get("sec-fetch-site", "none")
    if request.method not in ("GET", "HEAD") and site not in ("none", "same-origin"):
        raise HTTPException(403, "requests of other sites are refused")


def _answered(make: Callable[[], Any]) -> Any:
    """What a function returns; its errors as HTTP errors with a sentence, without paths of this machine."""
    try:
        return make()
    except NoSuchImageError:
        raise HTTPException(404, "there is no such image") from None
    except NoSuchModelError:
        raise HTTPException(404, "there is no such model") from None
    except NoSuchComparisonError:
        raise HTTPException(404, "the comparison is no longer kept; compare again") from None
    except StillBlindError:
        raise HTTPException(409, "the result is not shown yet, so that nothing gives the models away") from None
    except RevealedError:
        raise HTTPException(409, "the result was shown, so that the comparison is closed") from None
    except D2TuneError as error:
        raise HTTPException(422, _sentence(error)) from None
    except sqlite3.Error as error:
        raise HTTPException(503, f"the database of judgments cannot be used now: {error}", _AGAIN) from None


def _sentence(error: D2TuneError) -> str:
    text = f"{error.place}: {error.message}" if error.place else error.message
    for label, value in (("found", error.found), ("expected", error.expected)):
        text += f"; {label} {value}" if value else ""
    return text


def _json(content: Any) -> JSONResponse:
    return JSONResponse(content, headers=_HEADERS | _NEVER)


def _add_images(router: APIRouter, acceptance: Acceptance, *, two_models: TwoModels | None) -> None:
    settings = acceptance.settings

    @router.get("/state")
    def state() -> Response:
        """What the page shows: title, models, classes and their colors."""
        is_blind = settings.is_blind
        models = [
            {
                "name": "" if is_blind else model.name,
                "lowest_score": model.lowest_score,
                "starting_score": model.starting_score,
                "colors": acceptance.colors(index),
                "classes": acceptance.class_names(index),
            }
            for index, model in enumerate(acceptance.models)
        ]
        skipped = [{"name": one.name, "reason": one.reason} for one in acceptance.images.skipped[:20]]
        return _json(
            {
                "title": settings.title,
                "session": acceptance.session,
                "is_blind": is_blind,
                "models": models[:1] if is_blind else models,
                "has_truth": bool(acceptance.truth),
                "two_models": [] if two_models is None else list(two_models.names),
                "kinds": KIND_WORDS,
                "max_upload_bytes": settings.max_upload_bytes,
                "skipped": skipped,
                "skipped_count": len(acceptance.images.skipped),
            }
        )

    @router.post("/images", status_code=201)
    async def add(request: Request, name: Annotated[str, Query(max_length=400)] = "image") -> Response:
        """Add an image; the body is the file."""
        if not request.headers.get("content-type", "").startswith(("image/", "application/octet-stream")):
            raise HTTPException(415, "the body must be an image, with its content type")
        with settings.reserving() as take:
            content = await _body(request, settings.max_upload_bytes, take)

            def put() -> Any:
                settings.check(content)
                return _answered(lambda: acceptance.images.add(name, content))

            image, is_new = await run_in_threadpool(put)
        return JSONResponse(_image_row(image, None) | {"is_new": is_new}, 201 if is_new else 200, _HEADERS | _NEVER)

    @router.get("/images/{image_id}/pixels")
    def pixels(image_id: int, request: Request) -> Response:
        """An image as a JPEG in its EXIF orientation, at most 4096 px long."""
        return _jpeg(acceptance, request, image_id, SHOWN_PX)

    @router.get("/images/{image_id}/thumbnail")
    def thumbnail(image_id: int, request: Request) -> Response:
        """A small JPEG."""
        return _jpeg(acceptance, request, image_id, THUMBNAIL_PX)


async def _body(request: Request, limit_bytes: int, take: Callable[[int], object]) -> bytes:
    """The body, of which no more than the limit is ever read; ``take`` is called with the bytes of each piece."""
    chunks, size = [], 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit_bytes:
                message = f"the file is too large; at most {limit_bytes / 1e6:.0f} MB are taken"
                raise HTTPException(413, message)
            take(len(chunk))
            chunks.append(chunk)
    except ClientDisconnect:
        raise HTTPException(400, "the file did not arrive as a whole", _CLOSING) from None
    return b"".join(chunks)


def _jpeg(acceptance: Acceptance, request: Request, image_id: int, longest_px: int) -> Response:
    image = _answered(lambda: acceptance.images.get(image_id))
    headers = _HEADERS | {"Cache-Control": "private, no-cache", "ETag": f'"{image.sha256}-{longest_px}"'}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    content = _answered(lambda: acceptance.images.jpeg(image, longest_px=longest_px))
    return Response(content, media_type="image/jpeg", headers=headers)


def _image_row(image: StoredImage, verdict: str | None, **more: Any) -> dict[str, Any]:
    size = {"width_px": image.width_px, "height_px": image.height_px}
    return {"id": image.id, "name": image.name, "is_added": image.is_added, "verdict": verdict, **size, **more}


def _saved_row(saved: SavedJudgment | None) -> dict[str, Any] | None:
    return None if saved is None else saved.model_dump(mode="json")


def _add_two_models(router: APIRouter, acceptance: Acceptance, two_models: TwoModels) -> None:
    @router.post("/two-models")
    def compare(given: ChosenModels) -> Response:
        """Compare two models on an image of the list."""
        for name in (given.a, given.b):
            if name not in two_models.names:
                raise HTTPException(404, "there is no such model")

        def make() -> dict[str, Any]:
            image = acceptance.images.get(given.image)
            assert image.sha256 is not None
            return as_shown(*two_models.compare(given.a, given.b, acceptance.images.path(image), image.sha256))

        return _json(_answered(make))

    @router.get("/two-models/{key}/{name}.png")
    def layer(key: str, name: str) -> Response:
        """A layer over the image: the classes of A or B, or the agreement."""
        if name not in LAYERS:
            raise HTTPException(404, "there is no such layer")
        content = _answered(lambda: layer_png(two_models.kept(key), name))
        return Response(content, media_type="image/png", headers=_HEADERS | _NEVER)

    @router.get("/two-models/{key}/comparison.zip")
    def download(key: str, opacity: Annotated[float, Query(ge=0, le=1)] = 0.5) -> Response:
        """The images, tables and numbers of a comparison."""
        content = _answered(lambda: to_zip(two_models.kept(key), opacity=opacity))
        return _download(content, "application/zip", "comparison.zip")


def _add_judging(router: APIRouter, acceptance: Acceptance) -> None:
    @router.get("/images")
    def images(model: Model = 0) -> Response:
        """All images with the verdicts of a model."""
        saved = _answered(lambda: acceptance.judgments(model))
        rows = []
        for image in acceptance.images.all():
            one = saved.get(image.id)
            judgment = None if one is None else one.judgment
            marks = 0 if judgment is None else sum(mark.is_wrong for mark in judgment.marks)
            rows.append(_image_row(image, None if judgment is None else judgment.verdict, wrong_marks=marks))
        return _json(rows)

    @router.get("/images/{image_id}/objects")
    def objects(image_id: int, model: Model = 0) -> Response:
        """What a model predicts on an image, the ground truth beside it, and the latest judgment."""

        def make() -> dict[str, Any]:
            image = acceptance.images.get(image_id)
            predicted, truth = acceptance.objects(image, model), acceptance.truth_objects(image)
            return {
                "objects": [one.as_shown() for one in predicted],
                "truth": None if truth is None else [one.as_shown() for one in truth],
                "saved": _saved_row(acceptance.judgment(image, model)),
            }

        return _json(_answered(make))

    @router.put("/images/{image_id}/judgment")
    def judge(image_id: int, given: JudgmentIn, model: Model = 0) -> Response:
        """Keep a judgment; 409 with the other one where another person has judged the image meanwhile."""

        def make() -> Response:
            image = acceptance.images.get(image_id)
            try:
                saved = acceptance.judge(image, model, given.judgment, seen=given.seen)
            except ConflictError:
                latest = _saved_row(acceptance.judgment(image, model))
                detail = "another person has judged this image meanwhile"
                return JSONResponse({"detail": detail, "saved": latest}, 409, _HEADERS | _NEVER)
            return _json(_saved_row(saved))

        return _answered(make)  # type: ignore[no-any-return]

    @router.get("/summary")
    def summary(model: Model = 0) -> Response:
        """The results so far, and the decision where there is one."""

        def make() -> dict[str, Any]:
            result, signed = acceptance.summary(model), acceptance.saved_sign_off(model)
            is_current = signed is not None and signed.judgments_sha256 == acceptance.judgments_sha256(model)
            return {
                "images": result.images,
                "judged": result.judged,
                "right_images": _share_row(result.right_images),
                "right_objects": _share_row(result.all_objects.right),
                "kinds": result.all_objects.kinds,
                "sign_off": None if signed is None else signed.model_dump() | {"is_current": is_current},
            }

        return _json(_answered(make))

    @router.post("/sign-off", status_code=204)
    def sign_off(given: SignOff, model: Model = 0) -> Response:
        """Decide about a model, by the judgments as they are now."""
        _answered(lambda: acceptance.sign_off(model, given))
        return Response(status_code=204, headers=_HEADERS)

    @router.get("/judgments.csv")
    def table(model: Model = 0) -> Response:
        """All judgments as a table."""

        def make() -> str:
            one = acceptance.model(model)
            return to_csv(acceptance.judged_images(model), model=one.name, model_sha256=one.sha256)

        return _download(_answered(make), "text/csv; charset=utf-8", "judgments.csv")

    @router.get("/judgments_labelme.zip")
    def archive(model: Model = 0) -> Response:
        """All judged images as Labelme files."""

        def make() -> bytes:
            judged = acceptance.judged_images(model)
            return labelme_archive(judged, acceptance.class_names(model), acceptance.images)

        return _download(_answered(make), "application/zip", "judgments_labelme.zip")

    @router.get("/report.html")
    def report(model: Model = 0) -> Response:
        """The acceptance report: one file, to be kept and printed."""
        return _report(_answered(lambda: judged_report(acceptance, model)))


def _add_comparison(router: APIRouter, acceptance: Acceptance) -> None:
    @router.get("/images")
    def images() -> Response:
        """All images with what was preferred on them, by side."""
        pairs = _answered(acceptance.pairs)
        rows = [
            _image_row(image, pairs[image.id].pair.preference if image.id in pairs else None)
            for image in acceptance.images.all()
        ]
        return _json(rows)

    @router.get("/images/{image_id}/pair")
    def pair(image_id: int) -> Response:
        """What the two models predict on an image, on sides that say nothing of which is which."""

        def make() -> dict[str, Any]:
            image = acceptance.images.get(image_id)
            order = (0, 1) if acceptance.first_is_left(image) else (1, 0)
            shown = []
            for index in order:
                score = acceptance.models[index].starting_score
                given = acceptance.objects(image, index)
                shown.append(
                    [_without_score(one.as_shown()) for one in given if one.score is None or one.score >= score]
                )
            saved, truth = acceptance.pairs().get(image.id), acceptance.truth_objects(image)
            return {
                "left": shown[0],
                "right": shown[1],
                "truth": None if truth is None else [one.as_shown() for one in truth],
                "saved": None if saved is None else saved.pair.model_dump(),
            }

        return _json(_answered(make))

    @router.put("/images/{image_id}/preference", status_code=204)
    def prefer(image_id: int, given: PairJudgment) -> Response:
        """Keep a preference; 409 where the result was shown."""
        _answered(lambda: acceptance.prefer(acceptance.images.get(image_id), given))
        return Response(status_code=204, headers=_HEADERS)

    @router.post("/reveal", status_code=204)
    def reveal() -> Response:
        """Show the result from now on, and close the comparison."""
        _answered(acceptance.reveal)
        return Response(status_code=204, headers=_HEADERS)

    @router.get("/comparison")
    def comparison() -> Response:
        """The result of the comparison; only how many images are compared until it may be shown."""

        def make() -> dict[str, Any]:
            compared = {"images": len(acceptance.images), "compared": len(acceptance.pairs())}
            if acceptance.revealed_at is None:
                return compared | {"result": None}
            result = acceptance.comparison()
            rows = [
                {"name": model.name, "preferred": count}
                for model, count in zip(acceptance.models, (result.first, result.second), strict=True)
            ]
            share = _share_row(result.share)
            numbers = {"ties": result.ties, "p_value": result.p_value, "is_real": result.is_real, "share": share}
            return compared | {"result": numbers | {"models": rows, "revealed_at": acceptance.revealed_at}}

        return _json(_answered(make))

    @router.get("/preferences.csv")
    def table() -> Response:
        """All preferences as a table."""

        def make() -> str:
            result = acceptance.comparison()
            first, second = (model.name for model in acceptance.models)
            return pairs_to_csv(acceptance.images.all(), acceptance.pairs(), names=(first, second), result=result)

        return _download(_answered(make), "text/csv; charset=utf-8", "preferences.csv")

    @router.get("/report.html")
    def report() -> Response:
        """The report of the comparison: one file, to be kept and printed."""
        return _report(_answered(lambda: comparison_report(acceptance)))


def _without_score(row: dict[str, Any]) -> dict[str, Any]:
    """An object without its score, by which a person could recognize the model."""
    return row | {"score": None}


def _share_row(share: Share) -> dict[str, Any]:
    return {"count": share.count, "total": share.total, "value": share.value, "low": share.low, "high": share.high}


def _download(content: str | bytes, media_type: str, name: str) -> Response:
    # a byte order mark, by which spreadsheets recognize UTF-8
    body = content.encode("utf-8-sig", "backslashreplace") if isinstance(content, str) else content
    headers = _HEADERS | _NEVER | {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(body, media_type=media_type, headers=headers)


def _report(report: tuple[str, str]) -> Response:
    """A report, whose style is the only thing inline that its policy allows."""
    text, style_hash = report
    policy = f"default-src 'none'; style-src '{style_hash}'; img-src data:; base-uri 'none'; form-action 'none'"
    headers = _HEADERS | _NEVER | {"Content-Security-Policy": policy}
    headers["Content-Disposition"] = 'inline; filename="acceptance_report.html"'
    return Response(text.encode("utf-8", "backslashreplace"), media_type=_TYPES["html"], headers=headers)


__all__ = ["POLICY", "PREFIX", "data_router", "page_router"]
