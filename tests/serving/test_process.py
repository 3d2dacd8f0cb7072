"""Real processes on loopback: ``d2tune serve`` from its start to SIGTERM, and the lines about what cannot be served."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from d2tune.cli import main
from tests.packages.builders import make_run
from tests.serving.stand_in import encoded, lamp

ADDRESS = re.compile(r"http://[\d.]+:\d+")


@contextmanager
def process(*words: str, folder: Path | None = None) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that prints its address when it is ready, and that address."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
        cwd=folder,
    ) as one:
        assert one.stdout is not None
        try:
            hit = ADDRESS.search(one.stdout.readline())
            assert hit is not None
            yield one, hit[0]
        finally:
            one.kill()


def post(client: httpx.Client, url: str, content: bytes) -> httpx.Response:
    return client.post(f"{url}/v1/predict", content=content, headers={"Content-Type": "image/png"})


class Senders:
    """Clients that send without a pause, on connections that stay open and on new ones.

    Attributes:
        statuses: The statuses of all answers.
        lost: The errors of requests that were sent and have no answer.
    """

    def __init__(self, url: str, count: int) -> None:
        self.statuses: list[int] = []
        self.lost: list[Exception] = []
        self._url = url
        self._threads = [threading.Thread(target=self._send, args=(number % 2 == 0,)) for number in range(count)]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(60)

    def _send(self, is_kept: bool) -> None:
        content = encoded(lamp())
        with httpx.Client(timeout=60) as kept:
            while True:
                try:
                    if is_kept:
                        answer = post(kept, self._url, content)
                    else:
                        with httpx.Client(timeout=60) as fresh:
                            answer = post(fresh, self._url, content)
                    self.statuses.append(answer.status_code)
                except httpx.ConnectError:
                    return  # no connection is accepted any more: nothing was sent
                except httpx.HTTPError as error:
                    self.lost.append(error)
                    return


@pytest.mark.slow
def test_serve_from_start_to_sigterm_without_a_lost_request(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    words = ("-m", "d2tune", "serve", str(run), "--port", "0", "--min-score", "0")
    with process(*words, folder=tmp_path) as (server, url), httpx.Client() as client:
        assert client.get(f"{url}/readyz").json() == {"status": "ready"}
        answer = post(client, url, encoded(lamp()))
        assert answer.status_code == 200 and answer.json()["model"] == "traffic"
        assert {one["class"] for one in answer.json()["objects"]} <= {"bus", "road"} and answer.json()["objects"]
        details = client.get(f"{url}/v1/models/traffic").text
        assert "secret" not in details and str(tmp_path) not in details
        assert client.get(f"{url}/").headers["content-type"].startswith("text/html")
        senders = Senders(url, 8)
        while len(senders.statuses) < 12:
            time.sleep(0.01)
        server.send_signal(signal.SIGTERM)
        senders.join()
        assert server.wait(60) == 0
    assert not senders.lost and set(senders.statuses) == {200}
    assert (tmp_path / "acceptance.sqlite").is_file()


def line_of(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line of a call that fails."""
    assert main(["serve", *words]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.fixture
def run(tmp_path: Path) -> str:
    return str(make_run(tmp_path / "model"))


def test_port_in_use_is_a_line(run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        line = line_of(capsys, run, "--port", str(port), "--no-page")
    assert line == (
        f"error: 127.0.0.1:{port}: the port is in use. Stop the other server, or choose another port with --port."
    )


def test_models_that_cannot_be_served_are_a_line(run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "model.onnx"
    other.write_bytes(b"\x08\x07")
    assert "is not a run folder or a package" in line_of(capsys, str(other), "--no-page")
    assert "is not a run folder or a package" in line_of(capsys, str(tmp_path / "missing"), "--no-page")
    later = tmp_path / "later"
    later.mkdir()
    (later / "package.json").write_text('{"d2tune_package": 99, "d2tune": "9.0"}', encoding="utf-8")
    assert "was written by d2tune 9.0 and needs format 99" in line_of(capsys, str(later), "--no-page")
    assert "two models have the same name; found traffic" in line_of(capsys, run, run, "--no-page")
    assert "the name of the model is invalid; found a/b" in line_of(capsys, f"a/b={run}", "--no-page")
    assert "no model is named" in line_of(capsys, "--no-page")


def test_options_that_cannot_be_are_a_line(run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "keys"
    assert f"{missing}: the file of keys cannot be read" in line_of(capsys, run, "--keys", str(missing), "--no-page")
    for words, message in [
        (("--queue", "0"), "--queue: must be between 1 and 100000; found 0"),
        (("--max-mb", "0"), "--max-mb: must be above 0 and at most 4096; found 0"),
        (("--max-megapixels", "401"), "--max-megapixels: must be above 0 and at most 400; found 401"),
        (("--deadline", "0"), "--deadline: must be above 0"),
        (("--port", "70000"), "--port: must be between 0 and 65535; found 70000"),
        (("--min-score", "2"), "--min-score: must be between 0 and 1; found 2"),
        (("--host", "no.such.host.invalid"), "--host: the host is not known; found no.such.host.invalid"),
        (("--images", str(tmp_path)), "--images goes with the page. Remove it, or remove --no-page."),
    ]:
        assert message in line_of(capsys, run, *words, "--no-page")


def test_folder_without_images_is_a_line(run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    words = ("--images", str(empty), "--judgments", str(tmp_path / "judgments.sqlite"), "--port", "0")
    assert str(empty) in line_of(capsys, run, *words)


def test_model_whose_weights_are_missing_ends_the_server_with_a_line(
    run: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (Path(run) / "checkpoints" / "model_best.pth").unlink()
    assert main(["serve", run, "--port", "0", "--no-page"]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ") and "model_best.pth" in last
