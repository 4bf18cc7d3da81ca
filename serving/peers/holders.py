"""Which partitions are answered for here and which by peers, and how answers of both are joined."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from streamguard.errors import TemporaryError
from streamguard.serving.log.freshness import AsOf
from streamguard.serving.peers.group import PeerGroup
from streamguard.serving.peers.partitions import ranges
from streamguard.serving.peers.signing import Asker
from streamguard.serving.replica.replica import Replica


class PartitionUnavailableError(TemporaryError):
    """No server that holds a partition answers, and the partition may have what is asked for."""


class Joined(NamedTuple):
    """What peers have answered.

    Attributes
    ----------
    missing
        Partitions for which none has.
    reasons
        Why, of the peers that failed.
    answers
        Answers with the partitions that they are about.
    """

    missing: frozenset[int]
    reasons: tuple[str, ...]
    answers: Iterable[tuple[frozenset[int], object]]


class Holders:
    """This server and its peers; every method may be called from any thread.

    Parameters
    ----------
    replica
        The partitions that are held here.
    group
        The peers; None: this server has no peers.
    """

    def __init__(self, replica: Replica, group: PeerGroup | None = None) -> None:
        self.replica, self.group = replica, group

    def places(self) -> tuple[frozenset[int], frozenset[int]]:
        """Partitions that are ready here, and all others.

        Raises
        ------
        ReplicaNotReadyError
            If the changelog has not been read, so that the number of partitions is not known.
        """
        if not self.replica.partitions:
            self.replica.profiles("-")  # says that the changelog has not been read
        here = self.replica.ready_partitions
        return here, frozenset(range(self.replica.partitions)) - here

    def require(self, partitions: Collection[int]) -> None:
        """Refuse a question of a peer about partitions that are not held here, because it is never asked on.

        Raises
        ------
        PartitionUnavailableError
            If one of them is not held here.
        """
        if missing := frozenset(partitions) - self.replica.held:
            raise PartitionUnavailableError(f"this server does not hold partitions {ranges(missing)}")

    def ask(
        self,
        partitions: frozenset[int],
        path: str,
        parameters: dict[str, str],
        asker: Asker | None,
        kind: type[object],
    ) -> Joined:
        """Ask the peers that hold these partitions; without peers or somebody who asks, all of them are missing.

        Raises
        ------
        PeerRefusedError
            If a peer refuses the question for this caller.
        BusyError
            If too many questions wait already.
        """
        if self.group is None or asker is None or not partitions:
            return Joined(partitions, (), ())
        asked = self.group.ask(partitions, path, parameters, asker, kind)
        return Joined(asked.missing, asked.reasons, asked.answers)

    def unavailable(self, missing: frozenset[int], reasons: tuple[str, ...], what: str) -> str:
        """Why partitions are not answered for, and what to do.

        Parameters
        ----------
        what
            What is not known, before the word "partition"; empty: the partitions themselves.
        """
        numbers = ranges(missing)
        subject = f"{what}{'partition' if len(missing) == 1 else 'partitions'} {numbers}"
        if missing <= self.replica.held:
            verb = "are" if what or len(missing) > 1 else "is"
            return f"{subject} {verb} still being read: ask again in a moment"
        why = f" ({'; '.join(dict.fromkeys(reasons))})" if reasons else ""
        holds = "it" if len(missing) == 1 else "them"
        return (
            f"{subject} cannot be read now, because no server that holds {holds} answers{why}: "
            f"start one whose serve.partitions includes {numbers}, check serve.peers, and ask again; incidents are "
            "complete here"
        )[:2000]


def merged(one: AsOf, other: AsOf, partitions: frozenset[int]) -> AsOf:
    """How far both are, of which the other one answers for these partitions."""
    positions = [place for place in one.positions if place.partition not in partitions]
    positions += [place for place in other.positions if place.partition in partitions]
    return AsOf(
        one.source,
        tuple(sorted(positions, key=lambda place: place.partition)),
        max(one.staleness_ms, other.staleness_ms),
    )
