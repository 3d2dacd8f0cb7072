"""Fixtures of several tests: a rendered sample, a project on it, a server on loopback, a cache of their own."""

from __future__ import annotations

import functools
import gc
import http.server
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from d2tune.samples import render_sample

TESTS = Path(__file__).parent


FIRST = ("system", "engine", "runs", "samples")
"""Folders whose tests take longest: a process that begins with them is not the last one to finish."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the folders of `FIRST` first, in this order, and slow files before quick ones."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}

    def rank(item: pytest.Item) -> tuple[int, bool]:
        folder = item.path.relative_to(TESTS).parts[0]
        return (FIRST.index(folder) if folder in FIRST else len(FIRST)), item.path not in slow

    items.sort(key=rank)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for no garbage while all modules are imported, nor among what they hold afterwards."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a separate cache, and reach neither the internet nor W&B."""
    monkeypatch.setenv("D2TUNE_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("D2TUNE_ZOO_URL", "http://127.0.0.1:9")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path_factory.mktemp("home") / "netrc"))


@pytest.fixture(scope="session")
def balloon_sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty rendered balloon images, 16 to train on and 4 to validate."""
    return render_sample("balloon", tmp_path_factory.mktemp("sample") / "balloon", images=20, seed=0).folder


@pytest.fixture(scope="module")
def without_plots() -> Iterator[None]:
    """Evaluations write no plots, which take most of their time, where something else is tested."""
    places = ("outcome", "semantic_metrics.SemanticMetrics", "panoptic_metrics.PanopticMetrics")
    with pytest.MonkeyPatch.context() as patch:
        for place in (*places, "tracking_metrics.TrackingMetrics"):
            patch.setattr(f"d2tune.evaluation.{place}.write_plots", lambda *_: None)
        yield


TINY_PROJECT = """\
name: tiny
data: {{root: {root}, sample: null}}
classes: [balloon]
model: {{preset: pointrend_mobilenet_v2_fpn}}
weights: scratch
train: {{iterations: 4, batch_size: 2, image_size: 96, eval_every: 2, precision: float32}}
detectron2:
  TEST.DETECTIONS_PER_IMAGE: 5
"""


@pytest.fixture
def tiny_project(balloon_sample: Path, tmp_path: Path) -> Path:
    """A project file that trains in seconds on the rendered sample."""
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY_PROJECT.format(root=balloon_sample), encoding="utf-8")
    return path


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def serve() -> Iterator[Callable[[Path], str]]:
    """Serve a folder on loopback; returns its address."""
    servers: list[http.server.ThreadingHTTPServer] = []

    def start(folder: Path) -> str:
        handler = functools.partial(_Quiet, directory=str(folder))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
