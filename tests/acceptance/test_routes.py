"""The routes over HTTP, from a real server on this machine."""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from pathlib import Path
from typing import ClassVar

import httpx
import numpy as np
import pytest
from PIL import Image

from d2tune.acceptance.predictions import CocoFile
from d2tune.annotations.convert import read_dataset
from d2tune.errors import DataError, ProjectError
from d2tune.inference.results import LabelMap
from tests.acceptance.world import HEIGHT, WIDTH, Served, opened, served


def png(seed: int = 0, size: tuple[int, int] = (20, 30)) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def rows_of(answer: httpx.Response) -> list[dict[str, str]]:
    assert answer.status_code == 200
    return list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"))))


def judge_some(site: Served) -> None:
    marks = [
        {"kind": "bad_outline", "object": 2, "comment": "=1+1"},
        {"kind": "missed", "x": 350.5, "y": 250.0, "class_name": "dog"},
    ]
    assert site.judge("a.png", verdict="wrong", marks=marks, comment="two things").status_code == 200
    assert site.judge("b.png", verdict="right").status_code == 200
    swapped = [{"kind": "wrong_class", "object": 1, "class_name": "cat"}]
    assert site.judge("c.png", verdict="right", marks=swapped, judged_by="Ben").status_code == 200
    assert site.judge("deep/d.png", verdict="right").status_code == 200


def test_everything_has_a_strict_policy_and_nothing_comes_from_elsewhere(site: Served) -> None:
    page = site.client.get("/")
    addresses = re.findall(r'(?:href|src)="([^"#][^"]*)"', page.text)
    assert len(addresses) == 3 and all(one.startswith("acceptance/static/") for one in addresses)
    assert "style=" not in page.text and "<style" not in page.text and not re.search(r"\son\w+=", page.text)
    names = [
        *addresses,
        *(f"acceptance/static/{name}.js" for name in ("dom", "server", "view", "list", "judge", "compare")),
    ]
    for answer in (page, site.client.get("/acceptance/state"), *(site.client.get(f"/{name}") for name in names)):
        assert answer.status_code == 200
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none';") and "unsafe" not in policy and "http" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "http://" not in answer.text.replace("http://www.w3.org/2000/svg", "") and "https://" not in answer.text
    assert site.client.get("/acceptance/static/..%2froutes.py").status_code == 404
    assert site.client.get("/acceptance/static/page.html").status_code == 404


def test_state_names_no_folder(site: Served, world: Path) -> None:
    state = site.client.get("/acceptance/state")
    assert state.json()["title"] == "Cats & dogs" and state.json()["has_truth"] is True
    assert list(state.json()["models"][0]["colors"]) == ["cat", "dog"]
    assert str(world) not in state.text


def test_images_objects_and_ground_truth(site: Served) -> None:
    rows = site.client.get("/acceptance/images").json()
    assert [row["name"] for row in rows] == ["a.png", "b.png", "c.png", "deep/d.png"]
    assert {(row["width_px"], row["height_px"], row["verdict"]) for row in rows} == {(WIDTH, HEIGHT, None)}
    a = site.client.get(f"/acceptance/images/{site.image_id('a.png')}/objects").json()
    assert [one["score"] for one in a["objects"]] == [0.95, 0.8, 0.3]
    assert [one["class_name"] for one in a["truth"]] == ["cat"] and a["truth"][0]["area_px2"] == 3600
    assert a["saved"] is None
    b = site.client.get(f"/acceptance/images/{site.image_id('b.png')}/objects").json()
    assert b["truth"] is None
    for place in ("objects", "pixels", "thumbnail"):
        assert site.client.get(f"/acceptance/images/999/{place}").status_code == 404


def test_pixels_are_those_of_the_image(site: Served) -> None:
    address = f"/acceptance/images/{site.image_id('a.png')}/pixels"
    answer = site.client.get(address)
    shown = np.asarray(Image.open(io.BytesIO(answer.content)), int)
    assert shown.shape == (HEIGHT, WIDTH, 3)
    assert np.abs(shown[150, 250] - (60, 120, 240)).max() < 12
    again = site.client.get(address, headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    small = site.client.get(f"/acceptance/images/{site.image_id('a.png')}/thumbnail")
    assert Image.open(io.BytesIO(small.content)).size == (240, 180)


def test_a_judgment_comes_back(site: Served) -> None:
    judge_some(site)
    rows = {row["name"]: row for row in site.client.get("/acceptance/images").json()}
    assert [(rows[name]["verdict"], rows[name]["wrong_marks"]) for name in ("a.png", "b.png", "c.png")] == [
        ("wrong", 2),
        ("right", 0),
        ("right", 1),
    ]
    saved = site.client.get(f"/acceptance/images/{site.image_id('a.png')}/objects").json()["saved"]
    assert saved["judgment"]["comment"] == "two things" and saved["judgment"]["marks"][1]["x"] == 350.5


@pytest.mark.parametrize(
    ("judgment", "message"),
    [
        ({"marks": [{"kind": "false_alarm", "object": 4}]}, "mark 1 of 1: the image has no such object; found 4"),
        ({"marks": [{"kind": "wrong_class", "object": 1, "class_name": "cow"}]}, "no such class; found 'cow'"),
        ({"marks": [{"kind": "missed", "x": 401, "y": 1}]}, "the place is not on the image; found 401, 1"),
        ({"marks": [{"kind": "missed", "object": 1}]}, "a missed object has x and y"),
        ({"marks": [{"kind": "bad_outline", "x": 1, "y": 1}]}, "a missed object has x and y"),
        ({"marks": [{"kind": "right", "object": 1}] * 2}, "an object has several marks"),
        ({"marks": [{"kind": "ugly", "object": 1}]}, "Input should be"),
        ({"judged_by": "  "}, "at least 1 character"),
        ({"min_score": 2}, "less than or equal to 1"),
        ({"verdict": "maybe"}, "Input should be"),
        ({"comment": "x" * 2001}, "at most 2000 characters"),
        ({"hidden": 1}, "Extra inputs are not permitted"),
    ],
)
def test_judgments_that_do_not_fit(site: Served, judgment: dict[str, object], message: str) -> None:
    answer = site.judge("a.png", **({"verdict": "wrong"} | judgment))
    assert answer.status_code == 422 and message in answer.text
    assert site.client.get("/acceptance/images").json()[0]["verdict"] is None


def test_two_people_at_the_same_image(site: Served) -> None:
    first = site.judge("a.png", verdict="right").json()
    refused = site.judge("a.png", verdict="wrong", judged_by="Ben")
    assert refused.status_code == 409 and refused.json()["saved"]["judgment"]["judged_by"] == "Ann"
    assert site.judge("a.png", verdict="wrong", judged_by="Ben", seen=first["revision"]).status_code == 200


def test_the_summary_by_hand(site: Served) -> None:
    judge_some(site)
    result = site.client.get("/acceptance/summary").json()
    assert (result["images"], result["judged"]) == (4, 4)
    images, objects = result["right_images"], result["right_objects"]
    # three of four, Wilson: (3 + 1.9207 -+ 1.96 sqrt(0.75 + 0.9604)) / 7.8415
    assert images["count"] == 3
    assert (images["low"], images["high"]) == pytest.approx((0.3006, 0.9544), abs=1e-4)
    # a: 1 right, 2 bad, 3 is below the lowest score; b: 1 right; c: 1 of another class, 2 right
    assert (objects["count"], objects["total"]) == (3, 5)
    assert result["kinds"] == {"bad_outline": 1, "missed": 1, "wrong_class": 1}


def test_an_image_that_is_wrong_without_marks_says_nothing_of_its_objects(site: Served) -> None:
    site.judge("a.png", verdict="wrong")
    site.judge("b.png", marks=[{"kind": "false_alarm", "object": 1}])  # no verdict: not judged yet
    result = site.client.get("/acceptance/summary").json()
    assert result["judged"] == 1 and result["right_objects"]["total"] == 0


def test_the_table(site: Served) -> None:
    judge_some(site)
    rows = rows_of(site.client.get("/acceptance/judgments.csv"))
    assert [(row["image"], row["row"], row["object"], row["verdict"]) for row in rows[:4]] == [
        ("a.png", "image", "", "wrong"),
        ("a.png", "object", "1", "right"),
        ("a.png", "object", "2", "bad_outline"),
        ("a.png", "missed", "", "missed"),
    ]
    assert rows[2]["comment"] == "'=1+1", "a spreadsheet would compute it"
    assert (rows[3]["x_px"], rows[3]["class_should_be"]) == ("350.5", "dog")
    wrong_class = next(row for row in rows if row["verdict"] == "wrong_class")
    assert (wrong_class["class"], wrong_class["class_should_be"], wrong_class["judged_by"]) == ("dog", "cat", "Ben")
    assert {len(row["image_sha256"]) for row in rows} == {len(rows[0]["model_sha256"])} == {64}


def test_labelme_files_can_be_read_again(site: Served, world: Path) -> None:
    judge_some(site)
    site.client.post("/acceptance/images?name=new.png", content=png(), headers={"Content-Type": "image/png"})
    site.judge("added/new.png", marks=[{"kind": "missed", "x": 3, "y": 4}])
    answer = site.client.get("/acceptance/judgments_labelme.zip")
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        archive.extractall(world / "images")
    folder = world / "images" / "judged"
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*")) == [
        *("a.json", "added/new.json", "added/new.png", "b.json", "c.json", "deep/d.json"),
    ]
    a = json.loads((folder / "a.json").read_text(encoding="utf-8"))
    assert (folder / a["imagePath"]).resolve() == (world / "images" / "a.png").resolve()
    assert [(shape["label"], shape["flags"]) for shape in a["shapes"]] == [
        ("cat", {"prediction": True, "right": True}),
        ("dog", {"prediction": True, "bad_outline": True}),
        ("dog", {"missed": True}),
    ]
    assert a["flags"] == {"image_right": False, "image_wrong": True} and a["judgment"]["judged_by"] == "Ann"
    deep = json.loads((folder / "deep" / "d.json").read_text(encoding="utf-8"))
    assert (folder / "deep" / deep["imagePath"]).resolve() == (world / "images" / "deep" / "d.png").resolve()
    (world / "images" / "a.json").unlink()
    dataset = read_dataset(world / "images", format="labelme")
    assert not dataset.errors()
    assert sorted(one.area_px2 for one in dataset.instances) == [900, 2500, 3600, 10000, 14400]


def test_the_report(site: Served) -> None:
    judge_some(site)
    answer = site.client.get("/acceptance/report.html")
    text, policy = answer.text, answer.headers["content-security-policy"]
    assert "Cats &amp; dogs" in text and "Not signed off" in text
    assert "3 of 4 judged images are right: 75 %" in text and "30 to 95 %" in text
    assert "http://" not in text and "https://" not in text and "<script" not in text and "style=" not in text
    assert re.fullmatch(r"default-src 'none'; style-src 'sha256-[^']+'; img-src data:; .*", policy)
    assert text.index("a.png: 2 marks") < text.index("c.png: 1 mark")
    assert text.count("data:image/jpeg;base64,") == 2
    assert site.acceptance.models[0].sha256 in text
    assert "<dt>Lowest score that was shown</dt><dd>0.50</dd>" in text
    site.judge("b.png", verdict="right", min_score=0.25, seen=1)
    assert "<dd>0.50 on 2 images, 0.25 on 1 image</dd>" in site.client.get("/acceptance/report.html").text


def test_sign_off_holds_for_the_judgments_that_were_signed(site: Served) -> None:
    decision = {
        "decision": "accepted_with_conditions",
        "signed_by": "Cleo <b>",
        "role": "Buyer",
        "comment": "Dogs later.",
    }
    refused = site.client.post("/acceptance/sign-off", json=decision)
    assert refused.status_code == 422 and "no image is judged" in refused.text
    judge_some(site)
    assert site.client.post("/acceptance/sign-off", json=decision).status_code == 204
    report = site.client.get("/acceptance/report.html").text
    assert "Accepted with conditions" in report and "Signed off by Cleo &lt;b&gt;, Buyer" in report
    assert site.client.get("/acceptance/summary").json()["sign_off"]["is_current"] is True
    site.judge("b.png", verdict="wrong", seen=2)
    assert "Judgments were changed after the sign-off" in site.client.get("/acceptance/report.html").text
    assert site.client.get("/acceptance/summary").json()["sign_off"]["is_current"] is False


def test_images_that_are_added(site: Served) -> None:
    headers = {"Content-Type": "image/png"}
    first = site.client.post("/acceptance/images?name=../../My cat.png", content=png(1), headers=headers)
    assert (first.status_code, first.json()["name"], first.json()["width_px"]) == (201, "added/My_cat.png", 30)
    same = site.client.post("/acceptance/images?name=other.png", content=png(1), headers=headers)
    assert (same.status_code, same.json()["id"]) == (200, first.json()["id"])
    other = site.client.post("/acceptance/images?name=My cat.jpeg", content=png(2), headers=headers)
    assert other.json()["name"] == "added/My_cat_2.png"
    assert [row["name"] for row in site.client.get("/acceptance/images").json()][-2:] == [
        "added/My_cat.png",
        "added/My_cat_2.png",
    ]
    for content, kind, status in (
        (b"no image", "image/png", 422),
        (b"", "image/png", 422),
        (png(3), "text/plain", 415),
    ):
        answer = site.client.post("/acceptance/images?name=x.png", content=content, headers={"Content-Type": kind})
        assert answer.status_code == status


class HalfAndHalf:
    """Predicts a label map: cat on the left half, the background on the right."""

    name, sha256, lowest_score, starting_score = "halves", "ab" * 32, 0.0, 0.0
    class_names, background = ("scene", "cat"), "scene"
    facts: ClassVar[dict[str, str]] = {"Trained": "2026-01-31"}

    def predict(self, image: Path) -> LabelMap:
        labels = np.zeros((HEIGHT, WIDTH), np.uint8)
        labels[:, : WIDTH // 2] = 1
        return LabelMap(labels, self.class_names)


def test_a_model_of_label_maps(world: Path) -> None:
    with served(opened(world, models=[HalfAndHalf()])) as site:
        assert site.client.get("/acceptance/state").json()["models"][0]["classes"] == ["cat"]
        a = site.client.get(f"/acceptance/images/{site.image_id('a.png')}/objects").json()
        assert [(one["class_name"], one["score"], one["area_px2"]) for one in a["objects"]] == [("cat", None, 60000)]
        assert site.judge("a.png", verdict="right").status_code == 200
        report = site.client.get("/acceptance/report.html").text
        assert "2026-01-31" in report and "lowest score" not in report.lower(), "objects of label maps have no scores"


def test_what_is_not_text_or_too_long(site: Served) -> None:
    address = f"/acceptance/images/{site.image_id('a.png')}/judgment"
    headers = {"Content-Type": "application/json"}
    surrogate = b'{"judgment": {"verdict": "right", "judged_by": "\\ud800"}}'
    for content in (surrogate, b"{", b"[]", b"null", b"\xff", b'{"judgment": {"judged_by": "\\u0000"}, "seen": 1e99}'):
        answer = site.client.put(address, content=content, headers=headers)
        assert answer.status_code in (400, 422) and isinstance(answer.json()["detail"], str)
    assert site.judge("a.png", verdict="right", judged_by="Zoë \u0000 \U0001f388").status_code == 200
    assert "Zoë" in site.client.get("/acceptance/report.html").text
    assert site.client.get("/acceptance/judgments.csv").status_code == 200
    endless = site.client.put(address, content=iter([b'{"judgment": "' + b"x" * 999_000] * 20), headers=headers)
    assert endless.status_code == 413
    huge = 10**30
    assert site.client.get(f"/acceptance/images/{huge}/objects").status_code == 404
    assert site.client.get(f"/acceptance/images?model={huge}").status_code == 404
    assert site.judge("a.png", verdict="wrong", seen=huge).status_code == 409


def test_files_that_are_too_large(world: Path) -> None:
    with served(opened(world, max_upload_bytes=5000, max_pixels=150_000)) as site:
        headers = {"Content-Type": "image/png"}
        large = site.client.post("/acceptance/images", content=iter([b"x" * 3000] * 100), headers=headers)
        assert large.status_code == 413
        stream = io.BytesIO()
        Image.new("L", (1000, 151)).save(stream, "PNG")
        wide = site.client.post("/acceptance/images?name=w.png", content=stream.getvalue(), headers=headers)
        assert wide.status_code == 422 and "1000 x 151 px, at most 150,000 are taken" in wide.text


def test_other_sites_cannot_send_anything(site: Served) -> None:
    for path in ("sign-off", "images?name=x.png"):
        answer = site.client.post(f"/acceptance/{path}", json={}, headers={"Sec-Fetch-Site": "cross-site"})
        assert answer.status_code == 403


def test_it_goes_on_where_it_was(world: Path) -> None:
    with served(opened(world)) as site:
        judge_some(site)
        site.client.post("/acceptance/images?name=new.png", content=png(), headers={"Content-Type": "image/png"})
        before = site.client.get("/acceptance/images").json()
    with served(opened(world)) as site:
        assert site.client.get("/acceptance/images").json() == before and len(before) == 5


def test_an_image_that_changed_is_to_be_judged_again(world: Path) -> None:
    with served(opened(world)) as site:
        judge_some(site)
        Image.new("RGB", (50, 40)).save(world / "images" / "b.png")
        row = site.client.get(f"/acceptance/images/{site.image_id('b.png')}/objects").json()
        assert row["saved"] is None
    with served(opened(world)) as site:
        rows = {row["name"]: row for row in site.client.get("/acceptance/images").json()}
        assert (rows["b.png"]["verdict"], rows["b.png"]["width_px"]) == (None, 50)
        assert rows["a.png"]["verdict"] == "wrong"


def test_another_model_begins_anew_and_keeps_the_judgments_of_the_first(world: Path) -> None:
    with served(opened(world)) as site:
        judge_some(site)
    with served(opened(world, models=[CocoFile(world / "other.json"), CocoFile(world / "tool.json")])) as site:
        assert {row["verdict"] for row in site.client.get("/acceptance/images?model=0").json()} == {None}
        assert site.client.get("/acceptance/images?model=1").json()[0]["verdict"] == "wrong"
        assert site.client.get("/acceptance/images?model=2").status_code == 404


def test_a_prediction_that_fails_is_a_sentence(world: Path) -> None:
    content = json.loads((world / "tool.json").read_text())
    content["annotations"][0]["segmentation"] = {"size": [1, 1], "counts": [1]}
    (world / "tool.json").write_text(json.dumps(content))
    with served(opened(world)) as site:
        answer = site.client.get(f"/acceptance/images/{site.image_id('a.png')}/objects")
        assert answer.status_code == 422 and "does not fit the image" in answer.json()["detail"]
        assert str(world) not in answer.text


def test_a_blind_comparison(world: Path) -> None:
    with served(opened(world, is_blind=True)) as site:
        assert [model["name"] for model in site.client.get("/acceptance/state").json()["models"]] == [""]
        first_sides = []
        for name in ("a.png", "b.png", "c.png"):
            address = f"/acceptance/images/{site.image_id(name)}"
            pair = site.client.get(f"{address}/pair").json()
            assert site.client.get(f"{address}/pair").json() == pair
            assert all(one["score"] is None for side in ("left", "right") for one in pair[side])
            first_is_left = site.acceptance.first_is_left(site.acceptance.images.get(site.image_id(name)))
            first_sides.append("left" if first_is_left else "right")
            sizes = [len(pair["left"]), len(pair["right"])]
            assert name == "b.png" or sizes == ([2, 1] if first_is_left else [1, 2])
        for name, side in zip(("a.png", "c.png"), first_sides[::2], strict=True):
            given = {"preference": side, "judged_by": "Ann"}
            assert (
                site.client.put(f"/acceptance/images/{site.image_id(name)}/preference", json=given).status_code == 204
            )
        given = {"preference": "same", "judged_by": "Ann"}
        site.client.put(f"/acceptance/images/{site.image_id('b.png')}/preference", json=given)
        assert site.client.get("/acceptance/comparison").json() == {"images": 4, "compared": 3, "result": None}
        for path in ("preferences.csv", "report.html"):
            hidden = site.client.get(f"/acceptance/{path}")
            assert hidden.status_code == 409 and "tool" not in hidden.text
        assert site.client.post("/acceptance/reveal").status_code == 204
        result = site.client.get("/acceptance/comparison").json()["result"]
        assert [(row["name"], row["preferred"]) for row in result["models"]] == [("tool", 2), ("other", 0)]
        assert (result["ties"], result["p_value"], result["is_real"]) == (1, 0.5, False)
        late = site.client.put(f"/acceptance/images/{site.image_id('b.png')}/preference", json=given)
        assert late.status_code == 409
        rows = rows_of(site.client.get("/acceptance/preferences.csv"))
        assert [row["preferred"] for row in rows] == ["tool", "same", "tool", "tool 2, other 0, same 1"]
        report = site.client.get("/acceptance/report.html").text
        assert "No real preference" in report and "50 %" in report


def test_what_cannot_be_opened(world: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="the folder has no images"):
        opened(world, images=empty)
    with pytest.raises(DataError, match="does not exist"):
        opened(world, images=tmp_path / "nothing")
    (empty / "a.jpg").write_bytes(b"\xff\xd8\xff broken")
    with pytest.raises(DataError, match="no image of the folder can be read"):
        opened(world, images=empty)
    assert not (world / "judgments.sqlite").exists(), "nothing was made"
    opened(world).close()
    with pytest.raises(DataError, match="no image of the folder can be read"):
        opened(world, images=empty)
    assert (world / "judgments.sqlite").exists(), "what was there before stays"
    with pytest.raises(ProjectError, match="found 1 model; expected two models"):
        opened(world, is_blind=True, models=[CocoFile(world / "tool.json")])
    with pytest.raises(DataError, match="there is no such file or folder"):
        opened(world, truth=tmp_path / "nothing")


def test_annotations_that_cannot_be_read_are_named(world: Path, caplog: pytest.LogCaptureFixture) -> None:
    shape = {"label": "cat", "points": [[1, 1], [9, 9]], "shape_type": "rectangle"}
    content = {"shapes": [shape], "imagePath": "b.png", "imageData": None, "imageWidth": 7, "imageHeight": 7}
    (world / "images" / "b.json").write_text(json.dumps(content))
    with served(opened(world)) as site:
        b = site.client.get(f"/acceptance/images/{site.image_id('b.png')}/objects").json()
        assert b["truth"] is None and site.client.get("/acceptance/state").json()["has_truth"]
    assert "b.json" in caplog.text and "7 x 7" in caplog.text


def test_ground_truth_of_another_place(world: Path, tmp_path: Path) -> None:
    path = tmp_path / "truth.json"
    content = json.loads((world / "other.json").read_text())
    path.write_text(json.dumps(content))
    with served(opened(world, truth=path)) as site:
        c = site.client.get(f"/acceptance/images/{site.image_id('c.png')}/objects").json()
        assert [(one["class_name"], one["area_px2"]) for one in c["truth"]] == [("dog", 2500)]
        assert site.client.get(f"/acceptance/images/{site.image_id('deep/d.png')}/objects").json()["truth"] == []


def test_a_broken_image_is_named_and_the_others_are_shown(world: Path) -> None:
    (world / "images" / "z.png").write_bytes(b"broken")
    with served(opened(world)) as site:
        state = site.client.get("/acceptance/state").json()
        assert state["skipped_count"] == 1 and state["skipped"][0]["name"] == "z.png"
        assert len(site.client.get("/acceptance/images").json()) == 4
