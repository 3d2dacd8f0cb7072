"""The commands and the Python of every page are run, in order, in a folder that has what the page names."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import cv2
import pytest

from d2tune.samples import render_sample
from tests.docs.blocks import ROOT, blocks, commands, written_pages

pytestmark = [pytest.mark.slow, pytest.mark.extended]

RUN = "runs/mine/2026-01-31_12-00-00"

NOT_RUN = {
    r"docker |kubectl ": "needs Docker or a cluster; tests/deploy runs the steps and checks the manifests",
    r"srun ": "needs Slurm; the command behind it is parsed by tests/docs/test_blocks.py",
    r"pip install ": "would change the environment of the tests; tests/export/test_runner.py installs the requirements",
    r"make app ": "a page of Streamlit, of a checkout; tests/apps/test_compare_streamlit.py starts it in a browser",
    r"make (setup|doctor|demo)": "run by tests/system/test_readme.py, and by whoever runs the tests",
    r"d2tune (annotate|label-loop) ": "wait for a person; run by tests/system/test_readme.py and tests/label_loop",
    r"d2tune assemble ": "needs twelve validation images; run by tests/assembling",
    r"d2tune predict MODEL (0|rtsp:\S+) ": "need a camera or a stream; tests/video has both",
    r"d2tune predict projects/ships.yaml ": "needs a semantic model; run by tests/system/test_journey.py",
    r"curl -H 'Authorization: Bearer KEY' \.\.\.": "shows a header alone",
    r"wandb sync ": "needs W&B; tests/loggers/test_wandb_media.py checks what it needs",
    r"wandb leet runs": "is a viewer in a terminal; tests/loggers/test_wandb_media.py runs its command inspect",
    r"wandb leet inspect --summary ": "needs a run of W&B; tests/loggers/test_wandb_media.py has one",
    r"d2tune serve model --keys keys.txt ": "listens to other machines; tests/serving asks for keys",
}
"""Commands that are not run here, and why."""

OWN_PROJECT = {"siammask"}
"""Pages whose commands need the project that they show, because it is of another task."""

QUICK = "train.iterations=2 train.batch_size=2 train.image_size=96 train.workers=0 weights=scratch"

PROJECT = """\
data: {root: ../datasets/mine}
classes: [balloon]
model: {preset: pointrend_mobilenet_v2_fpn}
weights: scratch
train: {iterations: 4, batch_size: 2, image_size: 96, eval_every: 0, precision: float32, workers: 0}
detectron2: {TEST.DETECTIONS_PER_IMAGE: 5}
"""


def substituted(command: str) -> str:
    """The command with real names in the place of MODEL and RUN, and with a short training."""
    command = re.sub(r"\bMODEL(?!\.)\b", "model", command).replace("runs/mine/RUN", RUN)
    command = command.replace("/8 --out out/1", "/2 --out out/1").replace("slide.tif", "photo.jpg")
    command = re.sub(r"(train\.(iterations|image_size|epochs))=\d+", "", command)
    if command.startswith("d2tune train"):
        return f"{command} --output-dir {RUN} train.iterations=5" if "--resume" in command else f"{command} {QUICK}"
    replaces = ("d2tune package ", "d2tune split ", "d2tune export ")
    return f"{command} --force" if command.startswith(replaces) else command


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data, models and files that pages name."""
    folder = tmp_path_factory.mktemp("prepared")
    mine = render_sample("balloon", folder / "datasets" / "mine", images=10).folder
    shutil.copytree(mine / "val", mine / "test")
    photos = sorted((mine / "val").glob("*.jpg"))
    for place in (folder / "photos", mine / "new"):
        place.mkdir()
        for photo in photos:
            shutil.copy2(photo, place)
    for name in ("photo.jpg", "a.jpg", "b.jpg"):
        shutil.copy2(photos[0], folder / name)
    box = {"label": "balloon", "shape_type": "rectangle", "points": [[10, 10], [60, 70]]}
    (mine / "scribbles").mkdir()
    shutil.copy2(photos[0], mine / "scribbles")
    marks = {"shapes": [box], "imagePath": photos[0].name, "imageData": None}
    (mine / "scribbles" / "marks.json").write_text(json.dumps(marks))
    (folder / "projects").mkdir()
    (folder / "projects" / "mine.yaml").write_text(PROJECT, encoding="utf-8")
    (folder / "acceptance.html").write_text("<!doctype html><title>report</title>", encoding="utf-8")
    for name in ("tools", "benchmarks", "deploy"):
        (folder / name).symlink_to(ROOT / name)
    execute(f"d2tune train projects/mine.yaml --output-dir {RUN}", folder)
    for copy in ("runs/car/1", "runs/boards/2026-01-31_12-00-00", "runs/mine/a", "runs/mine/b"):
        shutil.copytree(folder / RUN, folder / copy)
    execute(f"d2tune package {RUN} --out model", folder)
    for copy in ("first", "second"):
        shutil.copytree(folder / "model", folder / copy)
    execute("d2tune convert datasets/mine/val --to coco --out truth.json", folder)
    shutil.copy2(folder / "truth.json", folder / "annotated.json")
    for photo in photos:
        shutil.copy2(photo, folder)  # beside the annotations
    execute("d2tune predict model photos --to coco --min-score 0 --out found", folder)
    for name in ("predictions.json", "yolo.json", "detr.json"):
        shutil.copy2(folder / "found" / "predictions.json", folder / name)
    write_video(folder / "car.mp4", photos[0])
    write_reference(folder / "frames" / "000000.json", photos[0])
    return folder


def write_video(path: Path, photo: Path) -> None:
    frame = cv2.imread(str(photo))
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 5, frame.shape[1::-1])
    for _ in range(3):
        writer.write(frame)
    writer.release()


def write_reference(path: Path, photo: Path) -> None:
    """A Labelme file of the first frame of the video."""
    height, width = cv2.imread(str(photo)).shape[:2]
    points = [[width * x, height * y] for x, y in ((0.2, 0.2), (0.6, 0.2), (0.4, 0.7))]
    shape = {"label": "balloon", "points": points, "group_id": None, "shape_type": "polygon", "flags": {}}
    value = {"version": "6.3.0", "flags": {}, "shapes": [shape], "imagePath": "000000.jpg", "imageData": None}
    path.parent.mkdir()
    path.write_text(json.dumps(value | {"imageHeight": height, "imageWidth": width}), encoding="utf-8")


def environment() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def execute(command: str, folder: Path) -> None:
    words = ["bash", "-c", command]
    done = subprocess.run(
        words, cwd=folder, env=environment(), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"


@contextmanager
def serving(command: str, folder: Path, port: int) -> Iterator[None]:
    words = ["bash", "-c", f"exec {command} --port {port}"]
    with subprocess.Popen(words, cwd=folder, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert f"http://127.0.0.1:{port}" in process.stdout.readline(), command
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Page:
    """Runs what a page says in a folder; its first server is asked by what comes behind it."""

    def __init__(self, folder: Path, servers: ExitStack) -> None:
        self.folder = folder
        self.servers = servers
        self.port: int | None = None

    def run(self, command: str) -> None:
        if any(re.match(pattern, f"{command} ") for pattern in NOT_RUN):
            return
        command = substituted(command)
        if command.startswith("d2tune sample "):
            shutil.rmtree(self.folder / "datasets" / "mine")
        if command.startswith("d2tune new "):
            (self.folder / "projects" / "mine.yaml").unlink()
        if command.startswith("d2tune serve ") and "--new-key" not in command:
            port = free_port()
            server = serving(re.sub(r" --port \d+", "", command), self.folder, port)
            if self.port is None:
                self.port = port
                self.servers.enter_context(server)
            else:
                with server:
                    time.sleep(0.1)
        elif command.startswith("curl "):
            if self.port is not None:  # else the server is in a container
                execute(self.at_port(command), self.folder)
        elif command.startswith("d2tune merge out/*"):
            execute("d2tune predict model photos --shard 2/2 --out out/2", self.folder)
            execute(command, self.folder)
        else:
            execute(command, self.folder)

    def run_python(self, code: str) -> None:
        path = self.folder / "edge"  # of the block that imports the runner
        images = "import numpy\nimages = [numpy.zeros((96, 96, 3), dtype=numpy.uint8)] * 2\n"
        start = f"import sys\nsys.path.insert(0, {str(path)!r})\nimport d2tune\n{images}"
        code = code.replace('"slide.tif"', '"photo.jpg"').replace("train.iterations=500", "train.iterations=2")
        execute(f"python -c {shlex.quote(start + self.at_port(code))}", self.folder)

    def at_port(self, text: str) -> str:
        return text.replace(":8000/", f":{self.port}/")


PAGES = [page for page in written_pages()[1:] if any(blocks(page, "bash", "python"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_says_is_run(page: Path, prepared: Path, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    shutil.copytree(prepared, folder, symlinks=True)
    with ExitStack() as servers:
        running = Page(folder, servers)
        for block in blocks(page, "bash", "python", "yaml"):
            if block.language == "yaml":
                if page.stem in OWN_PROJECT:
                    (folder / "projects" / "mine.yaml").write_text(block.text, encoding="utf-8")
            elif block.language == "python":
                running.run_python(block.text)
            else:
                for command in commands(block.text):
                    running.run(command)


def test_each_reason_is_needed() -> None:
    every = [command for page in PAGES for block in blocks(page, "bash") for command in commands(block.text)]
    unneeded = [pattern for pattern in NOT_RUN if not any(re.match(pattern, f"{command} ") for command in every)]
    assert not unneeded
    assert len(every) > 2 * sum(any(re.match(pattern, f"{command} ") for pattern in NOT_RUN) for command in every)
