"""A server against the predictor that it holds: throughput, and the time of a request.

``python benchmarks/serving.py MODEL --images FOLDER`` reads the photos of a folder into memory and measures, in each
round one after the other, in processes of their own: the predictor in a loop and in batches on files, ``d2tune serve``
with one client that sends the next photo when it has its answer, and with ``--clients`` such clients. Answers are
polygons; contenders without a server make the same polygons. Each process first predicts on all photos three times,
because torch prepares each size of an image when it sees it first. Overhead is the time of a photo with one client
against that of the loop; the server with several clients is compared with batches. Only images of one size share a
batch: files are grouped among the next 64, which a server with 8 clients cannot see, so that photos of many sizes are
also measured in batches among the next ``--clients``. "Processor" is the time of all threads, which other processes on
the machine change less than the clock's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from evaluation import machine
from http_client import Connection

IN_PROCESS = """
import resource, sys, time
import d2tune

model, warm_up, grouped, *photos = sys.argv[1:]
predictor = d2tune.load_predictor(model)  # first, because it sets how threads wait before torch is imported
from d2tune.inference import loop
from d2tune.serving.answers import AnswerOptions, answer
from d2tune.serving.batching import Predicted
from d2tune.serving.metrics import Times

shape = dict(format="polygons", tolerance_px=1.0, min_score=0.0, background=None, most_objects=1000)
options = AnswerOptions(**shape, model="model", request_id="1")
def finish(result):
    return answer(Predicted(result, 0, Times()), options)
loop.LOOKAHEAD = int(grouped)
def run():
    if loop.LOOKAHEAD > 1:
        for _ in predictor.stream(photos, convert=lambda index, result, pixels: finish(result), show_progress=False):
            pass
    else:
        for photo in photos:
            finish(predictor(photo))
def processor_s():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
for _ in range(int(warm_up)):
    run()
began, used = time.perf_counter(), processor_s()
run()
print((time.perf_counter() - began) / len(photos), (processor_s() - used) / len(photos))
"""
WARM_UP = 3
ADDRESS = re.compile(r"http://\S+?:\d+")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="a run, a package or an exported model")
    parser.add_argument("--images", type=Path, required=True, help="a folder of JPEGs")
    parser.add_argument("--count", type=int, default=32, help="photos of a round; those of the folder are repeated")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the measurements as JSON")
    options = parser.parse_args()
    known = sorted(path for path in options.images.iterdir() if path.suffix.lower() in (".jpg", ".jpeg"))
    photos = [known[number % len(known)] for number in range(options.count)]
    rows: dict[str, dict[str, list[float]]] = {}

    def add(name: str, image_s: float, processor_s: float, request_s: Sequence[float] = ()) -> None:
        row = rows.setdefault(name, {"image_s": [], "processor_s": [], "request_s": []})
        row["image_s"].append(image_s)
        row["processor_s"].append(processor_s)
        row["request_s"] += request_s

    for _ in range(options.rounds):
        among = f"predictor, in batches among {options.clients}"
        for name, grouped in (("predictor, in a loop", 1), ("predictor, in batches", 64), (among, options.clients)):
            add(name, *in_process(options.model, photos, grouped))
        for clients in (1, options.clients):
            name = f"d2tune serve, {clients} client{'s' if clients > 1 else ''}"
            with server(options.model) as (process, url):
                add(name, *asyncio.run(over_http(process, url, [photo.read_bytes() for photo in photos], clients)))
    report(rows, options)


def in_process(model: Path, photos: Sequence[Path], grouped: int) -> tuple[float, float]:
    """Seconds and seconds of the processor for a photo in a round of a fresh process; batches among ``grouped``."""
    words = [sys.executable, "-c", IN_PROCESS, str(model), str(WARM_UP), str(grouped), *map(str, photos)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    image_s, processor_s = map(float, done.stdout.split())
    return image_s, processor_s


@contextmanager
def server(model: Path) -> Iterator[tuple[psutil.Process, str]]:
    """A process with the server; yields it and its address when it is ready."""
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log").open("w") as log:
        words = [sys.executable, "-m", "d2tune", "serve", str(model.resolve()), "--port", "0", "--no-page"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=log, text=True) as process:
            assert process.stdout is not None
            hit = ADDRESS.search(process.stdout.readline())
            try:
                assert hit is not None, Path(log.name).read_text()
                yield psutil.Process(process.pid), hit[0]
            finally:
                process.terminate()


async def over_http(
    process: psutil.Process, url: str, photos: Sequence[bytes], clients: int
) -> tuple[float, float, list[float]]:
    """Seconds and seconds of the server's processor for a photo in a round, and the seconds of each request."""
    for _ in range(WARM_UP):
        await one_round(url, photos, clients)
    began, used = time.perf_counter(), sum(process.cpu_times()[:2])
    request_s = await one_round(url, photos, clients)
    seconds = time.perf_counter() - began, sum(process.cpu_times()[:2]) - used
    return seconds[0] / len(photos), seconds[1] / len(photos), request_s


async def one_round(url: str, photos: Sequence[bytes], clients: int) -> list[float]:
    left = iter(photos)
    request_s: list[float] = []

    async def send() -> None:
        connection = Connection(url)
        for photo in left:
            began = time.perf_counter()
            status, body = await connection.post("/v1/predict", photo, "image/jpeg")
            assert status == 200, body
            request_s.append(time.perf_counter() - began)
        await connection.close()

    await asyncio.gather(*(send() for _ in range(clients)))
    return request_s


def report(rows: dict[str, dict[str, list[float]]], options: argparse.Namespace) -> None:
    loop, batches = (statistics.median(rows[name]["image_s"]) for name in list(rows)[:2])
    table: dict[str, dict[str, Any]] = {}
    for name, row in rows.items():
        image_s = statistics.median(row["image_s"])
        table[name] = {"images_per_s": 1 / image_s, "loop_ratio": loop / image_s, "batch_ratio": batches / image_s}
        table[name]["processor_ms"] = 1000 * statistics.median(row["processor_s"])
        if row["request_s"]:
            cuts = statistics.quantiles(row["request_s"], n=100, method="inclusive")
            table[name] |= {f"p{share}_ms": 1000 * cuts[share - 1] for share in (50, 95, 99)}
    print("| contender | images/s | against the loop | against batches | processor ms | p50, p95, p99 in ms |")
    print("|---|---|---|---|---|---|")
    for name, row in table.items():
        times = ", ".join(f"{row[key]:.0f}" for key in ("p50_ms", "p95_ms", "p99_ms") if key in row)
        ratios = f"{row['loop_ratio']:.2f} | {row['batch_ratio']:.2f}"
        print(f"| {name} | {row['images_per_s']:.2f} | {ratios} | {row['processor_ms']:.0f} | {times} |")
    if options.out is not None:
        content = {"machine": machine(), "rounds": options.rounds, "count": options.count, "contenders": table}
        options.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
