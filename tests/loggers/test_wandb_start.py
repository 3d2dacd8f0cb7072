"""How a W&B run starts without a key, without a network, and after an interruption."""

from __future__ import annotations

import http.server
import logging
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import wandb

from d2tune.loggers import wandb_file
from d2tune.loggers.wandb import Wandb
from d2tune.run_folder import RunFolder
from tests.loggers.read_back import finished_wandb
from tests.loggers.test_family import run_info


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    path = tmp_path / "home" / "run"
    monkeypatch.setenv("HOME", str(path.parent))
    RunFolder(path).update_record({"project": "circles"})
    return path


@pytest.fixture
def own_service() -> Iterator[None]:
    """W&B reads its environment once in a process, and has one process of its own for all runs."""
    wandb.teardown()
    yield
    wandb.teardown()


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


class _Refusing(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def refusing() -> Iterator[str]:
    """The address of a server that refuses every request."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("http://127.0.0.1:9", "W&B does not answer at http://127.0.0.1:9 (ConnectionError)"),
        pytest.param("silent", "(ReadTimeout)", marks=pytest.mark.slow),
        ("refusing", "W&B refused the run"),
    ],
)
@pytest.mark.usefixtures("own_service")
def test_with_a_key_and_without_a_server_training_starts_offline_within_10_s_and_says_so_once(
    address: str,
    reason: str,
    run: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", 40 * "0")
    url = address if address.startswith("http") else request.getfixturevalue(address)
    monkeypatch.setenv("WANDB_BASE_URL", url)
    logger = Wandb()
    began = time.perf_counter()
    with caplog.at_level(logging.WARNING, "d2tune"):
        logger.start(run_info(run, first_iteration=0))
    assert time.perf_counter() - began < 10
    logger.log({"loss": 1.5}, iteration=0)
    logger.finish()
    (line,) = (record.getMessage() for record in caplog.records if record.name.startswith("d2tune"))
    assert reason in line and line.endswith(f"recording offline; `wandb sync {run / 'wandb'}` uploads it later")
    content = finished_wandb(*(run / "wandb").glob("offline-run-*/*.wandb"))
    assert content.history == [(1, {"loss": 1.5})]


def test_a_resumed_run_keeps_its_id_and_repeats_no_step(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The first start was killed after iteration 5, its checkpoint has 3 completed iterations."""
    for first, last in ((0, 5), (3, 9)):
        logger = Wandb()
        logger.start(run_info(run, first_iteration=first))
        for iteration in range(first, last + 1):
            logger.log({"loss": 100 * first + iteration}, iteration=iteration)
        logger.finish()
        finished_wandb(wandb_file.files_of(run)[-1])
    starts = [wandb_file.read(path) for path in wandb_file.files_of(run)]
    assert len(starts) == 2 and {one.run_id for one in starts} == {RunFolder(run).record_entries()["wandb_id"]}
    rows = [row for one in starts for row in one.history]
    assert [step for step, _ in rows] == list(range(1, 11))
    assert [row["loss"] for _, row in rows] == [0, 1, 2, 3, 4, 5, 306, 307, 308, 309]
    assert {path.name for path in run.parent.iterdir()} == {"run"}


def test_a_damaged_file_of_an_earlier_start_is_a_warning(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    earlier = run / "wandb" / "offline-run-20260101_000000-abc" / "run-abc.wandb"
    earlier.parent.mkdir(parents=True)
    earlier.write_bytes(b"no file of W&B")
    logger = Wandb()
    logger.start(run_info(run, first_iteration=2))
    logger.log({"loss": 1.5}, iteration=2)
    logger.finish()
    assert "is not a file of a W&B run" in caplog.text and "logged twice" in caplog.text
    assert finished_wandb(wandb_file.files_of(run)[-1]).history == [(3, {"loss": 1.5})]


def test_the_group_of_a_run_is_logged(run: Path) -> None:
    logger = Wandb()
    info = run_info(run, first_iteration=0)
    logger.start(type(info)(info.project, info.folder, info.config, 0, "sweep 1"))
    logger.finish()
    assert finished_wandb(*wandb_file.files_of(run)).group == "sweep 1"
