"""The folder ``deploy``: images, compose file and manifests fit each other and d2tune, and their steps work."""

from __future__ import annotations

import copy
import http.client
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from PIL import Image as PilImage

from d2tune.cli import _parse
from d2tune.packages.write import write_package
from tests.packages.builders import make_run
from tests.system.commands import ROOT

DEPLOY = ROOT / "deploy"
KINDS = ("cpu", "cuda")
SCHEMA = "1.37"
"""The version of Kubernetes whose schema the manifests are checked with."""


def instructions(kind: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile and what is behind them."""
    lines = (DEPLOY / f"Dockerfile.{kind}").read_text("utf-8").replace("\\\n", " ").splitlines()
    pairs = [line.partition(" ") for line in lines if line.strip() and not line.startswith("#")]
    return [(word, rest.strip()) for word, _, rest in pairs]


def last(kind: str, word: str) -> str:
    return [rest for name, rest in instructions(kind) if name == word][-1]


def environment(kind: str) -> dict[str, str]:
    words = [word for name, rest in instructions(kind) if name == "ENV" for word in shlex.split(rest)]
    return dict(word.split("=", 1) for word in words)


def manifests() -> list[dict[str, Any]]:
    paths = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    return [content for path in paths for content in yaml.safe_load_all(path.read_text("utf-8"))]


def deployment(kind: str) -> dict[str, Any]:
    (named,) = [one for one in manifests() if one["metadata"]["name"] == f"d2tune-{kind}"]
    return named


def container(kind: str) -> dict[str, Any]:
    (only,) = deployment(kind)["spec"]["template"]["spec"]["containers"]
    return dict(only)


def compose() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
    return content


# --------------------------------------------------------------------------------------------------------- Dockerfiles


@pytest.mark.parametrize("kind", KINDS)
def test_images_are_made_of_the_tested_steps(kind: str) -> None:
    words = instructions(kind)
    assert [rest.split()[0] for name, rest in words if name == "FROM"] == ["python:3.12-slim"] * 2
    steps = [rest for name, rest in words if name == "RUN"]
    assert [step.removeprefix('TORCH_INDEX="$TORCH_INDEX" ') for step in steps] == [
        "sh deploy/install.sh /opt/d2tune",
        "install --directory --owner 10001 --group 10001 /data",
    ]
    assert not [name for name, _ in words if name == "ADD"]
    for name, rest in words:
        if name == "COPY" and not rest.startswith("--from"):
            assert all((ROOT / source).exists() for source in rest.split()[:-1]), rest
    assert ("COPY", "--from=build /opt/d2tune /opt/d2tune") in words


def test_the_build_context_is_what_is_copied_and_nothing_else() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if not line.startswith("#")]
    assert (lines[0], lines[-1]) == ("*", "**/__pycache__")
    copied = {
        source.removeprefix("./").split("/")[0]
        for kind in KINDS
        for name, rest in instructions(kind)
        if name == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    }
    assert {line.removeprefix("!") for line in lines[1:-1]} == copied


@pytest.mark.parametrize("kind", KINDS)
def test_images_run_without_root_and_on_a_root_that_is_read_only(kind: str) -> None:
    names = [name for name, _ in instructions(kind)]
    assert last(kind, "USER") == "10001:10001"
    assert names.index("USER") > max(place for place, name in enumerate(names) if name in ("RUN", "COPY"))
    given = environment(kind)
    assert given["HOME"] == "/tmp" and given["D2TUNE_CACHE"].startswith("/tmp/")
    assert given["USER"], "getpass.getuser, which torch calls, fails for a number without a name"
    assert given["PYTHONDONTWRITEBYTECODE"] == "1" and given["PATH"].startswith("/opt/d2tune/bin:")
    assert last(kind, "VOLUME") == last(kind, "WORKDIR") == "/data"


@pytest.mark.parametrize("kind", KINDS)
def test_images_serve_the_mounted_model(kind: str) -> None:
    assert json.loads(last(kind, "ENTRYPOINT")) == ["d2tune"]
    options = _parse(json.loads(last(kind, "CMD")))
    assert (options.models, options.host, options.port) == (["/models/model"], "0.0.0.0", 8000)
    assert str(options.judgments) == "/data/acceptance.sqlite" and last(kind, "EXPOSE") == "8000"
    check = last(kind, "HEALTHCHECK")
    assert json.loads(check.partition(" CMD ")[2]) == ["python", "/opt/healthcheck.py"]
    assert ("COPY", "deploy/healthcheck.py /opt/healthcheck.py") in instructions(kind)
    assert last(kind, "STOPSIGNAL") == "SIGTERM"


def test_the_image_for_gpus_asks_for_them() -> None:
    assert environment("cuda")["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility"
    assert "NVIDIA_VISIBLE_DEVICES" not in environment("cpu")


# -------------------------------------------------------------------------------------------------------- compose file


@pytest.mark.parametrize("kind", KINDS)
def test_compose_builds_the_images_and_runs_them_with_few_rights(kind: str) -> None:
    service = compose()["services"][kind]
    assert service["image"] == f"d2tune:{kind}"
    context = (DEPLOY / service["build"]["context"]).resolve()
    assert context == ROOT.resolve() and (context / service["build"]["dockerfile"]).is_file()
    assert service["build"]["dockerfile"].endswith(f"Dockerfile.{kind}")
    assert service["read_only"] is True and service["cap_drop"] == ["ALL"] and service["tmpfs"] == ["/tmp"]
    assert service["security_opt"] == ["no-new-privileges:true"] and service["mem_limit"] and service["pids_limit"]
    targets = {volume.removesuffix(":ro").rpartition(":")[2]: volume for volume in service["volumes"]}
    assert targets.keys() == {"/models/model", "/data"}
    assert targets["/models/model"].endswith(":ro") and targets["/data"].split(":")[0] in compose()["volumes"]
    assert service["ports"] == ["127.0.0.1:8000:8000"]
    assert service["init"] is True and service["restart"] == "unless-stopped"


def test_compose_reserves_a_gpu_for_cuda_alone() -> None:
    services = compose()["services"]
    (device,) = services["cuda"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    assert services["cuda"]["profiles"] == ["cuda"] and "profiles" not in services["cpu"]
    assert "deploy" not in services["cpu"] and services["cpu"]["environment"]["OMP_NUM_THREADS"] == "2"


# ---------------------------------------------------------------------------------------------------------- Kubernetes


def test_manifests_are_those_of_the_schema_of_kubernetes() -> None:
    kinds = []
    for content in manifests():
        assert kubernetes_validate.validate(content, SCHEMA, strict=True) == SCHEMA
        kinds.append(content["kind"])
    assert sorted(kinds) == ["Deployment", "Deployment", "PersistentVolumeClaim", "PodDisruptionBudget", "Service"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda spec: spec.update(replica=2),
        lambda spec: spec.update(replicas="two"),
        lambda spec: spec["template"]["spec"]["containers"][0]["readinessProbe"].update(httpget={}),
        lambda spec: spec.pop("selector"),
        lambda spec: spec["template"]["spec"]["containers"][0].pop("name"),
    ],
)
def test_the_schema_refuses_mistakes(damage: Callable[[dict[str, Any]], Any]) -> None:
    wrong = copy.deepcopy(deployment("cpu"))
    damage(wrong["spec"])
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, SCHEMA, strict=True)


@pytest.mark.parametrize("kind", KINDS)
def test_pods_run_the_image_with_few_rights_and_limits(kind: str) -> None:
    pod = deployment(kind)["spec"]["template"]["spec"]
    only = container(kind)
    assert only["image"] == compose()["services"][kind]["image"]
    context = pod["securityContext"]
    assert context["runAsNonRoot"] is True and pod["automountServiceAccountToken"] is False
    assert f"{context['runAsUser']}:{context['runAsGroup']}" == last(kind, "USER")
    rights = only["securityContext"]
    assert rights["readOnlyRootFilesystem"] is True and rights["allowPrivilegeEscalation"] is False
    assert rights["capabilities"] == {"drop": ["ALL"]}
    requests, limits = only["resources"]["requests"], only["resources"]["limits"]
    assert requests.keys() == limits.keys() >= {"cpu", "memory"}
    assert all(amount(requests[name]) <= amount(limits[name]) for name in limits)
    assert ("nvidia.com/gpu" in limits) == (kind == "cuda")
    mounts = {mount["mountPath"]: mount for mount in only["volumeMounts"]}
    assert mounts.keys() == {"/models/model", "/tmp"} and mounts["/models/model"]["readOnly"] is True
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    claim = volumes[mounts["/models/model"]["name"]]["persistentVolumeClaim"]["claimName"]
    assert claim in [one["metadata"]["name"] for one in manifests() if one["kind"] == "PersistentVolumeClaim"]


def amount(text: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(Gi)?", text).groups()  # type: ignore[union-attr]
    return float(number) * (2**30 if unit else 1)


@pytest.mark.parametrize("kind", KINDS)
def test_probes_ask_the_server_and_pods_end_after_it(kind: str) -> None:
    only, pod = container(kind), deployment(kind)["spec"]["template"]["spec"]
    options = _parse(only["args"])
    (port,) = only["ports"]
    assert (options.models, options.host, options.port) == (["/models/model"], "0.0.0.0", port["containerPort"])
    for probe, path in {"startupProbe": "/readyz", "readinessProbe": "/readyz", "livenessProbe": "/healthz"}.items():
        assert only[probe]["httpGet"] == {"path": path, "port": port["name"]}
    starting_s = only["startupProbe"]["periodSeconds"] * only["startupProbe"]["failureThreshold"]
    assert starting_s >= 60
    unready_s = only["readinessProbe"]["periodSeconds"] * only["readinessProbe"]["failureThreshold"]
    assert unready_s <= options.drain_delay_s
    assert options.drain_delay_s + 30 < pod["terminationGracePeriodSeconds"]


def test_the_service_and_the_budget_select_the_pods() -> None:
    (service,) = [one for one in manifests() if one["kind"] == "Service"]
    (budget,) = [one for one in manifests() if one["kind"] == "PodDisruptionBudget"]
    for kind in KINDS:
        labels = deployment(kind)["spec"]["template"]["metadata"]["labels"]
        for selector in (
            service["spec"]["selector"],
            budget["spec"]["selector"]["matchLabels"],
            deployment(kind)["spec"]["selector"]["matchLabels"],
        ):
            assert selector.items() <= labels.items()
        assert service["spec"]["ports"][0]["targetPort"] == container(kind)["ports"][0]["name"]


# -------------------------------------------------------------------------------------------------------- health check


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(self.server.status if self.path == "/readyz" else 404)  # type: ignore[attr-defined]
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def answering() -> Iterator[Callable[[int], str]]:
    servers: list[ThreadingHTTPServer] = []

    def start(status: int) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), _Answer)
        server.status = status  # type: ignore[attr-defined]
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def healthy(address: str) -> int:
    command = [sys.executable, str(DEPLOY / "healthcheck.py")]
    return subprocess.run(
        command, env=os.environ | {"D2TUNE_URL": address}, capture_output=True, check=False
    ).returncode


def test_the_health_check(answering: Callable[[int], str]) -> None:
    assert healthy(answering(200)) == 0
    assert healthy(answering(200) + "/") == 0
    assert healthy(answering(503)) == 1
    assert healthy("http://127.0.0.1:9") == 1
    assert healthy("nonsense") == 1


# --------------------------------------------------------------------------------------------------------- the steps


def build_context(folder: Path, kind: str) -> Path:
    """What the first stage of a Dockerfile copies into its image."""
    for name, rest in instructions(kind):
        if name == "COPY" and not rest.startswith("--from") and not rest.endswith(".py"):
            *sources, target = rest.split()
            for source in sources:
                into = folder / (target if (ROOT / source).is_dir() else Path(target) / source)
                into.parent.mkdir(parents=True, exist_ok=True)
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, into, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copyfile(ROOT / source, into)
    return folder


def snapshot(folder: Path) -> set[tuple[str, int]]:
    return {(str(path), path.stat().st_mtime_ns) for path in folder.rglob("*") if not path.is_symlink()}


def test_the_script_is_one_of_sh() -> None:
    subprocess.run(["sh", "-n", str(DEPLOY / "install.sh")], check=True)


@pytest.mark.extended
def test_the_steps_of_the_images_make_a_server(tmp_path: Path) -> None:
    context, folder, home = build_context(tmp_path / "src", "cpu"), tmp_path / "opt", tmp_path / "home"
    home.mkdir()
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    subprocess.run(
        ["sh", "deploy/install.sh", str(folder)], cwd=context, env=plain | {"PYTHON": sys.executable}, check=True
    )
    shutil.rmtree(context)
    write_package(make_run(tmp_path), tmp_path / "model", thresholds="0.1")
    given = environment("cpu") | {
        "HOME": str(home),
        "D2TUNE_CACHE": str(home / "d2tune"),
        "PATH": f"{folder}/bin:{os.environ['PATH']}",
    }
    port = free_port()
    changed = {"/models/model": str(tmp_path / "model"), "0.0.0.0": "127.0.0.1", "8000": str(port)}
    changed["/data/acceptance.sqlite"] = str(home / "acceptance.sqlite")
    words = [changed.get(word, word) for word in json.loads(last("cpu", "CMD"))]
    before = snapshot(folder) | snapshot(tmp_path / "model")
    with subprocess.Popen([str(folder / "bin" / "d2tune"), *words], cwd=home, env=plain | given) as server:
        address = f"http://127.0.0.1:{port}"
        ends_s = time.monotonic() + 120
        while healthy(address) != 0:
            assert server.poll() is None and time.monotonic() < ends_s
            time.sleep(0.5)
        PilImage.new("RGB", (90, 60), "teal").save(tmp_path / "photo.png")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("POST", "/v1/predict", (tmp_path / "photo.png").read_bytes(), {"Content-Type": "image/png"})
        answer = connection.getresponse()
        content = json.loads(answer.read())
        connection.close()
        assert answer.status == 200, content
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=30) == 0
    assert snapshot(folder) | snapshot(tmp_path / "model") == before


def free_port() -> int:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answer) as server:
        return int(server.server_port)
