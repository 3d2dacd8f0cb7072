import functools
import json
import threading
import zipfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import d2tune.public_data
from d2tune.errors import DataError
from d2tune.files import sha256_file
from d2tune.public_data import fetch
from tests.shared_files import SHARED

BALLOON = SHARED / "data" / "balloon"
MANIFEST = json.loads(Path(d2tune.public_data.__file__).with_name("balloon.json").read_text(encoding="utf-8"))
PHOTO = "val/14898532020_ba6199dd22_k.jpg"


class Handler(SimpleHTTPRequestHandler):
    def do_GET(self):
        if self.path.startswith("/broken-off/"):
            content = Path(self.directory, "good.zip").read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
        else:
            super().do_GET()

    def log_message(self, *_):
        pass


def write_zip(path, *, top="balloon/", changed=None, omitted=None, added=()):
    """The published archive's layout, from the shared photos."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("__MACOSX/balloon/._val", b"junk")
        for name in added:
            archive.writestr(name, b"evil")
        for entry in MANIFEST["files"]:
            name = entry["path"]
            content = (BALLOON / name).read_bytes()
            if name == changed:
                content = content[:1000] + bytes([content[1000] ^ 1]) + content[1001:]
            if name != omitted:
                archive.writestr(top + name, content)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The address of a server on this machine with good and bad archives, and their folder."""
    folder = tmp_path_factory.mktemp("served")
    write_zip(folder / "good.zip")
    handler = functools.partial(Handler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()


def names_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_the_manifest_is_the_shared_folder():
    assert names_below(BALLOON) == sorted(entry["path"] for entry in MANIFEST["files"])
    for entry in MANIFEST["files"]:
        assert entry["sha256"] == sha256_file(BALLOON / entry["path"])
        assert entry["bytes"] == (BALLOON / entry["path"]).stat().st_size


def test_the_photos_and_annotations_arrive_and_nothing_else(served, tmp_path):
    out = tmp_path / "datasets" / "balloon"
    result = fetch("balloon", out, url=f"{served[0]}/good.zip")
    assert (result.folder, result.files, result.source) == (out, 76, f"{served[0]}/good.zip")
    assert result.summary() == f"balloon: 76 files, 39 MB, all checked, in {out} (from {served[0]}/good.zip)"
    assert names_below(out) == names_below(BALLOON)
    assert all(sha256_file(out / name) == sha256_file(BALLOON / name) for name in names_below(out))
    assert names_below(tmp_path) == [f"datasets/balloon/{name}" for name in names_below(BALLOON)]

    # A second call finds them there and downloads nothing; a damaged photo is noticed.
    again = fetch("balloon", out, url="http://127.0.0.1:1/nothing")
    assert (again.files, again.size_bytes, again.source) == (76, result.size_bytes, None)
    assert again.summary().endswith("(already present)")
    (out / PHOTO).write_bytes(b"damaged")
    with pytest.raises(DataError, match="--force"):
        fetch("balloon", out, url=f"{served[0]}/good.zip")
    assert (out / PHOTO).read_bytes() == b"damaged"
    (out / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match=r"mine\.txt: the folder has a file that is not of the set"):
        fetch("balloon", out, url=f"{served[0]}/good.zip", force=True)
    (out / "mine.txt").unlink()
    fetch("balloon", out, url=f"{served[0]}/good.zip", force=True)
    assert sha256_file(out / PHOTO) == sha256_file(BALLOON / PHOTO)
    assert [path.name for path in out.parent.iterdir()] == ["balloon"]


@pytest.mark.parametrize("top", ["", "another_name/"])
def test_the_folder_in_the_archive_may_have_any_name_and_the_file_may_be_local(tmp_path, monkeypatch, top):
    write_zip(tmp_path / "local.zip", top=top)
    monkeypatch.setenv("D2TUNE_BALLOON_URL", (tmp_path / "local.zip").as_uri())
    (tmp_path / "out").mkdir()
    assert fetch("balloon", tmp_path / "out").files == 76
    assert names_below(tmp_path / "out") == names_below(BALLOON)


@pytest.mark.parametrize(
    ("name", "made", "expected"),
    [
        ("changed.zip", {"changed": PHOTO}, [PHOTO, "differs from the published one", "SHA-256"]),
        ("json.zip", {"changed": "train/via_region_data.json"}, ["train/via_region_data.json", "SHA-256"]),
        ("short.zip", {"omitted": PHOTO}, [PHOTO, "missing from the archive"]),
        ("up.zip", {"added": ["balloon/../../evil.py"]}, ["evil.py", "leads outside"]),
        ("root.zip", {"added": ["/evil.py"]}, ["/evil.py", "leads outside"]),
        ("broken-off/good.zip", None, ["broke off"]),
        ("gone.zip", None, ["HTTP 404", "unzip it"]),
    ],
)
def test_what_goes_wrong_is_named_and_leaves_nothing_behind(served, tmp_path, name, made, expected):
    address, folder = served
    if made is not None:
        write_zip(folder / name, **made)
    with pytest.raises(DataError) as caught:
        fetch("balloon", tmp_path / "out", url=f"{address}/{name}")
    for text in [*expected, f"{address}/{name}"]:
        assert text in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_no_network_names_the_address_and_the_folder(tmp_path):
    with pytest.raises(DataError) as caught:
        fetch("balloon", tmp_path / "out", url="http://127.0.0.1:1/balloon.zip")
    assert "http://127.0.0.1:1/balloon.zip" in str(caught.value)
    assert str(tmp_path / "out") in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("address", ["balloon.zip", "ftp://127.0.0.1/balloon.zip", "http://[::balloon.zip"])
def test_an_address_that_is_not_valid_is_named(tmp_path, address):
    with pytest.raises(DataError) as caught:
        fetch("balloon", tmp_path / "out", url=address)
    assert str(caught.value).startswith(f"{address}: ")
    assert list(tmp_path.iterdir()) == []


def test_a_local_archive_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(DataError, match="the archive does not exist"):
        fetch("balloon", tmp_path / "out", url=(tmp_path / "none.zip").as_uri())
    assert list(tmp_path.iterdir()) == []


def test_half_an_archive_is_named(served, tmp_path):
    half = tmp_path / "half.zip"
    half.write_bytes((served[1] / "good.zip").read_bytes()[:100_000])
    with pytest.raises(DataError, match="damaged"):
        fetch("balloon", tmp_path / "out", url=half.as_uri())
    assert [path.name for path in tmp_path.iterdir()] == ["half.zip"]


def test_a_damaged_entry_is_named(tmp_path):
    path = tmp_path / "flipped.zip"
    write_zip(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"damaged|differs from the published one"):
        fetch("balloon", tmp_path / "out", url=path.as_uri())
    assert not (tmp_path / "out").exists()


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "mine.json").write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match="not empty"):
        fetch("balloon", tmp_path, url="http://127.0.0.1:1/nothing")
    assert names_below(tmp_path) == ["mine.json"]


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "out").write_text("", encoding="utf-8")
    with pytest.raises(DataError, match="must be a folder, not a file"):
        fetch("balloon", tmp_path / "out")


def test_an_unknown_set_is_named_with_the_nearest_known_one(tmp_path):
    with pytest.raises(DataError, match="Did you mean balloon"):
        fetch("baloon", tmp_path / "out")
