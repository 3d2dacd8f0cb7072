"""How a W&B run starts without a key, without a network, and after an interruption."""

from __future__ import annotations

import http.server
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
import wandb

from d2tune.loggers import wandb_file
from d2tune.loggers.base import LoggedFile
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
    paths: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.paths.append(self.path)
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def refusing() -> Iterator[str]:
    """The address of a server that refuses every request, and keeps their paths."""
    _Refusing.paths.clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        pytest.param(
            "http://127.0.0.1:9",
            "W&B does not answer at http://127.0.0.1:9 (ConnectionError)",
            marks=pytest.mark.extended,
        ),
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


STARTING = """
import sys
from pathlib import Path
from d2tune.loggers.wandb import Wandb
from tests.loggers.test_family import run_info

logger = Wandb()
logger.start(run_info(Path(sys.argv[1]), first_iteration=0))
logger.finish()
"""


@pytest.mark.slow
def test_nothing_is_reported_about_the_program_itself(run: Path, refusing: str) -> None:
    """A process would wait for these reports at its end, half a minute where the server hangs."""
    environment = {**os.environ, "WANDB_API_KEY": 40 * "0", "WANDB_BASE_URL": refusing}
    environment.pop("WANDB_ERROR_REPORTING", None)
    command = [sys.executable, "-c", STARTING, str(run)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert "/graphql" in _Refusing.paths, "W&B was asked"
    assert [path for path in _Refusing.paths if "otel" in path] == [] and "opentelemetry" not in ended.stderr


@pytest.mark.usefixtures("own_service")
def test_a_resumed_run_that_is_refused_goes_on_offline_under_its_id(
    run: Path, refusing: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    RunFolder(run).update_record({"wandb_id": "abc123"})
    monkeypatch.setenv("WANDB_API_KEY", 40 * "0")
    monkeypatch.setenv("WANDB_BASE_URL", refusing)
    logger = Wandb()
    with caplog.at_level(logging.WARNING, "d2tune"):
        logger.start(run_info(run, first_iteration=3))
    logger.log({"loss": 1.5}, iteration=3)
    logger.finish()
    (line,) = (record.getMessage() for record in caplog.records if record.name.startswith("d2tune"))
    assert "W&B refused the run (" in line and "no message" not in line
    (file,) = wandb_file.files_of(run)  # that of the refused start would be uploaded as well
    content = finished_wandb(file)
    assert file.parent.name.startswith("offline-run-")
    assert content.run_id == "abc123" and content.history == [(4, {"loss": 1.5})]


@pytest.mark.parametrize(
    ("name", "value"), [("WANDB_BASE_URL", "not a url"), ("WANDB_BASE_URL", "localhost:8080"), ("WANDB_CONSOLE", "x")]
)
@pytest.mark.usefixtures("own_service")
def test_a_setting_that_wandb_refuses_is_one_line_and_the_run_is_recorded_offline(
    run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str, value: str
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", 40 * "0")
    monkeypatch.setenv(name, value)
    logger = Wandb()
    with caplog.at_level(logging.WARNING, "d2tune"):
        logger.start(run_info(run, first_iteration=0))
    assert os.environ[name] == value
    logger.log({"loss": 1.5}, iteration=0)
    logger.finish()
    (line,) = [record.getMessage() for record in caplog.records if record.name.startswith("d2tune")]
    assert line.startswith(f"{name} is {value!r}, which W&B refuses (") and "wandb sync" in line and "\n" not in line
    content = finished_wandb(*(run / "wandb").glob("offline-run-*/*.wandb"))
    assert content.history == [(1, {"loss": 1.5})]


def test_images_and_files_that_are_refused_do_not_end_the_metrics(
    run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """W&B asks its server before it takes an artifact, and raises this where a network was cut."""

    def unanswered(*words: object, **options: object) -> None:
        raise wandb.errors.CommError("the service process is busy and did not respond in time")

    logger = Wandb()
    logger.start(run_info(run, first_iteration=0))
    monkeypatch.setattr(logger._run, "log_artifact", unanswered)
    logger.log({"loss": 1.5}, iteration=0)
    file = LoggedFile(RunFolder(run).record, "evaluation", "evaluation")
    with caplog.at_level(logging.WARNING, "d2tune"):
        logger.log_file(file, iteration=0)
        logger.log_file(file, iteration=0)
    logger.log({"loss": 1.0}, iteration=1)
    logger.finish()
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("d2tune")]
    (line,) = [line for line in lines if "did not take" in line]
    assert line.startswith("W&B did not take evaluation, metrics are still logged: the service process is busy")
    assert finished_wandb(*wandb_file.files_of(run)).history == [(1, {"loss": 1.5}), (2, {"loss": 1.0})]


def test_images_are_not_given_to_a_server_that_does_not_answer(caplog: pytest.LogCaptureFixture) -> None:
    logger = Wandb()
    logger._missed = 0
    logger._run = SimpleNamespace(offline=False, settings=SimpleNamespace(base_url="http://127.0.0.1:9"))
    with caplog.at_level(logging.WARNING, "d2tune"):
        assert not logger._answers("predictions") and not logger._answers("predictions")
    (record,) = caplog.records
    assert "W&B did not take predictions, metrics are still logged: W&B does not answer at" in record.getMessage()
    logger._run.offline = True
    assert logger._answers("predictions")


def test_the_id_that_a_sweep_gives_is_taken(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "sweep7")
    logger = Wandb()
    logger.start(run_info(run, first_iteration=0))
    logger.finish()
    assert RunFolder(run).record_entries()["wandb_id"] == "sweep7"
    assert finished_wandb(*wandb_file.files_of(run)).run_id == "sweep7"


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


def test_beside_a_damaged_file_the_steps_of_the_others_are_not_repeated(run: Path) -> None:
    logger = Wandb()
    logger.start(run_info(run, first_iteration=0))
    for iteration in range(6):
        logger.log({"loss": iteration}, iteration=iteration)
    logger.finish()
    finished_wandb(*wandb_file.files_of(run))
    damaged = run / "wandb" / "offline-run-20260101_000000-abc" / "run-abc.wandb"
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"no file of W&B")
    logger = Wandb()
    logger.start(run_info(run, first_iteration=3))
    for iteration in range(3, 8):
        logger.log({"loss": iteration}, iteration=iteration)
    logger.finish()
    assert [step for step, _ in finished_wandb(wandb_file.files_of(run)[-1]).history] == [7, 8]


def test_the_group_of_a_run_is_logged(run: Path) -> None:
    logger = Wandb()
    info = run_info(run, first_iteration=0)
    logger.start(type(info)(info.project, info.folder, info.config, 0, "sweep 1"))
    logger.finish()
    assert finished_wandb(*wandb_file.files_of(run)).group == "sweep 1"
