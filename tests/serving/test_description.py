"""The description of the API: requests that are made from it get the answers that it describes."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case
from schemathesis.checks import CHECKS

from d2tune.serving.schemas import Prediction
from tests.serving.conftest import Running
from tests.serving.stand_in import encoded, lamp

_NOT_CHECKED = {"positive_data_acceptance"}
"""A body of random bytes fits the description, and is not an image."""


@schemathesis.serializer(*(f"image/{name}" for name in ("jpeg", "png", "webp", "tiff", "gif", "bmp", "jp2", "avif")))
def raw(context: Any, value: Any) -> bytes:
    """The body of an image type: the bytes as they are."""
    return bytes(getattr(value, "data", value))


@pytest.mark.parametrize(
    "requests", [pytest.param(3, marks=pytest.mark.slow), pytest.param(100, marks=pytest.mark.extended)]
)
def test_requests_made_from_the_description_get_described_answers(lamps: Running, requests: int) -> None:
    schema = schemathesis.openapi.from_dict(lamps.client.get("/openapi.json").json())
    schema.config.update(base_url=lamps.url)
    excluded = [CHECKS.get_one(name) for name in _NOT_CHECKED]
    seen = []
    for operation in schema.get_all_operations():
        described = operation.ok()
        seen.append(described.label)

        @settings(
            max_examples=requests,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=described.as_strategy())
        def check(case: Case) -> None:
            case.call_and_validate(session=None, excluded_checks=excluded, timeout=30)

        check()
    assert len(seen) == 13 and "POST /v1/predict" in seen and "POST /v2/models/{name}/infer" in seen
    assert lamps.predict(encoded(lamp())).status_code == 200


def test_example_of_a_prediction_is_valid() -> None:
    example = Prediction.model_config["json_schema_extra"]["example"]  # type: ignore[call-overload, index]
    assert Prediction.model_validate(example).objects[0].class_name == "balloon"
