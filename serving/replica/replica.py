"""Answers what the copies of the state changelog know about a user."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable, Collection
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

from streamguard.errors import TemporaryError
from streamguard.events.address import ADDRESS
from streamguard.events.subject import profile_key, subject_of
from streamguard.fold.sources import NONE_LEFT
from streamguard.kafka import topics
from streamguard.kafka.connection import Brokers
from streamguard.serving.log.freshness import AsOf
from streamguard.serving.replica.crowd import Crowd, FailingSource, described_crowd, described_source
from streamguard.serving.replica.description import user_profile
from streamguard.serving.replica.follower import Follower, ReplicaCounters
from streamguard.serving.replica.head import compile_head, failing_sources, head
from streamguard.serving.replica.lookup import StoredUser, compile_kernels, stored_user
from streamguard.serving.replica.partition_copy import NotReadyError, PartitionCopy
from streamguard.serving.replica.profile import UserProfile
from streamguard.serving.replica.totals import PartitionTotals, partition_totals
from streamguard.settings.schema import Settings
from streamguard.state.profile_cache import user_key

T = TypeVar("T")

PAUSES = 20
"""Pause after all profiles of a partition were counted, as a multiple of the time that it took."""


class ReplicaNotReadyError(TemporaryError):
    """The replica is still being loaded; the question can be asked again."""


class _Counted(NamedTuple):
    """A count of all profiles of a copy: the changelog offset it reflects, and when it may be made again."""

    copy: PartitionCopy
    reflected: int
    due: float
    total: PartitionTotals | None


class Replica:
    """A read-only copy of the state of all partitions, or of some.

    `follow` runs in a thread of its own; every other method may be called from any thread.

    Parameters
    ----------
    settings
        Brokers, topics, and the rules by which profiles age out and incidents end.
    directory
        Directory for the copies; its contents may be deleted at any time while no process uses it.
    partitions
        Partitions to hold; None: all.
    """

    def __init__(
        self, settings: Settings, directory: Path, partitions: Collection[int] | None = None
    ) -> None:
        self.topic = topics.names(settings)["changelog"]
        self._forget_ms = settings.detection.forget_ms
        self._gap_ms = round(settings.detection.incident_gap_seconds * 1000)
        self._counting = threading.Lock()
        self._counted: dict[int, _Counted] = {}
        self._follower = Follower(Brokers.of(settings), self.topic, directory / self.topic, partitions)

    def follow(self, stop: threading.Event) -> None:
        """Follow the changelog until `stop` is set, then close the copies; see `Follower.follow` for its errors."""
        compile_kernels()
        compile_head()
        self._follower.follow(stop)

    @property
    def ready(self) -> bool:
        """Whether every partition is an exact snapshot that has reached the end of the log since the start."""
        copies = list(self._follower.copies.values())
        return bool(copies) and all(copy.ready for copy in copies)

    def as_of(self) -> AsOf:
        """How far the changelog is reflected in the copies: changelog offsets, and times of checkpoints."""
        return self._follower.as_of()

    @property
    def trouble(self) -> str:
        """Why the changelog cannot be followed now; empty if it can."""
        return self._follower.trouble

    def counters(self) -> ReplicaCounters:
        """What was done since the start, for metrics."""
        return self._follower.counters()

    @property
    def partitions(self) -> int:
        """Number of partitions of the changelog; 0 before Kafka has answered."""
        return self._follower.partitions

    @property
    def held(self) -> frozenset[int]:
        """Partitions that are held here, ready or not."""
        return frozenset(self._follower.copies)

    @property
    def ready_partitions(self) -> frozenset[int]:
        """Those that are exact snapshots now."""
        return frozenset(copy.number for copy in list(self._follower.copies.values()) if copy.ready)

    def profiles(self, user: str, among: Collection[int] | None = None) -> tuple[UserProfile, ...]:
        """The profiles of a user, one of each partition that has one; more than one reveals two partitioners.

        Parameters
        ----------
        user
            Name of the user.
        among
            Partitions to look at, of those that are held; None: all of them.

        Raises
        ------
        ReplicaNotReadyError
            If a partition is not ready, because it may have the profile.
        UnreadableProfileError
            If a stored profile has a layout that this version does not know.
        """
        return self._described(subject_of(user, ""), user, among) if user else ()

    def source_profiles(self, address: str, among: Collection[int] | None = None) -> tuple[UserProfile, ...]:
        """The profiles of the events from an address that name no user; raises what `profiles` raises."""
        return self._described(subject_of("", ADDRESS[address][0]), "", among)

    def users(self, after: str, limit: int, among: Collection[int] | None = None) -> tuple[str, ...]:
        """Names of users in the order of their bytes in UTF-8, at most `limit`.

        Parameters
        ----------
        after
            The last name of the page before; empty for the first page.
        among
            Partitions to look at, of those that are held; None: all of them.

        Raises
        ------
        ReplicaNotReadyError
            If a partition is not ready.
        """
        start = user_key(after) + b"\0" if after else b"u"
        pages = [
            self._asked(copy, lambda copy: copy.profile_keys(start, limit)) for copy in self._copies(among)
        ]
        keys = dict.fromkeys(key for key in heapq.merge(*pages) if key[:1] == b"u")
        return tuple(key[1:].decode() for key in islice(keys, limit))

    def crowds(self, among: Collection[int] | None = None) -> tuple[Crowd, ...]:
        """All users together, by partition; for `among` and errors see `profiles`."""

        def ask(copy: PartitionCopy) -> Crowd | None:
            with copy.snapshot() as read:
                found = head(read, copy.number)
            return None if found is None else described_crowd(found, self._gap_ms)

        return tuple(
            one for one in (self._asked(copy, ask) for copy in self._copies(among)) if one is not None
        )

    def failing(
        self, address: str | None = None, among: Collection[int] | None = None
    ) -> tuple[FailingSource, ...]:
        """Sources that have failed within hours, those of the most users first; raises what `profiles` raises.

        Parameters
        ----------
        address
            Only this one; None: all.
        among
            See `profiles`.
        """
        wanted = None if address is None else ADDRESS[address][0]

        def ask(copy: PartitionCopy) -> list[FailingSource]:
            with copy.snapshot() as read:
                found = head(read, copy.number)
                if found is None:
                    return []
                return [
                    described_source(one, found, self._gap_ms)
                    for one in failing_sources(read, found, wanted)
                    if one.record["failures"] >= NONE_LEFT
                ]

        found = [one for copy in self._copies(among) for one in self._asked(copy, ask)]
        return tuple(sorted(found, key=lambda one: (-one.failed_users, -one.failures, one.partition)))

    def totals(self) -> tuple[PartitionTotals, ...]:
        """All users of each partition together; partitions without an event are left out.

        Profiles are counted at most a twentieth of the time: meanwhile the answer of the last count is given, with its
        source offset.

        Raises
        ------
        ReplicaNotReadyError
            If a partition is not ready.
        UnreadableProfileError
            If a state has a layout that this version does not know.
        """
        with self._counting:
            found = [self._total(copy) for copy in self._copies(None)]
        return tuple(one for one in found if one is not None)

    def _total(self, copy: PartitionCopy) -> PartitionTotals | None:
        known = self._counted.get(copy.number)
        began = time.monotonic()
        if (
            known is None
            or known.copy is not copy
            or (known.reflected != copy.reflected and began >= known.due)
        ):
            reflected = copy.reflected
            total = self._asked(copy, lambda copy: partition_totals(copy, self._forget_ms))
            ended = time.monotonic()
            known = _Counted(copy, reflected, ended + PAUSES * (ended - began), total)
            self._counted[copy.number] = known
        return known.total

    def _described(
        self, subject: str, user: str, among: Collection[int] | None = None
    ) -> tuple[UserProfile, ...]:
        try:
            key = profile_key(subject)
        except UnicodeEncodeError:  # no event has such a name
            return ()

        def ask(copy: PartitionCopy) -> StoredUser | None:
            with copy.snapshot() as read:
                return stored_user(read, copy.number, key, user, self._forget_ms)

        found = [self._asked(copy, ask) for copy in self._copies(among)]
        return tuple(user_profile(one, key, self._gap_ms) for one in found if one is not None)

    def _copies(self, among: Collection[int] | None) -> list[PartitionCopy]:
        copies = list(self._follower.copies.values())
        if among is not None:
            if gone := frozenset(among) - {copy.number for copy in copies}:
                raise ReplicaNotReadyError(
                    f"partition {min(gone)} of {self.topic} is being opened: ask again"
                )
            return [copy for copy in copies if copy.number in among]
        if not copies:
            raise ReplicaNotReadyError(
                f"the replica has not read {self.topic} yet: ask again, and check that Kafka answers"
            )
        return copies

    def _asked(self, copy: PartitionCopy, ask: Callable[[PartitionCopy], T]) -> T:
        try:
            return ask(copy)
        except NotReadyError:
            raise ReplicaNotReadyError(
                f"partition {copy.number} of {self.topic} is still being read, and may contain the answer: ask again "
                "when the replica is ready"
            ) from None
