"""Events of a topic's archive: the one at an offset, whose record Kafka has deleted, and those of a user."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec

from streamguard.events.event import MAX_USER_CHARACTERS
from streamguard.limits import MAX_DOCUMENT_BYTES
from streamguard.runs import archive_manifest
from streamguard.runs.archive_manifest import ArchiveError, ArchiveFile, ArchiveManifest
from streamguard.serving.log.freshness import AsOf, Position
from streamguard.serving.log.missing import MissingEvent, Reason
from streamguard.serving.results.answers import Unavailable
from streamguard.serving.results.archived_event import ArchivedEvent, archived_event, first_offset
from streamguard.serving.results.sandbox import ParquetSandbox, Row, UnreadableError
from streamguard.text import counted

MAX_EVENTS = 100
"""Events of one answer."""
MAX_FILES = 1024
"""Files that one question about a user opens; each costs about a millisecond."""
FILES_AT_A_TIME = 64
"""Files of one query: the newest ones usually hold enough events."""
MAX_MANIFEST_BYTES = 64 << 20
"""Size of the largest manifest that is read: 200,000 files."""

_PARTITION = re.compile(r"/partition=(\d+)/[^/]+$")
_NUMBER = "CAST(regexp_extract(filename, '/partition=(\\d+)/[^/]+$', 1) AS INTEGER)"
"""The partition of a row, from the path of its file."""
_NEWEST_FIRST = f'timestamp DESC, {_NUMBER}, "offset" DESC'
_WITH = """
    WITH found AS (
        SELECT * FROM read_parquet($files, union_by_name = true, hive_partitioning = false, filename = true)
        WHERE {where}
    )
    SELECT * EXCLUDE (raw, timestamp, appended), epoch_ms(timestamp) AS timestamp,
        raw[1:$bytes] AS head, octet_length(raw) AS size
    FROM (
        FROM found UNION ALL BY NAME
        SELECT NULL::TIMESTAMPTZ AS appended, NULL::VARCHAR AS withheld, NULL::VARCHAR AS decision WHERE false
    ) ORDER BY {order}
"""
"""Rows with the columns that archives of earlier versions do not have."""
_AT = _WITH.format(where='"offset" >= $offset ORDER BY "offset" LIMIT 1', order='"offset"')
_OF_USER = _WITH.format(
    where='"user" = $user AND timestamp >= epoch_ms($since::BIGINT)::TIMESTAMPTZ '
    "AND timestamp < epoch_ms($until::BIGINT)::TIMESTAMPTZ AND (timestamp < epoch_ms($after::BIGINT)::TIMESTAMPTZ "
    f'OR {_NUMBER} > $partition OR ({_NUMBER} = $partition AND "offset" < $offset)) '
    f"ORDER BY {_NEWEST_FIRST} LIMIT $limit",
    order=_NEWEST_FIRST,
)


class ArchivedPage(msgspec.Struct, frozen=True):
    """Events of a user, the newest first."""

    events: tuple[ArchivedEvent, ...]
    more: Annotated[bool, msgspec.Meta(description="Whether older events in the time range were left out")]
    incomplete: Annotated[
        str, msgspec.Meta(description="What was not looked at, and what to do; empty if nothing was left out")
    ] = ""
    topic: Annotated[str, msgspec.Meta(description="The topic that was archived; empty without events")] = ""


class ArchivedPlace(NamedTuple):
    """The place of an event in the order of a page: the latest first, then by partition, the last offset first."""

    timestamp_ms: int
    partition: int
    offset: int


class ArchivedEvents:
    """Reads the archive that `streamguard archive` writes; several threads may ask at the same time.

    Parameters
    ----------
    directory
        The archive; None if this server has none.
    """

    def __init__(self, directory: str | Path | None) -> None:
        self._directory = None if directory is None else Path(directory)
        self._lock = threading.Lock()
        self._read: tuple[tuple[int, int, int], ArchiveManifest] | None = None
        self._sandbox: ParquetSandbox | None = None

    def at(
        self, partition: int, offset: int, topic_id: str | None = None
    ) -> ArchivedEvent | MissingEvent | Unavailable:
        """The record at an offset.

        Parameters
        ----------
        topic_id
            Kafka's id of the topic that the offset belongs to; None if it is unknown.
        """
        try:
            opened = self._opened()
            if isinstance(opened, Unavailable):
                return opened
            manifest, sandbox = opened
            if topic_id is not None and manifest.source.get("topic_id") != topic_id:
                return _missing(
                    partition, offset, "another_topic", "the archive is that of another topic of this name"
                )
            if not manifest.starts.get(partition, 0) <= offset < manifest.ends.get(partition, 0):
                return _missing(
                    partition,
                    offset,
                    "not_archived",
                    "the archive does not reach to it: run `streamguard archive`",
                )
            files = manifest.of(partition, offset, offset + 1)
            rows = files and sandbox.rows(
                _AT,
                {"files": _paths(sandbox, files), "offset": offset, "bytes": MAX_DOCUMENT_BYTES},
            )
            if rows and first_offset(rows[0]) <= offset:
                return archived_event(partition, rows[0])
            return _missing(
                partition, offset, "not_committed", "the topic has no committed record at this offset"
            )
        except UnreadableError as error:
            return Unavailable("busy" if error.busy else "unreadable", str(error))

    def as_of(self) -> AsOf | Unavailable:
        """How far the archive is, and when it was last written."""
        try:
            opened = self._opened()
        except UnreadableError as error:
            return Unavailable("unreadable", str(error))
        if isinstance(opened, Unavailable):
            return opened
        assert self._read is not None
        (_, written_ns, _), manifest = self._read
        return AsOf(
            "archive",
            tuple(Position(number, end) for number, end in sorted(manifest.ends.items())),
            max(time.time_ns() - written_ns, 0) // 1_000_000,
        )

    def of_user(
        self,
        user: str,
        since_ms: int,
        until_ms: int,
        limit: int,
        partition: int | None = None,
        after: ArchivedPlace | None = None,
    ) -> ArchivedPage | Unavailable:
        """Events of a user in a range of time, the newest first.

        Parameters
        ----------
        user
            Name of the user in the events.
        since_ms, until_ms
            Event times, epoch milliseconds; the first is included, the last is not.
        limit
            Events of the answer, at most `MAX_EVENTS`.
        partition
            The partition that has the user's events, if it is known: then fewer files are opened.
        after
            The last event of the page before; None: the first page.
        """
        limit = max(1, min(limit, MAX_EVENTS))
        after = after or ArchivedPlace(_LAST_MS, -1, 0)
        since_ms, until_ms = max(since_ms, 0), min(until_ms, _LAST_MS, after.timestamp_ms + 1)
        try:
            opened = self._opened()
            if isinstance(opened, Unavailable):
                return opened
            manifest, sandbox = opened
            if not _possible(user) or since_ms >= until_ms:
                return ArchivedPage((), False)
            files = sorted(
                (
                    file
                    for file in manifest.files
                    if (partition is None or file.partition == partition)
                    and file.first_ms is not None
                    and file.last_ms is not None
                    and file.first_ms < until_ms
                    and file.last_ms >= since_ms
                ),
                key=lambda file: -(file.last_ms or 0),
            )
            found: list[ArchivedEvent] = []
            for start in range(0, min(len(files), MAX_FILES), FILES_AT_A_TIME):
                some = files[start : min(start + FILES_AT_A_TIME, MAX_FILES)]
                if len(found) > limit and (found[limit].timestamp_ms or 0) > (some[0].last_ms or 0):
                    break  # all that follows is older
                parameters = {
                    "files": _paths(sandbox, some),
                    "user": user,
                    "since": since_ms,
                    "until": until_ms,
                    "after": after.timestamp_ms,
                    "partition": after.partition,
                    "offset": after.offset,
                }
                rows = sandbox.rows(_OF_USER, parameters | {"limit": limit + 1, "bytes": MAX_DOCUMENT_BYTES})
                found += [archived_event(_partition(row), row) for row in rows]
                found.sort(key=lambda one: (-(one.timestamp_ms or 0), one.partition, -one.offset))
                del found[limit + 1 :]
        except UnreadableError as error:
            return Unavailable("busy" if error.busy else "unreadable", str(error))
        left_out = len(files) - MAX_FILES
        incomplete = (
            f"{counted(left_out, 'file')} of the time range, those with the oldest events, were not opened: narrow "
            "`since` and `until`"
            if left_out > 0 and len(found) <= limit
            else ""
        )
        topic = str(manifest.source.get("topic", "")) if found else ""
        return ArchivedPage(tuple(found[:limit]), len(found) > limit or left_out > 0, incomplete, topic)

    def close(self) -> None:
        """Release the memory."""
        with self._lock:
            if self._sandbox is not None:
                self._sandbox.close()
            self._sandbox = self._read = None

    def _opened(self) -> tuple[ArchiveManifest, ParquetSandbox] | Unavailable:
        """The manifest, which is read again after every change, and the database."""
        if self._directory is None:
            return Unavailable(
                "not_configured", "this server has no archive: set the directory of `streamguard archive`"
            )
        path = self._directory / archive_manifest.NAME
        with self._lock:
            try:
                about = path.stat()
            except FileNotFoundError:
                return Unavailable("none", f"{self._directory} is no archive: run `streamguard archive`")
            except OSError as error:
                raise UnreadableError(f"{path} cannot be read ({error.strerror})") from None
            if about.st_size > MAX_MANIFEST_BYTES:
                raise UnreadableError(
                    f"{path} has {about.st_size:,} bytes, at most {MAX_MANIFEST_BYTES:,} are read"
                )
            version = about.st_ino, about.st_mtime_ns, about.st_size
            if self._read is None or self._read[0] != version:
                try:
                    manifest = archive_manifest.read(self._directory)
                except ArchiveError as error:
                    raise UnreadableError(str(error)) from None
                if manifest is None:
                    return Unavailable("none", f"{self._directory} is no archive: run `streamguard archive`")
                self._read = version, manifest
            if self._sandbox is None:
                self._sandbox = ParquetSandbox(self._directory)
            return self._read[1], self._sandbox


_LAST_MS = 253_402_300_800_000
"""Year 10000, before which every event is."""


def _paths(sandbox: ParquetSandbox, files: list[ArchiveFile]) -> list[str]:
    return [str(sandbox.directory / file.path) for file in files]


def _possible(user: str) -> bool:
    """Whether an event can have such a user."""
    return len(user) <= MAX_USER_CHARACTERS and not any("\ud800" <= c <= "\udfff" for c in user)


def _partition(row: Row) -> int:
    found = _PARTITION.search(row["filename"])
    if found is None:
        raise UnreadableError(f"{row['filename']} is not a file of an archive")
    return int(found[1])


def _missing(partition: int, offset: int, reason: Reason, message: str) -> MissingEvent:
    return MissingEvent(partition, offset, reason, f"partition {partition}, offset {offset}: {message}")
