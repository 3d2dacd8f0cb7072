"""The time of a training step with a logger whose network is cut midway, against the same without that logger.

``python benchmarks/cut_network.py [--steps 200] [--rounds 5]`` trains a small network on the processor, in rounds of
one training without and one with a logger that posts each row to a server on loopback and waits for the answer. After a
third of the steps the server stops answering. Bound: the median step takes at most 2 % longer.
"""

from __future__ import annotations

import argparse
import http.server
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
import torch
from detectron2.engine import HookBase
from torch import nn

from d2tune.engine.hooks.feed_loggers import FeedLoggers
from d2tune.engine.trainer import Trainer
from d2tune.loggers import Logger, RunInfo
from d2tune.loggers.json_lines import JsonLines
from d2tune.loggers.queued import Queued
from d2tune.run_folder import RunFolder


class Sender(Logger):
    """Posts each row, and waits for the answer without a limit."""

    window = 1

    def __init__(self, address: str) -> None:
        self._address = address

    def start(self, run: RunInfo) -> None:
        self._session = requests.Session()

    def log(self, scalars: Mapping[str, float], *, iteration: int) -> None:
        self._session.post(self._address, json=dict(scalars)).raise_for_status()

    def log_images(self, images: Mapping[str, Any], *, iteration: int) -> None:
        pass

    def finish(self) -> None:
        self._session.close()


@contextmanager
def server(answered: int) -> Iterator[str]:
    """A server that answers so many requests and then no more."""
    ended, count = threading.Event(), iter(range(1_000_000))

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            if next(count) >= answered:
                ended.wait()
                return
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    http_server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http_server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{http_server.server_port}"
    ended.set()
    http_server.shutdown()


class Network(nn.Module):
    """A few convolutions: a step of tens of milliseconds."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU(), nn.Conv2d(32, 1, 3)
        )

    def forward(self, batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        return {"loss": self.layers(torch.stack([one["image"] for one in batch])).square().mean()}


class Steps(HookBase):
    """The time from step to step."""

    def __init__(self) -> None:
        self.times_s: list[float] = []

    def before_step(self) -> None:
        self.times_s.append(time.perf_counter())


def step_s(steps: int, folder: Path, *loggers: Logger) -> float:
    """The median time of a step after the cut."""
    torch.manual_seed(0)
    model, watch = Network(), Steps()
    batches = ([{"image": torch.rand(3, 96, 96)} for _ in range(4)] for _ in range(steps))
    options: dict[str, Any] = {"precision": "float32", "device": "cpu", "seed": 0, "clip_norm": None}
    trainer = Trainer(model, batches, torch.optim.SGD(model.parameters(), lr=1e-4), **options)
    feed = FeedLoggers([JsonLines(), *loggers], RunInfo("p", RunFolder(folder), {}, 0), period=1)
    trainer.register_hooks([watch, feed])
    trainer.train(0, steps)
    gaps = [b - a for a, b in zip(watch.times_s, watch.times_s[1:], strict=False)]
    return statistics.median(gaps[steps // 2 :])


def main() -> None:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    ratios = []
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder, server(options.steps // 3) as address:
            plain = step_s(options.steps, Path(folder))
            sender = Queued(Sender(address), name="sender", finish_s=0.5)
            ratios.append(step_s(options.steps, Path(folder), sender) / plain)
    print(
        json.dumps({"median_ratio": round(statistics.median(ratios), 4), "ratios": [round(one, 4) for one in ratios]})
    )


if __name__ == "__main__":
    main()
