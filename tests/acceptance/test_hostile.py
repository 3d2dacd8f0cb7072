"""Bodies without an end, files that cost a decoder minutes, full disks and locked databases, in front of the page."""

from __future__ import annotations

import csv
import io
import os
import resource
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from d2tune.acceptance import routes
from d2tune.acceptance.export import COLUMNS
from d2tune.acceptance.store import Store
from tests.acceptance.world import Served, opened, served


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "application/x-www-form-urlencoded", None])
def test_bodies_end_at_the_limit_whatever_their_type(
    site: Served, monkeypatch: pytest.MonkeyPatch, kind: str | None
) -> None:
    monkeypatch.setattr(routes, "_JSON_BYTES", 100_000)
    address = f"{site.address}/acceptance/images/{site.image_id('a.png')}/judgment"
    headers = {} if kind is None else {"Content-Type": kind}
    pieces = (b" " * 10_000 for _ in range(200))
    assert httpx.put(address, content=pieces, headers=headers).status_code == 413
    assert site.client.get("/acceptance/state").status_code == 200


def test_slow_bodies_end(site: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "_BODY_S", 0.3)

    def slow() -> Iterator[bytes]:
        for _ in range(30):
            yield b" "
            time.sleep(0.1)

    for method, path, kind in (
        ("POST", "images?name=a.png", "image/png"),
        ("PUT", f"images/{site.image_id('a.png')}/judgment", "application/json"),
    ):
        began = time.monotonic()
        try:
            answer = httpx.request(
                method, f"{site.address}/acceptance/{path}", content=slow(), headers={"Content-Type": kind}
            )
            assert answer.status_code == 408
        except httpx.WriteError:
            pass
        assert time.monotonic() - began < 2.5


@contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process can grow beyond a kilobyte."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_full_disk_refuses_a_judgment_and_later_ones_are_kept(site: Served, world: Path) -> None:
    assert site.judge("a.png", verdict="right").status_code == 200
    site.client.get(f"/acceptance/images/{site.image_id('b.png')}/objects")
    with full_disk():
        refused = site.judge("b.png", verdict="wrong")
    assert refused.status_code == 503 and refused.headers["retry-after"] == "5"
    assert "the database of judgments cannot be used now" in refused.json()["detail"]
    verdicts = {row["name"]: row["verdict"] for row in site.client.get("/acceptance/images").json()}
    assert (verdicts["a.png"], verdicts["b.png"]) == ("right", None)
    assert site.judge("b.png", verdict="wrong").status_code == 200
    with sqlite3.connect(world / "judgments.sqlite") as other:  # on the disk, and not in this process alone
        assert other.execute("SELECT count(*) FROM judgment").fetchone() == (2,)


def test_database_that_another_program_holds_is_a_sentence(site: Served, world: Path) -> None:
    site.client.get(f"/acceptance/images/{site.image_id('a.png')}/objects")
    site.acceptance.store._connection.execute("PRAGMA busy_timeout = 50")
    with sqlite3.connect(world / "judgments.sqlite") as other:
        other.execute("BEGIN IMMEDIATE")
        refused = site.judge("a.png", verdict="right")
        assert refused.status_code == 503 and "locked" in refused.json()["detail"]
        other.rollback()
    assert site.judge("a.png", verdict="right").status_code == 200


def test_two_servers_judge_into_one_database(world: Path) -> None:
    with served(opened(world)) as first, served(opened(world)) as second:
        assert first.judge("a.png", verdict="right").status_code == 200
        assert second.judge("a.png", verdict="wrong", judged_by="Ben").status_code == 409
        assert second.judge("b.png", verdict="wrong", judged_by="Ben").status_code == 200
        assert first.client.get("/acceptance/summary").json()["judged"] == 2


def test_transaction_that_cannot_be_committed_is_undone(tmp_path: Path) -> None:
    store = Store(tmp_path / "a.sqlite")
    with full_disk(), pytest.raises(sqlite3.Error):
        store.model_id("a" * 64, "one")
    assert not store._connection.in_transaction and store._rows("SELECT * FROM model") == []
    assert store.model_id("a" * 64, "one") == 1
    store.close()


def test_file_whose_name_is_not_text_is_skipped_and_the_others_are_judged(world: Path) -> None:
    content = (world / "images" / "a.png").read_bytes()
    Path(os.fsdecode(os.fsencode(world / "images") + b"/bad\xff.png")).write_bytes(content)
    (world / "images" / "two\nlines.png").write_bytes(content)
    with served(opened(world)) as site:
        state = site.client.get("/acceptance/state").json()
        assert state["skipped"] == [{"name": "bad\\udcff.png", "reason": "its name is not UTF-8; rename it"}]
        assert site.judge("two\nlines.png", verdict="right").status_code == 200
        for path in ("images", "judgments.csv", "judgments_labelme.zip", "report.html"):
            assert site.client.get(f"/acceptance/{path}").status_code == 200


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("plain - text; and more", "plain - text; and more"),
        ("a;=1+1", "a;'=1+1"),  # spreadsheets of half of Europe separate cells there, whatever is quoted
        ("a\n=HYPERLINK(1)", "a\n'=HYPERLINK(1)"),
        ("a;\t@SUM(1)", "a;'\t'@SUM(1)"),
        ("\uff1d1+1", "'\uff1d1+1"),
        ("a\x00b\x1b[31m\u202ec", "a\\x00b\\x1b[31m\\u202ec"),
        ("<b>'; DROP TABLE judgment;--", "<b>'; DROP TABLE judgment;'--"),
    ],
)
def test_cells_are_text(site: Served, text: str, cell: str) -> None:
    assert site.judge("a.png", verdict="wrong", comment=text, judged_by=text.replace("\n", " ")).status_code == 200
    content = site.client.get("/acceptance/judgments.csv").content.decode("utf-8-sig")
    row = next(csv.DictReader(io.StringIO(content, newline="")))
    assert (row["row"], row["verdict"], row["comment"], row["min_score"]) == ("image", "wrong", cell, "0.5")
    assert row.keys() == set(COLUMNS) and None not in row.values() and row["judged_at"].startswith("20")
