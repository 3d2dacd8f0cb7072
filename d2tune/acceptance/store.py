"""The database of judgments: one SQLite file, in which a row that was answered for is on the disk.

It is in WAL mode with full synchronization (https://www.sqlite.org/wal.html): a commit is in the log before it returns,
so that a server that is killed loses nothing that the page showed as saved. Judgments are only ever added; the
latest one counts, and the earlier ones remain.
"""

from __future__ import annotations

import datetime
import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2tune.acceptance.judgments import Judgment, PairJudgment, SavedJudgment, SavedSignOff, SignOff
from d2tune.acceptance.objects import ShownObject
from d2tune.errors import DataError

_APPLICATION_ID = 0x64327461
_VERSION = 1
_TABLES = """
CREATE TABLE image (
  id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, is_added INTEGER NOT NULL, width_px INTEGER NOT NULL,
  height_px INTEGER NOT NULL, size_bytes INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, sha256 TEXT
);
CREATE TABLE model (id INTEGER PRIMARY KEY, sha256 TEXT NOT NULL UNIQUE, name TEXT NOT NULL);
CREATE TABLE prediction (
  image_id INTEGER NOT NULL REFERENCES image, model_id INTEGER NOT NULL REFERENCES model, image_sha256 TEXT NOT NULL,
  objects TEXT NOT NULL, PRIMARY KEY (image_id, model_id, image_sha256)
);
CREATE TABLE judgment (
  revision INTEGER PRIMARY KEY AUTOINCREMENT, image_id INTEGER NOT NULL REFERENCES image,
  model_id INTEGER NOT NULL REFERENCES model, image_sha256 TEXT NOT NULL, judged_at TEXT NOT NULL, content TEXT NOT NULL
);
CREATE INDEX judgment_of_image ON judgment (model_id, image_id, revision);
CREATE TABLE pair (
  revision INTEGER PRIMARY KEY AUTOINCREMENT, image_id INTEGER NOT NULL REFERENCES image,
  first_id INTEGER NOT NULL REFERENCES model, second_id INTEGER NOT NULL REFERENCES model, image_sha256 TEXT NOT NULL,
  first_is_left INTEGER NOT NULL, judged_at TEXT NOT NULL, content TEXT NOT NULL
);
CREATE TABLE side (
  image_id INTEGER NOT NULL REFERENCES image, first_id INTEGER NOT NULL, second_id INTEGER NOT NULL,
  first_is_left INTEGER NOT NULL, PRIMARY KEY (image_id, first_id, second_id)
);
CREATE TABLE reveal (first_id INTEGER NOT NULL, second_id INTEGER NOT NULL, revealed_at TEXT NOT NULL,
  PRIMARY KEY (first_id, second_id));
CREATE TABLE sign_off (
  id INTEGER PRIMARY KEY AUTOINCREMENT, model_id INTEGER NOT NULL REFERENCES model, judgments_sha256 TEXT NOT NULL,
  signed_at TEXT NOT NULL, content TEXT NOT NULL
);
"""


class ConflictError(Exception):
    """Another person has judged the image since it was opened."""


class RevealedError(Exception):
    """The result of a comparison was shown, so that it takes no further preferences."""


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image of the list.

    Attributes:
        id: Its number in the database.
        name: Path below the folder of images, with forward slashes; of an added image its file name.
        is_added: Whether it came through the page.
        width_px: Width as displayed, after EXIF orientation.
        height_px: Height as displayed.
        size_bytes: Size of the file.
        mtime_ns: When the file was changed last.
        sha256: Hash of the file; None until it is needed.
    """

    id: int
    name: str
    is_added: bool
    width_px: int
    height_px: int
    size_bytes: int
    mtime_ns: int
    sha256: str | None


@dataclass(frozen=True, slots=True)
class SavedPair:
    """A preference with what the database adds; ``first_is_better`` is None without a preference."""

    revision: int
    judged_at: str
    first_is_left: bool
    pair: PairJudgment

    @property
    def first_is_better(self) -> bool | None:
        """Whether the first model is preferred."""
        if self.pair.preference == "same":
            return None
        return (self.pair.preference == "left") == self.first_is_left


class Store:
    """The database; any number of threads may use it.

    Args:
        path: The file; it is made where there is none.

    Raises:
        DataError: The file is not such a database, was written by a later version, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._is_new = not os.path.lexists(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._open()
        except sqlite3.DatabaseError as error:
            raise DataError(
                f"the file cannot be used as the database of judgments ({error})",
                file=path,
                hint="Name another file.",
            ) from None
        except OSError as error:
            raise DataError(f"the database cannot be written ({error.strerror})", file=path) from None

    def _open(self) -> None:
        self._connection = sqlite3.connect(self.path, check_same_thread=False, timeout=30, isolation_level=None)
        try:
            self._set_up()
        except BaseException:
            self._connection.close()
            raise

    def _set_up(self) -> None:
        run = self._connection.execute
        own_id, version = (run(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
        is_empty = run("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
        if not is_empty and own_id != _APPLICATION_ID:
            raise DataError("is a database of another program", file=self.path, hint="Name another file.")
        if version > _VERSION:
            raise DataError(
                "was written by a later version of d2tune",
                file=self.path,
                found=f"version {version}",
                expected=f"at most {_VERSION}",
            )
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = FULL")
        run("PRAGMA foreign_keys = ON")
        if is_empty:
            with self._writing():
                for statement in _TABLES.split(";\n"):
                    if statement.strip():
                        run(statement)
                run(f"PRAGMA application_id = {_APPLICATION_ID}")
                run(f"PRAGMA user_version = {_VERSION}")

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that is on the disk when the context ends, or has not happened."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")  # it fails where the disk is full
            except BaseException:
                if self._connection.in_transaction:  # SQLite itself has ended it after some errors
                    self._connection.execute("ROLLBACK")
                raise

    def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._connection.execute(query, values).fetchall()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def discard_new(self) -> None:
        """Close the file, and remove it where it was made by this object: what needed it cannot be shown."""
        self.close()
        if self._is_new:
            for suffix in ("", "-wal", "-shm"):
                self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)

    def put_images(self, images: Sequence[StoredImage]) -> None:
        """Add images, and take down what has changed of those that have the same name; their ids are not used."""
        with self._writing() as connection:
            connection.executemany(
                "INSERT INTO image (name, is_added, width_px, height_px, size_bytes, mtime_ns, sha256) "
                "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET width_px = excluded.width_px, "
                "height_px = excluded.height_px, size_bytes = excluded.size_bytes, mtime_ns = excluded.mtime_ns, "
                "sha256 = excluded.sha256",
                [
                    (one.name, one.is_added, one.width_px, one.height_px, one.size_bytes, one.mtime_ns, one.sha256)
                    for one in images
                ],
            )

    def images(self) -> dict[str, StoredImage]:
        """All images that were ever in the list, by name."""
        rows = self._rows("SELECT id, name, is_added, width_px, height_px, size_bytes, mtime_ns, sha256 FROM image")
        return {row[1]: StoredImage(row[0], row[1], bool(row[2]), *row[3:]) for row in rows}

    def set_hash(self, image_id: int, sha256: str) -> None:
        """Take down the hash of an image file."""
        with self._writing() as connection:
            connection.execute("UPDATE image SET sha256 = ? WHERE id = ?", (sha256, image_id))

    def model_id(self, sha256: str, name: str) -> int:
        """The number of a model, which is added where it is new."""
        with self._writing() as connection:
            connection.execute(
                "INSERT INTO model (sha256, name) VALUES (?, ?) ON CONFLICT (sha256) DO UPDATE SET name = ?",
                (sha256, name, name),
            )
        return int(self._rows("SELECT id FROM model WHERE sha256 = ?", sha256)[0][0])

    def objects(self, image_id: int, model_id: int, image_sha256: str) -> list[ShownObject] | None:
        """What a model predicted on an image; None where it has not predicted yet."""
        rows = self._rows(
            "SELECT objects FROM prediction WHERE image_id = ? AND model_id = ? AND image_sha256 = ?",
            *(image_id, model_id, image_sha256),
        )
        return [ShownObject.from_stored(row) for row in json.loads(rows[0][0])] if rows else None

    def put_objects(self, image_id: int, model_id: int, image_sha256: str, objects: Sequence[ShownObject]) -> None:
        """Keep what a model predicts on an image; judgments are about exactly this."""
        content = json.dumps([one.as_stored() for one in objects], separators=(",", ":"))
        with self._writing() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO prediction VALUES (?, ?, ?, ?)", (image_id, model_id, image_sha256, content)
            )

    def judgment(self, image_id: int, model_id: int, image_sha256: str) -> SavedJudgment | None:
        """The latest judgment of an image."""
        rows = self._rows(
            "SELECT revision, judged_at, content FROM judgment WHERE image_id = ? AND model_id = ? "
            "AND image_sha256 = ? ORDER BY revision DESC LIMIT 1",
            *(image_id, model_id, image_sha256),
        )
        return _saved(rows[0]) if rows else None

    def judgments(self, model_id: int) -> dict[tuple[int, str], SavedJudgment]:
        """The latest judgment of each image by its id and the hash of the file that it is about."""
        rows = self._rows(
            "SELECT image_id, image_sha256, revision, judged_at, content FROM judgment WHERE revision IN "
            "(SELECT max(revision) FROM judgment WHERE model_id = ? GROUP BY image_id, image_sha256) ORDER BY revision",
            model_id,
        )
        return {(row[0], row[1]): _saved(row[2:]) for row in rows}

    def put_judgment(
        self, image_id: int, model_id: int, image_sha256: str, judgment: Judgment, *, seen: int | None
    ) -> SavedJudgment:
        """Add a judgment.

        Args:
            image_id: The image.
            model_id: The model.
            image_sha256: Hash of the image.
            judgment: The judgment.
            seen: Revision of the judgment that the person saw; None for none.

        Raises:
            ConflictError: There is a later judgment by another person.
        """
        content = judgment.model_dump_json()
        with self._writing() as connection:
            latest = self.judgment(image_id, model_id, image_sha256)
            others = latest is not None and latest.judgment.judged_by != judgment.judged_by
            if latest is not None and latest.revision != seen:
                if latest.judgment == judgment:
                    return latest  # sent again because the answer was lost
                if others:
                    raise ConflictError
            now = _now()
            row = connection.execute(
                "INSERT INTO judgment (image_id, model_id, image_sha256, judged_at, content) VALUES (?, ?, ?, ?, ?)",
                (image_id, model_id, image_sha256, now, content),
            )
            revision = row.lastrowid
        assert revision is not None
        return SavedJudgment(revision=revision, judged_at=now, judgment=judgment)

    def first_is_left(self, image_id: int, models: tuple[int, int], chosen: bool) -> bool:
        """On which side the first of two models is shown: as it was chosen when the image was opened first.

        Args:
            image_id: The image.
            models: The numbers of the models.
            chosen: What holds from now on where nothing was chosen before.
        """
        with self._writing() as connection:
            connection.execute("INSERT OR IGNORE INTO side VALUES (?, ?, ?, ?)", (image_id, *models, chosen))
        query = "SELECT first_is_left FROM side WHERE image_id = ? AND first_id = ? AND second_id = ?"
        return bool(self._rows(query, image_id, *models)[0][0])

    def put_pair(
        self, image_id: int, models: tuple[int, int], image_sha256: str, pair: PairJudgment, *, first_is_left: bool
    ) -> None:
        """Add a preference.

        Raises:
            RevealedError: The result of the comparison was shown.
        """
        with self._writing() as connection:
            if self.revealed_at(models) is not None:
                raise RevealedError
            connection.execute(
                "INSERT INTO pair (image_id, first_id, second_id, image_sha256, first_is_left, judged_at, content) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (image_id, *models, image_sha256, first_is_left, _now(), pair.model_dump_json()),
            )

    def pairs(self, models: tuple[int, int]) -> dict[tuple[int, str], SavedPair]:
        """The latest preference of each image by its id and the hash of the file that it is about."""
        rows = self._rows(
            "SELECT image_id, image_sha256, revision, judged_at, first_is_left, content FROM pair WHERE revision IN "
            "(SELECT max(revision) FROM pair WHERE first_id = ? AND second_id = ? GROUP BY image_id, image_sha256) "
            "ORDER BY revision",
            *models,
        )
        return {
            (row[0], row[1]): SavedPair(row[2], row[3], bool(row[4]), PairJudgment.model_validate_json(row[5]))
            for row in rows
        }

    def reveal(self, models: tuple[int, int]) -> None:
        """Take down that the result of a comparison is shown from now on."""
        with self._writing() as connection:
            connection.execute("INSERT OR IGNORE INTO reveal VALUES (?, ?, ?)", (*models, _now()))

    def revealed_at(self, models: tuple[int, int]) -> str | None:
        """When the result of a comparison was shown first."""
        rows = self._rows("SELECT revealed_at FROM reveal WHERE first_id = ? AND second_id = ?", *models)
        return str(rows[0][0]) if rows else None

    def put_sign_off(self, model_id: int, judgments_sha256: str, sign_off: SignOff) -> None:
        """Add a decision."""
        with self._writing() as connection:
            connection.execute(
                "INSERT INTO sign_off (model_id, judgments_sha256, signed_at, content) VALUES (?, ?, ?, ?)",
                (model_id, judgments_sha256, _now(), sign_off.model_dump_json()),
            )

    def sign_off(self, model_id: int) -> SavedSignOff | None:
        """The latest decision about a model."""
        rows = self._rows(
            "SELECT signed_at, judgments_sha256, content FROM sign_off WHERE model_id = ? ORDER BY id DESC LIMIT 1",
            model_id,
        )
        if not rows:
            return None
        signed_at, sha256, content = rows[0]
        decision = SignOff.model_validate_json(content)
        return SavedSignOff(signed_at=signed_at, judgments_sha256=sha256, sign_off=decision)


def _saved(row: Sequence[Any]) -> SavedJudgment:
    revision, judged_at, content = row
    judgment = Judgment.model_validate_json(content)
    return SavedJudgment(revision=revision, judged_at=judged_at, judgment=judgment)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
