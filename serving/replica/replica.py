"""Answers what the copies of the state changelog know about a user."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Collection
from itertools import islice
from pathlib import Path
from typing import TypeVar

from streamguard.errors import TemporaryError
from streamguard.events.address import ADDRESS
from streamguard.events.subject import profile_key, subject_of
from streamguard.kafka import topics
from streamguard.kafka.connection import Brokers
from streamguard.serving.log.freshness import AsOf
from streamguard.serving.replica.description import user_profile
from streamguard.serving.replica.follower import Follower, ReplicaCounters
from streamguard.serving.replica.lookup import StoredUser, compile_kernels, stored_user
from streamguard.serving.replica.partition_copy import NotReadyError, PartitionCopy
from streamguard.serving.replica.profile import UserProfile
from streamguard.settings.schema import Settings
from streamguard.state.profile_cache import user_key

T = TypeVar("T")


class ReplicaNotReadyError(TemporaryError):
    """The replica is still being loaded; the question can be asked again."""


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
        self._follower = Follower(Brokers.of(settings), self.topic, directory / self.topic, partitions)

    def follow(self, stop: threading.Event) -> None:
        """Follow the changelog until `stop` is set, then close the copies; see `Follower.follow` for its errors."""
        compile_kernels()
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

    def profiles(self, user: str) -> tuple[UserProfile, ...]:
        """The profiles of a user, one of each partition that has one; more than one reveals two partitioners.

        Raises
        ------
        ReplicaNotReadyError
            If a partition is not ready, because it may have the profile.
        UnreadableProfileError
            If a stored profile has a layout that this version does not know.
        """
        return self._described(subject_of(user, ""), user) if user else ()

    def source_profiles(self, address: str) -> tuple[UserProfile, ...]:
        """The profiles of the events from an address that name no user; raises what `profiles` raises."""
        return self._described(subject_of("", ADDRESS[address][0]), "")

    def users(self, after: str, limit: int) -> tuple[str, ...]:
        """Names of users in the order of their bytes in UTF-8, at most `limit`.

        Parameters
        ----------
        after
            The last name of the page before; empty for the first page.

        Raises
        ------
        ReplicaNotReadyError
            If a partition is not ready.
        """
        start = user_key(after) + b"\0" if after else b"u"
        pages = [self._asked(copy, lambda copy: copy.profile_keys(start, limit)) for copy in self._copies()]
        keys = dict.fromkeys(key for key in heapq.merge(*pages) if key[:1] == b"u")
        return tuple(key[1:].decode() for key in islice(keys, limit))

    def _described(self, subject: str, user: str) -> tuple[UserProfile, ...]:
        try:
            key = profile_key(subject)
        except UnicodeEncodeError:  # no event has such a name
            return ()

        def ask(copy: PartitionCopy) -> StoredUser | None:
            with copy.snapshot() as read:
                return stored_user(read, copy.number, key, user, self._forget_ms)

        found = [self._asked(copy, ask) for copy in self._copies()]
        return tuple(user_profile(one, key, self._gap_ms) for one in found if one is not None)

    def _copies(self) -> list[PartitionCopy]:
        copies = list(self._follower.copies.values())
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
