"""The Open Inference Protocol, read by its Python client."""

from __future__ import annotations

import base64
import json

import pytest
from open_inference.openapi.client import OpenInferenceClient
from open_inference.openapi.errors import BadRequestError
from open_inference.openapi.types import InferenceRequest, RequestInput

from tests.serving.conftest import Running
from tests.serving.stand_in import encoded, lamp


def client_of(server: Running) -> OpenInferenceClient:
    return OpenInferenceClient(base_url=server.url, httpx_client=server.client)


def request_of(*contents: bytes, shape: list[int] | None = None, **parameters: object) -> InferenceRequest:
    data = [base64.b64encode(content).decode() for content in contents]
    tensor = RequestInput(name="image", shape=shape or [len(data)], datatype="BYTES", data=data)
    return InferenceRequest(id="mine", inputs=[tensor], parameters=parameters or None)


def test_client_reads_health_metadata_and_predictions(lamps: Running) -> None:
    client = client_of(lamps)
    client.check_server_liveness()
    client.check_server_readiness()
    client.check_model_readiness("lamps")
    assert client.read_server_metadata().name == "d2tune"
    metadata = client.read_model_metadata("lamps")
    assert [tensor.name for tensor in metadata.inputs] == ["image"]
    answer = client.model_infer("lamps", request=request_of(encoded(lamp((1, 2, 11, 22))), encoded(lamp((5, 5, 9, 9)))))
    assert (answer.model_name, answer.id) == ("lamps", "mine")
    (output,) = answer.outputs
    assert (output.name, output.datatype, output.shape) == ("predictions", "BYTES", [2])
    boxes = [json.loads(text)["objects"][0]["box_xywh"] for text in lamps_texts(output)]
    assert boxes == [[1, 2, 10, 20], [5, 5, 4, 4]]


def lamps_texts(output: object) -> list[str]:
    data = output.data  # type: ignore[attr-defined]
    return list(getattr(data, "root", None) or getattr(data, "__root__", None) or data)


def test_parameters_are_those_of_predict(lamps: Running) -> None:
    client = client_of(lamps)
    answer = client.model_infer("lamps", request=request_of(encoded(lamp((1, 2, 11, 22))), format="rle"))
    (text,) = lamps_texts(answer.outputs[0])
    assert "segmentation" in json.loads(text)["objects"][0]


def test_client_reads_errors(lamps: Running) -> None:
    client = client_of(lamps)
    with pytest.raises(BadRequestError):
        client.model_infer("lamps", request=request_of(encoded(lamp()), shape=[2]))


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"nonsense", 400),
        (b"[]", 400),
        (b'{"inputs": []}', 400),
        (b'{"inputs": [{"name": "a", "shape": [1], "datatype": "FP32", "data": [1.0]}]}', 400),
        (b'{"inputs": [{"name": "a", "shape": [1], "datatype": "BYTES", "data": ["!"]}]}', 400),
        (b'{"inputs": [{"name": "a", "shape": [0], "datatype": "BYTES", "data": []}]}', 400),
        (b'{"inputs": [{"name": "a", "shape": [1], "datatype": "BYTES", "data": ["AAAA"]}]}', 422),
        (
            b'{"inputs": [{"name": "a", "shape": [17], "datatype": "BYTES", "data": [%s]}]}'
            % b",".join([b'"AAAA"'] * 17),
            413,
        ),
        (b'{"parameters": {"min_score": NaN}, "inputs": []}', 400),
    ],
)
def test_bad_requests_have_an_error_as_the_protocol_has_it(lamps: Running, body: bytes, status: int) -> None:
    headers = {"Content-Type": "application/json"}
    answer = lamps.client.post("/v2/models/lamps/infer", content=body, headers=headers)
    assert answer.status_code == status and set(answer.json()) == {"error"} and isinstance(answer.json()["error"], str)
    assert lamps.client.get("/v2/models/other").status_code == 404
