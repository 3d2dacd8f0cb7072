"""Reads the file that Weights & Biases keeps of a run, ``run-ID.wandb``, without W&B's process and without a network.

The file has a header of 7 bytes, ``:W&B``, 0xBEE1 and a version, and then LevelDB's log format: blocks of 32 KiB (the
first one is 7 bytes shorter) of chunks, each with a CRC-32 of type and content, a length, and a type: the whole
record, or its first, a middle or its last part. A record is a message ``Record`` of ``wandb_internal.proto``.
Sources: LevelDB's ``doc/log_format.md``, and the messages that the package ``wandb`` brings.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from d2tune import files
from d2tune.errors import RunError
from d2tune.text import reason_of

_HEADER = b":W&B" + struct.pack("<HB", 0xBEE1, 0)
_BLOCK_BYTES = 32768
_CHUNK = struct.Struct("<IHB")
_WHOLE, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


@dataclass(frozen=True, slots=True)
class ArtifactFile:
    """A file of an artifact.

    Attributes:
        name: Its path within the artifact.
        size_bytes: Its size; 0 for a reference.
        digest: MD5 of the content, as base64, or for a reference that of the file it stands for.
        reference: The address of a file of another artifact; empty for a file of its own.
        local: Where the file lies; None for a reference. In a run folder that was copied it is the copy.
    """

    name: str
    size_bytes: int
    digest: str
    reference: str
    local: Path | None

    def is_present(self) -> bool:
        """Whether the file lies where it should, with the content that was logged."""
        if self.local is None or not self.local.is_file():
            return False
        with self.local.open("rb") as stream:
            return base64.b64encode(hashlib.file_digest(stream, "md5").digest()).decode() == self.digest


@dataclass(frozen=True, slots=True)
class LoggedArtifact:
    """An artifact of a run.

    Attributes:
        name: Its name.
        type: Such as ``dataset`` or ``model``.
        aliases: Such as ``best``.
        is_input: Whether the run uses it; otherwise the run has made it.
        metadata: What was noted of it.
        client_id: The id by which references name it before W&B has given it a version.
        files: Its files and references.
    """

    name: str
    type: str
    aliases: tuple[str, ...]
    is_input: bool
    metadata: Mapping[str, Any]
    client_id: str
    files: tuple[ArtifactFile, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of its own files."""
        return sum(file.size_bytes for file in self.files)


@dataclass(slots=True)
class WandbFile:
    """The content of a ``run-ID.wandb``.

    Attributes:
        path: The file.
        run_id: The id of the run.
        project: W&B's project.
        name: The name of the run.
        group: Its group; empty for none.
        config: The settings that were logged.
        history: ``(step, values)`` in the order of the file; values of media are dicts.
        summary: The last value of each name.
        artifacts: In the order in which they were logged.
        records: Number of records of each type.
        is_finished: Whether the run has ended; otherwise it was killed, or is still being written.
    """

    path: Path
    run_id: str = ""
    project: str = ""
    name: str = ""
    group: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    history: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    artifacts: list[LoggedArtifact] = field(default_factory=list)
    records: Counter[str] = field(default_factory=Counter)
    is_finished: bool = False

    @property
    def last_step(self) -> int:
        """The highest step of the history; -1 without one."""
        return max((step for step, _ in self.history), default=-1)


def read(path: str | Path) -> WandbFile:
    """Read a ``run-ID.wandb``; a record that was cut off at its end is ignored.

    Args:
        path: The file.

    Raises:
        RunError: It does not exist, is not such a file, or is damaged.
    """
    path = Path(path)
    content = WandbFile(path)
    for record in _messages(path):
        kind = record.WhichOneof("record_type") or "none"
        content.records[kind] += 1
        _ADD.get(kind, _ignore)(content, getattr(record, kind, None))
    return content


def files_of(run: str | Path) -> list[Path]:
    """W&B's files in a run folder, in the order of the starts of the run."""
    starts = [path for path in (Path(run) / "wandb").glob("*run-*/run-*.wandb") if path.is_file()]
    return sorted(starts, key=lambda path: path.parent.name.removeprefix("offline-"))


def relocate(run: str | Path) -> int:
    """Note the present places of the files of artifacts in a run folder that was moved or copied.

    W&B notes absolute paths, and ``wandb sync`` looks for the files there. The files ``run-ID.wandb`` are written
    again, each as a whole, with all other records byte by byte as they were.

    Args:
        run: The run folder.

    Returns:
        The number of paths that were changed.

    Raises:
        RunError: A file of W&B in it is damaged, or cannot be written.
    """
    return sum(map(_relocate, files_of(run)))


def _relocate(path: Path) -> int:
    from wandb.proto.wandb_internal_pb2 import Record

    changed, contents = 0, list(records_of(path))
    for number, content in enumerate(contents):
        record = Record.FromString(content)
        entries = record.artifact.manifest.contents if record.WhichOneof("record_type") == "artifact" else ()
        moved = [(entry, str(_present_place(path, Path(entry.local_path)))) for entry in entries if entry.local_path]
        different = [(entry, place) for entry, place in moved if place != entry.local_path]
        for entry, place in different:
            entry.local_path = place
        if different:
            contents[number] = record.SerializeToString()
            changed += len(different)
    if changed:
        files.write_bytes(path, _HEADER + b"".join(_chunks(contents)))
    return changed


def _chunks(contents: Iterable[bytes]) -> Iterator[bytes]:
    """Records as chunks in blocks; the end of a block that is too short for a chunk is filled with zeros."""
    place = len(_HEADER)
    for content in contents:
        begin = 0
        while begin < len(content) or begin == 0:
            room = _BLOCK_BYTES - place % _BLOCK_BYTES
            if room < _CHUNK.size:
                yield bytes(room)
                place, room = place + room, _BLOCK_BYTES
            fragment = content[begin : begin + room - _CHUNK.size]
            is_first, is_last = begin == 0, begin + len(fragment) >= len(content)
            kind = (_WHOLE if is_last else _FIRST) if is_first else _LAST if is_last else _MIDDLE
            yield _CHUNK.pack(zlib.crc32(bytes([kind]) + fragment), len(fragment), kind) + fragment
            begin, place = begin + len(fragment), place + _CHUNK.size + len(fragment)
            if is_last:
                break


def records_of(path: Path) -> Iterator[bytes]:
    """The records of a file in LevelDB's log format, behind W&B's header.

    Args:
        path: The file.

    Raises:
        RunError: It cannot be read, has another header, or a checksum does not match.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RunError(f"W&B's file cannot be read: {reason_of(error)}", file=path) from None
    if content[: len(_HEADER) - 1] != _HEADER[:-1]:
        raise RunError(
            "is not a file of a W&B run",
            file=path,
            found=repr(content[:7]),
            expected="run-ID.wandb of W&B 0.13 or later",
        )
    place, fragments = len(_HEADER), b""
    while place + _CHUNK.size <= len(content):
        room = _BLOCK_BYTES - place % _BLOCK_BYTES
        if room < _CHUNK.size:
            place += room
            continue
        checksum, length, kind = _CHUNK.unpack_from(content, place)
        begin, place = place + _CHUNK.size, place + _CHUNK.size + length
        if place > len(content):
            return
        if checksum != zlib.crc32(content[begin - 1 : place]) or not _WHOLE <= kind <= _LAST:
            raise RunError(
                "W&B's file is damaged: a checksum does not match",
                file=path,
                place=f"byte {begin - _CHUNK.size}",
                hint="Restore the file from a copy; the run's metrics are in metrics.jsonl as well.",
            )
        fragments = content[begin:place] if kind in (_WHOLE, _FIRST) else fragments + content[begin:place]
        if kind in (_WHOLE, _LAST):
            yield fragments


def _messages(path: Path) -> Iterator[Any]:
    from google.protobuf.message import DecodeError
    from wandb.proto.wandb_internal_pb2 import Record

    for number, content in enumerate(records_of(path), start=1):
        try:
            yield Record.FromString(content)
        except DecodeError as error:
            raise RunError(f"W&B's file is damaged: {error}", file=path, place=f"record {number}") from None


def _ignore(content: WandbFile, message: Any) -> None:
    """Records that say nothing of the results: output, system metrics, telemetry."""


def _add_run(content: WandbFile, message: Any) -> None:
    content.run_id, content.project = message.run_id, message.project
    content.name, content.group = message.display_name, message.run_group
    _add_config(content, message.config)


def _add_config(content: WandbFile, message: Any) -> None:
    for item in message.update:
        _put(content.config, [item.key] if item.key else list(item.nested_key), json.loads(item.value_json))


def _add_history(content: WandbFile, message: Any) -> None:
    row: dict[str, Any] = {}
    for item in message.item:
        _put(row, list(item.nested_key) or [item.key], json.loads(item.value_json))
    values = {name: value for name, value in row.items() if not name.startswith("_")}
    content.history.append((int(message.step.num), values))


def _add_summary(content: WandbFile, message: Any) -> None:
    for item in message.update:
        _put(content.summary, list(item.nested_key) or [item.key], json.loads(item.value_json))


def _add_artifact(content: WandbFile, message: Any) -> None:
    content.artifacts.append(
        LoggedArtifact(
            name=message.name,
            type=message.type,
            aliases=tuple(message.aliases),
            is_input=message.use_after_commit,
            metadata=json.loads(message.metadata or "{}"),
            client_id=message.client_id,
            files=tuple(_artifact_file(content.path, entry) for entry in message.manifest.contents),
        )
    )


def _add_exit(content: WandbFile, message: Any) -> None:
    content.is_finished = True


_ADD = {
    "run": _add_run,
    "config": _add_config,
    "history": _add_history,
    "summary": _add_summary,
    "artifact": _add_artifact,
    "exit": _add_exit,
}


def _artifact_file(path: Path, entry: Any) -> ArtifactFile:
    local = _present_place(path, Path(entry.local_path)) if entry.local_path else None
    return ArtifactFile(entry.path, int(entry.size), entry.digest, entry.ref, local)


def _present_place(path: Path, noted: Path) -> Path:
    """Where a file lies that was noted with its absolute path when the run folder was elsewhere.

    The run folder holds ``wandb/[offline-]run-.../run-ID.wandb``. Of the noted path, the longest end that exists in the
    present run folder is taken.
    """
    run = path.absolute().parent.parent.parent
    for start in range(1, len(noted.parts)):
        candidate = run.joinpath(*noted.parts[start:])
        if candidate.is_file():
            return candidate
    return noted


def _put(values: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        inner = values.setdefault(key, {})
        values = inner if isinstance(inner, dict) else {}
    values[keys[-1]] = value
