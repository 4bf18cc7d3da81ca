"""The state of one partition: profiles, population and dictionary, folded chunk by chunk and saved as a whole."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from streamguard.alerts.explain import Alert, EntityKind
from streamguard.alerts.incident import Incident, incident_of
from streamguard.alerts.peers import PeerRelief, reliefs
from streamguard.alerts.verdict import verdict
from streamguard.events.ceiling import UNKNOWN, clamp
from streamguard.events.columns import TEXTS, Columns, columns
from streamguard.events.decision import Decision, Kind
from streamguard.events.event import (
    DECISIONS_FULL,
    REASONS,
    Event,
    Refusal,
    RepairedEvent,
    Value,
    parse,
)
from streamguard.events.hashing import FILES_KEY, UNKEYED, hash_texts
from streamguard.events.subject import subject_of
from streamguard.fold import population
from streamguard.fold import profile as layout
from streamguard.fold.arguments import Chunk, State, Verdicts
from streamguard.fold.decisions import Outcome
from streamguard.fold.dimensions import VERSION, WITH_TEXT
from streamguard.fold.grouping import CONTEXT, ENTITY_KINDS, INCIDENT
from streamguard.fold.kernel import N_COMPONENTS, N_FEATURES, fold
from streamguard.models.forest import Forest
from streamguard.settings.schema import Detection
from streamguard.state import migration
from streamguard.state.codec import StateError, other_layout, pack
from streamguard.state.decisions import DECISIONS_KEY, LAYOUT_FLAG, Decided, DecisionTable, controls
from streamguard.state.dictionary import Dictionary
from streamguard.state.profile_cache import ProfileCache, Read

TABLE_PAGES = population.ROWS * population.WIDTH // population.PAGE
SOURCE_PAGES = population.SOURCES // population.SOURCES_PER_PAGE
ADOPTED_PAGES = population.ADOPTED // population.ADOPTED_PER_PAGE
META = struct.Struct("<Iq")
"""Layout version and next offset, the beginning of the value of `m`; the identity follows."""

HASH_KEY = b"k"
"""Key of the record that holds the key of the hashes. It is written once, before the first event is folded."""


class IncidentUpdate(NamedTuple):
    """An incident to publish, and the event whose alert opened or raised it.

    Attributes
    ----------
    event
        Place of the event among the events of the chunk.
    """

    event: int
    incident: Incident


@dataclass(slots=True)
class Folded:
    """The result of one chunk; arrays have a row for each of the n events that could be parsed.

    Attributes
    ----------
    events, index
        The events, and the place of each among the records of the chunk.
    columns
        The events as arrays.
    features
        float32 (n, 34).
    raw, excess
        float32 (n, 21): bits of each component, before and after the user's own entropy is subtracted.
    score
        float64 (n,): sum of `excess`; -1 for an event that was folded before.
    tail
        float64 (n,): -log2 of the share of events with a score this high.
    forest
        float64 (n,): bits of the forest, times its weight; 0 without a forest.
    patterns
        uint64 (n,): bits in the order of `streamguard.fold.patterns.PATTERNS`.
    relief
        float64 (n,): bits by which peers lower the evidence of an alert, see `streamguard.alerts.peers`; 0 without.
    strength, evidence
        float64 (n,): bits of score and patterns; bits of the verdict, which are the larger of these and the forest's,
        less the relief.
    kind
        int8 (n,): the entity of the alert, see `streamguard.fold.grouping`; 0: no alert; negative: an alert that is not
        published.
    incident
        `streamguard.fold.grouping.INCIDENT` (n,), where `kind` is not 0.
    expired
        bool (n,): whether the user's profile had aged out, so that the event has begun a new one.
    clamped
        Number of events that were dated later than their records were appended; see `streamguard.events.ceiling`.
    incidents
        Incidents to publish: those that opened or rose.
    refused
        Records that could not be parsed, and decisions for which there is no room.
    repaired
        Those of the events that were repaired before they were scored.
    decided
        Decisions among the records, and what became of each.
    """

    events: list[Event]
    index: list[int]
    columns: Columns
    refused: list[Refusal]
    features: NDArray[np.float32]
    raw: NDArray[np.float32]
    excess: NDArray[np.float32]
    score: NDArray[np.float64]
    tail: NDArray[np.float64]
    forest: NDArray[np.float64]
    patterns: NDArray[np.uint64]
    relief: NDArray[np.float64]
    strength: NDArray[np.float64]
    evidence: NDArray[np.float64]
    kind: NDArray[np.int8]
    incident: NDArray[np.void]
    expired: NDArray[np.bool_]
    clamped: int = 0
    incidents: list[IncidentUpdate] = field(default_factory=list)
    repaired: list[RepairedEvent] = field(default_factory=list)
    decided: list[Decided] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Number of folded events."""
        return len(self.events)


class PartitionState:
    """The state of one partition: a fold over its log, in bounded memory.

    Parameters
    ----------
    partition
        Number of the partition; part of incident ids.
    read
        Returns values as of the last checkpoint.
    resident
        Maximum number of profiles in memory; at least four times the events of a chunk.
    detection
        Threshold of alerts, gap between incidents, and age at which profiles are forgotten.
    topic
        Name of the events topic, for incidents; None for a file.
    hash_key
        Key of the hashes of a state without any events; stored states contain theirs.
    identity
        What this state belongs to, in an encoding of the caller; it is stored with every checkpoint. Empty if the state
        belongs to nothing outside, as in a replay.

    Attributes
    ----------
    stored_identity
        Identity that the loaded checkpoint was saved with; empty if there is none.

    Raises
    ------
    StateError
        If the stored state was written by another version.

    Examples
    --------
    >>> saved: dict[bytes, bytes] = {}
    >>> state = PartitionState(0, lambda keys: [saved.get(k) for k in keys], resident=100, detection=Detection())
    >>> event = b'{"timestamp": 1700000000000, "user": "ann", "event_type": "auth_attempt"}'
    >>> state.fold([event, b"?"], np.array([7, 8])).refused[0].reason
    'not_json'
    >>> saved.update(state.changes()); state.clean(); state.next_offset
    9
    """

    def __init__(
        self,
        partition: int,
        read: Read,
        *,
        resident: int,
        detection: Detection,
        topic: str | None = None,
        hash_key: bytes = FILES_KEY,
        identity: bytes = b"",
    ) -> None:
        self.partition = partition
        self._read = read
        self._identity = identity
        self.stored_identity = b""
        self._topic = topic
        self._alert_bits = detection.alert_bits
        self._gap_ms = int(detection.incident_gap_seconds * 1000)
        self._forget_ms = detection.forget_ms
        self._blank = np.atleast_1d(layout.blank())
        self.hash_key = hash_key
        self._hash_key_saved = False
        self._cache = ProfileCache(partition, read, resident)
        self._snapshots = np.empty(0, layout.PROFILE)
        self._population = population.blank()
        self._table = np.zeros((population.ROWS, population.WIDTH))
        self._sources = np.zeros(population.SOURCES, population.SOURCE_RECORD)
        self._adopted = np.zeros(population.ADOPTED, population.ADOPTED_RECORD)
        self._table_dirty = np.zeros(TABLE_PAGES, np.uint8)
        self._adopted_dirty = np.zeros(ADOPTED_PAGES, np.uint8)
        self._sources_dirty = np.zeros(SOURCE_PAGES, np.uint8)
        self.next_offset: int | None = None
        """First source offset that is not in this state; None before the first record."""
        self.dictionary = Dictionary(read)
        self._decisions = DecisionTable()
        self._load()

    def _load(self) -> None:
        meta, head, hash_key, decisions = self._read([b"m", b"p", HASH_KEY, DECISIONS_KEY])
        if hash_key is not None:
            self.hash_key, self._hash_key_saved = hash_key, True
        if meta is None or head is None:
            return
        version, self.next_offset = META.unpack_from(meta)
        version &= ~LAYOUT_FLAG
        self.stored_identity = meta[META.size :]
        of_partition = f"of partition {self.partition}"
        if version not in migration.READABLE:
            found = f"the state {of_partition} has layout {version}"
            raise StateError(other_layout(f"{found}, this program has layout {VERSION}"))
        if hash_key is None:
            self.hash_key = UNKEYED
        if decisions is not None:
            self._decisions.load(decisions, f"the decisions {of_partition}")
        self._population[:] = migration.population(head, version, f"the population {of_partition}")
        for kind, pages in self._pages():
            for k, value in enumerate(self._read([_page_key(kind, k) for k in range(len(pages))])):
                if value is not None:
                    pages[k] = migration.page(value, pages.dtype, version, f"a page {of_partition}")
        if version != VERSION:  # the first checkpoint states the new version, so it contains all new pages
            self._sources_dirty[:] = 1

    def _pages(self) -> list[tuple[bytes, NDArray[Any]]]:
        """The parts of the population that are saved page by page, as views: each row is a page."""
        return [
            (b"f", self._table.reshape(TABLE_PAGES, population.PAGE)),
            (b"s", self._sources.reshape(SOURCE_PAGES, population.SOURCES_PER_PAGE)),
            (b"v", self._adopted.reshape(ADOPTED_PAGES, population.ADOPTED_PER_PAGE)),
        ]

    def _dirty(self) -> list[NDArray[np.uint8]]:
        """For each of `_pages`, which of its pages have changed."""
        return [self._table_dirty, self._sources_dirty, self._adopted_dirty]

    def fold(
        self,
        values: Sequence[Value],
        offsets: NDArray[np.int64],
        forest: Forest | None = None,
        append_ms: NDArray[np.int64] | None = None,
    ) -> Folded:
        """Fold one chunk of records in offset order; the state changes in memory only.

        Parameters
        ----------
        values
            One event each, as JSON.
        offsets
            int64, ascending.
        forest
            Adds evidence to verdicts; the state does not depend on it.
        append_ms
            int64: when a broker appended each record, epoch milliseconds, 0 where it is unknown; None if it is unknown
            for all of them.
        """
        events, index, refused, repaired = parse(values)
        out = self.fold_events(events, index, offsets, values, forest, append_ms)
        out.refused = sorted([*refused, *out.refused], key=lambda one: one.index) if out.refused else refused
        out.repaired = repaired
        if len(offsets):
            self.next_offset = int(offsets[-1]) + 1
        return out

    def fold_events(
        self,
        events: list[Event],
        index: list[int],
        offsets: NDArray[np.int64],
        values: Sequence[Value],
        forest: Forest | None = None,
        append_ms: NDArray[np.int64] | None = None,
    ) -> Folded:
        """Fold events that are parsed already; see `fold`.

        Parameters
        ----------
        events, index
            The n events, and the place of each among the records.
        offsets, values, append_ms
            Of all records, including refused ones.
        """
        n = len(events)
        c = columns(events, self.hash_key)
        appended = np.full(n, UNKNOWN) if append_ms is None or not n else append_ms[index]
        events, clamped = clamp(events, c, appended)
        found, control = controls(values, index, self.hash_key)
        rows = self._cache.rows(c.subjects)
        strength = np.empty(n)
        out = Folded(
            events,
            index,
            c,
            [],
            features=np.empty((n, N_FEATURES), np.float32),
            raw=np.empty((n, N_COMPONENTS), np.float32),
            excess=np.empty((n, N_COMPONENTS), np.float32),
            score=np.empty(n),
            tail=np.empty(n),
            forest=np.zeros(n),
            patterns=np.empty(n, np.uint64),
            relief=np.zeros(n),
            strength=strength,
            evidence=strength,
            kind=np.empty(n, np.int8),
            incident=np.empty(n, INCIDENT),
            expired=np.empty(n, np.bool_),
            clamped=clamped,
        )
        if len(self._snapshots) < n:
            self._snapshots = np.empty(n, layout.PROFILE)
        context = np.empty(n, CONTEXT)
        intern_requests = np.empty((n * len(WITH_TEXT), 3), np.int64)
        user = hash_texts(c.users, 1, self.hash_key)[0][:, 0]
        at = offsets[index] if n else np.empty(0, np.int64)
        if found:
            self._place_profiles(found, control, c.subjects)
        outcomes = np.empty(len(found), np.int8)
        published, interned = fold(
            State(
                self._cache.profiles, self._population, self._table, self._sources, self._adopted,
                self._decisions.rows, self._decisions.count, self.dictionary.hashes, self._table_dirty,
                self._sources_dirty, self._adopted_dirty, self._blank, self._alert_bits, self._gap_ms, self._forget_ms,
            ),
            Chunk(
                rows, at, user, c.timestamp, appended, c.threat, c.volume, c.flags, c.hashes, c.network, c.area, control
            ),
            Verdicts(
                out.features, out.raw, out.excess, out.score, out.tail, strength, out.patterns, out.kind, out.incident,
                out.expired, outcomes, self._snapshots, context, intern_requests,
            ),
        )  # fmt: skip
        for (k, decision), outcome in zip(found, outcomes.tolist(), strict=True):
            out.decided.append(Decided(k, decision, Outcome(outcome)))
            self._decisions.stored |= outcome == Outcome.APPLIED
            if outcome == Outcome.FULL:
                out.refused.append(Refusal(k, DECISIONS_FULL, REASONS[DECISIONS_FULL], decision.user))
        relieved: dict[int, PeerRelief] = {}
        if forest is not None and n:
            out.forest = forest.bits(out.features)
            if forest.peers is not None:
                relieved = reliefs(c, out.kind, out.patterns, out.excess, out.score, out.tail, forest.peers)
                out.relief[list(relieved)] = [one.bits for one in relieved.values()]
            out.evidence = verdict(strength, out.forest) - out.relief
        if not published and not interned:
            return out
        texts, width = c.texts, len(TEXTS)
        memories = intern_requests[:interned].tolist()
        hashes = c.hashes[intern_requests[:interned, 0], intern_requests[:interned, 1]].tolist()
        done = 0

        def remember(before: int) -> None:
            nonlocal done
            while done < len(memories) and memories[done][0] < before:
                i, column, place = memories[done]
                self.dictionary.remember(place, hashes[done], texts[i * width + column])
                done += 1

        for k, i in enumerate(np.flatnonzero(out.kind > 0).tolist()):
            remember(i)
            opened, before = int(out.incident["first_offset"][i]), self._snapshots[k]
            earlier = float(before["incident_bits"]) if before["incident_offset"] == opened else 0.0
            lowered = min(float(out.relief[i]), max(float(strength[i]) - earlier, 0.0))
            alert = Alert(
                partition=self.partition,
                index=i,
                entity_kind=cast(EntityKind, ENTITY_KINDS[out.kind[i]]),
                first_offset=opened,
                first_ms=int(out.incident["first_ms"][i]),
                count=int(out.incident["count"][i]),
                patterns=int(out.incident["patterns"][i]),
                found=int(out.patterns[i]),
                event=events[i],
                volume=float(c.volume[i]),
                texts=texts[i * width : (i + 1) * width],
                offset=int(at[i]),
                evidence=float(out.incident["evidence"][i]) - lowered,
                tail=float(out.tail[i]),
                forest=float(out.forest[i]) if forest is not None else None,
                model=forest.version if forest is not None else None,
                weight=forest.weight if forest is not None else None,
                excess=out.excess[i],
                raw=out.raw[i],
                profile=before,
                context=context[k],
                peers=relieved.get(i),
                lowered=lowered,
            )
            record = cast(bytes, values[index[i]] or b"null")
            incident = incident_of(alert, self.dictionary.texts, record, self._topic)
            out.incidents.append(IncidentUpdate(i, incident))
        remember(n)
        return out

    def _place_profiles(
        self, found: list[tuple[int, Decision]], control: NDArray[Any], subjects: list[str]
    ) -> None:
        """Enter the profiles of users with a denied value; a user without a profile gets none for it."""
        denials = [(j, subject_of(d.user, "")) for j, (_, d) in enumerate(found) if d.kind == Kind.ATTACK]
        if not denials:
            return
        of_chunk, users = set(subjects), [user for _, user in denials]
        known = zip(denials, self._cache.has(users), strict=True)
        present = [denial for denial, stored in known if stored or denial[1] in of_chunk]
        control["row"][[j for j, _ in present]] = self._cache.rows([user for _, user in present])

    @property
    def unsaved_hash_key(self) -> bytes | None:
        """The key of the hashes, if no checkpoint contains it; None if one does."""
        return None if self._hash_key_saved else self.hash_key

    @property
    def resident(self) -> int:
        """Profiles in memory."""
        return len(self._cache)

    @property
    def profile_lookups(self) -> dict[str, int]:
        """Number of events by where the profile of the user was: in `memory`, on `disk`, or `nowhere` yet."""
        cache = self._cache
        elsewhere = {"disk": cache.disk_hits, "nowhere": cache.created}
        return {"memory": cache.lookups - sum(elsewhere.values()), **elsewhere}

    @property
    def events(self) -> int:
        """Number of events that this state has folded, those of forgotten users included."""
        return int(self._population["events"][0])

    @property
    def active_ms(self) -> int:
        """The partition's active time, milliseconds; see `streamguard.fold.ageing`."""
        return int(self._population["active_ms"][0])

    @property
    def expired_before(self) -> int:
        """Profiles whose last event is before this active time have aged out; see `streamguard.state.expiry`."""
        return self.active_ms - self._forget_ms

    def drop(self, keys: Iterable[bytes]) -> None:
        """Remove profiles from memory that have aged out and are deleted from the stored state."""
        self._cache.drop(keys)

    @property
    def full(self) -> bool:
        """Whether a checkpoint is due, so that the next chunk finds room for its profiles."""
        return self._cache.full

    def changes(self) -> list[tuple[bytes, bytes]]:
        """All (key, value) that differ from the last checkpoint, including the source offset that they stand for."""
        if self.next_offset is None:
            return []
        out = self._cache.changes()
        for (kind, pages), dirty in zip(self._pages(), self._dirty(), strict=True):
            out += [(_page_key(kind, k), pack(pages[k])) for k in np.flatnonzero(dirty).tolist()]
        out += self.dictionary.changes()
        if not self._hash_key_saved:
            out.append((HASH_KEY, self.hash_key))
        out.append((b"p", pack(self._population)))
        out += self._decisions.changes()
        version = VERSION | (LAYOUT_FLAG if len(self._decisions) else 0)
        out.append((b"m", META.pack(version, self.next_offset) + self._identity))
        return out

    def clean(self) -> None:
        """Mark all changes as saved."""
        self._cache.clean()
        self._hash_key_saved = True
        self._table_dirty[:] = 0
        self._sources_dirty[:] = 0
        self._adopted_dirty[:] = 0
        self.dictionary.clean()
        self._decisions.clean()


def _page_key(kind: bytes, page: int) -> bytes:
    return kind + page.to_bytes(2, "big")
