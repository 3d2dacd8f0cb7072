"""Networks that fail: on an image of a batch, for a while, and from some image on for good."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from d2tune.inference.loop import Sample
from tests.serving.conftest import Start
from tests.serving.stand_in import BrightBox, Gate, encoded, lamp
from tests.serving.test_limits import wait_until

BAD, GOOD = encoded(lamp((0, 0, 20, 20))), encoded(lamp((5, 5, 20, 20)))


def is_bad(sample: Sample) -> bool:
    return bool(np.asarray(sample["image"])[:, 0, 0].max() > 0)


@pytest.mark.parametrize("error", [RuntimeError("secret at /home/someone"), MemoryError()])
def test_image_of_a_batch_that_the_network_fails_on_has_an_error_in_its_place(start: Start, error: Exception) -> None:
    def before(samples: Sequence[Sample]) -> None:
        if any(map(is_bad, samples)):
            raise error

    server = start(BrightBox(before=before))
    files = [("images", (f"{at}.png", BAD if at == 1 else GOOD, "image/png")) for at in range(4)]
    files[2] = ("images", ("2.png", b"not an image", "image/png"))
    answer = server.client.post("/v1/predict/batch", files=files)
    assert answer.status_code == 200, answer.text
    rows = answer.json()["predictions"]
    assert [row["file"] for row in rows] == ["0.png", "1.png", "2.png", "3.png"]
    assert [row.get("error", {}).get("code") for row in rows] == [None, "internal", "bad_image", None]
    assert rows[0]["objects"][0]["box_xywh"] == rows[3]["objects"][0]["box_xywh"] == [5, 5, 15, 15]
    assert "secret" not in answer.text
    assert server.client.get("/readyz").status_code == 200  # other images are predicted on


def test_network_that_fails_on_every_image_from_now_on_ends_its_thread(start: Start) -> None:
    gate = Gate()
    failures: list[int] = []

    def before(samples: Sequence[Sample]) -> None:  # as CUDA after an illegal access
        gate(samples)
        if failures or any(map(is_bad, samples)):
            failures.append(len(samples))
            raise RuntimeError("the device is lost")

    server = start(BrightBox(before=before))
    ended: list[BaseException] = []
    server.service.on_failure = ended.append
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(server.predict, GOOD)
        assert gate.entered.wait(10)
        others = [pool.submit(server.predict, BAD) for _ in range(3)]
        wait_until(lambda: server.service.workers["lamps"].waiting == 4)
        gate.open()
        assert first.result().status_code == 200
        codes = sorted(one.result().json()["error"]["code"] for one in others)
    assert codes == ["internal", "not_ready", "not_ready"]  # no request waits for a thread that ended
    wait_until(lambda: ended)
    assert str(ended[0]) == "the device is lost"
    assert server.client.get("/healthz").status_code == server.client.get("/readyz").status_code == 503
