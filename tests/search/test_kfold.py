"""Cross-validation: real trainings on two folds, finished ones kept, unfinished ones resumed."""

import json
from pathlib import Path

import pytest

from d2tune import api, cli
from d2tune.errors import D2TuneError
from d2tune.project import load_project
from d2tune.run_folder import RunFolder
from d2tune.runs.overview import list_runs

QUICK = ["train.iterations=1", "train.image_size=64", "train.validation_loss=false"]


def value_of(run: Path) -> float:
    evaluation = json.loads((run / "evaluation.json").read_text())
    return float(evaluation["metrics"]["segm"]["AP"]["value"])


@pytest.mark.slow
@pytest.mark.extended
def test_two_folds(tiny_project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "runs" / "kfold"
    words = ["kfold", str(tiny_project), *QUICK, "--folds", "2", "--num-gpus", "0", "--output-dir", str(out)]
    assert cli.main(words) == 0
    printed = capsys.readouterr().out
    content = json.loads((out / "kfold.json").read_text())
    runs = [out / "fold0", out / "fold1"]
    values = [value_of(run) for run in runs]
    assert [row["values"]["mask AP"] for row in content["results"]] == values
    assert content["means"]["mask AP"]["mean"] == pytest.approx(sum(values) / 2)
    assert "(Student's t over 2 folds)" in printed.splitlines()[-1]
    assert "validated on fold 1 of 0 to 1" in printed

    records = [RunFolder(run).read_record() for run in runs]
    assert sum(record["data"]["val_images"] for record in records) == 20  # each image of both splits once
    assert records[0]["data"]["val_sha256"] != records[1]["data"]["val_sha256"]
    for number, run in enumerate(runs):
        project = load_project(run / "project.yaml").project
        assert project.data.fold is not None and (project.data.fold.of, project.data.fold.number) == (2, number)
        assert project.tracking_group == "tiny-kfold"
    assert {run.path.name for run in list_runs(out.parent)} == {"fold0", "fold1"}
    assert api.evaluate(runs[1], out=tmp_path / "again").metrics.segm["AP"].value == pytest.approx(values[1])

    for change, line in (
        (["train.seed=1"], "train.seed changed since the folds began; found 1; expected 0"),
        (["name=other"], "the folds are of another project; found 'other'; expected 'tiny'"),
    ):
        assert cli.main([*words, *change, "--resume"]) == 1
        assert line in capsys.readouterr().err
    assert cli.main([*words, "--folds", "3", "--resume"]) == 1
    assert "the number of folds is another; found 3; expected --folds 2" in capsys.readouterr().err
    assert cli.main(words) == 1
    assert "the output folder is not empty" in capsys.readouterr().err

    RunFolder(runs[1]).update_record({"finished": None})  # as where it is killed in its last evaluation
    untouched = (runs[0] / "record.json").stat().st_mtime_ns
    assert cli.main([*words, "--resume"]) == 0
    assert (runs[0] / "record.json").stat().st_mtime_ns == untouched
    again = RunFolder(runs[1]).read_record()
    assert again["finished"]["iterations"] == 1 and len(again["resumed"]) == 1
    assert json.loads((out / "kfold.json").read_text())["results"] == content["results"]


def test_mistakes_are_one_line(tiny_project: Path, tmp_path: Path) -> None:
    with pytest.raises(D2TuneError, match="--folds: the number of folds must be 2 or more; found 1"):
        api.kfold(tiny_project, folds=1)
    with pytest.raises(D2TuneError, match=r"data.fold: the project trains on one fold. Remove it."):
        api.kfold(tiny_project, overrides=["data.fold={of: 2, number: 0}"])
    with pytest.raises(D2TuneError, match=r"there are no folds to resume. Begin without --resume"):
        api.kfold(tiny_project, output_dir=tmp_path / "nothing", resume=True)
    with pytest.raises(D2TuneError, match="cannot be divided into 30 splits"):
        api.kfold(tiny_project, folds=30, output_dir=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    for _ in range(2):  # the next one may have other settings, and begins in the same folder
        with pytest.raises(D2TuneError, match=r"train.warmup: the learning rate would rise to the end"):
            api.kfold(tiny_project, overrides=["train.epochs=1", "train.warmup=99"], output_dir=tmp_path / "out")
    assert not any((tmp_path / "out").iterdir())
