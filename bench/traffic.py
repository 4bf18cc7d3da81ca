"""What the benches feed: the simulator's events, the same under any number of names, and a forest trained on them."""

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
    """A company of so many users at its usual pace: ten days of four events a user at the most."""
    return Simulation(users, seed, events=events, events_per_day=max(4.0, events / users / 10))


def values(simulation: Simulation) -> list[bytes]:
    """The events as JSON."""
    return [event.value for event in simulation]


class Invented:
    """The simulator's events under invented names: each user keeps to four kinds of events and one address.

    Parameters
    ----------
    step_ms
        Time between two events.
    """

    def __init__(self, step_ms: int = 10) -> None:
        matches = (_PARTS.fullmatch(value) for value in values(habits(4096, 500)))
        self._parts = [match.groups() for match in matches if match]
        self._step = step_ms
        self._made = 0

    def events(
        self, users: Iterable[int], addresses: Iterable[int] | None = None
    ) -> Iterator[tuple[str, bytes]]:
        """(user, event) for each number, in this order.

        Parameters
        ----------
        users
            Up to 2^24.
        addresses
            Numbers to make addresses from; None: a user's own.
        """
        for user, address in zip(users, users if addresses is None else addresses, strict=True):
            head, to_address, to_user, tail = self._parts[(user * 4 + self._made % 4) % len(self._parts)]
            now = START_MS + self._made * self._step
            name = f"user-{user:07d}"
            ip = f"10.{address >> 16 & 255}.{address >> 8 & 255}.{address & 255}"
            self._made += 1
            yield name, b"%b%d%b%b%b%b%b" % (head, now, to_address, ip.encode(), to_user, name.encode(), tail)


def fold(state: PartitionState, events: list[bytes], forest: Forest | None = None) -> np.ndarray:
    """Fold events in chunks; their features, float32 (n, 28)."""
    rows = []
    first = state.next_offset or 0
    for start in range(0, len(events), CHUNK):
        part = events[start : start + CHUNK]
        offsets = np.arange(first + start, first + start + len(part))
        rows.append(state.fold(part, offsets, forest).features)
    return np.concatenate(rows)


def learn(events: list[bytes]) -> tuple[PartitionState, Forest]:
    """A partition's state after these events, all in memory, and a forest of their features."""
    state = PartitionState(0, lambda keys: [None] * len(keys), resident=65_536, detection=Detection())
    return state, train(fold(state, events), trees=TREES)


def publish(forest: Forest, directory: Path) -> None:
    """Make it the current model of a registry."""
    registry = Registry(directory, feature_names=NAMES)
    registry.promote(registry.publish(forest))
