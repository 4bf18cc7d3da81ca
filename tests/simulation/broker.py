"""A simulated Kafka: topics with ids, logs with transactions, fencing, a last stable offset, groups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from aiokafka.errors import (
    InvalidProducerIdMapping,
    InvalidTxnState,
    OffsetOutOfRangeError,
    ProducerFenced,
)
from aiokafka.structs import TopicPartition

TRANSACTION_SECONDS = 60.0
"""Time after which Kafka aborts an open transaction: aiokafka's default of `transaction.timeout.ms`."""

Headers = Sequence[tuple[str, bytes | None]]


@dataclass(eq=False)
class Transaction:
    """A transaction: open until it is committed or aborted; its markers may follow later."""

    session: Session | None
    state: str = "open"
    logs: list[Log] = field(default_factory=list)

    @property
    def settled(self) -> bool:
        """Whether its markers are in the logs, so that readers may pass it."""
        return not self.logs


@dataclass(eq=False)
class Entry:
    """A record or a transaction marker in a log."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    transaction: Transaction | None = None
    marker: bool = False

    @property
    def committed(self) -> bool:
        """Whether it is a record that a reader of committed records may see."""
        return not self.marker and (self.transaction is None or self.transaction.state == "committed")


class Log:
    """One partition. Entries stay for the oracle after readers have lost them by compaction or deletion.

    Attributes
    ----------
    start
        First retained offset.
    entries
        All entries ever written; the index is the offset.
    compacted
        Offsets that compaction has removed.
    starts
        All values that `start` has had.
    """

    def __init__(self, topic: Topic, partition: int) -> None:
        self.topic = topic
        self.partition = partition
        self.start = 0
        self.starts = [0]
        self.entries: list[Entry] = []
        self.compacted: set[int] = set()
        self._open: dict[Transaction, int] = {}

    @property
    def end(self) -> int:
        """The high watermark."""
        return len(self.entries)

    @property
    def stable(self) -> int:
        """The last stable offset."""
        return min(self._open.values(), default=self.end)

    def append(
        self,
        records: Sequence[tuple[bytes | None, bytes | None, Headers]],
        timestamp: int,
        transaction: Transaction | None = None,
    ) -> int:
        """Append records, and return the offset of the first."""
        first = self.end
        if transaction is not None and transaction not in self._open:
            self._open[transaction] = first
            transaction.logs.append(self)
        for key, value, headers in records:
            self.entries.append(Entry(self.end, timestamp, key, value, headers, transaction))
        return first

    def settle(self, transaction: Transaction, timestamp: int) -> None:
        """Write the marker that ends a transaction."""
        self.entries.append(Entry(self.end, timestamp, None, None, (), transaction, marker=True))
        del self._open[transaction]

    def read(self, position: int, limit: int, *, committed: bool = True) -> tuple[list[Entry], int]:
        """Return up to `limit` visible records from a position on, and the position after them.

        Raises
        ------
        OffsetOutOfRangeError
            If the position is outside the log.
        """
        if not self.start <= position <= self.end:
            raise OffsetOutOfRangeError({TopicPartition(self.topic.name, self.partition): position})
        end = self.stable if committed else self.end
        found = []
        while position < end and len(found) < limit:
            entry = self.entries[position]
            position += 1
            if entry.offset not in self.compacted and (entry.committed or not (committed or entry.marker)):
                found.append(entry)
        return found, position

    def trim(self, start: int) -> None:
        """Delete the beginning."""
        self.start = max(self.start, min(start, self.end))
        self.starts.append(self.start)

    def truncate(self, end: int) -> None:
        """Lose the end, as in an unclean election; no transaction may be open."""
        assert not self._open
        del self.entries[end:]

    def compact(self, *, deletions: bool = False) -> None:
        """Remove committed records whose key has a newer committed record before the last stable offset.

        Parameters
        ----------
        deletions
            Whether records without a value are removed, too, because Kafka has kept them long enough.
        """
        newest: dict[bytes | None, Entry] = {}
        for entry in self.entries[self.start : self.stable]:
            if entry.committed:
                if (older := newest.get(entry.key)) is not None:
                    self.compacted.add(older.offset)
                newest[entry.key] = entry
        if deletions:
            self.compacted.update(e.offset for e in newest.values() if e.value is None)


class Topic:
    """A topic: its id and its logs."""

    def __init__(self, name: str, number: int, partitions: int) -> None:
        self.name = name
        self.id = f"{name}-{number}"
        self.logs = [Log(self, p) for p in range(partitions)]


class Session:
    """A producer's registration under a transactional id; a later registration fences it."""

    def __init__(self, transactional_id: str, number: int, owner: str) -> None:
        self.transactional_id = transactional_id
        self.number = number
        self.owner = owner
        self.transaction: Transaction | None = None


class Broker:
    """A cluster: topics, transactional ids and the committed offsets of one group.

    Attributes
    ----------
    clock
        Returns simulated Unix time in milliseconds.
    later
        Runs an action after some seconds; markers of transactions follow their decision.
    observers
        Called with (session, log, entries) at the decision to commit a transaction.
    """

    def __init__(self, clock: Callable[[], int], later: Callable[[float, Callable[[], None]], None]) -> None:
        self.clock = clock
        self.later = later
        self.topics: dict[str, Topic] = {}
        self.former: list[Topic] = []
        self.sessions: dict[str, Session] = {}
        self.offsets: dict[tuple[str, int], int] = {}
        self.observers: list[Callable[[Session | None, Log, list[Entry]], None]] = []
        self.marker_delay: Callable[[], float] = lambda: 0.0
        self._numbers = 0

    def create(self, name: str, partitions: int) -> Topic:
        """Create a topic, with an id that no topic had before."""
        self._numbers += 1
        topic = self.topics[name] = Topic(name, self._numbers, partitions)
        return topic

    def delete(self, name: str) -> None:
        """Delete a topic."""
        self.former.append(self.topics.pop(name))

    def log(self, topic: str, partition: int) -> Log | None:
        """A partition's log; None if the topic does not exist."""
        found = self.topics.get(topic)
        return found.logs[partition] if found is not None else None

    def register(self, transactional_id: str, owner: str) -> Session | None:
        """Register a producer, and abort the open transaction of the previous one; None: try again."""
        before = self.sessions.get(transactional_id)
        if before is not None and before.transaction is not None:
            transaction = before.transaction
            if transaction.state == "open":
                self.finish(before, transaction, commit=False)
            if not transaction.settled:
                return None
        self._numbers += 1
        session = Session(transactional_id, self._numbers, owner)
        self.sessions[transactional_id] = session
        return session

    def forget(self, transactional_id: str) -> None:
        """Forget a producer, as after `transactional.id.expiration.ms`; its open transaction is aborted."""
        session = self.sessions.pop(transactional_id, None)
        if session is not None and session.transaction is not None and session.transaction.state == "open":
            self.finish(session, session.transaction, commit=False)

    def check(self, session: Session) -> None:
        """Raise `ProducerFenced` if the session is not the newest one of its id, another error if none is known."""
        if session.transactional_id not in self.sessions:
            raise InvalidProducerIdMapping
        if self.sessions.get(session.transactional_id) is not session:
            raise ProducerFenced

    def append_in(self, session: Session, log: Log, records: Any) -> int | None:
        """Append records to a session's transaction; None: the previous one is not settled yet, try again."""
        self.check(session)
        transaction = session.transaction
        if transaction is None or transaction.state != "open":
            if transaction is not None and not transaction.settled:
                return None
            transaction = session.transaction = Transaction(session)
            self.later(TRANSACTION_SECONDS, partial(self._expire, session, transaction))
        return log.append(records, self.clock(), transaction)

    def _expire(self, session: Session, transaction: Transaction) -> None:
        """Abort a transaction that its producer has left open for too long, and fence the producer."""
        if transaction.state == "open":
            self.register(session.transactional_id, "nobody")

    def end(self, session: Session, *, commit: bool) -> None:
        """Decide a session's transaction."""
        self.check(session)
        transaction = session.transaction
        if transaction is None:
            return
        if transaction.state == "open":
            self.finish(session, transaction, commit=commit)
        elif (transaction.state == "committed") is not commit:
            raise InvalidTxnState

    def finish(self, session: Session | None, transaction: Transaction, *, commit: bool) -> None:
        """Decide a transaction; its markers follow after a delay."""
        transaction.state = "committed" if commit else "aborted"
        for log in transaction.logs:
            if commit:
                entries = [e for e in log.entries if e.transaction is transaction and not e.marker]
                for observe in self.observers:
                    observe(session, log, entries)

        def settle() -> None:
            logs, transaction.logs = transaction.logs, []
            for log in logs:
                log.settle(transaction, self.clock())

        delay = self.marker_delay()
        if delay:
            self.later(delay, settle)
        else:
            settle()
