"""The queue before a model: batches, refusals, deadlines, and errors of the network."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np

from d2tune.inference.loop import Sample
from tests.serving.conftest import Running, Start
from tests.serving.stand_in import BrightBox, Gate, encoded, lamp
from tests.serving.test_limits import wait_until

BOXES = [(number, 2 * number, 20 + number, 30 + 2 * number) for number in range(1, 9)]


def waiting(server: Running) -> int:
    return server.service.workers["lamps"].waiting


def test_images_that_wait_share_passes_and_each_gets_its_own_answer(start: Start) -> None:
    gate = Gate()
    server = start(BrightBox(before=gate))
    with ThreadPoolExecutor(9) as pool:
        first = pool.submit(server.predict, encoded(lamp((0, 0, 5, 5))))
        assert gate.entered.wait(10)
        others = [pool.submit(server.predict, encoded(lamp(box))) for box in BOXES]
        wait_until(lambda: waiting(server) == 9)
        gate.open()
        assert first.result().json()["objects"][0]["box_xywh"] == [0, 0, 5, 5]
        boxes = [one.result().json()["objects"][0]["box_xywh"] for one in others]
    assert boxes == [[left, top, 20, 30] for left, top, _, _ in BOXES]
    # a black image, the first one, and eight in passes of four
    assert server.network.batches == [1, 1, 4, 4]


def test_images_of_several_sizes_do_not_share_a_pass(start: Start) -> None:
    gate = Gate()
    sizes: list[set[tuple[int, ...]]] = []

    def before(samples: Sequence[Sample]) -> None:
        sizes.append({tuple(sample["image"].shape) for sample in samples})
        gate(samples)

    server = start(BrightBox(before=before))
    shapes = [(64, 64), (64, 128), (64, 64), (128, 64), (64, 128)]
    with ThreadPoolExecutor(6) as pool:
        first = pool.submit(server.predict, encoded(lamp()))
        assert gate.entered.wait(10)
        others = [pool.submit(server.predict, encoded(lamp(size_px=size))) for size in shapes]
        wait_until(lambda: waiting(server) == 6)
        gate.open()
        assert all(one.result().status_code == 200 for one in [first, *others])
    assert all(len(together) == 1 for together in sizes)
    assert sorted(server.network.batches[2:]) == [1, 2, 2]


def test_full_queue_is_429_with_retry_after_and_the_rest_is_answered(start: Start) -> None:
    gate = Gate()
    server = start(BrightBox(before=gate), queue=3)
    content = encoded(lamp())
    with ThreadPoolExecutor(3) as pool:
        accepted = [pool.submit(server.predict, content) for _ in range(3)]
        wait_until(lambda: waiting(server) == 3)
        refused = server.predict(content)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "busy")
        assert int(refused.headers["retry-after"]) >= 1
        gate.open()
        assert [one.result().status_code for one in accepted] == [200, 200, 200]
    assert server.predict(content).status_code == 200
    assert 'd2tune_refused_total{model="lamps",reason="busy"} 1.0' in server.client.get("/metrics").text


def test_full_queue_refuses_before_the_body_is_read(start: Start) -> None:
    gate = Gate()
    server = start(BrightBox(before=gate), queue=1)
    with ThreadPoolExecutor(1) as pool:
        accepted = pool.submit(server.predict, encoded(lamp()))
        assert gate.entered.wait(10)
        with httpx.stream(
            "POST", f"{server.url}/v1/predict", content=iter([b"x"]), headers={"Content-Type": "image/png"}
        ) as answer:
            assert answer.status_code == 429
        gate.open()
        assert accepted.result().status_code == 200


def test_deadline_is_checked_before_the_pass(start: Start) -> None:
    gate = Gate()
    server = start(BrightBox(before=gate), deadline_s=0.3)
    content = encoded(lamp())
    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(server.predict, content)
        assert gate.entered.wait(10)
        late = server.predict(content)  # answered at its deadline, not when the pass in progress ends
        assert (late.status_code, late.json()["error"]["code"]) == (503, "deadline")
        gate.open()
        assert running.result().status_code == 200  # a pass that has begun is not stopped
    wait_until(lambda: waiting(server) == 0)
    assert server.network.batches == [1, 1]


def test_image_that_the_network_fails_on_costs_the_others_nothing(start: Start) -> None:
    gate = Gate()

    def before(samples: Sequence[Sample]) -> None:
        gate(samples)
        if any(np.asarray(sample["image"])[:, 0, 0].max() > 0 for sample in samples):
            raise RuntimeError("secret detail at /home/someone")

    server = start(BrightBox(before=before))
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(server.predict, encoded(lamp()))
        assert gate.entered.wait(10)
        good = [pool.submit(server.predict, encoded(lamp((5, 5, 20, 20)))) for _ in range(2)]
        bad = pool.submit(server.predict, encoded(lamp((0, 0, 20, 20))))
        wait_until(lambda: waiting(server) == 4)
        gate.open()
        assert [one.result().status_code for one in [first, *good]] == [200, 200, 200]
        answer = bad.result()
    assert answer.status_code == 500 and answer.json()["error"]["code"] == "internal"
    assert "secret" not in answer.text and "RuntimeError" not in answer.text
    assert server.client.get("/readyz").status_code == 200


def test_ready_only_when_the_model_is_loaded(start: Start) -> None:
    may_load, answers = threading.Event(), []

    def ask_while_loading() -> None:
        assert may_load.wait(30)

    def probe() -> None:
        # the server of the fixture returns when it is ready, so another thread looks at it before
        wait_until(lambda: urls)
        url = urls[0]
        for path in ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"):
            answers.append(httpx.get(url + path).status_code)
        answers.append(httpx.post(f"{url}/v1/predict", content=b"x", headers={"Content-Type": "image/png"}).status_code)
        may_load.set()

    urls: list[str] = []
    thread = threading.Thread(target=probe)
    thread.start()
    server = start(load=ask_while_loading, on_listening=urls.append)
    thread.join(30)
    assert answers == [200, 503, 200, 503, 503]
    assert server.client.get("/readyz").status_code == 200


def test_draining_server_is_not_ready_and_answers_what_still_comes(start: Start) -> None:
    server = start(drain_delay_s=1.0)
    server.service.drain()
    ready = server.client.get("/readyz")
    assert (ready.status_code, ready.json()) == (503, {"status": "draining"})
    assert server.client.get("/healthz").status_code == 200
    answer = server.predict(encoded(lamp()))
    assert answer.status_code == 200 and answer.headers["connection"] == "close"


def test_dead_thread_is_neither_ready_nor_healthy(start: Start) -> None:
    ending = threading.Event()

    def before(samples: Sequence[Sample]) -> None:
        if ending.is_set():
            raise SystemExit  # not an error of an image: the thread ends

    server = start(BrightBox(before=before))
    service = server.service
    service.on_failure = lambda error: None  # `d2tune serve` would end now
    ending.set()
    answer = server.predict(encoded(lamp()))
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_ready")
    for path in ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"):
        assert server.client.get(path).status_code == 503
    assert server.predict(encoded(lamp())).status_code == 503
    assert 'd2tune_model_ready{model="lamps"} 0.0' in server.client.get("/metrics").text
