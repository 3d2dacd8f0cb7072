"""Keys, pages of other sites, errors and the log."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
from pathlib import Path

import pytest

from d2tune.cli import main
from d2tune.errors import ProjectError
from d2tune.serving.keys import add_key, key_of, read_keys
from d2tune.serving.middleware import JsonLines
from tests.serving.conftest import Start
from tests.serving.stand_in import encoded, lamp
from tests.serving.test_limits import wait_until


def test_keys_open_the_server_and_probes_need_none(start: Start, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    own, other = add_key(keys, "shop"), add_key(keys, "lab")
    assert own != other and own not in keys.read_text("utf-8")
    assert f"shop sha256:{hashlib.sha256(own.encode()).hexdigest()}" in keys.read_text("utf-8")
    server = start(keys=keys)
    content = encoded(lamp())
    basic = base64.b64encode(f"anyone:{other}".encode()).decode()
    for headers, status in [
        ({}, 401),
        ({"Authorization": "Bearer nonsense"}, 401),
        ({"Authorization": "Basic ###"}, 401),
        ({"Authorization": f"Bearer {own}x"}, 401),
        ({"Authorization": f"Bearer {own}"}, 200),
        ({"X-API-Key": other}, 200),
        ({"Authorization": f"Basic {basic}"}, 200),
    ]:
        answer = server.client.post("/v1/predict", content=content, headers={"Content-Type": "image/png", **headers})
        assert answer.status_code == status, headers
        if status == 401:
            assert "Bearer" in answer.headers["www-authenticate"] and answer.json()["error"]["code"] == "no_key"
    for path in ("/v1/models", "/metrics", "/openapi.json", "/v2/models/lamps", "/nothing"):
        assert server.client.get(path).status_code == 401
    for path in ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"):
        assert server.client.get(path).status_code == 200


def test_key_in_headers() -> None:
    assert key_of({"authorization": "bearer  abc "}) == "abc"
    assert key_of({"authorization": "Digest abc"}) is None
    assert key_of({}) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "the file of keys cannot be read: No such file or directory"),
        (b"", "the file has no keys"),
        (b"# only a comment\n", "the file has no keys"),
        (b"shop d2t_plain-key\n", "line 1: is not the hash of a key"),
        (b"shop sha256:00\n", "line 1: is not the hash of a key"),
        (b"\xff\xfe", "the file of keys is not text"),
    ],
)
def test_unusable_files_of_keys_are_a_line_that_does_not_show_keys(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "keys"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ProjectError) as error:
        read_keys(path)
    assert message in error.value.one_line() and "plain-key" not in error.value.one_line()
    assert f"d2tune serve --new-key CLIENT --keys {path}" in error.value.one_line()


def test_new_key_is_printed_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "keys"
    assert main(["serve", "--new-key", "shop", "--keys", str(path)]) == 0
    key = capsys.readouterr().out.strip()
    assert read_keys(path).client(key) == "shop"
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.read_bytes()
    assert main(["serve", "--new-key", "shop", "--keys", str(path)]) == 1
    assert "the client has a key already; found shop" in capsys.readouterr().err
    assert main(["serve", "--new-key", "a b", "--keys", str(path)]) == 1
    assert "the name of the client is invalid" in capsys.readouterr().err
    assert main(["serve", "--new-key", "shop"]) == 1
    assert path.read_bytes() == before


def test_pages_of_other_sites_may_call_only_where_it_is_allowed(start: Start) -> None:
    content = encoded(lamp())
    foreign = {"Content-Type": "image/png", "Origin": "https://shop.example", "Sec-Fetch-Site": "cross-site"}
    asking = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
    closed = start()
    answer = closed.client.post("/v1/predict", content=content, headers=foreign)
    assert answer.status_code == 403 and "access-control-allow-origin" not in answer.headers
    assert closed.client.options("/v1/predict", headers=asking).status_code == 405
    opened = start(cors_origins=("https://shop.example",))
    answer = opened.client.post("/v1/predict", content=content, headers=foreign)
    assert answer.status_code == 200 and answer.headers["access-control-allow-origin"] == "https://shop.example"
    assert opened.client.options("/v1/predict", headers=asking).status_code == 200
    other = foreign | {"Origin": "https://evil.example"}
    assert opened.client.post("/v1/predict", content=content, headers=other).status_code == 403


def test_log_is_lines_of_json_with_the_id_of_the_request(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    server = start()
    headers = {"Content-Type": "image/png", "X-Request-Id": "mine"}
    server.client.post("/v1/predict?tolerance_px=2", content=encoded(lamp()), headers=headers)
    server.client.get("/healthz")
    server.client.get("/v1/models")
    text = ""

    def is_written() -> bool:
        nonlocal text
        text += capsys.readouterr().err
        return "/v1/models" in text

    wait_until(is_written)
    requests = [line for line in map(json.loads, text.splitlines()) if line.get("request_id") == "mine"]
    assert "/healthz" not in text
    (one,) = requests
    assert (one["request_id"], one["method"], one["path"], one["status"]) == ("mine", "POST", "/v1/predict", 200)
    assert set(one["times_ms"]) == {"decode", "queue", "forward", "encode"} and one["model"] == "lamps"


def test_line_of_the_log_is_one_line() -> None:
    record = logging.LogRecord("d2tune", logging.ERROR, "x.py", 1, "two\nlines \x1b[31m", None, None)
    text = JsonLines().format(record)
    assert "\n" not in text and "\x1b" not in text and json.loads(text)["event"] == "two\nlines \x1b[31m"
