"""A server under load, in a process of its own: memory, overload, and a thousand connections at a time."""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from benchmarks.http_client import Connection
from tests.packages.builders import make_run
from tests.serving.stand_in import encoded, lamp
from tests.serving.test_process import process

pytestmark = pytest.mark.extended

IMAGE = encoded(lamp())


@contextmanager
def stand_in(*words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    with process("-m", "tests.serving.stand_in", *words) as started:
        yield started


async def send(url: str, count: int, *, clients: int) -> Counter[int]:
    """Send requests over some connections, each one after the answer to the one before; the number of each status."""
    statuses: Counter[int] = Counter()
    left = iter(range(count))

    async def one() -> None:
        connection = Connection(url)
        for _ in left:
            status, _ = await connection.post("/v1/predict", IMAGE, "image/png")
            statuses[status] += 1
        await connection.close()

    await asyncio.gather(*(one() for _ in range(clients)))
    return statuses


def grown_bytes(server: subprocess.Popen[str], url: str, *, warm_up: int, count: int, steps: int = 10) -> float:
    """How many bytes resident memory grows by with a request, from the median of the first and of the last samples."""
    measured = psutil.Process(server.pid)
    assert asyncio.run(send(url, warm_up, clients=4)) == {200: warm_up}
    samples = [measured.memory_info().rss]
    for _ in range(steps):
        assert asyncio.run(send(url, count // steps, clients=4)) == {200: count // steps}
        samples.append(measured.memory_info().rss)
    third = max(1, steps // 3)
    growth = statistics.median(samples[-third:]) - statistics.median(samples[:third])
    print(f"resident memory: {[round(sample / 1e6, 1) for sample in samples]} MB")
    return growth / (count * (1 - third / steps))


def test_benchmark_runs(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(2):
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(encoded(lamp((0, 0, 20 + number, 20)), "JPEG"))
    script = Path(__file__).parents[2] / "benchmarks" / "serving.py"
    words = [make_run(tmp_path), "--images", tmp_path / "photos", "--count", 4, "--rounds", 1, "--clients", 2]
    command = [sys.executable, str(script), *map(str, words), "--out", str(tmp_path / "results.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    contenders = json.loads((tmp_path / "results.json").read_text("utf-8"))["contenders"]
    assert list(contenders)[2:] == ["d2tune serve, 1 client", "d2tune serve, 2 clients"]
    assert all(row["images_per_s"] > 0 for row in contenders.values())


def test_memory_does_not_grow_with_requests() -> None:
    with stand_in() as (server, url):
        assert grown_bytes(server, url, warm_up=2000, count=10_000) < 1024


def test_memory_does_not_grow_with_a_real_network(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    words = ("-m", "d2tune", "serve", str(run), "--port", "0", "--min-score", "0", "--no-page")
    with process(*words, folder=tmp_path) as (server, url):
        assert grown_bytes(server, url, warm_up=300, count=500) < 1024


def test_twice_the_capacity_is_answered_in_time_or_refused() -> None:
    """Clients that do not wait for each other send twice what the stand-in can predict: four images in 0.1 s."""
    pass_s, queue, rate, seconds = 0.1, 16, 80, 6
    answers: list[tuple[int, float]] = []

    async def flood(url: str) -> None:
        free: list[Connection] = []

        async def one() -> None:
            connection = free.pop() if free else Connection(url)
            began = time.perf_counter()
            status, body = await connection.post("/v1/predict", IMAGE, "image/png")
            answers.append((status, time.perf_counter() - began))
            if status != 200:
                assert json.loads(body)["error"]["code"] == "busy"
            free.append(connection)

        began = time.perf_counter()
        tasks = []
        for number in range(rate * seconds):
            await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
            tasks.append(asyncio.create_task(one()))
        await asyncio.gather(*tasks)
        for connection in free:
            await connection.close()

    with stand_in("--pass-s", str(pass_s), "--queue", str(queue)) as (_, url):
        asyncio.run(flood(url))
    statuses = Counter(status for status, _ in answers)
    waits = [wait for status, wait in answers if status == 200]
    p99 = statistics.quantiles(waits, n=100)[98]
    print(statuses, f"p99 {p99:.3f} s, median {statistics.median(waits):.3f} s")
    assert len(answers) == rate * seconds and set(statuses) == {200, 429}
    assert statuses[429] > len(answers) / 5
    assert p99 < queue * pass_s


def test_thousand_connections_at_a_time() -> None:
    """All are open before the first request is sent; each gets an answer, and health is answered meanwhile."""

    async def together(url: str) -> Counter[int]:
        connections = [Connection(url) for _ in range(1000)]
        for connection in connections:
            assert (await connection.get("/healthz"))[0] == 200

        async def healthy() -> list[int]:
            probe = Connection(url)
            statuses = []
            for _ in range(10):
                statuses.append((await probe.get("/readyz"))[0])
                await asyncio.sleep(0.02)
            await probe.close()
            return statuses

        asked = [connection.post("/v1/predict", IMAGE, "image/png") for connection in connections]
        probes, *answers = await asyncio.gather(healthy(), *asked)
        assert set(probes) == {200}
        for connection in connections:
            await connection.close()
        return Counter(status for status, _ in answers)

    with stand_in("--queue", "1000") as (_, url):
        assert asyncio.run(together(url)) == {200: 1000}
    with stand_in("--queue", "8", "--pass-s", "0.05") as (_, url):
        statuses = asyncio.run(together(url))
        print(statuses)
        assert set(statuses) == {200, 429} and statuses.total() == 1000 and statuses[200] >= 8
        assert asyncio.run(send(url, 10, clients=1)) == {200: 10}
