import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from d2tune.annotations.model.findings import Finding
from d2tune.errors import DataError
from d2tune.report.check_page.finding_words import WORDS
from d2tune.report.check_page.page import check_page, refuse_foreign, write_check_page
from d2tune.report.check_page.survey import Checked
from d2tune.report.check_page.tiles import choose
from tests.report.datasets import make_dataset, saved, surveyed

REPOSITORY = Path(__file__).resolve().parents[2]


def test_the_words_are_those_of_the_documentation():
    rows = re.findall(
        r"^\| `(\w+)` \| \w+ \| (.*) \| (.*) \|$", (REPOSITORY / "docs" / "findings.md").read_text("utf-8"), re.M
    )
    assert {code: (meaning, remedy) for code, meaning, remedy in rows} == WORDS


def plain(dataset, **options):
    return check_page([Checked(Path("data"), dataset, dataset.findings)], title="data", **options)


def test_what_comes_from_files_is_escaped():
    evil = "</style><script>alert(1)</script>\"'\u202e\ud800\0"
    finding = Finding("error", evil, evil, evil, shape=0, hint=evil)
    dataset = make_dataset([(64, 64)], [(1, 1, 0, 0, 9, 9)], classes=(evil,), names=[evil + ".png"], findings=[finding])
    page = check_page(
        [Checked(Path(evil.replace("\0", "")), dataset, (finding,))], title=evil, split_of={evil + ".png": evil}
    )
    assert "<script" not in page and page.count("</style>") == 1
    assert not re.search("[\u202e\ud800\0]", page)
    assert page.encode("utf-8").decode("utf-8") == page
    policy = """content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">"""
    assert (
        policy in page and "http:" not in page and "https:" not in page and "//" not in re.sub('base64,[^"]*', "", page)
    )


def test_every_image_is_missing_and_the_page_is_there():
    page = plain(make_dataset([(64, 64)] * 3, [(2, 1, 0, 0, 9, 9)]))
    assert page.count("The image has no file.") == 3


def test_two_hundred_classes_and_many_images_make_a_bounded_page(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    saved(tmp_path / "a.jpg", noise, quality=95)
    classes = [f"class {number}" for number in range(200)]
    boxes = [(1 + number % 300, 1 + number % 200, 10, 10, 50, 50) for number in range(2000)]
    findings = [Finding("warning", "clipped", f"{number}.json", "m" * 5000, shape=0) for number in range(5000)]
    dataset = make_dataset([(400, 300)] * 300, boxes, classes=classes, findings=findings)
    images = tuple(dataclasses.replace(image, path=tmp_path / "a.jpg") for image in dataset.images)
    page = plain(dataclasses.replace(dataset, images=images))
    assert len(page) < 8_000_000
    for words in ("and 170 more</summary>", "and 4,988 more", "5,000 times in 5,000 files"):
        assert words in page
    assert re.search(r"chosen to show every class; \d+ are not shown", page)


def test_the_sheet_shows_every_class_and_some_negatives():
    boxes = [(number, 1, 0, 0, 9, 9) for number in range(1, 400)] + [(number, 2, 0, 0, 9, 9) for number in (5, 77)]
    data = surveyed([(64, 64)] * 500, boxes)
    chosen = choose(data)
    assert len(chosen) == 60 and len({entry.image.id for entry in chosen}) == 60
    assert sum("b" in entry.labels for entry in chosen) == 2
    assert sum(not entry.instances for entry in chosen) >= 6
    assert [entry.image.id for entry in choose(data)] == [entry.image.id for entry in chosen]
    assert [entry.image.id for entry in choose(data, seed=1)] != [entry.image.id for entry in chosen]


def test_only_a_page_of_this_kind_is_replaced(tmp_path):
    dataset = make_dataset([(9, 9)], [])
    path = tmp_path / "new" / "check.html"
    for title in ("first", "second"):
        write_check_page(path, [Checked(Path("data"), dataset, ())], title=title)
        assert f"<title>Check of {title}</title>" in path.read_text("utf-8")
    assert [file.name for file in path.parent.iterdir()] == ["check.html"]
    (tmp_path / "mine.html").write_text("<!DOCTYPE html><p>mine")
    for other, words in ((tmp_path / "mine.html", "is not overwritten"), (tmp_path, "not a folder")):
        with pytest.raises(DataError, match=words):
            refuse_foreign(other)
