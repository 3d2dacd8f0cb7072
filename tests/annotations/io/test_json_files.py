"""JSON files give what the standard library reads, also where orjson would round."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2tune.annotations.io.json_files import _BLOCK_BYTES, JsonError, decode_json

values = st.recursive(
    st.integers() | st.integers(10**17, 10**22) | st.floats(allow_nan=False) | st.text('0123456789a"\\é') | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "imageData"]), inner, max_size=2),
    max_leaves=12,
)


@given(values, st.sampled_from([None, 1]))
def test_values_are_those_of_the_standard_library(value: Any, indent: int | None) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    decoded, is_utf8 = decode_json(text.encode())
    assert is_utf8 and repr(decoded) == repr(json.loads(text))


@pytest.mark.parametrize("place", [0, 1, _BLOCK_BYTES - 20, _BLOCK_BYTES - 1, _BLOCK_BYTES, 3 * _BLOCK_BYTES + 7])
def test_a_long_whole_number_is_exact_at_any_position(place: int) -> None:
    number = 2**64 + 1
    content = b" " * place + str(number).encode() + b" " * 50
    assert decode_json(content)[0] == number


def test_digits_of_an_embedded_image_do_not_need_the_standard_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(text: str) -> None:
        raise AssertionError(text)

    image = "1" * 100_000
    content = json.dumps({"note": '"imageData": none', "imageData": image, "x": 1}).encode()
    monkeypatch.setattr(json, "loads", refuse)
    assert decode_json(content)[0] == {"note": '"imageData": none', "imageData": image, "x": 1}
    with pytest.raises(AssertionError, match="12345678901234567890"):
        decode_json(content.replace(b'"x": 1', b'"x": 12345678901234567890'))


def test_the_quotes_of_a_key_within_a_text_hide_no_number() -> None:
    value = {"a": '"imageData": "', "b": 10**20 + 1}
    assert decode_json(json.dumps(value).encode())[0] == value
    with pytest.raises(JsonError, match="not valid JSON"):
        decode_json(b'{"imageData": "abc", }')
