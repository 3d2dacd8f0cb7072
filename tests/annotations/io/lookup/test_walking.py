from __future__ import annotations

import os
from pathlib import Path

from d2tune.annotations.io.lookup.walking import Walk, walk_files


def tree(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def test_files_are_listed_folder_by_folder_without_hidden_ones(tmp_path: Path) -> None:
    root = tree(tmp_path / "r", "b.png", "a.png", "x/c.png", "x/y/d.png", ".h/e.png", ".f.png", "skipped/g.png")
    os.mkfifo(root / "pipe.png")
    (root / "gone.png").symlink_to(root / "nowhere.png")
    assert list(Walk(root, skip=root / "skipped")) == ["a.png", "b.png", "gone.png", "x/c.png", "x/y/d.png"]


def test_links_to_folders_are_followed_within_the_limits_and_once(tmp_path: Path) -> None:
    root = tree(tmp_path / "r", "a/1.png", ".cache/2.png", "train/3.png")
    outside = tree(tmp_path / "outside", "4.png", "deep/5.png")
    (root / "again").symlink_to(root / "a")
    (root / "cached").symlink_to(root / ".cache")
    (root / "out").symlink_to(outside)
    walk = Walk(root)
    assert list(walk) == ["a/1.png", "train/3.png", "cached/2.png"]
    assert walk.has_links and walk.refused == [("out", str(outside))]
    assert list(walk) == ["a/1.png", "train/3.png", "cached/2.png"], "a walk can be repeated"
    assert len(walk.refused) == 1
    assert list(Walk(root, follow_links=True)) == [
        "a/1.png",
        "train/3.png",
        "cached/2.png",
        "out/4.png",
        "out/deep/5.png",
    ]
    assert list(walk_files(root)) == list(walk)


def test_a_wider_limit_lets_links_lead_to_folders_beside_the_root(tmp_path: Path) -> None:
    root = tree(tmp_path / "data" / "train", "a.json")
    tree(tmp_path / "data" / "all", "a.png")
    (root / "images").symlink_to(tmp_path / "data" / "all")
    assert list(Walk(root)) == ["a.json"]
    assert list(Walk(root, limits=[root, tmp_path / "data"])) == ["a.json", "images/a.png"]


def test_circles_of_links_end(tmp_path: Path) -> None:
    root = tree(tmp_path / "r", "a/1.png", "b/2.png")
    (root / "a" / "to_b").symlink_to(root / "b")
    (root / "b" / "to_a").symlink_to(root / "a")
    (root / "self").symlink_to(root)
    (root / "up").symlink_to(tmp_path)
    (root / "endless").symlink_to(root / "endless")
    for follow in (False, True):
        walk = Walk(root, follow_links=follow)
        assert [name for name in walk if name.endswith(".png")] == ["a/1.png", "b/2.png"]
        assert walk.refused == []


def test_a_root_that_is_a_link_is_walked(tmp_path: Path) -> None:
    tree(tmp_path / "real", "x/1.png")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert list(Walk(tmp_path / "link")) == ["x/1.png"]
