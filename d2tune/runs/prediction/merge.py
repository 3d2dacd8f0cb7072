"""Joining the shards of a prediction: the same files as those of one process."""

from __future__ import annotations

import filecmp
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from detectron2.config import CfgNode
from tqdm import tqdm

from d2tune import files
from d2tune.annotations.io.output_record import DRAWING, PREDICTIONS, OwnFiles, add_to_record, write_own
from d2tune.annotations.io.outputs import protected, write_output
from d2tune.errors import DataError
from d2tune.inference.writers.base import Images, Writer, WriterOptions
from d2tune.modeling.config import read_config
from d2tune.modeling.loaded import ModelDescription
from d2tune.project import load_project
from d2tune.run_folder import ensure_writable
from d2tune.runs.prediction.result import PredictionResult
from d2tune.runs.prediction.shards import FORMAT, Shard
from d2tune.tasks import TASKS
from d2tune.text import counted
from d2tune.versions import own_version

_PATTERN = "shard-*-of-*.json"

_EQUAL = {
    "d2tune": "of d2tune",
    "weights": "the weights of the model",
    "config": "the config of the model",
    "project": "the project",
    "to": "the formats (--to)",
    "options": "the options",
    "source": "the images",
    "category_ids": "the ids of the classes",
    "batches": "which images the model runs on together, as on a GPU and without one",
}
"""What all shards have in common, in words."""


@dataclass(frozen=True, slots=True)
class _Finished:
    """A finished shard.

    Attributes:
        path: Its description.
        about: The content of the description.
    """

    path: Path
    about: Mapping[str, Any]

    @property
    def shard(self) -> Shard:
        """Which one it is."""
        return Shard(self.about["shard"], self.about["shards"])

    @property
    def entries(self) -> Path:
        """The file with its entries."""
        return self.path.with_suffix(".jsonl")

    @property
    def indices(self) -> list[int]:
        """The indices of its images among all."""
        return [row[0] for row in self.about["images"]]


def merge(folders: Sequence[str | Path], *, out: str | Path, force: bool = False) -> PredictionResult:
    """Join the shards of a prediction into what one process would have written.

    Files of single images are linked where the file system allows it, else copied.

    Args:
        folders: The output folders of all shards, in any order; one folder may have several.
        out: The output folder.
        force: Whether unchanged files of an earlier prediction are replaced whose formats ask for that.

    Raises:
        DataError: A shard is missing, given twice, of another prediction than the others, of another version, or its
            files were changed; or no shard has an image that could be read.
        RunError: ``out`` cannot be written.
    """
    shards = _complete([one for folder in folders for one in _read(Path(folder))])
    for one in shards:
        _check_files(one)
    target = Path(out)
    ensure_writable(target)
    return _Merge(shards, target, force).run()


def _read(folder: Path) -> list[_Finished]:
    """The finished shards in a folder.

    Raises:
        DataError: There is none, or a description is damaged or of another version.
    """
    paths = sorted(folder.glob(_PATTERN))
    if not paths:
        unfinished = list(folder.glob(".d2tune-predict-*-of-*.jsonl"))
        seen = f"{unfinished[0].name}, of a shard that is not finished" if unfinished else None
        hint = "Write it with `d2tune predict ... --shard I/N --out FOLDER`."
        raise DataError("the folder has no finished shard", file=folder, found=seen, hint=hint)
    return [_described(path) for path in paths]


def _described(path: Path) -> _Finished:
    try:
        about = json.loads(path.read_bytes())
        version = about["format"]
    except (ValueError, KeyError, TypeError):
        raise DataError("the description of the shard is not valid", file=path, hint="Predict it again.") from None
    if version != FORMAT or about.get("d2tune") != own_version():
        raise DataError(
            "the shard was written by another version of d2tune",
            file=path,
            found=str(about.get("d2tune")),
            expected=own_version(),
            hint="Predict and merge with one version.",
        )
    return _Finished(path, about)


def _complete(given: Sequence[_Finished]) -> list[_Finished]:
    """The shards in order, each once, all of one prediction.

    Raises:
        DataError: They are not.
    """
    first = given[0]
    by_number: dict[int, _Finished] = {}
    for one in given:
        if one.shard.count != first.shard.count:
            counts = f"{one.shard}, and {first.shard} in {first.path.parent}"
            raise DataError("the shards are not of one division", file=one.path, found=counts)
        _refuse_other(one, first)
        earlier = by_number.setdefault(one.shard.number, one)
        if earlier is not one:
            raise DataError(f"shard {one.shard} is given twice", file=one.path, found=f"also {earlier.path}")
    missing = [str(Shard(number, first.shard.count)) for number in range(1, first.shard.count + 1)]
    missing = [text for number, text in enumerate(missing, start=1) if number not in by_number]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        names = ", ".join(missing[:10]) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")
        hint = "Give the folders of all shards."
        raise DataError(f"{counted(len(missing), 'shard')} {verb} missing: {names}", hint=hint)
    shards = [one for _, one in sorted(by_number.items())]
    indices = sorted(index for one in shards for index in one.indices)
    if indices != list(range(first.about["images_in_all"])):
        raise DataError("the shards do not have each image once", file=first.path, hint="Predict all of them again.")
    return shards


def _refuse_other(one: _Finished, first: _Finished) -> None:
    """Refuse a shard of another prediction."""
    different = [words for key, words in _EQUAL.items() if one.about.get(key) != first.about.get(key)]
    if different:
        raise DataError(
            f"the shard is of another prediction than that in {first.path.parent}",
            file=one.path,
            found=f"different: {', '.join(different)}",
            hint="Predict all shards with the same model, options and images.",
        )


def _check_files(one: _Finished) -> None:
    """Refuse a shard whose description or entries were changed."""
    own = OwnFiles()
    for path in (one.path, one.entries):
        if not os.path.lexists(path):
            raise _missing(path)
        if not own.is_unchanged(path, PREDICTIONS):
            raise _changed(path)
    if files.sha256_file(one.entries) != one.about["entries_sha256"]:
        raise _changed(one.entries)


def _missing(path: Path) -> DataError:
    return DataError("a file of the shard is missing", file=path, hint="Predict the shard again.")


def _changed(path: Path) -> DataError:
    return DataError("the file was changed after the shard was written", file=path, hint="Predict the shard again.")


@dataclass(frozen=True, slots=True)
class _Merge:
    """The joining of complete shards.

    Attributes:
        shards: The shards in order.
        out: The output folder.
        force: Whether files of an earlier prediction are replaced.
    """

    shards: Sequence[_Finished]
    out: Path
    force: bool

    def run(self) -> PredictionResult:
        """Bring the files of all images together, and write the files about all of them."""
        options = dict(self.shards[0].about["options"])
        thresholds = options.pop("thresholds")
        model, cfg = self._model()
        task, images = TASKS[str(model.record.get("task") or model.project.task)], self._images(model)
        predictor = task.predictor(None, cfg, model.project, model.categories)
        with ExitStack() as stack, protected(lambda: self._inputs(images)):

            def writer_in(
                folder: Path, *, force: bool, finished: frozenset[int], kept: frozenset[int] = frozenset()
            ) -> Writer[Any, Any]:
                given = WriterOptions(**options, force=force, finished=finished, kept=kept)
                to = self.shards[0].about["to"]
                return stack.enter_context(task.writer(to, folder, images, predictor, given, model.project))

            everything = frozenset(range(len(images.paths)))
            sources = [writer_in(one.path.parent, force=True, finished=everything) for one in self.shards]
            carried = [
                _Carried(one, source, self.out, stack.enter_context(_Entries(one.entries)))
                for one, source in zip(self.shards, sources, strict=True)
            ]
            same = frozenset(index for one in carried for index in one.checked())
            kept = frozenset(index for one in carried for index in one.kept())
            writer = writer_in(self.out, force=self.force, finished=same, kept=kept)
            instances = self._add_all(writer, carried)
            if not writer.written:
                raise DataError("no image could be read", file=images.root, found=self._skipped()[0])
            writer.finish()
        return PredictionResult(
            self.out,
            writer.written,
            instances,
            self._skipped(),
            task.name,
            max(thresholds.values()),
            writer.lower,
            writer.highest_lower,
        )

    def _model(self) -> tuple[ModelDescription, CfgNode]:
        """What the shards say of the model, and its config."""
        about = self.shards[0].about["model"]
        with tempfile.TemporaryDirectory() as scratch:
            project, config = Path(scratch) / "project.yaml", Path(scratch) / "detectron2.yaml"
            files.write_text(project, about["project"])
            files.write_text(config, about["config"])
            source = self.shards[0].path.parent
            description = ModelDescription(source=source, project=load_project(project).project, record=about["record"])
            return description, read_config(config)

    def _images(self, model: ModelDescription) -> Images:
        """All images in order."""
        about = self.shards[0].about
        root = Path(about["root"])
        rows = sorted((row for one in self.shards for row in one.about["images"]), key=lambda row: row[0])
        paths = [root / row[1] for row in rows]
        absent = [path for path in paths if not path.exists()]
        if absent and model.record["input"].get("stacked"):
            hint = "Merge on a machine that has the images."
            raise DataError("names of outputs depend on an image that does not exist here", file=absent[0], hint=hint)
        ids = [row[2] for row in rows if len(row) > 2]
        return Images(root, paths, image_ids=ids, category_ids=about["category_ids"])

    def _inputs(self, images: Images) -> list[Path]:
        return [*images.paths, *(path for one in self.shards for path in (one.path, one.entries))]

    def _skipped(self) -> tuple[str, ...]:
        """A line for each image without predictions, in order."""
        rows = sorted((index, line) for one in self.shards for index, line in one.about["skipped"])
        return (*self.shards[0].about["missing"], *(line for _, line in rows))

    def _add_all(self, writer: Writer[Any, Any], carried: Sequence[_Carried]) -> int:
        """Add all images in order; returns the number of instances or regions."""
        of_image = {index: one for one in carried for index in one.finished.indices}
        instances = 0
        for index in tqdm(range(len(of_image)), desc="merging", unit=" images", leave=False, disable=None):
            one = of_image[index]
            if index in one.entries:
                one.carry(index)
                instances += writer.add(index, one.entries[index])
        return instances


@dataclass(frozen=True, slots=True)
class _Carried:
    """The files of the images of a shard, which get a second place in the output folder.

    Attributes:
        finished: The shard.
        source: A writer of the shard's folder.
        out: The output folder.
        entries: The entries of the shard.
    """

    finished: _Finished
    source: Writer[Any, Any]
    out: Path
    entries: _Entries
    own: OwnFiles = field(default_factory=OwnFiles)

    def checked(self) -> list[int]:
        """The indices of the images whose files are in the output folder already.

        Raises:
            DataError: A file was changed or is missing.
        """
        same = []
        for index in self.finished.indices:
            if index not in self.entries:
                continue
            rows = list(self._files(index))
            for path, kind, _ in rows:
                if not os.path.lexists(path):
                    raise _missing(path)
                if not self.own.is_unchanged(path, kind):
                    raise _changed(path)
            if all(self._is_there(index, path, target) for path, _, target in rows):
                same.append(index)
        return same

    def kept(self) -> list[int]:
        """The indices of the images of which the shard has left a file as it was."""
        indices = (index for index in self.finished.indices if index in self.entries)
        return [index for index in indices if self.source.is_kept(self.entries[index])]

    def carry(self, index: int) -> None:
        """Bring the files of an image into the output folder."""
        for path, kind, target in self._files(index):
            if self._is_there(index, path, target):
                continue
            content = self.source.content_at(target, index, path)
            if content is not None:
                write_output(target, content, kind=kind)
            else:
                _link_or_copy(path, target, kind, self.own.last_sha256(path))

    def _files(self, index: int) -> Iterator[tuple[Path, str, Path]]:
        """Each file with its kind and its place in the output folder."""
        folder, drawings = self.finished.path.parent, set(self.source.drawings_of(index))
        for path in self.source.files_of_entry(index, self.entries[index]):
            yield path, DRAWING if path in drawings else PREDICTIONS, self.out / path.relative_to(folder)

    def _is_there(self, index: int, path: Path, target: Path) -> bool:
        if not target.is_file() or target.is_symlink():
            return False
        content = self.source.content_at(target, index, path)
        if content is not None:
            return files.holds(target, [content])
        return target.samefile(path) or filecmp.cmp(path, target, shallow=False)


def _link_or_copy(path: Path, target: Path, kind: str, sha256: str | None) -> None:
    """Hard-link a file to another place, or copy it where the file system has no links; recorded as written."""
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_name(f".{target.name[:40]}.{secrets.token_hex(4)}.tmp")
    try:
        os.link(path, scratch)
    except OSError:
        with path.open("rb") as content, write_own(target, kind) as stream:
            shutil.copyfileobj(content, stream)
        return
    add_to_record(target, kind, sha256)
    scratch.replace(target)


class _Entries:
    """The entries of a shard by the index of their image; to be used as a context manager.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._stream = path.open("rb")
        self._offsets: dict[int, int] = {}
        self._stream.readline()
        while True:
            offset = self._stream.tell()
            line = self._stream.readline()
            if not line:
                break
            self._offsets[json.loads(line)[0]] = offset

    def __contains__(self, index: int) -> bool:
        return index in self._offsets

    def __getitem__(self, index: int) -> Any:
        self._stream.seek(self._offsets[index])
        return json.loads(self._stream.readline())[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason: object) -> None:
        self._stream.close()
