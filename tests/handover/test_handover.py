"""``d2tune handover``: one folder with a model, its reports, its licenses and a page, and nothing of this machine."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import re
import sys
import zipfile
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from PIL import Image as PilImage

import d2tune
from d2tune import api
from d2tune.cli import main
from d2tune.errors import D2TuneError, DataError, PackageError
from d2tune.handover import machine_names
from d2tune.handover.licenses import libraries
from d2tune.packages.weights_license import license_of_weights
from d2tune.versions import own_version
from tests.packages.builders import evaluate_by_hand, make_run
from tests.system.commands import ROOT

HOST, USER = "quokka-7", "wombat"


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose names occur nowhere else."""
    home = tmp_path / "homes" / USER
    home.mkdir(parents=True)
    for name, value in {"HOME": str(home), "USER": USER, "LOGNAME": USER, "HOSTNAME": HOST}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(platform, "node", lambda: f"{HOST}.example.org")
    monkeypatch.chdir(tmp_path)


def evaluated_run(folder: Path) -> Path:
    run = make_run(folder)
    evaluate_by_hand(run, {"bus": (40, 0.31), "road": (50, 0.62)})
    (run / "plots").mkdir()
    for name in ("plots/confusion.png", "plots/sizes.png", "contact_sheet.png"):
        PilImage.new("RGB", (40, 30), "teal").save(run / name)
    later = run / "evaluation_test"
    later.mkdir()
    content = json.loads((run / "evaluation.json").read_bytes())
    content |= {"data": str(folder / "secret-data" / "test"), "images": 4}
    (later / "evaluation.json").write_text(json.dumps(content))
    other = run / "evaluation_of_others"
    other.mkdir()
    (other / "evaluation.json").write_text(json.dumps(content | {"weights_sha256": "9" * 64}))
    (run / "log.txt").write_text(f"{HOST} {folder}")
    return run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return evaluated_run(tmp_path / "homes" / USER)


def names_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.links += [value for name in ("href", "src") if (value := given.get(name))]
        self.anchors |= {value for value in [given.get("id")] if value}


def links_of(page: Path) -> Links:
    parser = Links()
    parser.feed(page.read_text("utf-8"))
    return parser


def wheel_of(folder: Path, name: str, version: str) -> Path:
    """A wheel without modules."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        stated = f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n\nName: other\n"
        wheel.writestr(f"{name}-{version}.dist-info/METADATA", stated)
    return path


def test_wheels_that_cannot_be_used(run: Path, tmp_path: Path) -> None:
    (tmp_path / "text.whl").write_text("not a wheel")
    for path, message in (
        (wheel_of(tmp_path, "d2tune", "0.0.9"), rf"is another wheel; found d2tune 0\.0\.9; .*d2tune {own_version()}"),
        (wheel_of(tmp_path, "other", own_version()), "is another wheel; found other"),
        (tmp_path / "text.whl", "cannot be read: it is not a wheel"),
        (tmp_path / "missing.whl", "cannot be read: No such file"),
    ):
        with pytest.raises(DataError, match=message):
            api.handover(run, "out", wheel=path)
    assert not (tmp_path / "out").exists()


def test_what_is_in_it(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report"
    (report / "images").mkdir(parents=True)
    (report / "acceptance.html").write_text("<p>Accepted.</p>")
    (report / "images" / "worst.png").write_bytes(b"png")
    wheel = wheel_of(tmp_path, "d2tune", own_version())
    given = ["--acceptance", "report", "--thresholds", "0.4", "--wheel", str(wheel)]
    assert main(["handover", str(run), "--out", "out", *given]) == 0
    assert re.fullmatch(r"\d+ files, \d+\.\d MB: out/index\.html\n", capsys.readouterr().out)
    names = [name for name in names_in(tmp_path / "out") if not name.startswith("licenses/")]
    assert names == [
        "acceptance/acceptance.html",
        "acceptance/images/worst.png",
        "data.json",
        "evaluation_test/evaluation.json",
        "handover.json",
        "how_to_run.md",
        "index.html",
        "model/README.md",
        "model/detectron2.yaml",
        "model/model.safetensors",
        "model/package.json",
        "model/project.yaml",
        "training_evaluation/contact_sheet.png",
        "training_evaluation/evaluation.json",
        "training_evaluation/plots/confusion.png",
        "training_evaluation/plots/sizes.png",
        f"wheels/{wheel.name}",
    ]
    how = (tmp_path / "out" / "how_to_run.md").read_text("utf-8")
    assert f"\npip install wheels/{wheel.name}\n" in how and f'"wheels/{wheel.name}[serve]"' in how
    out = tmp_path / "out"
    listed = json.loads((out / "handover.json").read_bytes())["files"]
    assert sorted(listed) == [name for name in names_in(out) if name != "handover.json"]
    for name, entry in listed.items():
        content = (out / name).read_bytes()
        assert entry == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    data = json.loads((out / "data.json").read_bytes())
    assert data["train_sha256"] == "1" * 64 and data["val_instances"] == {"bus": 40, "road": 40}
    assert data["classes"] == ["bus", "road"]
    detections = d2tune.load_predictor(out / "model")
    assert detections.min_scores == (0.4, 0.4)


def test_the_page_has_everything_and_links_that_lead_somewhere(run: Path, tmp_path: Path) -> None:
    (tmp_path / "signed & 100 %.html").write_text("<p>Accepted.</p>")
    api.handover(run, "out", acceptance="signed & 100 %.html")
    out = tmp_path / "out"
    page, text = links_of(out / "index.html"), (out / "index.html").read_text("utf-8")
    assert "default-src 'none'" in text and "<script" not in text
    outside = [link for link in page.links if re.match(r"\w+:", link) and link != "data:,"]
    assert not outside
    local = {unquote(link) for link in page.links if not link.startswith(("#", "data:"))}
    assert local == {name for name in names_in(out) if name not in ("index.html", "handover.json")}
    assert {link[1:] for link in page.links if link.startswith("#")} <= page.anchors
    for words in ("40.0 (30.0 to 55.5)", "0.31", "best F1 on 40 objects", "On other data (test), 4 images", "2" * 64):
        assert words in text
    assert "<bdi>bus</bdi>" in text and "There is no" not in text
    how = (out / "how_to_run.md").read_text("utf-8")
    commands = re.findall(r"```\n(.*?)\n```", how, re.DOTALL)
    assert commands[0].splitlines()[-1] == "d2tune predict model photo.jpg --out predictions"
    assert "d2tune serve model --host 127.0.0.1 --port 8000" in commands[1].splitlines()
    assert "runner.py" not in how


def forbidden(tmp_path: Path) -> Iterator[bytes]:
    for text in (HOST, USER, str(tmp_path), str(ROOT), sys.prefix, "secret-"):
        yield text.encode()


@pytest.mark.slow
def test_nothing_in_it_names_the_machine_and_it_is_the_same_twice(run: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        api.handover(run, name)
    assert names_in(tmp_path / "a") == names_in(tmp_path / "b")
    for name in names_in(tmp_path / "a"):
        content = (tmp_path / "a" / name).read_bytes()
        assert content == (tmp_path / "b" / name).read_bytes(), name
        for word in forbidden(tmp_path):
            assert word not in content and word not in name.encode(), (name, word)
        if name.endswith((".json", ".html", ".md", ".yaml")) and not name.startswith("licenses/"):
            hit = re.search(rb"""["'\s=(]/(?:home|root|tmp|work|usr|var|mnt|Users)/|[A-Z]:\\""", content)
            assert hit is None, (name, hit)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("made on {host}", "the host name"),
        ("made on {host}.example.org", "the host name"),
        ("images of {home}/photos", "the home folder"),
        ("images of {cwd}/photos", "the path"),
    ],
)
def test_a_report_that_names_the_machine_is_refused(text: str, what: str, run: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    report.write_text(text.format(host=HOST, home=Path.home(), cwd=Path.cwd()))
    with pytest.raises(DataError, match=rf"acceptance/report\.html: the file names this machine; found {what}"):
        api.handover(run, "out", acceptance=report)
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))


def test_names_that_are_part_of_longer_ones_are_not_those_of_the_machine(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "a.txt").write_text(f"super{HOST} {HOST}x {Path.home()}s")
    wanted = {what: pattern for what, pattern in machine_names.patterns().items() if not what.startswith("the path")}
    machine_names.check(tmp_path / "a", wanted)
    (tmp_path / "a" / f"{HOST}.txt").write_text("")
    with pytest.raises(DataError, match="the file names this machine; found the host name"):
        machine_names.check(tmp_path / "a", wanted)


def test_of_a_package(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    api.package(run, "package", thresholds=0.3)
    assert main(["handover", "package", "--out", "out"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        "There is no evaluation report: a package has none.",
        "There is no acceptance report: add one with --acceptance.",
    ]
    for name in names_in(tmp_path / "package"):
        assert (tmp_path / "out" / "model" / name).read_bytes() == (tmp_path / "package" / name).read_bytes()
    assert lines[0] in (tmp_path / "out" / "index.html").read_text("utf-8")
    with pytest.raises(PackageError, match=r"a package has its weights and thresholds\. Remove --thresholds"):
        api.handover("package", "other", thresholds=0.5)


def test_what_is_there_is_not_lost(run: Path, tmp_path: Path) -> None:
    api.package(run, "package")

    def refused(message: str, *, force: bool = True) -> None:
        before = {name: (tmp_path / "out" / name).read_bytes() for name in names_in(tmp_path / "out")}
        with pytest.raises(D2TuneError, match=message):
            api.handover("package", "out", force=force)
        assert {name: (tmp_path / "out" / name).read_bytes() for name in names_in(tmp_path / "out")} == before

    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    refused("the folder is not empty, and is not a handover")
    (tmp_path / "out" / "mine.txt").unlink()
    api.handover("package", "out")
    refused("the handover is already there and is not replaced", force=False)
    api.handover("package", "out", force=True)
    (tmp_path / "out" / "mine.txt").write_text("mine")
    refused(r"mine\.txt: a file of the handover is new since it was written")
    (tmp_path / "out" / "mine.txt").unlink()
    (tmp_path / "out" / "data.json").write_text("{}")
    refused(r"data\.json: a file of the handover was changed since it was written")
    (tmp_path / "out" / "data.json").unlink()
    refused(r"data\.json: a file of the handover is missing since it was written")
    with pytest.raises(D2TuneError, match="a file is already there"):
        api.handover("package", tmp_path / "package" / "README.md", force=True)


@pytest.mark.parametrize(
    ("acceptance", "message"),
    [
        ("none.html", r"none\.html: --acceptance: the acceptance report does not exist"),
        ("empty", "the folder of the acceptance report is empty"),
        ("linked", "the acceptance report has something that is not a file"),
    ],
)
def test_acceptance_reports_that_cannot_be_used(acceptance: str, message: str, run: Path, tmp_path: Path) -> None:
    for name in ("empty", "linked"):
        (tmp_path / name).mkdir()
    (tmp_path / "linked" / "password").symlink_to("/etc/passwd")
    with pytest.raises(DataError, match=message):
        api.handover(run, "out", acceptance=acceptance)
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------------------------------------ licenses


def test_licenses_of_what_runs_it(run: Path, tmp_path: Path) -> None:
    api.handover(run, "out")
    content = json.loads((tmp_path / "out" / "licenses" / "licenses.json").read_bytes())
    rows = {row["name"].lower(): row for row in content["libraries"]}
    for name, license in {"d2tune": "Apache-2.0", "torch": "BSD-3-Clause", "pillow": "MIT-CMU"}.items():
        assert rows[name]["license"] == license and rows[name]["version"] == importlib.metadata.version(name)
        text = (tmp_path / "out" / "licenses" / rows[name]["texts"][0]).read_text("utf-8")
        assert len(text) > 500
    assert {"detectron2", "numpy", "onnxruntime", "torchvision", "protobuf"} <= rows.keys()
    assert not {"pytest", "ruff", "labelme"} & rows.keys()
    assert (
        content["weights"] == "It started from start.pth, whose license is that of its publisher and is not known here."
    )


def test_libraries_are_those_that_others_need() -> None:
    names = [library.name.lower() for library in libraries(["jinja2", "not-installed"])]
    assert names == ["jinja2", "markupsafe"]
    assert all(library.texts for library in libraries(["jinja2"]))


def installed(folder: Path, name: str, *lines: str, **contents: str) -> None:
    """Install a library with lines of metadata and files with contents."""
    own = folder / f"{name}-1.0.dist-info"
    own.mkdir(parents=True)
    (own / "METADATA").write_text("\n".join(["Metadata-Version: 2.1", f"Name: {name}", "Version: 1.0", *lines, ""]))
    for file, content in contents.items():
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(content)
    (own / "RECORD").write_text("".join(f"{one},,\n" for one in (f"{own.name}/METADATA", *contents)))


def test_what_metadata_state_of_licenses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name, a whole text in its place, UNKNOWN with a classifier, nothing, and a library that only has requirements.

    The extra of a requirement is followed, as torch has CUDA's libraries behind ``cuda-toolkit[cudart]``.
    """
    monkeypatch.syspath_prepend(str(tmp_path))
    asked = [f"Requires-Dist: {name}" for name in ("whole-text", "unknown", "silent", "only-requirements[gpu]")]
    installed(
        tmp_path,
        "first",
        "License: MIT",
        *asked,
        **{"first/ThirdPartyNotices.txt": "", "first/LICENSE": "", "first/license.py": ""},
    )
    classifier = "Classifier: License :: OSI Approved :: BSD License"
    installed(tmp_path, "whole_text", "License: ====\n        Copyright (c) Ann", classifier, **{"whole_text/a.py": ""})
    installed(tmp_path, "unknown", "License: UNKNOWN", classifier.replace("BSD", "Apache"), **{"unknown/a.py": ""})
    installed(tmp_path, "silent", **{"silent/a.py": ""})
    gpu, cpu = (f"Requires-Dist: behind-{name}; extra == '{name}'" for name in ("gpu", "cpu"))
    installed(tmp_path, "only_requirements", "Provides-Extra: gpu", "Provides-Extra: cpu", gpu, cpu)
    installed(tmp_path, "behind_gpu", "License-Expression: MIT", **{"behind_gpu/a.py": ""})
    installed(tmp_path, "behind_cpu", "License-Expression: MIT", **{"behind_cpu/a.py": ""})
    rows = {library.name: library for library in libraries(["first"])}
    assert {name: library.license for name, library in rows.items()} == {
        "behind_gpu": "MIT",
        "first": "MIT",
        "only_requirements": "has no files of its own, only requirements",
        "silent": "not stated",
        "unknown": "Apache License",
        "whole_text": "BSD License",
    }
    assert [path.name for path in rows["first"].texts] == ["LICENSE", "ThirdPartyNotices.txt"], "beside its program"
    assert [library.name for library in libraries(["only-requirements[cpu]"])] == ["behind_cpu", "only_requirements"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (None, "trained from scratch"),
        ("detectron2://PointRend/model_final.pkl", "CC BY-SA 3.0"),
        ("https://dl.fbaipublicfiles.com/detectron2/a.pkl", "CC BY-SA 3.0"),
        ("https://example.org/detectron2/a.pkl", "is not known here"),
    ],
)
def test_license_of_the_weights(source: str | None, words: str) -> None:
    assert words in license_of_weights(source)


@pytest.mark.extended
def test_with_the_model_for_devices(run: Path, tmp_path: Path) -> None:
    api.handover(run, "out", runtime="onnx", thresholds=0.4)
    names = names_in(tmp_path / "out")
    assert {"edge/model.onnx", "edge/runner.py", "edge/requirements.txt"} <= set(names)
    how = (tmp_path / "out" / "how_to_run.md").read_text("utf-8")
    assert "python edge/runner.py photo.jpg --out predictions" in how
    package = json.loads((tmp_path / "out" / "edge" / "package.json").read_bytes())
    assert package["thresholds"]["bus"]["value"] == 0.4
    for name in names:
        content = (tmp_path / "out" / name).read_bytes()
        assert not any(word in content for word in forbidden(tmp_path)), name
