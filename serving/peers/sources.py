"""State of source addresses and of the crowd, wherever it is held: here, or at peers that hold the other partitions."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from streamguard.serving.log.freshness import AsOf
from streamguard.serving.peers.answers import HeldCrowd, HeldSources
from streamguard.serving.peers.group import PATH, BusyError
from streamguard.serving.peers.holders import Holders, Joined, merged
from streamguard.serving.peers.signing import Asker
from streamguard.serving.replica.crowd import Crowd, FailingSource
from streamguard.serving.replica.profile import UserProfile

SOURCES_PATH = PATH + "sources"
CROWD_PATH = PATH + "crowd"
FAILING_SHOWN = 50
"""Failing sources of a list, those of the most users: the first of a whole are among the first of its parts."""


class FoundSources(NamedTuple):
    """What is known of addresses.

    Attributes
    ----------
    failing
        Those that fail, those of the most users first.
    profiles
        Of one address, what is usual for its events without a user.
    missing
        Which partitions are not known, and why; empty if all are.
    as_of
        How far the changelog is reflected.
    """

    failing: tuple[FailingSource, ...]
    profiles: tuple[UserProfile, ...]
    missing: str
    as_of: AsOf


class FoundCrowd(NamedTuple):
    """What is known of everybody; see `FoundSources`."""

    crowds: tuple[Crowd, ...]
    missing: str
    as_of: AsOf


class SourceStates:
    """Answers about addresses and the crowd; every method may be called from any thread.

    An answer has what is known, and names the partitions for which no server has answered.

    Parameters
    ----------
    holders
        This server and its peers.
    """

    def __init__(self, holders: Holders) -> None:
        self._holders, self._replica = holders, holders.replica

    def as_of(self) -> AsOf:
        """How far the changelog is reflected in what is held here."""
        return self._replica.as_of()

    def of(self, address: str | None, asker: Asker | None) -> FoundSources:
        """What is known of one address, or which addresses fail.

        Parameters
        ----------
        address
            The address; None: the failing ones, at most 50.
        asker
            For whom; without one, peers are not asked.

        Raises
        ------
        ReplicaNotReadyError
            If the changelog has not been read.
        PeerRefusedError
            If a peer refuses the question for this caller.
        """
        here, elsewhere = self._holders.places()
        as_of = self._replica.as_of()
        found = self._here(address, here, as_of)
        failing, profiles = list(found.failing), list(found.profiles)
        parameters = {} if address is None else {"address": address}
        missing, reasons, answers = self._asked(elsewhere, SOURCES_PATH, parameters, asker, HeldSources)
        for own, answer in answers:
            assert isinstance(answer, HeldSources)
            failing += [one for one in answer.failing if one.partition in own]
            profiles += [one for one in answer.profiles if one.partition in own]
            as_of = merged(as_of, answer.as_of, own)
        failing.sort(key=lambda one: (-one.failed_users, -one.failures, one.partition))
        profiles.sort(key=lambda one: one.partition)
        return FoundSources(
            tuple(failing if address is not None else failing[:FAILING_SHOWN]),
            tuple(profiles),
            self._holders.unavailable(missing, reasons, "") if missing else "",
            as_of,
        )

    def crowds(self, asker: Asker | None) -> FoundCrowd:
        """All users together, by partition; raises what `of` raises."""
        here, elsewhere = self._holders.places()
        as_of = self._replica.as_of()
        crowds = list(self._replica.crowds(here))
        missing, reasons, answers = self._asked(elsewhere, CROWD_PATH, {}, asker, HeldCrowd)
        for own, answer in answers:
            assert isinstance(answer, HeldCrowd)
            crowds += [one for one in answer.crowds if one.partition in own]
            as_of = merged(as_of, answer.as_of, own)
        crowds.sort(key=lambda one: one.partition)
        why = self._holders.unavailable(missing, reasons, "") if missing else ""
        return FoundCrowd(tuple(crowds), why, as_of)

    def held_sources(self, address: str | None, partitions: Collection[int]) -> HeldSources:
        """What is held here of one address or of those that fail, for a peer; no other server is asked.

        Raises
        ------
        PartitionUnavailableError
            If one of the partitions is not held here.
        ReplicaNotReadyError
            If one of them is not ready.
        """
        self._holders.require(partitions)
        return self._here(address, partitions, self._replica.as_of())

    def held_crowd(self, partitions: Collection[int]) -> HeldCrowd:
        """What is held here of everybody, for a peer; raises what `held_sources` raises."""
        self._holders.require(partitions)
        as_of = self._replica.as_of()
        return HeldCrowd(self._replica.crowds(partitions), as_of)

    def _here(self, address: str | None, partitions: Collection[int], as_of: AsOf) -> HeldSources:
        failing = self._replica.failing(address, partitions)
        if address is None:
            return HeldSources(failing[:FAILING_SHOWN], (), as_of)
        return HeldSources(failing, self._replica.source_profiles(address, partitions), as_of)

    def _asked(
        self,
        partitions: frozenset[int],
        path: str,
        parameters: dict[str, str],
        asker: Asker | None,
        kind: type[object],
    ) -> Joined:
        try:
            return self._holders.ask(partitions, path, parameters, asker, kind)
        except BusyError as error:
            return Joined(partitions, (str(error),), ())
