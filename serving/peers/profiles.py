"""Profiles of users, wherever they are held: here, or at the peers that hold the other partitions."""

from __future__ import annotations

import heapq
from collections.abc import Collection
from itertools import islice
from typing import NamedTuple

from streamguard.history.partitioner import partition_of
from streamguard.serving.log.freshness import AsOf
from streamguard.serving.peers.answers import Coverage, Held, HeldNames, HeldProfiles
from streamguard.serving.peers.group import PATH
from streamguard.serving.peers.holders import Holders, PartitionUnavailableError, merged
from streamguard.serving.peers.partitions import ranges
from streamguard.serving.peers.signing import Asker
from streamguard.serving.replica.profile import UserProfile

PROFILES_PATH = PATH + "profiles"
NAMES_PATH = PATH + "users"


class FoundProfiles(NamedTuple):
    """What is known of a user.

    Attributes
    ----------
    profiles
        One for each partition that has one.
    not_asked
        Why other partitions could not be asked, although the user's own one was; empty if all were.
    as_of
        How far the changelog is reflected.
    """

    profiles: tuple[UserProfile, ...]
    not_asked: str
    as_of: AsOf


class Profiles:
    """Answers about profiles; every method may be called from any thread.

    Parameters
    ----------
    holders
        This server and its peers.
    """

    def __init__(self, holders: Holders) -> None:
        self._holders = holders
        self._replica, self._group = holders.replica, holders.group

    def of(self, user: str, asker: Asker | None) -> FoundProfiles:
        """The profiles of a user in all partitions; more than one reveals two partitioners.

        Parameters
        ----------
        asker
            For whom; without one, peers are not asked.

        Raises
        ------
        ReplicaNotReadyError
            If a partition that is held here is not ready, and no peer has it.
        PartitionUnavailableError
            If no server answers for a partition that may have the profile.
        """
        here, elsewhere = self._holders.places()
        as_of = self._replica.as_of()
        found = list(self._replica.profiles(user, here))
        missing, reasons, answers = self._holders.ask(
            elsewhere, PROFILES_PATH, {"user": user}, asker, HeldProfiles
        )
        for own, answer in answers:
            assert isinstance(answer, HeldProfiles)
            found += [one for one in answer.profiles if one.partition in own]
            as_of = merged(as_of, answer.as_of, own)
        not_asked = ""
        if missing:
            not_asked = self._holders.unavailable(missing, reasons, "the profiles of ")
            home = partition_of(user.encode(errors="replace"), self._replica.partitions)
            if home in missing or not found:
                self._replica.profiles(user, missing & self._replica.held)  # says that they are being read
                raise PartitionUnavailableError(not_asked)
        return FoundProfiles(tuple(sorted(found, key=lambda one: one.partition)), not_asked, as_of)

    def names(self, after: str, limit: int, asker: Asker | None) -> tuple[tuple[str, ...], AsOf]:
        """Names of users in the order of their bytes in UTF-8, at most `limit`; raises what `of` raises."""
        here, elsewhere = self._holders.places()
        as_of = self._replica.as_of()
        pages = [self._replica.users(after, limit, here)]
        parameters = {"after": after, "limit": str(limit)}
        missing, reasons, answers = self._holders.ask(elsewhere, NAMES_PATH, parameters, asker, HeldNames)
        if missing:
            self._replica.users(after, 1, missing & self._replica.held)
            raise PartitionUnavailableError(self._holders.unavailable(missing, reasons, "the profiles of "))
        for own, answer in answers:
            assert isinstance(answer, HeldNames)
            pages.append(answer.users)
            as_of = merged(as_of, answer.as_of, own)
        ordered = heapq.merge(*pages, key=str.encode)
        return tuple(islice(dict.fromkeys(ordered), limit)), as_of

    def as_of(self) -> AsOf:
        """How far the changelog is reflected in what is held here."""
        return self._replica.as_of()

    def held(self) -> Held:
        """What this server holds, for its peers."""
        server = self._group.server if self._group is not None else ""
        return Held(
            server,
            self._replica.topic,
            self._replica.partitions,
            tuple(sorted(self._replica.ready_partitions)),
        )

    def held_profiles(self, user: str, partitions: Collection[int]) -> HeldProfiles:
        """Profiles that are held here, for a peer; no other server is asked.

        Raises
        ------
        PartitionUnavailableError
            If one of the partitions is not held here.
        ReplicaNotReadyError
            If one of them is not ready.
        """
        self._holders.require(partitions)
        as_of = self._replica.as_of()
        return HeldProfiles(self._replica.profiles(user, partitions), as_of)

    def held_names(self, after: str, limit: int, partitions: Collection[int]) -> HeldNames:
        """Names of users that are held here, for a peer; raises what `held_profiles` raises."""
        self._holders.require(partitions)
        as_of = self._replica.as_of()
        return HeldNames(self._replica.users(after, limit, partitions), as_of)

    def coverage(self) -> Coverage:
        """Which server answers for which partitions."""
        here = self._replica.ready_partitions
        peers = self._group.ready() if self._group is not None else frozenset()
        missing = frozenset(range(self._replica.partitions)) - here - peers
        states = self._group.states() if self._group is not None else ()
        return Coverage(self._replica.partitions, ranges(here), ranges(missing), states)

    def counts(self) -> tuple[int, int, int]:
        """Numbers of partitions that are held here, by peers alone, and by no server that answers."""
        here, every = self._replica.ready_partitions, frozenset(range(self._replica.partitions))
        peers = (self._group.ready() if self._group is not None else frozenset()) & every - here
        return len(here), len(peers), len(every - here - peers)
