"""The benign stream as columns in time order: account, type, time, place and outcome of each event."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamguard.simulate.activity import SLOT_MS
from streamguard.simulate.drift import DAY_MS
from streamguard.simulate.habits import KINDS, TYPE_MIX, type_mixes
from streamguard.simulate.population import SPOT_SHARES, Population

BURST_EVENTS = 3.0
"""Mean number of consecutive events from one place."""
BURST_GAP_MS = 15_000.0
"""Mean time between two of them at the pace of a person, in ms."""
BLOCK_EVENTS = 8192
"""Maximum number of events that are drawn at once."""
PACED_BLOCK_SECONDS = 0.02
"""Time that is drawn at once at a given rate. It is short, so that drawing never delays an event that is due."""
_RETRIES = 1.24
"""Mean number of further tries after a mistyped password: 1 in 5 of them fails again, and there are at most 3."""
_WARM_UP_EVENTS = 100_000
_LEFT_DAYS, _LEAVER_DAYS, _LEAVER_EVENTS = 70, 28, 30

ARRIVAL = np.dtype(
    [("time", "i8"), ("user", "i8"), ("spot", "i8"), ("type", "i8"), ("outcome", "i8"), ("tries", "i8")]
)
"""A benign event before encoding: epoch ms, account, `Spot`, index into `TYPES`, `Outcome`, previous sign-in tries."""


class Outcome(IntEnum):
    """Status of an event."""

    SUCCESS = 0
    FAILED = 1
    BLOCKED = 2
    PENDING = 3


_OUTCOMES = np.array(
    [[0.0, 0.0, 0.004], [0.014, 0.006, 0.0], [0.004, 0.008, 0.0], [0.006, 0.001, 0.0], [0.03, 0.002, 0.0]]
)
"""Shares of failed, blocked and pending events by type; the share of failed sign-ins is a habit of each account."""


class Arrivals:
    """Draws the benign stream of a population.

    Parameters
    ----------
    population
        Accounts of the stream.
    events_per_day
        Events of the average account per day, averaged over a week; the total varies with the hour of the day.
    rate
        Events per second of all accounts together, at any hour, instead of `events_per_day`. The share of each account
        still varies with the hour of the day.
    """

    def __init__(self, population: Population, *, events_per_day: float, rate: float | None) -> None:
        self._population = population
        self._habits = population.habits
        self._per_day = events_per_day
        self._rate = rate
        habits = self._habits
        kinds, rates = habits.kind[: habits.count], habits.rate[: habits.count]
        total_rates = np.bincount(kinds, rates, len(KINDS))
        failures = np.bincount(kinds, rates * habits.failure[: habits.count], len(KINDS))
        self._tries = 1 + _RETRIES * failures / np.maximum(total_rates, 1e-9)
        self._mix(total_rates)
        self._spots = np.cumsum(SPOT_SHARES, axis=1)
        self._slot = -1
        self._cumulated = np.zeros(0)
        self._whereabouts = np.zeros(0, dtype=np.int64)
        total = rate or events_per_day * habits.count / 86_400
        own = 1000 * habits.count / total  # ms between two events of one account
        self._gap = min(BURST_GAP_MS, own / 5, _WARM_UP_EVENTS / total * 1000 / 8)

    def blocks(self, start: int, end: int | None) -> Iterator[tuple[int, NDArray[np.void]]]:
        """Yield blocks of `ARRIVAL` records in time order, each with the time at which it ends.

        Parameters
        ----------
        start, end
            Beginning and end of the stream in epoch ms; the end is exclusive, None means no end.
        """
        rng = np.random.default_rng([self._population.seed, 5, start & 0xFFFFFFFF, start >> 32])
        pending = np.zeros(0, ARRIVAL)
        # Bursts that began before the start continue after it: without them the stream would begin with too few events.
        time = start - int(8 * self._gap) if self._rate else start
        while end is None or time < end:
            until, expected = self._block(time)
            if time < start:
                until = min(until, start)
            drawn = np.concatenate((pending, self._draw(rng, time, until, expected * (until - time))))
            if end is not None:
                until = min(until, end)
            now = drawn["time"] < until
            pending = drawn[~now]
            block = drawn[now]
            block = block[np.argsort(block["time"], kind="stable")]
            time = until
            if time > start:
                yield time, block[block["time"] >= start]
            elif len(block):
                pending = np.concatenate((pending, block[block["time"] >= start]))

    def leaver_history(self, start: int) -> NDArray[np.void]:
        """Return four ordinary weeks of the account whose owner left 70 days before `start`."""
        habits = self._habits
        rng = np.random.default_rng([self._population.seed, 8])
        begin = start // DAY_MS - _LEFT_DAYS - _LEAVER_DAYS
        local = int(habits.start_minute[habits.leaver] - habits.utc_minutes[habits.leaver]) * 60_000
        days = [day for day in range(begin, begin + _LEAVER_DAYS) if (day + 3) % 7 < 5]
        sizes = rng.poisson(_LEAVER_EVENTS, len(days))
        n = int(sizes.sum())
        out = np.zeros(n, ARRIVAL)
        out["time"] = np.repeat(days, sizes) * DAY_MS + local + np.sort(rng.integers(0, 8 * 3_600_000, n))
        out["time"].sort()
        out["user"] = habits.leaver
        out["type"] = rng.choice(len(TYPE_MIX), n, p=TYPE_MIX)
        out["outcome"] = (out["type"] == 0) & (rng.random(n) < 0.03)
        return out

    def _mix(self, weights: NDArray[Any]) -> None:
        """Set the mix of types of each kind from the weights of the kinds; retries count as sign-ins."""
        shares = weights / weights.sum()
        mixes = type_mixes(shares)
        mixes[:, 0] /= self._tries
        first_tries = mixes.sum(axis=1, keepdims=True)
        self._mixes = np.cumsum(mixes / first_tries, axis=1)
        self._per_burst = BURST_EVENTS / float(shares @ first_tries[:, 0])

    def _block(self, time: int) -> tuple[int, float]:
        """Return the end of the block that begins at `time`, and its events per millisecond."""
        slot = time // SLOT_MS
        if slot != self._slot:
            activity, self._whereabouts = self._population.calendar.at(slot)
            self._cumulated = np.cumsum(activity)
            self._slot = slot
            if self._rate:
                self._mix(np.bincount(self._habits.kind, activity, len(KINDS)))
        per_ms = self._rate / 1000 if self._rate else self._cumulated[-1] * self._per_day / DAY_MS
        length = BLOCK_EVENTS / per_ms
        if self._rate:
            length = min(length, max(PACED_BLOCK_SECONDS * 1000, 64 / per_ms))
        return min((slot + 1) * SLOT_MS, time + max(1, int(length))), per_ms

    def _draw(self, rng: np.random.Generator, time: int, until: int, expected: float) -> NDArray[np.void]:
        bursts = int(rng.poisson(expected / self._per_burst))
        sizes = rng.geometric(1 / BURST_EVENTS, bursts)
        users = np.searchsorted(self._cumulated, rng.random(bursts) * self._cumulated[-1], side="right")
        spots = (rng.random(bursts)[:, None] > self._spots[self._whereabouts[users], :-1]).sum(axis=1)
        begins = time + rng.random(bursts) * (until - time)
        n = int(sizes.sum())
        gaps = rng.exponential(self._gap, n)
        first = np.cumsum(sizes) - sizes
        gaps[first] = 0.0
        elapsed = np.cumsum(gaps)
        out = np.zeros(n, ARRIVAL)
        out["time"] = np.repeat(begins, sizes) + elapsed - np.repeat(elapsed[first], sizes)
        out["user"] = np.repeat(users, sizes)
        out["spot"] = np.repeat(spots, sizes)
        out["type"] = (rng.random(n)[:, None] > self._mixes[self._habits.kind[out["user"]], :-1]).sum(axis=1)
        shares = _OUTCOMES[out["type"]]
        shares[:, 0] = np.where(out["type"] == 0, self._habits.failure[out["user"]], shares[:, 0])
        out["outcome"] = _choose(rng.random(n), np.cumsum(shares, axis=1))
        return np.concatenate((out, *self._retries(rng, out)))

    def _retries(self, rng: np.random.Generator, events: NDArray[np.void]) -> Iterator[NDArray[np.void]]:
        """Yield the retries of people who mistyped their password; most of them succeed."""
        tried = events[(events["type"] == 0) & (events["outcome"] == Outcome.FAILED)]
        for tries in range(1, 4):
            tried = tried.copy()
            tried["time"] += (min(1.0, self._gap / 6000) * rng.uniform(1500, 14_000, len(tried))).astype(
                np.int64
            )
            tried["tries"] = tries
            tried["outcome"] = np.where(rng.random(len(tried)) < 0.2, Outcome.FAILED, Outcome.SUCCESS)
            yield tried
            tried = tried[tried["outcome"] == Outcome.FAILED]


def _choose(draws: NDArray[np.float64], cumulated: NDArray[np.float64]) -> NDArray[np.int64]:
    """Choose outcome 1, 2 or 3 by the cumulated shares of each row, otherwise 0."""
    chosen = (draws[:, None] >= cumulated).sum(axis=1) + 1
    out: NDArray[np.int64] = np.where(chosen > 3, 0, chosen)
    return out
