"""Waves: logins of many users within minutes, and rounds of such waves with one unusual agent."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from streamguard.campaigns.sighting import HOUR, MINUTE, Sighting
from streamguard.campaigns.union_find import UnionFind

SILENCE_MS = 10 * MINUTE
"""A wave ends where so long no incident shows it."""
LEAD_MS = HOUR
"""A chain that began earlier before a wave belongs to it only if most of its incidents do."""
ROUNDS_MS = 6 * HOUR
"""Longest pause between two rounds of one attack."""
DOMINANT_SHARE = 0.5
"""Share of a wave's incidents from which an agent marks the wave."""
USUAL_SHARE = 0.03
"""Share of the other incidents up to which an agent is unusual."""
_UNSEEN = 20
"""Incidents that are added to all others, so that few of them do not make an agent unusual or usual."""


@dataclass(slots=True)
class _Wave:
    first: int
    last: int
    members: list[int]


def link_waves(sightings: Sequence[Sighting], sets: UnionFind) -> None:
    """Join the incidents of each wave, and waves that are rounds of one attack.

    Parameters
    ----------
    sets
        The chains, see `streamguard.campaigns.chains`.
    """
    chain = [sets.find(i) for i in range(len(sightings))]
    waves = [wave for wave in _waves(sightings) if wave.members]
    began: dict[int, int] = {}
    for i, one in enumerate(sightings):
        began[chain[i]] = min(began.get(chain[i], one.first_ms), one.first_ms)
    size, inside = Counter(chain), Counter(chain[i] for wave in waves for i in wave.members)
    for wave in waves:
        wave.members = [
            i
            for i in wave.members
            if began[chain[i]] >= wave.first - LEAD_MS or 2 * inside[chain[i]] > size[chain[i]]
        ]
        for i in wave.members[1:]:
            sets.join(wave.members[0], i)
    _link_rounds([wave for wave in waves if wave.members], sightings, sets)


def _waves(sightings: Sequence[Sighting]) -> list[_Wave]:
    """The waves that cores show; every core is in one, and a border in the nearest, if that is near."""
    waves: list[_Wave] = []
    number: dict[int, int] = {}
    for moment in sorted({moment for one in sightings if one.is_core for moment in one.moments}):
        if not waves or moment - waves[-1].last > SILENCE_MS:
            waves.append(_Wave(moment, moment, []))
        waves[-1].last = moment
        number[moment] = len(waves) - 1
    times = sorted(number)
    for i, one in enumerate(sightings):
        if one.is_core:
            waves[number[one.middle]].members.append(i)
        elif one.is_border and times:
            gap, nearest = min(
                (abs(near - moment), near)
                for moment in one.moments
                for near in times[max(bisect_left(times, moment) - 1, 0) :][:2]
            )
            if gap <= SILENCE_MS:
                waves[number[nearest]].members.append(i)
    return waves


def _link_rounds(waves: Sequence[_Wave], sightings: Sequence[Sighting], sets: UnionFind) -> None:
    others = Counter(one.metadata.user_agent for one in sightings if not one.in_wave)
    total = sum(others.values()) + _UNSEEN
    rounds: dict[str, list[_Wave]] = defaultdict(list)
    for wave in waves:
        votes = Counter(sightings[i].metadata.user_agent or "" for i in wave.members)
        agent, count = min(votes.items(), key=lambda vote: (-vote[1], vote[0]))
        if agent and count >= DOMINANT_SHARE * len(wave.members) and others[agent] + 1 <= USUAL_SHARE * total:
            rounds[agent].append(wave)
    for series in rounds.values():
        for before, after in pairwise(series):  # in the order of time
            if after.first - before.last <= ROUNDS_MS:
                sets.join(before.members[0], after.members[0])
