import json
from pathlib import Path

import pytest

from d2tune.cli import main
from d2tune.data.location import locate_data
from d2tune.data.splits import load_splits
from d2tune.errors import DataError
from d2tune.project import Project, load_project
from d2tune.samples import render_sample

pytestmark = pytest.mark.usefixtures("without_plots")

TEXT = "data: {root: photos, sample: balloon, sample_images: 3}\nclasses: [balloon]\n"


def project(folder: Path, text: str = TEXT, **overrides: object) -> Project:
    path = folder / "pets.yaml"
    path.write_text(text, encoding="utf-8")
    return load_project(path, overrides={key.replace("__", "."): value for key, value in overrides.items()}).project


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_sample_has_a_folder_of_its_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    splits = load_splits(project(tmp_path))
    assert splits.rendered and splits.root == tmp_path / "photos-sample"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pets.yaml", "photos-sample"]
    assert all(image.path is not None and image.path.is_relative_to(splits.root) for image in splits.train.images)
    assert files(splits.root) == files(render_sample("balloon", tmp_path / "again", images=3, seed=0).folder)
    assert f"rendering the balloon sample in {splits.root}" in caplog.text


def test_a_rendered_sample_is_used_again_and_still_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = load_splits(project(tmp_path))
    written = files(first.root)
    caplog.clear()
    again = load_splits(project(tmp_path))
    assert again.rendered and again.train.content_hash() == first.train.content_hash()
    assert files(first.root) == written
    assert f"using the balloon sample in {first.root}" in caplog.text


def test_data_that_appear_later_are_used(tmp_path: Path) -> None:
    load_splits(project(tmp_path))
    render_sample("balloon", tmp_path / "photos", images=5, seed=1)
    splits = load_splits(project(tmp_path))
    assert not splits.rendered and splits.root == tmp_path / "photos"
    assert len(splits.train.images) + len(splits.val.images) == 5


def test_an_existing_folder_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(DataError, match="photos"):
        load_splits(project(tmp_path))
    assert not list((tmp_path / "photos").iterdir()) and not (tmp_path / "photos-sample").exists()


@pytest.mark.parametrize(
    ("text", "overrides"),
    [
        ("data: {root: photos}\nclasses: [balloon]\n", {}),
        ("data: {root: photos, sample: balloon}\nclasses: [dog]\n", {}),
        (TEXT, {"data__root": "fotos"}),
    ],
    ids=["no sample", "other classes", "a mistyped root on the command line"],
)
def test_a_missing_folder_is_an_error(tmp_path: Path, text: str, overrides: dict[str, object]) -> None:
    wanted = project(tmp_path, text, **overrides)
    with pytest.raises(DataError, match=rf"{wanted.data.root}: the data folder is missing"):
        load_splits(wanted)
    assert [path.name for path in tmp_path.iterdir()] == ["pets.yaml"]


def test_without_a_sample_an_existing_one_is_not_used_either(tmp_path: Path) -> None:
    load_splits(project(tmp_path))
    with pytest.raises(DataError, match="the data folder is missing"):
        load_splits(project(tmp_path), sample=False)


def test_without_render_only_an_existing_sample_is_used(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data folder is missing.*renders the project's sample"):
        locate_data(project(tmp_path))
    load_splits(project(tmp_path))
    located, rendered = locate_data(project(tmp_path))
    assert rendered and located.data.root == tmp_path / "photos-sample"


def test_a_failed_rendering_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(folder: Path, **options: object) -> None:
        (folder / "train").mkdir(parents=True)
        raise KeyboardInterrupt

    monkeypatch.setattr("d2tune.samples.render_sample", lambda kind, folder, **options: stop(folder, **options))
    with pytest.raises(KeyboardInterrupt):
        load_splits(project(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["pets.yaml"]


@pytest.mark.slow
def test_a_run_on_a_sample_records_it_and_is_evaluated_on_it_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "projects").mkdir()
    path = tmp_path / "projects" / "pets.yaml"
    path.write_text(TEXT + "model: {preset: pointrend_mobilenet_v2_fpn}\nweights: scratch\n", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    small = ["train.iterations=2", "train.image_size=64", "train.batch_size=1", "train.workers=0"]
    small.append("TEST.DETECTIONS_PER_IMAGE=5")
    assert main(["train", str(path), *small, "--num-gpus", "0"]) == 0
    (run,) = (tmp_path / "empty" / "runs" / "pets").iterdir()
    assert json.loads((run / "record.json").read_text("utf-8"))["data"]["rendered_sample"] is True
    assert load_project(run / "project.yaml").project.data.root == tmp_path / "projects" / "photos-sample"
    render_sample("balloon", tmp_path / "projects" / "photos", images=5, seed=1)
    before = json.loads((run / "evaluation.json").read_text("utf-8"))
    assert main(["eval", str(path)]) == 0
    after = json.loads((run / "evaluation" / "evaluation.json").read_text("utf-8"))
    assert after["images"] == before["images"] == 1, "the sample's, although the data folder exists now"
    assert main(["predict", str(path)]) == 0
    assert sorted(item.name for item in tmp_path.iterdir()) == ["empty", "projects"]
