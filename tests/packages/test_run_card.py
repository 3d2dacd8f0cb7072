"""``MODEL_CARD.md`` of a run: read by Hugging Face's library, its numbers those of the files, a person's text kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from PIL import Image as PilImage

from d2tune.annotations.model.dataset import Image
from d2tune.data.in_common import in_common, in_common_lines
from d2tune.files import sha256_file
from d2tune.modeling.config import read_config
from d2tune.packages.run_card import write_run_card
from d2tune.packages.weights_license import earlier_sources, license_of, license_of_weights
from d2tune.packages.write import write_package
from d2tune.project import load_project
from d2tune.run_folder import RunFolder
from tests.packages.builders import evaluate_by_hand, make_run

ZOO = "detectron2://PointRend/InstanceSegmentation/a/model_final.pkl"


@pytest.fixture(scope="session")
def card_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("card"))


@pytest.fixture
def run(card_run: Path, tmp_path: Path) -> RunFolder:
    """A run that started from the model zoo, with an evaluation whose numbers are known."""
    folder = RunFolder(Path(shutil.copytree(card_run, tmp_path / "run")))
    evaluate_by_hand(folder.path, {"bus": (50, 0.4), "road": (4, 0.7)})
    change(folder.record, lambda record: record["weights"].update(source=ZOO))
    return folder


def change(path: Path, how: Any) -> None:
    content = json.loads(path.read_text("utf-8"))
    how(content)
    path.write_text(json.dumps(content), "utf-8")


def write(run: RunFolder) -> Path:
    return write_run_card(run, load_project(run.project).project, read_config(run.config), divisible_by_px=32)


def test_front_matter_is_read_back(run: RunFolder) -> None:
    card = ModelCard.load(write(run))
    data = card.data
    assert (data.license, data.library_name, data.pipeline_tag) == ("cc-by-sa-3.0", "detectron2", "image-segmentation")
    assert data.model_name == "traffic" and "instance-segmentation" in data.tags
    assert [one.metric_name for one in data.eval_results] == ["box AP", "box AP50", "mask AP", "mask AP50"]
    mask = data.eval_results[2]
    assert (mask.metric_type, mask.metric_value) == ("mask_ap", 40.0)
    assert mask.metric_args == {"low": 30.0, "high": 55.5, "confidence": 0.95}
    assert (mask.dataset_split, mask.dataset_revision, mask.task_type) == ("validation", "2" * 64, "image-segmentation")


def test_what_the_card_says(run: RunFolder) -> None:
    def low(evaluation: dict[str, Any]) -> None:
        evaluation["metrics"]["segm"] |= {
            "APs": {"value": 7.04, "low": 1.0, "high": 20.0, "reason": None},
            "APm": {"value": 45.0, "low": 1.0, "high": 80.0, "reason": None},
            "APl": {"value": None, "low": None, "high": None, "reason": "no object in val is larger"},
        }
        road = {"value": 12.0, "low": 2.0, "high": 31.0, "reason": None}
        evaluation["classes"][1]["metrics"] = {"segm": {"AP": road}}

    change(run.evaluation, low)
    facts = {"sizes_px": {"width": 640, "height": 480, "different": 1}, "short_side_px": [480, 480, 480]}
    facts |= {"read": 30, "with_camera": 12, "cameras": {"Eye 2": 12}, "taken": None}
    change(run.record, lambda record: record["data"].update(in_common=facts))
    text = write(run).read_text("utf-8")
    few = "default: 4 objects in the evaluation, fewer than 30"
    source = ZOO.replace("_", r"\_")
    best = "best F1 on 50 objects: precision 50.0 %, recall 50.0 %"
    for line in (
        f"| 1 | bus | thing | 0.4 | {best} | 40 | 40 | 40.0 (30.0 to 55.5) |",
        f"| 2 | road | thing | 0.5 | {few} | 40 | 40 | 12.0 (2.0 to 31.0) |",
        "- The class road has a low mask AP: 12.0 (2.0 to 31.0).",
        "- For objects smaller than 32 x 32 px, mask AP is low: 7.0 (1.0 to 20.0).",
        "- For objects of 96 x 96 px or more, mask AP is not known: no object in val is larger.",
        "- All training images are 640 x 480 px. 12 of 30 files name their camera, all of them the same: Eye 2. "
        "Images that differ in this were not measured.",
        f"| Weights that it started from: {source} | CC BY-SA 3.0, as all weights of the model zoo of Detectron2 |",
        "| These weights | CC BY-SA 3.0: those who share weights made from CC BY-SA 3.0 weights name the source and "
        "share alike |",
        f"| model\\_best.pth | {run.best.stat().st_size:,} | {sha256_file(run.best)} |",
    ):
        assert line in text, line
    assert "The class bus has a low" not in text and "between 32 x 32" not in text
    assert "does not claim that the model complies" in text and "| 5 Risk management | not here |" in text
    assert "{{" not in text and "None" not in text


def test_a_package_of_the_run_has_the_same_sections(run: RunFolder, tmp_path: Path) -> None:
    def headings(path: Path) -> list[str]:
        return [line for line in path.read_text("utf-8").splitlines() if line.startswith("#")]

    own = write(run)
    write_package(run.path, tmp_path / "model")
    card = ModelCard.load(tmp_path / "model" / "README.md")
    assert headings(own) == headings(tmp_path / "model" / "README.md")
    assert card.data.license == "cc-by-sa-3.0" and card.data.eval_results == ModelCard.load(own).data.eval_results


def test_a_changed_card_is_kept(run: RunFolder, caplog: pytest.LogCaptureFixture) -> None:
    path = write(run)
    assert write(run) == path == run.card, "one that was not changed is replaced"
    path.write_text("my own words", "utf-8")
    second = write(run)
    assert (path.read_text("utf-8"), second.name) == ("my own words", "MODEL_CARD.new.md")
    assert "was changed by hand and stays; the new card is MODEL_CARD.new.md" in caplog.text


def test_names_cannot_break_out_of_the_card(tmp_path: Path) -> None:
    run = RunFolder(make_run(tmp_path, classes=("<img src=x>", "a|b")))
    evaluate_by_hand(run.path, {"<img src=x>": (50, 0.4), "a|b": (40, 0.7)})
    change(run.record, lambda record: record.update(project="x\n---\n# y: [\x1b[31m"))
    card = ModelCard.load(write(run))
    assert card.data.model_name == "x\\n---\\n# y: [\\x1b[31m"
    assert "<img" not in card.text and "\x1b" not in card.content and "a\\|b" in card.text


@pytest.mark.parametrize(
    ("source", "words", "identifier", "base_model"),
    [
        (ZOO, "CC BY-SA 3.0", "cc-by-sa-3.0", None),
        ("https://download.pytorch.org/models/resnet50.pth", "terms of its training data may apply", None, None),
        (
            "https://huggingface.co/timm/resnet34.a1_in1k/resolve/main/model.safetensors",
            "stated on https://huggingface.co/timm/resnet34.a1_in1k",
            None,
            "timm/resnet34.a1_in1k",
        ),
        ("start.pth", "not known here", None, None),
    ],
)
def test_licenses_of_sources(source: str, words: str, identifier: str | None, base_model: str | None) -> None:
    known = license_of(source)
    assert words in known.license and (known.identifier, known.base_model) == (identifier, base_model)


def test_a_license_follows_from_run_to_run(run: RunFolder, tmp_path: Path) -> None:
    """The zoo's weights, fine-tuned once, and again: the result is CC BY-SA 3.0 still."""
    first = str(run.best)
    assert earlier_sources(first) == [ZOO]
    second = tmp_path / "second"
    (second / "checkpoints").mkdir(parents=True)
    weights = {"source": first, "chain": earlier_sources(first)}
    (second / "record.json").write_text(json.dumps({"weights": weights}), "utf-8")
    assert earlier_sources(str(second / "checkpoints" / "model_final.pth")) == [first, ZOO]
    assert "CC BY-SA 3.0" in license_of_weights("model_best.pth", [ZOO])
    write_package(run.path, tmp_path / "model")
    assert earlier_sources(str(tmp_path / "model" / "model.safetensors")) == [ZOO]
    for source in (None, ZOO, str(tmp_path / "missing.pth")):
        assert earlier_sources(source) == []
    change(run.record, lambda record: record["weights"].update(source=str(run.best)))
    assert earlier_sources(str(run.best)) == [str(run.best)], "a circle ends"


def test_what_images_have_in_common(tmp_path: Path) -> None:
    images = []
    for number, (camera, taken) in enumerate(
        [("Eye 1\0", "2024:05:01 09:30:00"), ("Eye 1", "2025:01:31 17:59:59"), ("Eye 2", "broken"), (None, None)]
    ):
        path = tmp_path / f"{number}.jpg"
        exif = PilImage.Exif()
        if camera is not None:
            exif[0x0110] = camera
            exif.get_ifd(0x8769)[0x9003] = taken
        PilImage.new("RGB", (40 + number, 30)).save(path, exif=exif)
        images.append(Image(number + 1, path.name, 40 + number, 30, path))
    (tmp_path / "none.jpg").write_bytes(b"not an image")
    images.append(Image(5, "none.jpg", 40, 20, tmp_path / "none.jpg"))
    facts = in_common(images)
    assert facts["sizes_px"] == {"width": 40, "height": 30, "images": 1, "different": 5}
    assert facts["short_side_px"] == [20, 30, 30] and facts["cameras"] == {"Eye 1": 2, "Eye 2": 1}
    assert in_common_lines(facts) == [
        "The short sides of the training images are 20 to 30 px, in the median 30 px.",
        "3 of 5 files name their camera; most of them Eye 1 (2), Eye 2 (1).",
        "2 of 5 files state when they were taken: from 2024-05-01 to 2025-01-31, between 9 and 18 o'clock.",
    ]
    assert json.loads(json.dumps(facts)) == facts
    assert in_common([]) == {} and in_common_lines({}) == [] == in_common_lines({"sizes_px": 3, "short_side_px": []})
