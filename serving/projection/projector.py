"""Follows the topics of incidents and campaigns and keeps the store equal to them."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from streamguard.alerts.incident import rfc3339
from streamguard.alerts.published import REFUSALS, published
from streamguard.campaigns.name_set import MAX_NAMES
from streamguard.campaigns.record import CampaignRecord
from streamguard.campaigns.record import decode as decode_campaign
from streamguard.decisions import forgotten
from streamguard.decisions.forgotten import KEY_PREFIX, Forgotten
from streamguard.errors import StreamGuardError
from streamguard.kafka.connection import Brokers
from streamguard.metrics import SERVE_RECORDS
from streamguard.serving.decisions import codec
from streamguard.serving.decisions.ledger import Logged
from streamguard.serving.log.freshness import Position, Progress
from streamguard.serving.log.reader import DeletedError, LogReader, TopicState, topic_state
from streamguard.serving.log.record import LogRecord
from streamguard.serving.projection.database import RebuiltError
from streamguard.serving.projection.reader import DamagedStoreError
from streamguard.serving.projection.store import Store
from streamguard.serving.projection.update import Update

TAKE_SECONDS = 0.1
"""Longest wait for records; it bounds the staleness that an idle topic states."""
COMPARE_SECONDS = 10.0
"""Interval at which the topic is compared with what was read: Kafka may have deleted records, or somebody a topic. A
broker that is away is noticed by it, too, when the topic is idle."""
RETRY_SECONDS = 2.0
"""Pause before a topic that could not be read is tried again."""
PASSED_LOG_SECONDS = 10.0
"""Least time between two log lines about records that were passed over."""

MAX_NUMBER = 1 << 40
"""Incidents or accounts of a campaign."""
REASONS = {
    **codec.REASONS,
    **REFUSALS,
    "not_a_campaign": "it is not valid under the schema of campaigns",
    "damaged": "its batch cannot be read",
}
"""Why a record is passed over."""

_log = logging.getLogger(__name__)


class Batch(NamedTuple):
    """Records of a topic, and the places that they reach: offset of the next record and time of the latest one."""

    records: list[LogRecord]
    positions: dict[int, tuple[int, int]]


class Follower:
    """Keeps the part of a store that comes from one topic equal to the topic, until it is stopped.

    Parameters
    ----------
    role, brokers, topic
        What is followed; the role is one of `metrics.SERVED_TOPICS`.
    store
        What is kept.
    apply
        Adds a batch to the store; returns how many records of each reason were passed over.
    clear
        Forgets what came from the topic, before it is read from its beginning, within a transaction.
    trim
        Forgets what the topic has no longer, given the first offset of each partition; returns whether that was
        anything.
    """

    def __init__(
        self,
        role: str,
        brokers: Brokers,
        topic: str,
        store: Store,
        apply: Callable[[Batch], Counter[str]],
        clear: Callable[[sqlite3.Connection], None],
        trim: Callable[[dict[int, int]], bool] | None = None,
    ) -> None:
        self.role, self.topic = role, topic
        self.progress = Progress(topic)
        self.passed: Counter[str] = Counter()
        self.caught_up = threading.Event()
        """Set once everything was read that the topic had at the start."""
        self.trouble = ""
        """Why the topic cannot be read now; empty if it can."""
        self._brokers, self._store = brokers, store
        self._apply, self._clear, self._trim = apply, clear, trim
        self._passed_logged = 0.0
        self._ends: dict[int, int] = {}
        self._answered = True
        """Whether the brokers have answered the last question. If not, the end of the topic is unknown."""

    @property
    def lag(self) -> int:
        """Offsets that were not read yet, by the ends of the partitions that are known."""
        read = {one.partition: one.offset for one in self.progress.as_of().positions}
        return sum(max(end - read.get(partition, 0), 0) for partition, end in self._ends.items())

    def run(self, stop: threading.Event) -> None:
        """Follow the topic; an error is logged, and the topic is tried again."""
        deleted = False
        while not stop.is_set():
            try:
                if deleted:
                    self._store.follow(self.topic, "")
                    deleted = False
                self._follow(stop)
            except DeletedError as error:
                _log.info("%s: the topic is read again from its beginning", error)
                deleted = True
            except (RebuiltError, DamagedStoreError):
                deleted = False  # the next attempt reads the topic into an empty database
            except StreamGuardError as error:
                self._failed(str(error))
                stop.wait(RETRY_SECONDS)
            except Exception as error:  # noqa: BLE001 - whatever it is, the page must not stop
                self._failed(f"{type(error).__name__}: {error}")
                _log.exception("%s cannot be followed; the server tries again", self.topic)
                stop.wait(RETRY_SECONDS)

    def _failed(self, reason: str) -> None:
        if reason != self.trouble:
            _log.warning("%s cannot be read: %s", self.topic, reason)
        self.trouble = reason

    def _follow(self, stop: threading.Event) -> None:
        self._store.begin()
        generation = self._store.generation
        state = topic_state(self._brokers, self.topic)
        if state is None:
            self._missing(stop)
            return
        positions = self._start(state)
        self._known(state)
        reader = LogReader(self._brokers, self.topic, {p: place[0] for p, place in positions.items()})
        compared = time.monotonic()
        try:
            while not (stop.is_set() or self._store.damaged.is_set() or self._store.generation != generation):
                known = reader.unreadable
                records = reader.take(TAKE_SECONDS)
                damaged = reader.unreadable - known  # the reader has logged where
                self.passed["damaged"] += damaged
                SERVE_RECORDS.labels(self.role, "damaged").inc(damaged)
                for record in records:
                    positions[record.partition] = record.offset + 1, record.timestamp
                for partition, offset in reader.positions.items():
                    positions[partition] = offset, positions[partition][1]
                if records:
                    self._pass(self._apply(Batch(records, positions)), records)
                places = {
                    p: Position(p, offset, rfc3339(at) if at else None)
                    for p, (offset, at) in positions.items()
                }
                self.progress.reached(places, whole=reader.at_end and self._answered, changed=bool(records))
                if self._answered:
                    self.trouble = ""
                if reader.at_end:
                    self._store.loaded(self.topic)
                    self.caught_up.set()
                if time.monotonic() - compared > (COMPARE_SECONDS if self._answered else RETRY_SECONDS):
                    if self._differs(state):
                        return
                    compared = time.monotonic()
        finally:
            reader.close()

    def _missing(self, stop: threading.Event) -> None:
        self._known(None)
        if self._store.topic_id(self.topic) is not None:
            self._store.follow(self.topic, "", self._clear)
            self.progress.sequence += 1
        self._failed(f"the topic {self.topic} does not exist: run `streamguard topics create`")
        self.progress.reached({}, whole=True, changed=False)
        self._store.loaded(self.topic)
        self.caught_up.set()
        stop.wait(RETRY_SECONDS)

    def _start(self, state: TopicState) -> dict[int, tuple[int, int]]:
        """Where to read on; from the beginning if the store is of another topic, or misses records."""
        known = self._store.positions(self.topic)
        fits = self._store.topic_id(self.topic) == state.id and all(
            partition in state.bounds
            and state.bounds[partition].start <= offset <= state.bounds[partition].end
            for partition, (offset, _) in known.items()
        )
        if not fits:
            self.caught_up.clear()
            self._store.follow(self.topic, state.id, self._clear)
            self._store.loading.add(self.topic)
            self.progress.sequence += 1
            known = {}
        else:
            self._trim_to(state)
        return {
            partition: known.get(partition, (bounds.start, 0)) for partition, bounds in state.bounds.items()
        }

    def _differs(self, state: TopicState) -> bool:
        """Whether the topic has to be opened again; forgets what it has no longer."""
        try:
            now = topic_state(self._brokers, self.topic)
        except StreamGuardError as error:
            self._answered = False
            self._failed(str(error))
            return False
        self._known(now)
        if now is None or now.id != state.id or now.bounds.keys() != state.bounds.keys():
            return True
        self._trim_to(now)
        return False

    def _trim_to(self, state: TopicState) -> None:
        """Forget what the topic has no longer, which changes lists as a record does."""
        if self._trim is not None:
            starts = {partition: bounds.start for partition, bounds in state.bounds.items()}
            self.progress.sequence += self._trim(starts)

    def _known(self, state: TopicState | None) -> None:
        """Remember what the brokers have answered."""
        self._answered = True
        self._ends = {p: bounds.end for p, bounds in state.bounds.items()} if state else {}

    def _pass(self, passed: Counter[str], records: list[LogRecord]) -> None:
        self.passed += passed
        SERVE_RECORDS.labels(self.role, "read").inc(len(records) - passed.total())
        for reason, count in passed.items():
            SERVE_RECORDS.labels(self.role, reason).inc(count)
        if not passed or (now := time.monotonic()) - self._passed_logged < PASSED_LOG_SECONDS:
            return
        self._passed_logged = now
        _log.warning(
            "%s, up to partition %d, offset %d: records are passed over (%s); only workers should be able to write to "
            "this topic (`streamguard topics acls`)",
            self.topic, records[-1].partition, records[-1].offset,
            ", ".join(f"{count:,} because {REASONS[name]}" for name, count in sorted(self.passed.items())),
        )  # fmt: skip


def incidents(brokers: Brokers, topic: str, store: Store) -> Follower:
    """Follows the alerts topic."""

    def apply(batch: Batch) -> Counter[str]:
        passed: Counter[str] = Counter()
        updates = []
        for record in batch.records:
            found = published(record.value)
            if isinstance(found, str):
                passed[found] += 1
            else:
                updates.append(Update(record.partition, record.offset, found, record.value or b""))
        store.add_updates(topic, updates, batch.positions)
        return passed

    return Follower("alerts", brokers, topic, store, apply, store.clear_updates, store.drop_before)


def campaigns(brokers: Brokers, topic: str, store: Store) -> Follower:
    """Follows the compacted campaigns topic."""

    def apply(batch: Batch) -> Counter[str]:
        passed: Counter[str] = Counter()
        changes: dict[str, CampaignRecord | None] = {}
        values: dict[str, bytes] = {}
        for record in batch.records:
            id = (record.key or b"").decode(errors="replace")
            if record.value is None:
                changes[id] = None
                continue
            try:
                found = decode_campaign(record.value)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                passed["not_a_campaign"] += 1
                continue
            one = found.campaign
            if len(one.incidents) > MAX_NAMES or not (
                0 <= one.size < MAX_NUMBER and 0 <= one.accounts < MAX_NUMBER
            ):
                passed["not_a_campaign"] += 1
                continue
            changes[id] = found
            values[id] = record.value
        store.put_campaigns(topic, changes, batch.positions, values)
        return passed

    return Follower("campaigns", brokers, topic, store, apply, store.clear_campaigns)


def decisions(brokers: Brokers, topic: str, store: Store) -> Follower:
    """Follows the compacted topic of decisions, which has one partition and so one order."""

    def apply(batch: Batch) -> Counter[str]:
        passed: Counter[str] = Counter()
        found: dict[bytes, Logged] = {}
        dropped: dict[bytes, tuple[int, Forgotten]] = {}
        deleted = []
        for record in batch.records:
            key = record.key or b""
            if record.value is None:
                found.pop(key, None)
                dropped.pop(key, None)
                deleted.append(key)
                continue
            try:
                if key.startswith(KEY_PREFIX):
                    dropped[key] = record.offset, forgotten.decode(record.value)
                else:
                    found[key] = Logged(record.offset, codec.decode(record.value))
            except codec.RecordError as error:
                passed[error.reason] += 1
            except forgotten.ForgottenError:
                passed["not_an_action"] += 1
        records = [(key, offset, record) for key, (offset, record) in dropped.items()]
        store.add_actions(topic, found.items(), deleted, batch.positions, records)
        return passed

    return Follower("decisions", brokers, topic, store, apply, store.clear_actions)
