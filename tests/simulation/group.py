"""A simulated group coordinator: members, heartbeats, sessions, rebalances and committed offsets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from aiokafka.errors import CommitFailedError

from tests.simulation.broker import Broker

SESSION_SECONDS = 1.0
"""A member that sends no heartbeat for this long is removed."""
REBALANCE_SECONDS = 2.0
"""Time that members have to close their partitions and to join again."""


@dataclass
class Member:
    """A member, and when it was last seen."""

    seen: float
    joined: bool = False
    assigned: tuple[int, ...] = ()


@dataclass
class Group:
    """Kafka's group protocol with eager rebalances: everybody gives up everything, then joins again."""

    broker: Broker
    topic: str
    partitions: int
    now: Callable[[], float]
    on_commit: Callable[[int, int], None]
    members: dict[str, Member] = field(default_factory=dict)
    generation: int = 0
    preparing_since: float | None = None

    def join(self, name: str) -> tuple[tuple[int, ...], int] | None:
        """Join; (assigned partitions, generation) when the rebalance is complete, None before."""
        member = self.members.get(name)
        if member is None:
            member = self.members[name] = Member(self.now())
            self._prepare()
        member.seen = self.now()
        if self.preparing_since is None:
            if member.joined:
                return member.assigned, self.generation
            self._prepare()
        member.joined = True
        self._complete()
        return (member.assigned, self.generation) if self.preparing_since is None else None

    def heartbeat(self, name: str, generation: int) -> bool:
        """Whether the member may go on; if not, it has to give up its partitions and to join again."""
        self._expire()
        member = self.members.get(name)
        if member is None:
            return False
        member.seen = self.now()
        return self.preparing_since is None and generation == self.generation

    def leave(self, name: str) -> None:
        """Remove a member at once."""
        if self.members.pop(name, None) is not None:
            self._prepare()
            self._complete()

    def forget(self) -> None:
        """Lose all members and offsets, as on a new cluster."""
        self.members.clear()
        self.preparing_since = None
        self.generation += 1
        self.broker.offsets.clear()

    def commit(self, name: str, generation: int, offsets: dict[int, int]) -> None:
        """Commit offsets.

        Raises
        ------
        CommitFailedError
            If the member has been removed, or its partitions belong to others.
        """
        if name not in self.members or generation != self.generation:
            raise CommitFailedError
        for partition, offset in offsets.items():
            self.on_commit(partition, offset)
            self.broker.offsets[(self.topic, partition)] = offset

    def _prepare(self) -> None:
        if self.preparing_since is None:
            self.preparing_since = self.now()
            for member in self.members.values():
                member.joined = False

    def _expire(self) -> None:
        limit = SESSION_SECONDS if self.preparing_since is None else REBALANCE_SECONDS
        silent = [n for n, m in self.members.items() if not m.joined or self.preparing_since is None]
        for name in silent:
            if self.now() - self.members[name].seen > limit:
                del self.members[name]
                self._prepare()

    def _complete(self) -> None:
        self._expire()
        if self.preparing_since is None or not self.members:
            return
        if all(member.joined for member in self.members.values()):
            self.generation += 1
            self.preparing_since = None
            names = sorted(self.members)
            shift = self.generation
            for i, name in enumerate(names):
                member = self.members[name]
                member.seen = self.now()
                member.assigned = tuple(p for p in range(self.partitions) if (p + shift) % len(names) == i)
