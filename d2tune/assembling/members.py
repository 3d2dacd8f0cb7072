"""The runs that a model is assembled of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from torch import Tensor

from d2tune import files
from d2tune.annotations.io.photos.findings import with_white
from d2tune.annotations.model.dataset import Dataset
from d2tune.data.splits import load_splits
from d2tune.errors import RunError
from d2tune.modeling import checkpoint
from d2tune.modeling.config import read_config
from d2tune.packages.manifest import is_package
from d2tune.project import LoadedProject, load_project
from d2tune.run_folder import RunFolder
from d2tune.tasks import task_of

_SAME_INPUT = (
    "INPUT.FORMAT",
    "INPUT.ORIGINAL_SIZE",
    "INPUT.RASTER.CHANNELS",
    "INPUT.RASTER.NODATA",
    "INPUT.RASTER.STACK",
    "INPUT.WHITE",
    "TEST.WINDOW_PX",
    "TEST.WINDOW_OVERLAP_PX",
)


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """A finished run.

    Attributes:
        name: The end of its path that the other runs do not have.
        given: Its path as given.
        folder: Its folder.
        loaded: Its project.
        record: Its record.
        cfg: Its config.
        state: Its best weights.
        weights_sha256: Hash of their file.
    """

    name: str
    given: str
    folder: RunFolder
    loaded: LoadedProject
    record: dict[str, Any]
    cfg: CfgNode
    state: dict[str, Tensor]
    weights_sha256: str

    @property
    def precision(self) -> str:
        """The precision that it was trained in."""
        return str(self.record["machine"]["precision"])


def read_members(runs: Sequence[Path]) -> list[Member]:
    """Read finished runs of the same task and classes that read images in the same way.

    Raises:
        RunError: A run is not finished, is given twice, was assembled itself, or does not fit the first one.
        DataError: Its model follows objects.
    """
    members = [read_member(path, name) for path, name in zip(runs, short_names(runs), strict=True)]
    first = members[0]
    for member in members[1:]:
        check_fits(member, first)
        twins = [one.given for one in members if one.weights_sha256 == member.weights_sha256]
        if len(twins) > 1:
            raise RunError("the weights are given twice", file=twins[1], found=f"those of {twins[0]}")
    task_of(first.loaded.project).check_predicts_images()
    return members


def check_fits(member: Member, first: Member) -> None:
    """Check that a run is of the same task and classes as another one, and reads images in the same way.

    Raises:
        RunError: It is not, or does not.
    """
    for what, own, expected in (
        ("is of another task", member.loaded.project.task, first.loaded.project.task),
        ("has other classes", ", ".join(member.record["classes"]), ", ".join(first.record["classes"])),
        *(
            (f"reads images in another way: {key}", str(_value(member.cfg, key)), str(_value(first.cfg, key)))
            for key in _SAME_INPUT
        ),
    ):
        if own != expected:
            raise RunError(f"the run {what}", file=member.given, found=own, expected=f"{expected}, as {first.given}")


def short_names(paths: Sequence[Path]) -> list[str]:
    """The ends of paths, each of as many folders as it takes to distinguish all that are distinct."""
    whole = [path.resolve() for path in paths]
    for count in range(1, max(len(path.parts) for path in whole)):
        names = ["/".join(path.parts[-count:]) for path in whole]
        if len(set(names)) == len(set(whole)):
            return names
    return [str(path) for path in whole]


def read_member(path: Path, name: str) -> Member:
    """Read a finished run.

    Args:
        path: Its folder.
        name: See `Member`.

    Raises:
        RunError: It is not finished, is damaged, or was assembled itself.
    """
    folder = RunFolder(path)
    if is_package(path):
        raise RunError("is a package, which does not have its data", file=path, expected="a run folder")
    record = folder.read_record()
    if "assembled" in record:
        raise RunError("the run is an assembled model", file=path, hint="Name the runs that it was assembled of.")
    if "finished" in record and not record["finished"]:
        raise RunError("the run is not finished", file=path, hint="Go on with its training with --resume.")
    file = folder.weights("best")
    return Member(
        name,
        str(path),
        folder,
        load_project(folder.project),
        record,
        read_config(folder.config),
        checkpoint.load(file)["model"],
        files.sha256_file(file),
    )


def _value(cfg: CfgNode, key: str) -> Any:
    value: Any = cfg
    for name in key.split("."):
        value = value[name]
    return value


def validation_split(members: Sequence[Member]) -> Dataset:
    """The validation images, on which no run was trained.

    Raises:
        RunError: They are not those of a run, or a run was trained on some of them.
        D2TuneError: The data cannot be read.
    """
    first = members[0]
    val = load_splits(first.loaded.project, sample=False).val
    sha256 = val.content_hash()
    if first.record["data"]["val_sha256"] != sha256:
        raise RunError(
            "the validation split has changed since the training",
            file=first.given,
            found=f"SHA-256 {sha256[:12]}",
            expected=first.record["data"]["val_sha256"][:12],
            hint="Restore the data, or train again.",
        )
    for member in members[1:]:
        data = member.record["data"]
        if data["val_sha256"] != sha256:
            raise RunError(
                "the run was validated on other images",
                file=member.given,
                found=f"SHA-256 {data['val_sha256'][:12]}",
                expected=f"{sha256[:12]}, as {first.given}",
                hint="Assemble runs with the same validation split.",
            )
        if data["train_sha256"] != first.record["data"]["train_sha256"]:
            _refuse_trained_on(member, val)
    return with_white(val, first.cfg.INPUT.WHITE or None)


def _refuse_trained_on(member: Member, val: Dataset) -> None:
    """Check that a run with a training split of its own was trained on no image of the validation split."""
    train = load_splits(member.loaded.project, sample=False).train
    validated = {image.path.resolve() for image in val.images if image.path is not None}
    shared = [image.path for image in train.images if image.path is not None and image.path.resolve() in validated]
    if shared:
        raise RunError(
            "the run was trained on validation images", file=member.given, found=f"{shared[0]}, {len(shared)} in all"
        )
