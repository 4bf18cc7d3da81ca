"""Input of the benchmarks: simulated events, the same events under any number of names, and a trained forest."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from streamguard.fold.features import NAMES
from streamguard.models.forest import Forest
from streamguard.models.registry import Registry
from streamguard.models.train import train
from streamguard.settings.schema import Detection
from streamguard.simulate import Simulation
from streamguard.state.partition import PartitionState

TREES = 300
CHUNK = 1000
START_MS = 1_760_000_000_000
_PARTS = re.compile(rb'(.*"timestamp":)\d+(,.*"source_ip":")[^"]*(".*"user":")[^"]*(".*)')


def habits(events: int, users: int, seed: int = 1) -> Simulation:
    """A simulation of this many users over at most ten days, with at least four events a day of a user."""
    return Simulation(users, seed, events=events, events_per_day=max(4.0, events / users / 10))


def values(simulation: Simulation) -> list[bytes]:
    """The events as JSON."""
    return [event.value for event in simulation]


class Invented:
    """Simulated events under invented names. Each user has only four kinds of events and one address.

    These events are simpler than those of the simulator, and faster to generate.

    Parameters
    ----------
    step_ms
        Time between two events in milliseconds.
    """

    def __init__(self, step_ms: int = 10) -> None:
        matches = (_PARTS.fullmatch(value) for value in values(habits(4096, 500)))
        self._parts = [match.groups() for match in matches if match]
        self._step = step_ms
        self._made = 0

    def events(
        self, users: Iterable[int], addresses: Iterable[int] | None = None
    ) -> Iterator[tuple[str, bytes]]:
        """(user, event) for each number of a user, in order.

        Parameters
        ----------
        users
            Numbers of users, below 2^24.
        addresses
            Numbers of addresses, one for each event; None gives each user one address.
        """
        for user, address in zip(users, users if addresses is None else addresses, strict=True):
            head, to_address, to_user, tail = self._parts[(user * 4 + self._made % 4) % len(self._parts)]
            now = START_MS + self._made * self._step
            name = f"user-{user:07d}"
            ip = f"10.{address >> 16 & 255}.{address >> 8 & 255}.{address & 255}"
            self._made += 1
            yield name, b"%b%d%b%b%b%b%b" % (head, now, to_address, ip.encode(), to_user, name.encode(), tail)


def fold(state: PartitionState, events: list[bytes], forest: Forest | None = None) -> np.ndarray:
    """Fold events in chunks; return their features, float32 (n, 28)."""
    rows = []
    first = state.next_offset or 0
    for start in range(0, len(events), CHUNK):
        part = events[start : start + CHUNK]
        offsets = np.arange(first + start, first + start + len(part))
        rows.append(state.fold(part, offsets, forest).features)
    return np.concatenate(rows)


def learn(events: list[bytes]) -> tuple[PartitionState, Forest]:
    """The state of a partition after these events, all in memory, and a forest that is trained on their features."""
    state = PartitionState(0, lambda keys: [None] * len(keys), resident=65_536, detection=Detection())
    return state, train(fold(state, events), trees=TREES)


def publish(forest: Forest, directory: Path) -> None:
    """Publish a forest in a registry and make it current."""
    registry = Registry(directory, feature_names=NAMES)
    registry.promote(registry.publish(forest))
