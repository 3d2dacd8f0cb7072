"""A server of the stand-in in a thread of this process, on loopback."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from fastapi import APIRouter

from d2tune.serving.app import create_app
from d2tune.serving.server import address_of, bind, run
from d2tune.serving.service import Service
from d2tune.serving.settings import ServingSettings
from tests.serving.stand_in import BrightBox, served


@dataclass
class Running:
    """A server that answers.

    Attributes:
        service: Its state.
        network: Its stand-in.
        client: A client of it.
        url: Its address.
    """

    service: Service
    network: BrightBox
    client: httpx.Client
    url: str

    def predict(self, content: bytes, kind: str = "image/png", **parameters: object) -> httpx.Response:
        return self.client.post("/v1/predict", content=content, headers={"Content-Type": kind}, params=parameters)


Start = Callable[..., Running]


@contextmanager
def served_by(
    service: Service,
    *,
    routers: Sequence[APIRouter] = (),
    on_listening: Callable[[str], object] = lambda url: None,
) -> Iterator[str]:
    """A server in a thread, from the time when it is ready; yields its address."""
    ready = threading.Event()
    with bind("127.0.0.1", 0) as listener:
        url = address_of(listener)
        app = create_app(service, routers=routers)
        thread = threading.Thread(target=run, args=(service, app, listener), kwargs={"on_ready": ready.set})
        thread.start()
        on_listening(url)
        try:
            assert ready.wait(60)
            yield url
        finally:
            service.drain()
            thread.join(60)
    assert not thread.is_alive()


@contextmanager
def running(
    network: BrightBox,
    settings: ServingSettings,
    *,
    load: Callable[[], object] = lambda: None,
    on_listening: Callable[[str], object] = lambda url: None,
) -> Iterator[Running]:
    model = served(network, load=load)
    service = Service({model.name: model}, settings)
    with served_by(service, on_listening=on_listening) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield Running(service, network, client, url)


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a server of a stand-in with settings; it ends with the test."""
    with ExitStack() as stack:

        def begin(network: BrightBox | None = None, **options: Any) -> Running:
            own = {name: options.pop(name) for name in ("load", "on_listening") if name in options}
            return stack.enter_context(running(network or BrightBox(), ServingSettings(**options), **own))

        yield begin


@pytest.fixture(scope="module")
def lamps() -> Iterator[Running]:
    """A server with the default settings, shared by the tests of a file."""
    with running(BrightBox(), ServingSettings()) as one:
        yield one
