"""``d2tune serve``: models behind an HTTP API."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from d2tune.errors import MachineError, ProjectError, check_range
from d2tune.runs.windows import WindowChoice
from d2tune.serving.models import served_models
from d2tune.serving.settings import PageOptions, ServingSettings

if TYPE_CHECKING:
    from fastapi import APIRouter


_LARGEST_PORT = 65_535


def serve(
    models: Sequence[str | Path],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    weights: str = "best",
    min_score: float | None = None,
    window_px: int | Literal["auto"] | None = None,
    overlap: float | None = None,
    object_px: int | None = None,
    settings: ServingSettings | None = None,
    page: PageOptions | None = None,
    say: Callable[[str], None] | None = None,
) -> None:
    """Serve models until SIGTERM or Ctrl-C.

    What cannot work is refused before the first request: the settings, the models, the keys and the port. The models
    are loaded while the server answers that it is not ready.

    Args:
        models: See `served_models`.
        host: The address to listen at.
        port: The port; 0 takes a free one.
        weights: See `served_models`.
        min_score: See `served_models`.
        window_px: See `WindowChoice`.
        overlap: See `WindowChoice`.
        object_px: See `WindowChoice`.
        settings: The settings; None are the defaults.
        page: What the page at ``/`` shows; None serves the API alone.
        say: Called with a line when the models are ready.

    Raises:
        D2TuneError: A model or the keys cannot be used, a library is missing, or the port is in use.
    """
    chosen = settings or ServingSettings()
    chosen.check()
    check_range(port, place="--port", least=0, most=_LARGEST_PORT)
    if min_score is not None:
        check_range(min_score, place="--min-score", least=0, most=1)
    if not models and (page is None or not page.predictions):
        hint = "Name a run, a package or an exported model, or files of predictions for the page with --predictions."
        raise ProjectError("no model is named", hint=hint)
    check_libraries()
    from d2tune.acceptance.routes import data_router, page_router
    from d2tune.serving.app import create_app
    from d2tune.serving.compared import compared_models
    from d2tune.serving.page import open_page
    from d2tune.serving.server import address_of, bind, run
    from d2tune.serving.service import Service

    windows = WindowChoice(window_px=window_px, overlap=overlap, object_px=object_px)
    served = served_models(models, weights=weights, min_score=min_score, windows=windows)
    service = Service(served, chosen)
    with ExitStack() as stack:
        listener = stack.enter_context(bind(host, port))
        routers: list[APIRouter] = []
        if page is not None:
            two_models = compared_models(service, page.compare)
            acceptance = stack.enter_context(closing(open_page(service, page)))
            routers = [page_router(), data_router(acceptance, two_models=two_models)]
        address = address_of(listener)
        names = ", ".join(served) or "predictions"
        note = "" if chosen.keys or _is_loopback(host) else "; anyone who reaches it may use it, see --keys"

        def announce() -> None:
            if say is not None:
                say(f"{names} on {address} (Ctrl-C ends the server){note}")

        run(service, create_app(service, routers=routers), listener, on_ready=announce)


def check_libraries() -> None:
    """Refuse to go on where a library of the extra ``serve`` is missing.

    Raises:
        MachineError: One is.
    """
    for name in ("fastapi", "uvicorn", "python_multipart", "prometheus_client"):
        if find_spec(name) is None:
            message = f"the library {name.replace('_', '-')} is not installed"
            raise MachineError(message, hint="Install what a server needs: pip install 'd2tune[serve]'.")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
