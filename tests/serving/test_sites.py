"""Pages of other sites, names that an attacker points at the server, and requests of two lengths."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from d2tune.cli import main
from d2tune.serving.keys import add_key
from d2tune.serving.sites import is_known_host
from tests.serving.conftest import Running, Start
from tests.serving.stand_in import encoded, lamp
from tests.serving.test_limits import connection, received

FORM = {"files": {"image": ("a.png", encoded(lamp()), "image/png")}}


def post(server: Running, **headers: str) -> httpx.Response:
    """A form, which a browser sends to any address without asking first."""
    return server.client.post("/v1/predict", headers=headers, files=FORM["files"])


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),  # a program
        ({"Sec-Fetch-Site": "same-origin", "Origin": "https://models.example"}, 200),  # behind TLS
        ({"Sec-Fetch-Site": "none"}, 200),  # typed by a person
        ({"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:3000"}, 403),  # another server of the machine
        # browsers send no Sec-Fetch-Site to addresses of a network without TLS
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1"}, 403),  # another port
        ({"Origin": "http://127.0.0.1:80@evil.example"}, 403),
    ],
)
def test_changes_by_pages_of_other_sites_are_refused(lamps: Running, headers: dict[str, str], status: int) -> None:
    answer = post(lamps, **headers)
    assert answer.status_code == status
    if status == 403:
        assert answer.json()["error"]["code"] == "foreign_page"


def test_own_page_is_recognized_without_fetch_metadata(start: Start) -> None:
    server = start(hosts=("models.example",))
    assert post(server, Origin=server.url).status_code == 200
    assert post(server, Origin="https://models.example").status_code == 200  # a proxy that states another Host
    assert post(server, Origin="https://models.example.evil.example").status_code == 403


@pytest.mark.parametrize(
    ("host", "is_known"),
    [
        ("", True),
        ("127.0.0.1:8000", True),
        ("192.168.1.7", True),
        ("[::1]:8000", True),
        ("[::ffff:1.2.3.4]", True),
        ("localhost:8000", True),
        ("LOCALHOST", True),
        ("workstation:8000", True),
        ("printer.local", True),
        ("d2tune.models.svc:80", True),
        ("d2tune.models.svc.cluster.local", True),
        ("models.example:443", True),
        ("evil.com", False),
        ("evil.com.", False),
        ("127.0.0.1.evil.com", False),
        ("0x7f.1", False),
        ("local.evil.com", False),
        ("models.example.evil.com", False),
        ("a b", False),
        ("evil.com:8000:1", False),
        ("x@localhost", False),
    ],
)
def test_names_of_strangers(host: str, is_known: bool) -> None:
    assert is_known_host(host, {"models.example"}) is is_known


def test_rebound_names_are_refused_without_keys(start: Start, tmp_path: Path) -> None:
    evil = {"Host": "evil.com:8000", "Sec-Fetch-Site": "same-origin", "Origin": "http://evil.com:8000"}
    server = start(hosts=("models.example",))
    for path in ("/v1/models", "/metrics", "/openapi.json"):
        answer = server.client.get(path, headers=evil)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "unknown_host")
        assert server.client.get(path, headers={"Host": "models.example"}).status_code == 200
    assert post(server, **evil).json()["error"]["code"] == "unknown_host"
    assert server.client.get("/readyz", headers=evil).status_code == 200  # probes use any name
    keys = tmp_path / "keys"
    key = add_key(keys, "shop")  # which a page of a stranger does not have
    closed = start(keys=keys)
    assert closed.client.get("/v1/models", headers=evil).status_code == 401
    assert closed.client.get("/v1/models", headers={**evil, "X-API-Key": key}).status_code == 200


def test_errors_are_read_by_allowed_pages_and_any_origin_may_be_allowed(start: Start, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    key = add_key(keys, "shop")
    page = {"Origin": "https://shop.example", "Sec-Fetch-Site": "cross-site"}
    server = start(cors_origins=("https://shop.example",), keys=keys)
    refused = post(server, **page)
    assert refused.status_code == 401 and refused.headers["access-control-allow-origin"] == "https://shop.example"
    opened = start(cors_origins=("*",), keys=keys)
    answer = post(opened, **page, Authorization=f"Bearer {key}")
    assert answer.status_code == 200 and answer.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--cors", "https://their.site/"), "--cors: is not an origin; found https://their.site/"),
        (("--cors", "their.site"), "--cors: is not an origin"),
        (("--cors", "https://Their.site"), "--cors: is not an origin"),
        (("--allow-host", "https://models.example"), "--allow-host: is not the name of a host"),
        (("--allow-host", "models.example:80"), "--allow-host: is not the name of a host"),
        (("--max-mb", "nan"), "--max-mb: must be"),
        (("--max-mb", "inf"), "--max-mb: must be"),
        (("--max-megapixels", "nan"), "--max-megapixels: must be"),
        (("--deadline", "nan"), "--deadline: must be"),
        (("--drain-delay", "inf"), "--drain-delay: must be"),
    ],
)
def test_options_that_are_not_valid_are_a_line(
    capsys: pytest.CaptureFixture[str], words: tuple[str, str], message: str
) -> None:
    assert main(["serve", "nowhere", "--no-page", *words]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_requests_of_two_lengths_end_their_connection(lamps: Running) -> None:
    head = (
        b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\nContent-Length: 4\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )
    hidden = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"
    with connection(lamps) as one:
        one.sendall(head + b"0\r\n\r\n" + hidden)
        answer = received(one)
    assert answer.startswith(b"HTTP/1.1 400") and b"bad_framing" in answer
    assert answer.count(b"HTTP/1.1") == 1 and b"d2tune_requests" not in answer


def test_head_is_answered_as_get_without_content(lamps: Running) -> None:
    for path in ("/healthz", "/readyz", "/v2/health/ready", "/v1/models", "/metrics"):
        got, answer = lamps.client.get(path), lamps.client.head(path)
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["content-type"] == got.headers["content-type"]
    assert lamps.client.head("/v1/predict").status_code == 405
    assert lamps.client.get("/v1/models/", headers={"Host": "elsewhere"}).status_code == 404  # not a redirect there


def test_keys_in_unusual_headers_are_refused(start: Start, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    add_key(keys, "shop")
    server = start(keys=keys)
    for value in (b"Basic \xe9\xe9", b"Basic ====", b"Basic /w==", b"Bearer \xff", b"Basic", b"Bearer " + b"a" * 9000):
        answer = server.client.get("/v1/models", headers={b"Authorization": value})
        assert answer.status_code == 401, value


def test_keys_after_a_mark_of_order_and_two_of_one_client(start: Start, tmp_path: Path) -> None:
    from d2tune.errors import ProjectError
    from d2tune.serving.keys import read_keys

    keys = tmp_path / "keys"
    key = add_key(keys, "shop")
    text = keys.read_text("utf-8")
    keys.write_text(text.replace("\n", "\r\n"), "utf-8-sig")  # as editors on Windows write it
    assert read_keys(keys).client(key) == "shop"
    keys.write_text(text + text.splitlines()[-1] + "\n", "utf-8")
    with pytest.raises(ProjectError) as error:
        read_keys(keys)
    assert "line 3: the client has two keys; found shop" in error.value.one_line()
