"""Where in a folder the annotations and the images of the splits are."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2tune.annotations.formats import masks, rle_csv
from d2tune.annotations.formats.shared.coco_layout import searched_folders
from d2tune.annotations.io.images import is_image_name
from d2tune.annotations.io.json_files import JsonError, decode_json, decode_text, read_bytes
from d2tune.annotations.io.places import walk_files
from d2tune.annotations.io.rasters import is_raster_name, open_raster
from d2tune.annotations.recognition import detect_format, recognize
from d2tune.errors import DataError, ProjectError
from d2tune.project.traits import TRAITS, TaskName

COLOR_MAPS = ("class_dict.csv", "labelmap.txt", "label_colors.txt", "categories.json")
"""Files that name the classes of masks."""

_TRAIN_FOLDERS = ("train", "training")
_VAL_FOLDERS = ("val", "valid", "validation")
_JSON_FILES_READ = 20
_NAMES_LOOKED_FOR = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where the data of a project are.

    Attributes:
        root: The folder of the data.
        format: Annotation format, a value of ``data.format``.
        train: Folder, file or list of the training split, relative to ``root``.
        val: The same for the validation split; None takes a fraction of ``train``.
        images: Folder of the images, relative to ``root``, if they are not found beside the annotations.
        pair: Folders of images and label images within a split, of ``label_images``.
        csv_preset: Dialect of a run-length CSV.
        unused: Folder of test images, which a project does not read.
    """

    root: Path
    format: str
    train: str
    val: str | None = None
    images: str | None = None
    pair: tuple[str, str] | None = None
    csv_preset: str | None = None
    unused: str | None = None

    def data_keys(self) -> dict[str, Any]:
        """The keys of a project's data section."""
        keys: dict[str, Any] = {"root": self.root, "format": self.format, "train": self.train}
        keys |= {} if self.val is None else {"val": self.val}
        keys |= {} if self.images is None else {"images": self.images}
        keys |= {} if self.csv_preset is None else {"csv_preset": self.csv_preset}
        if self.pair is not None:
            keys["label_images"] = {"images": self.pair[0], "labels": self.pair[1]}
        return keys


def find_layout(data: Path, *, task: TaskName | None) -> Layout:
    """Recognize how a folder is laid out.

    Args:
        data: A folder, or a file of annotations.
        task: What the project is for; decides where there are annotations of several formats.

    Raises:
        DataError: There is nothing that can be read, or the annotations to use are ambiguous.
    """
    data = data.expanduser().resolve()
    if not data.exists():
        raise DataError("there is no such folder", file=data, hint="Check the path behind --data.")
    if data.is_file():
        return _of_file(data)
    names = _names_in(data)
    layout = _run_lengths(data, names) or _coco_files(data, names, task=task) or _lists(data)
    return layout or _folders(data, names, task=task)


def _names_in(folder: Path) -> list[str]:
    """Names in a folder in their order, without hidden ones."""
    try:
        names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise DataError(f"the folder cannot be read: {error.strerror}", file=folder) from None
    if not names:
        raise DataError("the folder is empty", file=folder, hint="Put your images and annotations into it.")
    return names


def _of_file(path: Path) -> Layout:
    format = detect_format(path)
    preset = _csv_preset(path) if format == "rle" else None
    if format == "rle" and preset is None:
        raise DataError("the columns of the CSV are not those of run lengths", file=path, expected=_known_columns())
    images = _images_folder(path.parent, path, _image_names(path, format))
    return Layout(root=path.parent, format=format, train=path.name, images=images, csv_preset=preset)


def _known_columns() -> str:
    return " or ".join(",".join(columns) for preset in rle_csv.PRESETS.values() for columns in preset.headers)


def _csv_preset(path: Path) -> str | None:
    """The dialect of a run-length CSV by its columns, None where it is another CSV."""
    try:
        with path.open("rb") as stream:
            header = decode_text(stream.readline(4096))[0]
    except (OSError, JsonError):
        return None
    return rle_csv.preset_of([column.strip() for column in header.strip().split(",")])


def _run_lengths(root: Path, names: Iterable[str]) -> Layout | None:
    """A run-length CSV in the folder itself; of several, the one of the training images."""
    tables = [name for name in names if name.lower().endswith(".csv") and _csv_preset(root / name)]
    chosen = [name for name in tables if "train" in name.lower()] if tables[1:] else tables
    if not tables:
        return None
    if len(chosen) != 1:
        raise _ambiguous(root, "run-length CSV", tables)
    table = root / chosen[0]
    images = _images_folder(root, table, _image_names(table, "rle"))
    return Layout(root=root, format="rle", train=table.name, images=images, csv_preset=_csv_preset(table))


def _coco_files(root: Path, names: Iterable[str], *, task: TaskName | None) -> Layout | None:
    """COCO files in the folder itself or in its folder ``annotations``: one, or one for each split."""
    inside = [f"annotations/{name}" for name in _entries(root / "annotations")]
    jsons = [name for name in (*names, *inside) if name.lower().endswith(".json")]
    formats = {name: recognize(root / name).format for name in itertools.islice(jsons, _JSON_FILES_READ)}
    by_pixel = task is None or TRAITS[task].has_label_maps
    wanted = ("panoptic", "coco") if by_pixel else ("coco", "panoptic")
    format = next((format for format in wanted if format in formats.values()), None)
    if format is None:
        return None
    files = [name for name, other in formats.items() if other == format]
    train, val = (_of_split(files, word) for word in ("train", "val"))
    if train is None and len(files) == 1:
        train, val = files[0], None
    if train is None:
        raise _ambiguous(root, "COCO file", files)
    images = _images_folder(root, root / train, _image_names(root / train, format))
    return Layout(root=root, format=format, train=train, val=val, images=images)


def _of_split(files: Iterable[str], word: str) -> str | None:
    """The only file with a word in its name, None where there is none or several."""
    named = [name for name in files if word in name.rsplit("/", 1)[-1].lower()]
    return named[0] if len(named) == 1 else None


def _ambiguous(root: Path, what: str, names: list[str]) -> DataError:
    return DataError(
        f"the folder has more than one {what}",
        file=root,
        found=", ".join(names[:5]),
        expected="one, or one with train and one with val in its name",
        hint=f"Name the file: --data {root / names[0]}",
    )


def _image_names(path: Path, format: str) -> list[str]:
    """The first image names in a file of annotations."""
    if format == "rle":
        with path.open("rb") as stream:
            rows = [line.decode("utf-8", "replace") for line in itertools.islice(stream, 1, _NAMES_LOOKED_FOR + 1)]
        cells = [row.split(",")[0].strip() for row in rows]
        return [cell if is_image_name(cell) else cell.rpartition("_")[0] for cell in cells]
    try:
        value: Any = decode_json(read_bytes(path))[0]
    except (JsonError, OSError):
        return []  # what is wrong with the file is among the findings of its reader
    images = value.get("images") if isinstance(value, dict) else None
    entries: list[Any] = images[:_NAMES_LOOKED_FOR] if isinstance(images, list) else []
    names = [entry.get("file_name") for entry in entries if isinstance(entry, dict)]
    return [name for name in names if isinstance(name, str)]


def _images_folder(root: Path, file: Path, names: Iterable[str]) -> str | None:
    """The folder, relative to the root, that images named in a file are in; None where a reader looks there anyway."""
    names = [name.replace("\\", "/") for name in names]
    if not names or any((folder / names[0]).is_file() for folder in searched_folders(file)):
        return None
    for folder in _folders_below(root):
        if any((folder / name).is_file() for name in names):
            return folder.relative_to(root).as_posix()
    return None


def _folders_below(root: Path) -> Iterator[Path]:
    """The root, its folders, and their folders."""
    yield root
    for folder in (root / name for name in _entries(root)):
        if folder.is_dir():
            yield folder
            yield from (path for path in (folder / name for name in _entries(folder)) if path.is_dir())


def _entries(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    except OSError:
        return []


def _lists(root: Path) -> Layout | None:
    """The lists of `d2tune split` for training and validation."""
    train, val = (f"splits/{split}.txt" for split in ("train", "val"))
    if not ((root / train).is_file() and (root / val).is_file()):
        return None
    pair = _pair_in(root)
    return Layout(root=root, format=_format_of(root, pair), train=train, val=val, pair=pair)


def _folders(root: Path, names: Iterable[str], *, task: TaskName | None) -> Layout:
    """A folder for each split, or one for all images."""
    lower = {name.lower(): name for name in names if (root / name).is_dir()}
    train = next((lower[name] for name in _TRAIN_FOLDERS if name in lower), None)
    val = next((lower[name] for name in _VAL_FOLDERS if name in lower), None) if train else None
    if train is None and "images" in lower and "labels" in lower:
        train, val = _below_images(root, lower["images"])
    pair = _pair_in(root / (train or "."))
    return Layout(
        root=root,
        format=_format_of(root / (train or "."), pair),
        train=train or ".",
        val=val,
        pair=pair,
        unused=lower.get("test") if train else None,
    )


def _below_images(root: Path, images: str) -> tuple[str | None, str | None]:
    """The folders of the splits below that of the images, as YOLO has them; none where one is missing."""
    inside = {name.lower(): f"{images}/{name}" for name in _entries(root / images) if (root / images / name).is_dir()}
    train = next((inside[name] for name in _TRAIN_FOLDERS if name in inside), None)
    val = next((inside[name] for name in _VAL_FOLDERS if name in inside), None)
    if train is None or val is None or recognize(root / train).format != "yolo-seg":
        return None, None
    return train, val


def _format_of(folder: Path, pair: tuple[str, str] | None) -> str:
    if pair is not None:
        return "label_images"
    if recognize(folder).has_images_alone:
        return "labelme"  # in which they will be annotated
    return detect_format(folder)


def _pair_in(folder: Path) -> tuple[str, str] | None:
    """Folders of images and of label images without a color map, by their names and by a file of each."""
    names = _entries(folder)
    if any(name in COLOR_MAPS for name in names):
        return None
    images = [name for name in names if name.lower() in masks.IMAGE_FOLDERS and (folder / name).is_dir()]
    labels = [name for name in names if name.lower() in masks.MASK_FOLDERS and (folder / name).is_dir()]
    if len(images) != 1 or len(labels) != 1:
        return None
    if any(name in COLOR_MAPS for name in _entries(folder / labels[0])):
        return None
    files = sorted(_rasters(folder / labels[0]))
    if not files or not _has_one_channel(folder / labels[0] / files[0]):
        return None
    stems = {Path(name).stem for name in files}
    paired = any(Path(name).stem in stems or Path(name).parent.name in stems for name in _rasters(folder / images[0]))
    return (images[0], labels[0]) if paired else None


def _has_one_channel(path: Path) -> bool:
    try:
        with open_raster(path, indices=True) as raster:
            return raster.channels == 1
    except DataError:
        return False


def _rasters(folder: Path) -> Iterator[str]:
    return (name for name in walk_files(folder) if is_raster_name(name))


def refuse_task(layout: Layout, task: TaskName) -> None:
    """Make sure that the format has what a task needs.

    Raises:
        ProjectError: It has not.
    """
    traits = TRAITS[task]
    if layout.format in ("label_images", "masks") and traits.has_objects:
        raise ProjectError(
            f"label images do not distinguish objects, as a project with task {task} needs",
            file=layout.root,
            hint="Leave --task out, or name --task semantic.",
        )
    if layout.format == "rle" and traits.has_things_and_stuff:
        raise ProjectError(
            "run-length CSV has no regions, as a panoptic task needs",
            file=layout.root,
            hint="Name --task semantic or --task instance.",
        )
