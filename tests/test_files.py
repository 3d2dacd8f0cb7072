"""Where downloads are kept, and what a failed write leaves and says."""

import resource
from pathlib import Path

import pytest

from d2tune import files


def test_downloads_are_kept_where_a_person_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("D2TUNE_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert files.cache_folder() == tmp_path / "own"


@pytest.mark.parametrize("own", ["", None], ids=["empty", "absent"])
def test_on_linux_downloads_stay_where_they_always_were(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own: str | None
) -> None:
    monkeypatch.delenv("D2TUNE_CACHE")
    if own is not None:
        monkeypatch.setenv("D2TUNE_CACHE", own)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert files.cache_folder() == tmp_path / ".cache" / "d2tune"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert files.cache_folder() == tmp_path / "caches" / "d2tune"
    assert not (tmp_path / "caches").exists()


def test_an_error_of_the_system_while_a_file_is_written_names_the_file(tmp_path: Path) -> None:
    """As a full disk does it: the system's own error has no name."""
    target = tmp_path / "out" / "predictions.json"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            files.write_bytes(target, bytes(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.filename == str(target)
    assert list(target.parent.iterdir()) == []


def test_a_lock_keeps_others_out_until_its_file_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.touch()
    with path.open("rb") as other:
        with path.open("rb") as holder:
            assert files.try_lock(holder.fileno()) is True
            assert files.try_lock(other.fileno()) is False
        assert files.try_lock(other.fileno()) is True
