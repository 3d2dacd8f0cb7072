"""Cached label maps that were changed are painted again, and the cache does not grow without end."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PilImage

from d2tune.data import label_cache
from d2tune.data.label_maps import encode_png, label_files
from d2tune.errors import MachineError
from d2tune.files import cache_folder
from tests.data.test_label_maps import SHOWN, STREET, annotated, gray

NAMES = ("a.jpg", "deep/b.jpg", "c.jpg")


def another_class(path: Path) -> None:
    """The same size in pixels and, most often, in bytes."""
    path.write_bytes(encode_png(np.where(SHOWN == 2, 3, SHOWN).astype(np.uint8)))


def another_class_at_the_old_time(path: Path) -> None:
    stated = path.stat()
    another_class(path)
    os.utime(path, ns=(stated.st_atime_ns, stated.st_mtime_ns))


def another_size(path: Path) -> None:
    PilImage.fromarray(np.zeros((99, 7), np.uint8)).save(path)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


CHANGES = (another_class, another_class_at_the_old_time, another_size, emptied, Path.unlink)


@pytest.mark.parametrize("folder", ["semantic", "separated", "panoptic"])
@pytest.mark.parametrize(
    "change",
    [another_class, another_class_at_the_old_time, another_size, Path.unlink, lambda path: path.write_bytes(b"")],
)
def test_a_changed_file_is_painted_again_and_others_are_not(folder: str, change: Callable[[Path], None]) -> None:
    dataset = annotated(*STREET, names=NAMES)
    files = label_files(dataset, with_segments=True)
    each = {"semantic": files.semantic, "separated": files.separated, "panoptic": files.segments}[folder]
    right = [path.read_bytes() for path in (*files.semantic, *files.separated, *files.segments)]
    untouched = files.semantic[2].stat()
    change(each[1])
    again = label_files(dataset, with_segments=True)
    assert [path.read_bytes() for path in (*again.semantic, *again.separated, *again.segments)] == right
    assert again == files and files.semantic[2].stat() == untouched
    assert np.array_equal(gray(again.semantic[1]), SHOWN)


def test_the_warning_has_the_number(caplog: pytest.LogCaptureFixture) -> None:
    files = label_files(annotated(*STREET, names=NAMES))
    for path in files.semantic[:2]:
        path.unlink()
    label_files(annotated(*STREET, names=NAMES))
    label_files(annotated(*STREET, names=NAMES))
    assert [record.getMessage().partition(": ")[2] for record in caplog.records] == [
        "2 label maps missing or changed; painted again"
    ]


@pytest.mark.parametrize("name", ["files.json", "panoptic.json"])
@pytest.mark.parametrize("content", [b"", b"[]", b'{"semantic/a.png": 3}', None])
def test_a_damaged_table_is_written_again(name: str, content: bytes | None) -> None:
    dataset = annotated(*STREET, names=NAMES)
    files = label_files(dataset, with_segments=True)
    right = files.panoptic_json.read_bytes()
    if content is None:
        (files.folder / name).unlink()
    else:
        (files.folder / name).write_bytes(content)
    assert label_files(dataset, with_segments=True) == files
    assert files.panoptic_json.read_bytes() == right and (files.folder / "files.json").stat().st_size > 100


def test_a_copied_cache_is_used(caplog: pytest.LogCaptureFixture) -> None:
    files = label_files(annotated(*STREET, names=NAMES))
    copy = files.folder.with_name("copy")
    shutil.copytree(files.folder, copy, copy_function=shutil.copyfile)
    shutil.rmtree(files.folder)
    copy.rename(files.folder)
    written = files.semantic[0].stat().st_mtime_ns
    assert label_files(annotated(*STREET, names=NAMES)) == files
    assert files.semantic[0].stat().st_mtime_ns == written and not caplog.records


def entry(name: str, *, size: int, days_ago: float) -> Path:
    folder = cache_folder() / "labels" / name
    (folder / "semantic").mkdir(parents=True)
    (folder / "semantic" / "a.png").write_bytes(bytes(size))
    used_s = time.time() - days_ago * 24 * 3600
    os.utime(folder, (used_s, used_s))
    return folder


def test_the_least_recently_used_entries_are_removed_until_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("D2TUNE_LABEL_CACHE_GB", "0.00001")
    sizes = {
        "semantic-old": (4000, 30),
        "semantic-older": (5000, 60),
        "panoptic-new": (4000, 3),
        "semantic-now": (4000, 1),
    }
    folders = {name: entry(name, size=size, days_ago=days) for name, (size, days) in sizes.items()}
    left = entry(".painting-killed", size=10, days_ago=3)
    painting = entry(".painting-now", size=10, days_ago=0)
    label_cache.trim(cache_folder() / "labels")
    # 17,000 bytes: without the oldest 12,000, without the next one 8,000, which is below 10,000
    assert [folder.is_dir() for folder in folders.values()] == [False, False, True, True]
    assert not left.exists() and painting.is_dir()
    assert len(list((cache_folder() / "labels").iterdir())) == 3
    monkeypatch.setenv("D2TUNE_LABEL_CACHE_GB", "0")
    label_cache.trim(cache_folder() / "labels")
    assert [folder.is_dir() for folder in folders.values()] == [False, False, False, True], "a training may read it"


def test_painting_trims_and_reading_counts_as_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("D2TUNE_LABEL_CACHE_GB", "0")
    read = label_files(annotated(*STREET, names=NAMES)).folder
    other = entry("semantic-other", size=10, days_ago=9)
    os.utime(read, (0, 0))
    label_files(annotated(*STREET, names=NAMES))
    label_files(annotated(*STREET, names=("new.jpg",)))
    assert read.is_dir() and not other.exists()


@pytest.mark.parametrize("value", ["much", "nan", "-1"])
def test_a_limit_that_is_not_a_number_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("D2TUNE_LABEL_CACHE_GB", value)
    with pytest.raises(MachineError, match="D2TUNE_LABEL_CACHE_GB: the limit of the cache of label maps is invalid"):
        label_files(annotated(*STREET))
