"""``POST /v1/predict``: the formats of the answer, by ``format=`` and by Accept, against boxes that are known."""

from __future__ import annotations

import io
import json
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_utils

from d2tune.serving.settings import Limits
from tests.serving.conftest import Running, Start
from tests.serving.stand_in import BrightBox, encoded, lamp

BOX = (10, 20, 40, 50)
OUTLINE = [[10, 20], [40, 20], [40, 50], [10, 50]]


def turned_to(points: list[list[int]], first: list[int]) -> list[list[int]]:
    start = points.index(first)
    return points[start:] + points[:start]


def clockwise(points: list[list[int]]) -> list[list[int]]:
    array = np.array(points)
    x, y = array.T
    area = np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)
    return points if area > 0 else points[::-1]


def test_polygons_are_those_of_the_pixels(lamps: Running) -> None:
    answer = lamps.predict(encoded(lamp(BOX)))
    assert answer.status_code == 200
    content = answer.json()
    assert content["image"] == {"width_px": 64, "height_px": 64}
    assert content["model"] == "lamps" and content["objects_dropped"] == 0
    (one,) = content["objects"]
    assert one["class"] == "lamp" and one["class_id"] == 1 and one["score"] == 0.9
    assert one["box_xywh"] == [10, 20, 30, 30] and one["area_px2"] == 900 and one["holes"] == []
    (outline,) = one["polygons"]
    assert turned_to(clockwise(outline), [10, 20]) == OUTLINE


def test_polygons_of_a_large_image_are_in_its_own_pixels(lamps: Running) -> None:
    content = lamps.predict(encoded(lamp((40, 80, 160, 200), size_px=(256, 256)))).json()
    assert content["image"] == {"width_px": 256, "height_px": 256}
    assert content["objects"][0]["box_xywh"] == [40, 80, 120, 120]


def test_orientation_is_applied(lamps: Running) -> None:
    exif = Image.Exif()
    exif[274] = 6  # the stored image is to be turned by 90 degrees to the right
    stored = encoded(lamp((0, 0, 20, 10), size_px=(64, 64)), "PNG", exif=exif)
    # (x, y) goes to (63 - y, x): the box at the upper left goes to the upper right
    assert lamps.predict(stored).json()["objects"][0]["box_xywh"] == [54, 0, 10, 20]


def test_run_lengths_are_the_mask(lamps: Running) -> None:
    (one,) = lamps.predict(encoded(lamp(BOX)), format="rle").json()["objects"]
    rle = {"size": one["segmentation"]["size"], "counts": one["segmentation"]["counts"].encode()}
    expected = lamp(BOX)[:, :, 0] > 0
    assert np.array_equal(mask_utils.decode(rle).astype(bool), expected)
    assert "polygons" not in one


@pytest.mark.parametrize("asked", [{"format": "png"}, {}])
def test_png_has_the_number_of_the_object(lamps: Running, asked: dict[str, str]) -> None:
    headers = {"Content-Type": "image/png"} | ({} if asked else {"Accept": "image/png"})
    answer = lamps.client.post("/v1/predict", content=encoded(lamp(BOX)), params=asked, headers=headers)
    assert answer.headers["content-type"] == "image/png"
    image = Image.open(io.BytesIO(answer.content))
    assert np.array_equal(np.asarray(image), (lamp(BOX)[:, :, 0] > 0).astype(np.uint8))
    (legend,) = json.loads(image.text["d2tune"])
    assert (legend["value"], legend["class"], legend["score"]) == (1, "lamp", 0.9)


def test_roboflow_boxes_are_centers(lamps: Running) -> None:
    content = lamps.predict(encoded(lamp(BOX)), format="roboflow").json()
    (one,) = content["predictions"]
    assert (one["x"], one["y"], one["width"], one["height"]) == (25, 35, 30, 30)
    points = [[point["x"], point["y"]] for point in one["points"]]
    assert turned_to(clockwise(points), [10, 20]) == [[10, 20], [39, 20], [39, 49], [10, 49]]


def test_roboflow_outlines_have_three_points(lamps: Running) -> None:
    (one,) = lamps.predict(encoded(lamp((7, 9, 8, 10))), format="roboflow").json()["predictions"]
    assert one["points"] == [{"x": 7, "y": 9}] * 3


@pytest.mark.slow  # the import of supervision
def test_supervision_reads_the_format_roboflow(lamps: Running) -> None:
    import supervision

    content = lamps.predict(encoded(lamp(BOX)), format="roboflow").json()
    detections = supervision.Detections.from_inference(content)
    assert np.array_equal(detections.mask[0], lamp(BOX)[:, :, 0] > 0)
    assert detections.xyxy.tolist() == [[10, 20, 40, 50]]
    assert detections.confidence.tolist() == [0.9] and detections.data["class_name"].tolist() == ["lamp"]


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "application/json"),
        ("image/*", "image/png"),
        ("image/png;q=0.5, application/json", "application/json"),
        ("application/json;q=0.1, image/png;q=0.2", "image/png"),
        ("text/html, */*;q=0.1", "application/json"),
        ("application/json;q=0, */*", "image/png"),
    ],
)
def test_accept_chooses(lamps: Running, accept: str, kind: str) -> None:
    headers = {"Content-Type": "image/png", "Accept": accept}
    answer = lamps.client.post("/v1/predict", content=encoded(lamp(BOX)), headers=headers)
    assert answer.headers["content-type"] == kind


def test_unknown_accept_is_refused_before_the_image_is_read(lamps: Running) -> None:
    headers = {"Content-Type": "image/png", "Accept": "text/html"}
    answer = lamps.client.post("/v1/predict", content=b"nonsense", headers=headers)
    assert answer.status_code == 406 and answer.json()["error"]["code"] == "not_acceptable"


def test_form_with_a_file(lamps: Running) -> None:
    answer = lamps.client.post("/v1/predict", files={"image": ("a.png", encoded(lamp(BOX)), "image/png")})
    assert answer.json()["objects"][0]["box_xywh"] == [10, 20, 30, 30]


def test_batch_keeps_the_order_and_has_errors_in_their_place(lamps: Running) -> None:
    files = [
        ("images", ("first.png", encoded(lamp((0, 0, 10, 10))), "image/png")),
        ("images", ("bad.png", b"not an image", "image/png")),
        ("images", ("third.png", encoded(lamp((5, 5, 25, 30))), "image/png")),
    ]
    rows = lamps.client.post("/v1/predict/batch", files=files).json()["predictions"]
    assert [row["file"] for row in rows] == ["first.png", "bad.png", "third.png"]
    assert rows[0]["objects"][0]["box_xywh"] == [0, 0, 10, 10]
    assert rows[1]["error"]["code"] == "bad_image" and "objects" not in rows[1]
    assert rows[2]["objects"][0]["box_xywh"] == [5, 5, 20, 25]


def test_min_score_filters(lamps: Running) -> None:
    assert lamps.predict(encoded(lamp(BOX)), min_score=0.9).json()["objects"]
    assert lamps.predict(encoded(lamp(BOX)), min_score=0.91).json()["objects"] == []


def test_instances_are_capped_before_their_masks_are_pasted(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    from d2tune.inference.predictors import instance

    pasted: list[float] = []
    original = instance.paste_rle

    def counting(*given: Any, **named: Any) -> Any:
        pasted.append(1)
        return original(*given, **named)

    monkeypatch.setattr(instance, "paste_rle", counting)
    server = start(BrightBox(copies=50), limits=Limits(instances=3))
    content = server.predict(encoded(lamp(BOX))).json()
    assert [one["score"] for one in content["objects"]] == [0.9, 0.899, 0.898]
    assert content["objects_dropped"] == 47 and len(pasted) == 3


def test_request_id_is_taken_or_made(lamps: Running) -> None:
    headers = {"Content-Type": "image/png", "X-Request-Id": "mine-1.2_3"}
    answer = lamps.client.post("/v1/predict", content=encoded(lamp(BOX)), headers=headers)
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == "mine-1.2_3"
    foreign = lamps.client.get("/healthz", headers={"X-Request-Id": 'a b"<script>'})
    assert len(foreign.headers["x-request-id"]) == 32


@pytest.mark.parametrize(
    ("parameters", "status", "code"),
    [
        ({"format": "gif"}, 422, "bad_parameter"),
        ({"min_score": 2}, 422, "bad_parameter"),
        ({"tolerance_px": -1}, 422, "bad_parameter"),
        ({"tolerance_px": "nan"}, 422, "bad_parameter"),
        ({"model": "other"}, 404, "unknown_model"),
    ],
)
def test_bad_parameters(lamps: Running, parameters: dict[str, object], status: int, code: str) -> None:
    answer = lamps.predict(encoded(lamp(BOX)), **parameters)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_models_and_their_details(lamps: Running) -> None:
    listed = lamps.client.get("/v1/models").json()["models"]
    assert listed == [{"name": "lamps", "task": "instance", "classes": ["lamp"], "is_ready": True}]
    details = lamps.client.get("/v1/models/lamps").json()
    assert details["classes"] == [{"id": 1, "name": "lamp", "is_thing": True}]
    assert lamps.client.get("/v1/models/other").status_code == 404


def test_stages_are_in_the_answer_and_in_the_metrics(lamps: Running) -> None:
    answer = lamps.predict(encoded(lamp(BOX)))
    stages = [entry.partition(";")[0] for entry in answer.headers["server-timing"].split(", ")]
    assert stages == ["decode", "queue", "forward", "encode"]
    text = lamps.client.get("/metrics").text
    for stage in stages:
        assert f'd2tune_{stage}_seconds_count{{model="lamps"}}' in text
    assert 'd2tune_requests_total{route="/v1/predict",status="200"}' in text
    assert 'd2tune_model_ready{model="lamps"} 1.0' in text


def test_unknown_address_has_an_error_as_json(lamps: Running) -> None:
    answer = httpx.get(f"{lamps.url}/nothing")
    assert answer.status_code == 404 and answer.json()["error"]["code"] == "not_found"
