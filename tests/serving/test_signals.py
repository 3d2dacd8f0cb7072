"""A process with few open files allowed, many connections, and a terminal that is closed."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.serving.stand_in import encoded, lamp
from tests.serving.test_process import ADDRESS

ROOT = Path(__file__).parents[2]
FILES = 64

pytestmark = pytest.mark.slow


def few_open_files() -> None:
    """The usual limit is 1,024 of a million; here 64."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the process of the tests may ignore it


def test_many_connections_are_taken_and_a_closed_terminal_loses_no_request() -> None:
    words = [sys.executable, "-m", "tests.serving.stand_in", "--pass-s", "0.5"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, preexec_fn=few_open_files
    ) as server:
        try:
            assert server.stdout is not None
            hit = ADDRESS.search(server.stdout.readline())
            assert hit is not None
            url, statuses = hit[0], []

            def send() -> None:
                content = encoded(lamp())
                answer = httpx.post(f"{url}/v1/predict", content=content, headers={"Content-Type": "image/png"})
                statuses.append(answer.status_code)

            with ExitStack() as stack:
                host, port = url.removeprefix("http://").split(":")
                for _ in range(2 * FILES):
                    stack.enter_context(socket.create_connection((host, int(port)), timeout=10))
                senders = [threading.Thread(target=send) for _ in range(3)]
                for sender in senders:
                    sender.start()
                until = time.monotonic() + 10
                while 'd2tune_waiting_images{model="lamps"} 3.0' not in httpx.get(f"{url}/metrics").text:
                    assert time.monotonic() < until
                server.send_signal(signal.SIGHUP)
                server.send_signal(signal.SIGTERM)  # and what comes after it changes nothing
                server.send_signal(signal.SIGTERM)
                for sender in senders:
                    sender.join(30)
            assert statuses == [200, 200, 200]
            assert server.wait(30) == 0
        finally:
            server.kill()


def test_server_goes_on_where_its_output_is_not_read() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    source = (
        "import sys; from tests.serving.stand_in import *; from d2tune.serving.app import create_app;"
        "from d2tune.serving.server import bind, run; from d2tune.serving.service import Service;"
        "from d2tune.serving.settings import ServingSettings; model = served(BrightBox());"
        "service = Service({model.name: model}, ServingSettings());"
        f"run(service, create_app(service), bind('127.0.0.1', {port}), on_ready=lambda: print('ready', flush=True))"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", source],
        stdin=subprocess.DEVNULL,
        stdout=writing,
        stderr=subprocess.DEVNULL,
        env=environment,
    ) as server:
        os.close(writing)
        try:
            until = time.monotonic() + 30
            while True:
                assert server.poll() is None and time.monotonic() < until
                try:
                    if httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200:
                        break
                except httpx.ConnectError:
                    time.sleep(0.1)
            time.sleep(0.3)  # it has said that it is ready
            assert httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
        finally:
            server.kill()
