"""Judges a simulation while it runs: compares every committed checkpoint with a plain fold of the source."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from streamguard.alerts.incident import decode, encode
from streamguard.history.partitioner import partition_of
from streamguard.state.identity import StateIdentity
from streamguard.state.partition import HASH_KEY, META
from streamguard.state.profile_cache import user_key
from streamguard.state.store import LOCAL, RESERVED, ChangelogPosition
from tests.simulation.broker import Entry, Headers, Log, Session, Transaction
from tests.simulation.network import Network
from tests.simulation.scheduler import current
from tests.simulation.state import extended, forwarded_key, incident, link, remaining, user_of

EVENTS, CHANGELOG, ALERTS, DEAD_LETTERS = "events", "app-state-changelog", "alerts", "dead-letters"
SOURCES = "sources"

Forwarded = tuple[int, bytes | None, bytes | None, Headers]
"""Partition of the sources topic, key, value and headers of a record."""


class Truth:
    """The state and the output that a source partition leads to: each committed record once, in order.

    Parameters
    ----------
    log
        The source partition.
    hash_key
        Key of the digests.
    base
        Offset of the first record.
    """

    def __init__(self, log: Log, hash_key: bytes, base: int) -> None:
        self.log = log
        self.base = self.position = base
        self.values: dict[bytes, bytes] = {}
        self.incidents: dict[int, bytes] = {}
        self.letters: set[int] = set()
        self._hash_key = hash_key

    def advance(self, end: int) -> None:
        """Fold up to an offset."""
        for entry in self.log.entries[self.position : end]:
            if entry.committed:
                self._fold(entry)
        self.position = max(self.position, end)

    def forget(self, key: bytes) -> None:
        """Delete a value, as `streamguard forget` does."""
        self.values.pop(key, None)

    def forwarded(self, begin: int, end: int) -> list[Forwarded]:
        """The records that checkpoints between two offsets have to forward, if there are several partitions."""
        partitions, found = len(self.log.topic.logs), list[Forwarded]()
        for entry in self.log.entries[begin:end] if partitions > 1 else ():
            key = forwarded_key(entry.value) if entry.committed else None
            if key is not None:
                place = (("sg.partition", self.log.partition), ("sg.offset", entry.offset))
                headers: Headers = [
                    ("sg.topic", self.log.topic.name.encode()),
                    *((name, str(number).encode()) for name, number in place),
                ]
                found.append((partition_of(key, partitions), key, entry.value, headers))
        return found

    def _fold(self, entry: Entry) -> None:
        user = user_of(entry.value)
        if user is None:
            self.letters.add(entry.offset)
            return
        value = entry.value or b""
        for key, follow in ((user_key(user), extended), (b"p", link)):
            self.values[key] = follow(self._hash_key, self.values.get(key), entry.offset, value)
        topic, partition = self.log.topic.name, self.log.partition
        if (found := incident(self.values[user_key(user)], user, topic, partition, entry.offset)) is not None:
            self.incidents[entry.offset] = encode(found)


class View:
    """What a reader of committed records knows of one changelog partition.

    Attributes
    ----------
    values
        The latest value of each key.
    reached
        Source offset of the last checkpoint; None before the first one.
    truth
        What the state has to be; None before the first checkpoint.
    foreign
        Whether a checkpoint belongs to another changelog, so that a worker has to refuse this one.
    """

    def __init__(self, log: Log) -> None:
        self.log = log
        self.values: dict[bytes, bytes] = {}
        self.reached: int | None = None
        self.truth: Truth | None = None
        self.foreign = False
        self.foreign_reached = 0
        self.hash_keys: list[bytes] = []


class Judge:
    """Observes the broker and the workers.

    Attributes
    ----------
    violations
        What contradicts the promises of the product; a seed with any fails.
    """

    def __init__(self, net: Network) -> None:
        self._net = net
        self._broker = net.broker
        self.violations: list[str] = []
        self.views: dict[Log, View] = {}
        self.checkpoints = 0
        self.forwarded = 0
        self.forgotten: set[str] = set()
        """Users whose profile an operator deletes; their incidents depend on the moment."""
        self._owner: dict[int, str] = {}
        self._restoring: set[tuple[int, str]] = set()
        self._begun: dict[tuple[int, str], int] = {}
        self._answers: dict[tuple[str, int], int] = {}
        self._published: set[bytes] = set()
        self._letters: set[tuple[int, int]] = set()
        self._seen = {ALERTS: 0, DEAD_LETTERS: 0}
        self._broker.observers.append(self._committed)

    def fail(self, what: str) -> None:
        """Record a violation."""
        self._net.note(f"VIOLATION {what}")
        self.violations.append(f"{self._net.scheduler.now:.3f} s: {what}")

    def view(self, log: Log) -> View:
        """The view of a changelog partition."""
        if log not in self.views:
            self.views[log] = View(log)
        return self.views[log]

    # Called by the workers

    def restoring(self, partition: int) -> None:
        """A worker begins to restore a partition."""
        self._restoring.add((partition, current().name))
        log = self._broker.log(CHANGELOG, partition)
        self._begun[(partition, current().name)] = log.start if log is not None else 0

    def answered(self, partition: int, offset: int) -> None:
        """A worker that finds no state learns which offset the group has committed."""
        self._answers[(current().name, partition)] = offset

    def restored(self, task: Any) -> None:
        """A worker has restored a partition: from now on, nobody else may commit to its changelog."""
        name, partition = current().name, task.number
        self._restoring.discard((partition, name))
        log = self._broker.log(CHANGELOG, partition)
        newest = max(
            (s for s in self._broker.sessions.values() if s.transactional_id.endswith(f"-{partition}")),
            key=lambda s: s.number,
            default=None,
        )
        local = task.store.local
        if (
            log is None
            or newest is None
            or newest.owner != name
            or (local and local.changelog_id != log.topic.id)
        ):
            return
        self._owner[partition] = name
        view = self.view(log)
        if task.store.items() != _data(view.values):
            self.fail(f"{name} restored a copy of partition {partition} that differs from the changelog")
        if log.start == self._begun[(partition, name)] and _data(_visible(log)) != _data(view.values):
            self.fail(f"{name} restored partition {partition}, but its changelog is incomplete")
        if view.reached is not None and task.processed_offset != view.reached:
            self.fail(
                f"{name} continues partition {partition} at {task.processed_offset}, not {view.reached}"
            )

    def group_committed(self, partition: int, offset: int) -> None:
        """A worker commits an offset for monitoring; it must not pass the state."""
        views = [view for log, view in self.views.items() if log.partition == partition]
        reached = max((max(view.reached or 0, view.foreign_reached) for view in views), default=0)
        if offset > reached:
            self.fail(f"the group's offset {offset} of partition {partition} is ahead of the state {reached}")

    def truncated(self, log: Log) -> None:
        """A changelog has lost its end: what it says now is judged as if the lost part had never been written."""
        former = self.views.pop(log)
        view = self.view(log)
        view.hash_keys, view.foreign_reached = former.hash_keys, former.reached or 0
        self._owner.pop(log.partition, None)
        view.values = _visible(log)
        meta = view.values.get(b"m")
        if meta is not None and former.truth is not None:
            view.reached = META.unpack_from(meta)[1]
            view.truth = Truth(former.truth.log, view.values[HASH_KEY], former.truth.base)
            view.truth.advance(view.reached)

    def copied(self, log: Log) -> None:
        """Records of another changelog were copied into this one; a worker has to refuse its checkpoints."""
        view = self.view(log)
        for entry in log.entries:
            assert entry.key is not None
            if entry.value is not None:
                view.values[entry.key] = entry.value
        if HASH_KEY in view.values:
            view.hash_keys.append(view.values[HASH_KEY])
        view.foreign = b"m" in view.values

    def copy(self, name: str, partition: int, content: dict[bytes, bytes]) -> None:
        """A worker has ended after a checkpoint: its copy has to be that of the changelog."""
        log = self._broker.log(CHANGELOG, partition)
        if log is None or LOCAL not in content:
            return
        local = msgspec.json.decode(content[LOCAL], type=ChangelogPosition)
        if local.identity is None or local.identity.partition != partition:
            return
        written = [e.offset for e in log.entries if e.committed]
        if local.changelog_id != log.topic.id or not written or local.position <= written[-1]:
            return
        if _data(content) != _data(self.view(log).values):
            self.fail(f"the copy of partition {partition} on {name} differs from the changelog")

    # Called by the broker

    def _committed(self, session: Session | None, log: Log, entries: list[Entry]) -> None:
        transaction = entries[0].transaction if entries else None
        if log.topic.name == SOURCES:
            if transaction is None or CHANGELOG not in {one.topic.name for one in transaction.logs}:
                self.fail(f"records were forwarded to partition {log.partition} without a checkpoint")
            return
        if log.topic.name != CHANGELOG:
            return
        view, name = self.view(log), session.owner if session is not None else "?"
        owner = self._owner.get(log.partition)
        if name.startswith("forget"):
            self._owner[log.partition] = name
        elif owner not in (None, name) and (log.partition, name) not in self._restoring:
            self.fail(f"{name} committed to partition {log.partition} after {owner} had restored it")
        meta = None
        for entry in entries:
            assert entry.key is not None
            if entry.key == b"m":
                meta = entry.value
            if entry.value is None:
                view.values.pop(entry.key, None)
                if view.truth is not None:
                    view.truth.forget(entry.key)
            else:
                view.values[entry.key] = entry.value
                if entry.key == HASH_KEY:
                    if self._answers.get((name, log.partition), 0) > 0:
                        self.fail(
                            f"{name} starts partition {log.partition} over, although the group has learned it"
                        )
                    view.hash_keys.append(entry.value)
        forwarded = _forwarded_in(transaction)
        if meta is not None:
            self._checkpoint(view, name, meta, forwarded)
        elif forwarded:
            self.fail(
                f"{name} forwarded records of partition {log.partition} without a state that contains them"
            )

    def _checkpoint(self, view: View, name: str, meta: bytes, forwarded: list[Forwarded]) -> None:
        self.checkpoints += 1
        partition, reached = view.log.partition, META.unpack_from(meta)[1]
        identity = StateIdentity.decoded(meta[META.size :])
        assert identity is not None
        if identity.changelog_id != view.log.topic.id:
            view.foreign = True
            view.foreign_reached = max(view.foreign_reached, reached)
            return
        if view.reached is not None and reached < view.reached:
            self.fail(f"{name} moved the state of partition {partition} back: {view.reached} to {reached}")
        before, view.reached = view.reached, reached
        if view.truth is None:
            view.truth = self._started(view, identity.source.id, reached)
        truth = view.truth
        if truth is None:
            self.fail(f"the first checkpoint of partition {partition} at {reached} is the fold of no log")
            return
        if truth.log.topic.id != identity.source.id:
            self.fail(f"partition {partition} mixes {truth.log.topic.id} and {identity.source.id}")
        truth.advance(reached)
        expected = truth.forwarded(truth.base if before is None else before, reached)
        if sorted(forwarded) != sorted(expected):
            self.fail(
                f"the checkpoint of partition {partition} at {reached} forwards {len(forwarded)} records, not the "
                f"{len(expected)} of its events from {before} on"
            )
        self.forwarded += len(forwarded)
        if remaining(truth.values, reached) != remaining(_state(view.values), reached):
            self.fail(f"the state of partition {partition} at {reached} is not the fold of its events")
            view.truth = None
        self._read_output()
        for offset, found in truth.incidents.items():
            if offset < reached and found not in self._published:
                self.fail(
                    f"the state of partition {partition} contains {offset}, but its incident is unpublished"
                )
        for offset in truth.letters:
            if offset < reached and (partition, offset) not in self._letters:
                self.fail(
                    f"the state of partition {partition} contains {offset}, but its dead letter is missing"
                )

    def _started(self, view: View, source_id: str, reached: int) -> Truth | None:
        """The truth of a state that starts here: at a first offset that the log had."""
        topics = [*self._broker.topics.values(), *self._broker.former]
        log = next(topic for topic in topics if topic.id == source_id).logs[view.log.partition]
        possible = []
        for base in dict.fromkeys(log.starts):
            truth = Truth(log, view.values.get(HASH_KEY, b""), base)
            truth.advance(reached)
            if remaining(truth.values, reached) == remaining(_state(view.values), reached):
                possible.append(truth)
        if not possible:
            return None
        return possible[-1]

    # At the end

    def finish(self, exact: Iterable[int]) -> None:
        """Compare the whole output, and the state of the partitions that are not refused."""
        self._read_output()
        for partition in exact:
            source, changelog = self._broker.log(EVENTS, partition), self._broker.log(CHANGELOG, partition)
            assert source is not None and changelog is not None
            view = self.view(changelog)
            if view.foreign:
                self.fail(f"partition {partition} goes on in a changelog with the checkpoint of another")
            if not any(e.committed for e in source.entries[source.start :]) and view.truth is None:
                continue
            if view.truth is None or view.truth.log is not source or view.reached != source.end:
                self.fail(f"partition {partition} ends at {view.reached}, its source at {source.end}")
        expected = set[bytes]()
        for view in self.views.values():
            if view.truth is not None:
                view.truth.advance(view.truth.log.end)
                expected.update(view.truth.incidents.values())
        unknown = {i for i in self._published - expected if decode(i).entity.value not in self.forgotten}
        if unknown and (false := unknown - self._possible()):
            self.fail(f"incidents were published that follow from no log: {sorted(false)[:2]}")

    def _possible(self) -> set[bytes]:
        """Incidents of every log that there was, from each of its beginnings on, with each key of the hashes."""
        possible = set[bytes]()
        topics = [t for t in (*self._broker.topics.values(), *self._broker.former) if t.name == EVENTS]
        for view in self.views.values():
            for log in (topic.logs[view.log.partition] for topic in topics):
                for base in dict.fromkeys(log.starts):
                    for key in dict.fromkeys(view.hash_keys):
                        truth = Truth(log, key, base)
                        truth.advance(log.end)
                        possible.update(truth.incidents.values())
        return possible

    def _read_output(self) -> None:
        for name in (ALERTS, DEAD_LETTERS):
            log = self._broker.log(name, 0)
            assert log is not None
            for entry in log.entries[self._seen[name] :]:
                if name == ALERTS:
                    self._published.add(entry.value or b"")
                else:
                    origin = dict(entry.headers)
                    self._letters.add((int(origin["sg.partition"] or b""), int(origin["sg.offset"] or b"")))
            self._seen[name] = log.end


def _forwarded_in(transaction: Transaction | None) -> list[Forwarded]:
    """The records of a transaction in the sources topic."""
    logs = [log for log in (transaction.logs if transaction else ()) if log.topic.name == SOURCES]
    return [
        (log.partition, e.key, e.value, list(e.headers))
        for log in logs
        for e in log.entries
        if e.transaction is transaction and not e.marker
    ]


def _visible(log: Log) -> dict[bytes, bytes]:
    """What a worker without a copy reads when all transactions have ended."""
    values: dict[bytes, bytes] = {}
    for entry in log.entries[log.start :]:
        if not entry.committed or entry.offset in log.compacted:
            continue
        assert entry.key is not None
        if entry.value is None:
            values.pop(entry.key, None)
        else:
            values[entry.key] = entry.value
    return values


def _data(values: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """The values without reserved keys."""
    return {k: v for k, v in values.items() if not k.startswith(RESERVED)}


def _state(values: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """The values of users and population, without meta, hash key and reserved keys."""
    return {k: v for k, v in values.items() if k not in (b"m", HASH_KEY) and not k.startswith(RESERVED)}
