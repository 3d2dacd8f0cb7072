import shutil
import sqlite3
import threading
from pathlib import Path

import pytest

from d2tune.acceptance.judgments import Judgment, PairJudgment, SignOff
from d2tune.acceptance.objects import ShownObject
from d2tune.acceptance.store import ConflictError, RevealedError, Store, StoredImage
from d2tune.errors import DataError

IMAGE = StoredImage(0, "a.png", False, 4, 3, 10, 1, "ab")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    opened = Store(tmp_path / "judgments.sqlite")
    opened.put_images([IMAGE])
    opened.model_id("m" * 64, "first")
    opened.model_id("n" * 64, "second")
    return opened


def judgment(**given: object) -> Judgment:
    return Judgment.model_validate({"verdict": "right", "judged_by": "Ann"} | given)


def test_it_is_in_wal_mode_with_full_synchronization(store: Store) -> None:
    mode, synchronous = (store._rows(f"PRAGMA {name}")[0][0] for name in ("journal_mode", "synchronous"))
    assert (mode, synchronous) == ("wal", 2)


def test_judgments_are_there_when_it_is_opened_again(store: Store) -> None:
    saved = store.put_judgment(1, 1, "ab", judgment(comment="Straße ✓"), seen=None)
    store.put_objects(1, 1, "ab", [ShownObject(1, "cat", 0.5, (0, 0, 1, 1), 1.0, ((0.0, 0.0, 1.0, 0.0, 1.0, 1.0),))])
    store.close()
    again = Store(store.path)
    assert again.judgment(1, 1, "ab") == saved
    assert again.judgments(1) == {(1, "ab"): saved}
    objects = again.objects(1, 1, "ab")
    assert objects is not None and objects[0].rings == ((0.0, 0.0, 1.0, 0.0, 1.0, 1.0),)
    assert again.objects(1, 2, "ab") is None and again.objects(1, 1, "other content") is None
    assert again.images() == {"a.png": StoredImage(1, *[getattr(IMAGE, name) for name in IMAGE.__slots__[1:]])}


def test_the_latest_counts_and_the_earlier_remain(store: Store) -> None:
    first = store.put_judgment(1, 1, "ab", judgment(), seen=None)
    second = store.put_judgment(1, 1, "ab", judgment(verdict="wrong"), seen=first.revision)
    assert store.judgment(1, 1, "ab") == second
    assert store.judgment(1, 1, "cd") is None, "it is about another content of the image"
    assert [row[0] for row in store._rows("SELECT count(*) FROM judgment")] == [2]


def test_another_person_does_not_overwrite_what_was_not_seen(store: Store) -> None:
    first = store.put_judgment(1, 1, "ab", judgment(), seen=None)
    with pytest.raises(ConflictError):
        store.put_judgment(1, 1, "ab", judgment(verdict="wrong", judged_by="Ben"), seen=None)
    assert store.judgment(1, 1, "ab") == first
    second = store.put_judgment(1, 1, "ab", judgment(verdict="wrong", judged_by="Ben"), seen=first.revision)
    assert store.judgment(1, 1, "ab") == second


def test_the_same_sent_twice_is_kept_once(store: Store) -> None:
    first = store.put_judgment(1, 1, "ab", judgment(), seen=None)
    assert store.put_judgment(1, 1, "ab", judgment(), seen=None) == first


def test_many_threads_lose_nothing(store: Store) -> None:
    images = [StoredImage(0, f"{at}.png", False, 4, 3, 10, 1, "ab") for at in range(40)]
    store.put_images(images)
    ids = [one.id for one in store.images().values()]

    def judge(mine: list[int]) -> None:
        for image_id in mine:
            store.put_judgment(image_id, 1, "ab", judgment(), seen=None)

    threads = [threading.Thread(target=judge, args=(ids[at::4],)) for at in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.judgments(1)) == len(ids) == 41


def test_after_the_result_was_shown_no_preference_is_taken(store: Store) -> None:
    pair = PairJudgment(preference="left", judged_by="Ann")
    store.put_pair(1, (1, 2), "ab", pair, first_is_left=False)
    assert store.pairs((1, 2))[1, "ab"].first_is_better is False
    store.reveal((1, 2))
    with pytest.raises(RevealedError):
        store.put_pair(1, (1, 2), "ab", pair, first_is_left=True)
    assert store.pairs((1, 2))[1, "ab"].first_is_left is False


def test_the_side_of_a_model_stays(store: Store) -> None:
    assert store.first_is_left(1, (1, 2), True) is True
    assert store.first_is_left(1, (1, 2), False) is True


def test_sign_off(store: Store) -> None:
    assert store.sign_off(1) is None
    store.put_sign_off(1, "hash", SignOff(decision="refused", signed_by="Ann"))
    signed = store.sign_off(1)
    assert signed is not None and (signed.judgments_sha256, signed.sign_off.decision) == ("hash", "refused")


def test_files_that_are_not_such_a_database(tmp_path: Path, store: Store) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("These are my notes, which nothing may overwrite. " * 40)
    with pytest.raises(DataError, match="cannot be used as the database of judgments"):
        Store(text)
    assert text.read_text().startswith("These are my notes")
    foreign = tmp_path / "foreign.sqlite"
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE mine (a)")
    connection.close()
    with pytest.raises(DataError, match="is a database of another program"):
        Store(foreign)
    store.close()
    later = tmp_path / "later.sqlite"
    shutil.copy(store.path, later)
    with sqlite3.connect(later) as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(DataError, match=r"later version of d2tune; found version 2; expected at most 1"):
        Store(later)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        Store(tmp_path / "file" / "judgments.sqlite")
