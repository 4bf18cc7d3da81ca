"""A state changelog in memory: transactions with markers, compaction, and a reader with the face of `LogReader`."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any

from streamguard.serving.log.reader import Bounds, DeletedError, TopicState
from streamguard.serving.log.record import LogRecord

Change = tuple[bytes, bytes | None]
State = dict[bytes, bytes]


class Changelog:
    """One partition. A reader in another thread sees a transaction as a whole, as `read_committed` has it.

    Attributes
    ----------
    lock
        Held by each method, and by a reader while it takes records.
    records
        Committed records in offset order.
    end
        Offset after the last record or marker.
    exact
        Every state that is one: after each `m`, and after each transaction.
    """

    def __init__(self, start: int = 0) -> None:
        self.lock = threading.Lock()
        self.records: list[LogRecord] = []
        self.start = self.end = start
        self.exact: list[State] = [{}]

    def commit(self, changes: Iterable[Change]) -> None:
        """Append one transaction and its marker."""
        with self.lock:
            state = dict(self.exact[-1])
            for key, value in changes:
                self.records.append(LogRecord(0, self.end, 1_700_000_000_000 + self.end, key, value))
                self.end += 1
                if value is None:
                    state.pop(key, None)
                else:
                    state[key] = value
                if key == b"m":
                    self.exact.append(dict(state))
            self.exact.append(state)
            self.end += 1

    def abort(self, count: int) -> None:
        """Append a transaction that readers do not see."""
        with self.lock:
            self.end += count + 1

    def compact(self, limit: int) -> None:
        """Remove records before `limit` whose key occurs again before it; deletions stay."""
        with self.lock:
            last = {r.key: r.offset for r in self.records if r.offset < limit}
            self.records = [r for r in self.records if r.offset >= limit or last[r.key] == r.offset]

    def delete(self, before: int) -> None:
        """Delete all records before an offset, as nobody may do."""
        with self.lock:
            self.start = before
            self.records = [r for r in self.records if r.offset >= before]

    def after(self, position: int, count: int) -> tuple[list[LogRecord], bool]:
        """The next records, and whether they reach the end; the lock is held."""
        left = [r for r in self.records if r.offset >= position]
        return left[:count], len(left) <= count

    @property
    def bounds(self) -> Bounds:
        return Bounds(self.start, self.end)


class Cluster:
    """Topics by name; stands for the brokers that `topic_state` and `LogReader` ask.

    Attributes
    ----------
    id
        Id of the changelog, None while there is none.
    failing
        Errors that the next questions to the brokers raise, one after the other.
    questions
        Number of times that the topic was described.
    """

    def __init__(self, *partitions: Changelog) -> None:
        self.partitions = list(partitions)
        self.id: str | None = "first"
        self.failing: list[Exception] = []
        self.questions = 0

    def topic_state(self, *_: Any) -> TopicState | None:
        self.questions += 1
        if self.failing:
            raise self.failing.pop(0)
        if self.id is None:
            return None
        return TopicState(self.id, {number: log.bounds for number, log in enumerate(self.partitions)})

    def reader(self, _brokers: Any, _topic: str, positions: Mapping[int, int]) -> Reader:
        return Reader(self, dict(positions))


class Reader:
    """`LogReader` over a `Cluster`; takes three records of a partition at a time."""

    def __init__(self, cluster: Cluster, positions: dict[int, int]) -> None:
        self._cluster = cluster
        self.positions = positions
        self.ended: frozenset[int] = frozenset()
        self.unreadable = 0

    def take(self, seconds: float) -> list[LogRecord]:
        found, ended = [], set()
        for number, position in self.positions.items():
            log = self._cluster.partitions[number]
            with log.lock:
                if not log.start <= position <= log.end:
                    raise DeletedError("Kafka has deleted records that were not read yet")
                part, last = log.after(position, 3)
                found += [record._replace(partition=number) for record in part]
                if last:
                    ended.add(number)
                    self.positions[number] = log.end
                else:
                    self.positions[number] = part[-1].offset + 1
        self.ended = frozenset(ended)
        return found

    def close(self) -> None:
        pass
