"""The users of a run: the rows of its `features/` files, as types."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec

from streamguard.alerts.incident import rfc3339
from streamguard.events.event import MAX_USER_CHARACTERS
from streamguard.events.subject import shown, subject_of
from streamguard.fold.features import DECLARED
from streamguard.runs.directory import FEATURES, TRAINING
from streamguard.serving.results.sandbox import ParquetSandbox, UnreadableError
from streamguard.serving.results.totals import BatchPartition
from streamguard.text import counted

MAX_FILES = 10_000
"""Files of users, one a partition; Kafka's clusters have fewer partitions in one topic."""
MAX_PAGE = 1000
"""Users of one page."""
MAX_PARTITIONS = 16
"""Rows of one user that are shown; a user is in one partition, or in two if the senders' partitioners differ."""
MAX_NAME_CHARACTERS = len(shown(subject_of("", ""))) + MAX_USER_CHARACTERS
"""Characters of the longest name in the files: that of a source of events without a user."""

_FILE = re.compile(r"part-\d+\.parquet")
_ROW = """
    "user", partition, total_events, unique_ips, unique_locations, avg_threat_score, max_threat_score,
    failed_auth_rate, unusual_hour_rate, epoch_ms(first_seen) AS first_ms, epoch_ms(last_seen) AS last_ms, peer_group,
    peer_distance, peer_bits, small_group, evidence_bits, risk, is_anomaly
"""
_FROM = "FROM read_parquet($files, hive_partitioning = false, filename = false)"
_ORDER = 'ORDER BY evidence_bits DESC, "user", partition LIMIT $limit'
_WORST = f"SELECT {_ROW} {_FROM} WHERE is_anomaly {_ORDER}"
_NEXT = (
    f"SELECT {_ROW} {_FROM} WHERE is_anomaly AND (evidence_bits < $bits OR (evidence_bits = $bits AND "
    f'("user" > $user OR ("user" = $user AND partition > $partition)))) {_ORDER}'
)
_WHERE = """
    SELECT filename, file_row_number
    FROM read_parquet($files, hive_partitioning = false, filename = true, file_row_number = true)
    WHERE "user" = $user ORDER BY filename, file_row_number LIMIT $limit
"""
"""Finds the rows of a user by one column: a search with all columns holds those of whole row groups in memory."""
_ROW_AT = (
    "FROM read_parquet($file, hive_partitioning = false, file_row_number = true) WHERE file_row_number = $row"
)
_ONE = f"SELECT {_ROW}, * {_ROW_AT}"
_OF_SOURCE = (
    'SELECT "user", count(*) AS events, count_if(is_anomaly) AS alerted, epoch_ms(min(timestamp)) AS first_ms, '
    "epoch_ms(max(timestamp)) AS last_ms FROM read_parquet($files, hive_partitioning = false) "
    'WHERE source_ip = $source GROUP BY "user" ORDER BY events DESC, "user" LIMIT $limit'
)
_PARTITIONS = (
    "SELECT partition, count(*) AS users, count_if(is_anomaly) AS at_risk, sum(total_events)::BIGINT AS events "
    f"{_FROM} GROUP BY partition ORDER BY partition"
)


class BatchUser(msgspec.Struct, frozen=True):
    """What a run says of a user in one partition."""

    user: Annotated[
        str, msgspec.Meta(description="Name, or `source` and an address for events without a user")
    ]
    partition: int
    total_events: int
    unique_ips: int
    unique_locations: int
    avg_threat_score: float
    max_threat_score: float
    failed_auth_rate: Annotated[float, msgspec.Meta(description="Failed logins as a share of all logins")]
    unusual_hour_rate: Annotated[float, msgspec.Meta(description="Share of events at hours that are unusual")]
    first_seen: str
    last_seen: str
    peer_group: int | None
    peer_distance: float | None
    peer_bits: float | None
    small_group: bool | None
    evidence_bits: Annotated[
        float, msgspec.Meta(description="Evidence against the user, by which users are ranked")
    ]
    risk: Annotated[float, msgspec.Meta(description="The same on the scale from 0 to 100")]
    is_anomaly: Annotated[bool, msgspec.Meta(description="Whether the run marks the user as at risk")]


class FeatureValue(msgspec.Struct, frozen=True):
    """One of the behavioural features of a user."""

    name: str
    group: str
    unit: str
    formula: str
    last: Annotated[float | None, msgspec.Meta(description="Value at the last event")]
    mean: Annotated[float | None, msgspec.Meta(description="Mean over all events")]


class BatchUserDetail(msgspec.Struct, frozen=True):
    """What a run says of a user in one partition, with the features."""

    summary: BatchUser
    features: tuple[FeatureValue, ...]


class SourceUser(msgspec.Struct, frozen=True):
    """A user of an address, among the events that a run has kept: a uniform sample, and the strongest alerts."""

    user: str
    events: Annotated[int, msgspec.Meta(description="Kept events of the user from the address")]
    alerted: int
    first_seen: str
    last_seen: str


class Place(msgspec.Struct, frozen=True):
    """A place in the list of the worst users: that of its last row so far."""

    evidence_bits: float
    user: str
    partition: int


class UserFiles:
    """The files of a run with its users.

    Parameters
    ----------
    run
        Directory of the run.

    Raises
    ------
    UnreadableError
        If the run has no such files.
    """

    def __init__(self, run: Path) -> None:
        self._sandbox = ParquetSandbox(run)
        directory = self._sandbox.directory / FEATURES
        try:
            names = sorted(path.name for path in directory.iterdir() if _FILE.fullmatch(path.name))
        except OSError as error:
            raise UnreadableError(
                f"{directory} cannot be read ({error.strerror}): run `streamguard retrain`"
            ) from None
        if not 0 < len(names) <= MAX_FILES:
            raise UnreadableError(
                f"{directory} has {counted(len(names), 'file')} of users, 1 to {MAX_FILES:,} are read: run "
                "`streamguard retrain`"
            )
        self._files = [str(directory / name) for name in names]
        training = self._sandbox.directory / TRAINING
        self._samples = [str(training / f"anomaly={value}" / "part-0.parquet") for value in (0, 1)]

    def worst(self, limit: int, after: Place | None) -> list[BatchUser]:
        """Users at risk, the most evidence first, from the row after a place on.

        Raises
        ------
        UnreadableError
            See `ParquetSandbox.rows`.
        """
        parameters: dict[str, object] = {"files": self._files, "limit": limit}
        if after is None:
            return [_user(row) for row in self._sandbox.rows(_WORST, parameters)]
        if not _possible(after.user):
            raise UnreadableError("the place in the list names no user: ask for the first page")
        parameters |= {"bits": after.evidence_bits, "user": after.user, "partition": after.partition}
        return [_user(row) for row in self._sandbox.rows(_NEXT, parameters)]

    def named(self, name: str) -> list[BatchUserDetail]:
        """Rows of a user, the most evidence first: one for each partition that has events of the user.

        Raises
        ------
        UnreadableError
            See `ParquetSandbox.rows`.
        """
        if not _possible(name):
            return []
        places = self._sandbox.rows(_WHERE, {"files": self._files, "user": name, "limit": MAX_PARTITIONS})
        found = [
            BatchUserDetail(_user(row), _features(row))
            for place in places
            for row in self._sandbox.rows(_ONE, {"file": place["filename"], "row": place["file_row_number"]})
        ]
        return sorted(found, key=lambda one: (-one.summary.evidence_bits, one.summary.partition))

    def of_source(self, address: str, limit: int) -> list[SourceUser]:
        """Users of the run's sample of events from an address, those with the most events first.

        Raises
        ------
        UnreadableError
            See `ParquetSandbox.rows`.
        """
        if not _possible(address):
            return []
        found = self._sandbox.rows(_OF_SOURCE, {"files": self._samples, "source": address, "limit": limit})
        return [
            SourceUser(
                row["user"], row["events"], row["alerted"], rfc3339(row["first_ms"]), rfc3339(row["last_ms"])
            )
            for row in found
        ]

    def partitions(self, ends: Mapping[int, int]) -> list[BatchPartition]:
        """Number of users and of their events, by partition.

        Parameters
        ----------
        ends
            First offset of each partition that the run has not read.

        Raises
        ------
        UnreadableError
            See `ParquetSandbox.rows`.
        """
        found = {
            int(row["partition"]): row for row in self._sandbox.rows(_PARTITIONS, {"files": self._files})
        }
        return [
            BatchPartition(p, end, int(found[p]["users"]), int(found[p]["at_risk"]), int(found[p]["events"]))
            if p in found
            else BatchPartition(p, end, 0, 0, 0)
            for p, end in sorted(ends.items())
        ]

    def close(self) -> None:
        """Release the memory."""
        self._sandbox.close()


def _possible(name: str) -> bool:
    """Whether a name can be in the files: a longer one, or one that is no Unicode text, is not looked for."""
    if len(name) > MAX_NAME_CHARACTERS:
        return False
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _user(row: Mapping[str, Any]) -> BatchUser:
    try:
        times = {"first_seen": rfc3339(row["first_ms"]), "last_seen": rfc3339(row["last_ms"])}
        return msgspec.convert({**row, **times}, BatchUser)
    except (msgspec.ValidationError, TypeError, ValueError, OverflowError, OSError) as error:
        raise UnreadableError(f"the files of users have a row that no retrain writes ({error})") from None


def _features(row: Mapping[str, Any]) -> tuple[FeatureValue, ...]:
    """Features in the order of the declaration; one that the run did not have yet is left out."""
    return tuple(
        FeatureValue(one.name, one.group, one.unit, one.formula, row[one.name], row.get(f"mean_{one.name}"))
        for one in DECLARED.all
        if one.name in row
    )
