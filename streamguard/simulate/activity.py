"""Working times: the level of activity and the whereabouts of each account in each quarter of an hour."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from streamguard.simulate.habits import KINDS, Habits

SLOT_MS = 900_000
"""Activity is constant within a quarter of an hour."""
_EPOCH_WEEKDAY = 3  # 1970-01-01 was a Thursday


class Whereabouts(IntEnum):
    """Kind of place from which an account works."""

    OFFICE = 0
    HOME = 1
    OFF_HOURS = 2
    TRAVEL = 3
    SERVER = 4
    ON_CALL = 5


class Calendar:
    """Computes activity from habits: shifts in local time, lunch, free days, leave, travel, on-call duty, month-ends.

    Parameters
    ----------
    habits
        Habits of the accounts.
    seed
        Seed of the daily and weekly random numbers, which otherwise depend on the date alone.
    """

    def __init__(self, habits: Habits, seed: int) -> None:
        self._habits = habits
        self._seed = seed
        self._mean = _weekly_mean()[habits.kind]
        self._day = lru_cache(maxsize=8)(self._draw_day)
        self._week = lru_cache(maxsize=8)(self._draw_week)

    def at(self, slot: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return activity and whereabouts in one slot.

        Parameters
        ----------
        slot
            Number of quarters of an hour since the epoch.

        Returns
        -------
        activity : float64 (accounts,)
            Events per day at this pace, relative to the average of the average account.
        whereabouts : int64 (accounts,)
            `Whereabouts` of each account.
        """
        h = self._habits
        since_start = slot * 15 + h.utc_minutes - h.start_minute
        day, minute = np.divmod(since_start, 1440)
        off, home, factor, month_end = self._by(day, self._day)
        away, travel, on_call = self._by((day + _EPOCH_WEEKDAY) // 7, self._week)
        working = (h.workdays >> (day + _EPOCH_WEEKDAY) % 7 & 1).astype(bool) & (off + away == 0)
        level, in_shift = _level(minute, working, h.work_minutes, h.levels, h.person)
        called = on_call.astype(bool) & ~in_shift
        level = np.where(called, np.maximum(level, 0.05), level)
        level = level * factor * (1 + h.month_end * month_end)
        where = np.where(
            in_shift, np.where(home.astype(bool), Whereabouts.HOME, Whereabouts.OFFICE), Whereabouts.OFF_HOURS
        )
        where = np.where(travel.astype(bool), Whereabouts.TRAVEL, where)
        where = np.where(called, Whereabouts.ON_CALL, where)
        where = np.where(h.person, where, Whereabouts.SERVER)
        activity = h.rate * level / self._mean
        activity[h.leaver] = 0.0
        return activity, where

    def in_hours(self, user: int, time: int) -> bool:
        """Whether the user is at work at this time (ms): within the shift, and not on leave or sick."""
        h = self._habits
        day, minute = divmod(time // 60_000 + int(h.utc_minutes[user]) - int(h.start_minute[user]), 1440)
        if minute >= int(h.work_minutes[user]) or not h.workdays[user] >> (day + _EPOCH_WEEKDAY) % 7 & 1:
            return False
        return not (self._day(day)[0][user] or self._week((day + _EPOCH_WEEKDAY) // 7)[0][user])

    def travels(self, user: int, time: int) -> bool:
        """Whether the user spends this week in another city."""
        h = self._habits
        day = (time // 60_000 + int(h.utc_minutes[user]) - int(h.start_minute[user])) // 1440
        return bool(self._week((day + _EPOCH_WEEKDAY) // 7)[1][user])

    def _by(
        self, dates: NDArray[np.int64], draw: Callable[[int], NDArray[np.float64]]
    ) -> NDArray[np.float64]:
        """Return `draw(date)` with each account's own date; time zones can result in several dates at once."""
        present = np.unique(dates)
        out: NDArray[np.float64] = draw(int(present[0]))
        for date in present[1:].tolist():
            out = np.where(dates == date, draw(date), out)
        return out

    def _draw_day(self, day: int) -> NDArray[np.float64]:
        h = self._habits
        rng = np.random.default_rng([self._seed, 3, day])
        n = len(h.kind)
        off = (rng.random(n) < 0.06) & h.person
        home = rng.random(n) < h.home
        factor = rng.gamma(12, 1 / 12, n)
        date = np.datetime64(day, "D")
        near = [(date + shift).astype("datetime64[M]") for shift in (-1, 0, 3)]
        month_end = np.full(n, near[0] != near[1] or near[1] != near[2])
        return np.stack((off, home, factor, month_end)).astype(np.float64)

    def _draw_week(self, week: int) -> NDArray[np.float64]:
        h = self._habits
        rng = np.random.default_rng([self._seed, 4, week])
        n = len(h.kind)
        away = (rng.random(n) < 0.04) & h.person
        travel = rng.random(n) < h.travel
        on_call = rng.random(n) < h.on_call
        return np.stack((away, travel, on_call)).astype(np.float64)


def _level(
    minute: NDArray[np.int64],
    working: NDArray[np.bool_],
    work_minutes: NDArray[np.int64],
    levels: NDArray[np.float64],
    person: NDArray[np.bool_],
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the level by minutes since the shift began, and whether the time is within the shift."""
    in_shift = working & (minute < work_minutes)
    lunch = person & (minute >= 210) & (minute < 255)
    settling = np.where(minute < 30, 1.4, 1.0)
    at_work = levels[:, 0] * np.where(lunch, 0.25, np.where(person, settling, 1.0))
    awake = minute < work_minutes + 300
    elsewhere = np.where(awake, np.where(working, levels[:, 1], levels[:, 3]), levels[:, 2])
    return np.where(in_shift, at_work, elsewhere), in_shift


def _weekly_mean() -> NDArray[np.float64]:
    """Mean level of each kind over a week, including leave."""
    minutes, means = np.arange(0, 1440, 15), []
    for kind in KINDS:
        levels = np.tile((kind.working, kind.evening, kind.night, kind.free_day), (len(minutes), 1))
        person = np.full(len(minutes), kind.name != "service")
        length = np.full(len(minutes), kind.work_minutes)
        free, busy = (
            float(_level(minutes, np.full(len(minutes), day), length, levels, person)[0].mean())
            for day in (False, True)
        )
        days = kind.workdays.bit_count() / 7 * (0.9 if kind.name != "service" else 1.0)
        means.append(busy * days + free * (1 - days))
    return np.array(means)
