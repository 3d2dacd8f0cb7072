import json
import os
import socket
import subprocess
import sys
import sysconfig
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from d2tune import doctor
from d2tune.doctor import Report, Row

REPOSITORY = Path(__file__).resolve().parents[1]
EXAMINE = """
import json
from d2tune.doctor import examine, format_report
report = examine()
rows = {row.name: [row.value, row.state, row.remedy] for row in report.rows}
print(json.dumps({"ok": report.ok, "rows": rows, "text": format_report(report)}))
"""


def examine_with(python, folder):
    """What the doctor finds in another environment, in a process of its own."""
    variables = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([str(python), "-c", EXAMINE], capture_output=True, text=True, cwd=folder, env=variables)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def venv(folder):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    return folder / "bin" / "python"


def test_it_works_where_nothing_is_installed(tmp_path):
    report = examine_with(venv(tmp_path / "bare"), tmp_path)
    assert report["ok"] is False
    for name in ("torch", "torchvision", "libraries"):
        assert report["rows"][name][1:] == ["fail", "Install d2tune again with pip, or in a checkout run: make setup"]
    assert report["rows"]["Detectron2"][1:] == ["fail", "Run: d2tune setup"]
    assert report["rows"]["memory"][1] == "warn"
    assert report["text"].splitlines()[-1] == "Training cannot run here: torch, torchvision, libraries, Detectron2."


@pytest.mark.slow
def test_it_names_detectron2_where_only_that_is_missing(tmp_path):
    python = venv(tmp_path / "venv")
    scheme = {"base": str(tmp_path / "venv"), "platbase": str(tmp_path / "venv")}
    site = Path(sysconfig.get_path("purelib", vars=scheme))
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith(("detectron2", "__editable__", "__pycache__")):
            (site / entry.name).symlink_to(entry)
    report = examine_with(python, tmp_path)
    assert report["ok"] is False
    assert [name for name, row in report["rows"].items() if row[1] == "fail"] == ["Detectron2"]
    assert report["rows"]["Detectron2"] == ["not installed", "fail", "Run: d2tune setup"]


@pytest.mark.parametrize(
    ("torch_version", "torchvision"),
    [
        ("2.11.0", "0.26"),
        ("2.11.0+cu130", "0.26"),
        ("2.0.1", "0.15"),
        ("2.6.0+cpu", "0.21"),
        ("2.12.0a0+git1", "0.27"),
        ("1.13.1", None),
        ("3.0.0", None),
    ],
)
def test_the_torchvision_that_belongs_to_a_torch(torch_version, torchvision):
    assert doctor.torchvision_for(torch_version) == torchvision


def test_a_report_shows_marks_values_and_remedies():
    report = Report(
        (Row("a", "fine"), Row("longer", "less so", "warn", "do this"), Row("c", "broken", "fail", "do that"))
    )
    assert doctor.format_report(report).splitlines() == [
        "ok    a       fine",
        "warn  longer  less so",
        "              -> do this",
        "FAIL  c       broken",
        "              -> do that",
        "",
        "Training cannot run here: c.",
    ]
    assert not report.ok
    assert Report(report.rows[:2]).ok


class Answers(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_response(200 if self.path == "/there" else 404)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.fixture
def silent_server():
    """Takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_weights_that_can_be_had(server, monkeypatch):
    monkeypatch.setattr(doctor, "ZOO_URL", f"{server}/there")
    monkeypatch.setattr(doctor, "TORCHVISION_URL", f"{server}/there")
    row = doctor.weights()
    assert row == Row("weights", "Detectron2's zoo: reachable; torchvision's weights: reachable")


def test_weights_that_cannot_be_had_say_why_and_do_not_keep_one_waiting(server, silent_server, monkeypatch):
    monkeypatch.setattr(doctor, "ZOO_URL", f"{server}/gone")
    monkeypatch.setattr(doctor, "TORCHVISION_URL", f"{silent_server}/there")
    start = time.perf_counter()
    row = doctor.weights()
    assert time.perf_counter() - start < doctor.NETWORK_TIMEOUT_S + 2
    assert row.state == "warn"
    assert "zoo: answers HTTP 404" in row.value
    assert "weights: no" in row.value
    assert "from scratch" in row.remedy


@pytest.mark.parametrize(
    ("variables", "login", "expected"),
    [
        ({}, "", "not logged in"),
        ({"WANDB_MODE": "offline"}, "", "WANDB_MODE=offline"),
        ({"WANDB_API_KEY": "0" * 40}, "", "logged in"),
        ({}, "machine api.wandb.ai login user password key\n", "logged in"),
        (
            {"WANDB_BASE_URL": "https://wandb.example"},
            "machine api.wandb.ai login user password key\n",
            "not logged in",
        ),
    ],
)
def test_weights_and_biases(tmp_path, monkeypatch, variables, login, expected):
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "netrc").write_text(login, encoding="utf-8")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    row = doctor.wandb()
    assert row.state == "ok"
    assert row.value.partition(", ")[2].startswith(expected)


DEVICE = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from d2tune.doctor import _device
row = _device()
print(row.value, row.state, row.remedy, sep="|")
"""


@pytest.mark.parametrize(
    ("hidden", "state", "remedy"),
    [
        ("", "warn", "CUDA_VISIBLE_DEVICES hides all GPUs: unset it to use one"),
        pytest.param(None, "ok", "", marks=pytest.mark.extended),
    ],
)
def test_a_gpu_that_is_not_used(tmp_path, hidden, state, remedy):
    """In a process of its own on one core, with a program of that name on PATH or without any."""
    program = tmp_path / "nvidia-smi"
    if hidden is not None:
        program.write_text("#!/bin/sh\n", encoding="utf-8")
        program.chmod(0o755)
    variables = {**os.environ, "PATH": str(tmp_path), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", DEVICE], capture_output=True, text=True, env=variables, cwd=REPOSITORY)
    value, *rest = done.stdout.strip().split("|")
    assert value.partition(";")[0] == "CPU, 1 thread on 1 CPU core" and rest == [state, remedy or "None"]
    assert value.endswith("; nvidia-smi is installed, but torch finds no GPU") == (hidden is not None)


@pytest.mark.parametrize(
    ("cuda", "remedy"),
    [
        (None, "This torch was built for the CPU: install one that was built for CUDA to use a GPU"),
        ("13.0", "If nvidia-smi lists a GPU, its driver is too old for CUDA 13.0; a container needs --gpus all"),
    ],
)
def test_why_a_gpu_is_not_used(monkeypatch, cuda, remedy):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    row = doctor._unused_gpu("CPU", cuda)
    assert (row.state, row.remedy) == ("warn", remedy)


def test_labelme_is_found_in_its_own_environment_first(tmp_path, monkeypatch):
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    assert doctor.labelme_command(tmp_path) is None
    for path in (programs / "labelme", tmp_path / ".venv-labelme" / "bin" / "labelme"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\n", encoding="utf-8")
        path.chmod(0o755)
        assert doctor.labelme_command(tmp_path) == path


@pytest.mark.parametrize(
    ("features", "begins"),
    [
        ({"avx2"}, "float32: the processor has no instructions for bfloat16"),
        ({"amx_bf16"}, "float32, or bfloat16 where"),
    ],
)
def test_the_precision_is_that_of_a_training(monkeypatch, features, begins):
    monkeypatch.setattr(doctor.hardware, "cpu_features", lambda: frozenset(features))
    assert doctor._precision().value.startswith(begins)
