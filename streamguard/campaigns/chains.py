"""Chains: incidents that follow each other and share something, such as a foothold in an account."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

from streamguard.campaigns.sighting import Key, Sighting
from streamguard.campaigns.union_find import UnionFind

LIKENESS = 0.8
"""Cosine of the reasons' bits from which two incidents of a user are the same behaviour."""


def link_chains(sightings: Sequence[Sighting], sets: UnionFind) -> None:
    """Join incidents that have a key in common and follow each other within the silence of the key."""
    by_key: dict[Key, list[tuple[int, int, int]]] = defaultdict(list)
    for i, sighting in enumerate(sightings):
        # Only the strongest moment of a crowd's or a source's incident is surely part of this attack.
        one = sighting.kind == "user"
        first = sighting.first_ms if one else sighting.moments[0]
        last = sighting.last_ms if one else sighting.moments[-1]
        for key in sighting.links():
            by_key[key].append((first, last, i))
    for key, spans in by_key.items():
        _link(key, sorted(spans), sightings, sets)


def _link(
    key: Key, spans: list[tuple[int, int, int]], sightings: Sequence[Sighting], sets: UnionFind
) -> None:
    behaviour = key.name == "likeness"
    _, end, latest = spans[0]
    for first, last, i in spans[1:]:
        alike = not behaviour or cosine(sightings[i].bits, sightings[latest].bits) >= LIKENESS
        if first - end <= key.silence_ms and alike:
            sets.join(i, latest)
        end, latest = max(last, end), i


def cosine(a: Mapping[str, float], b: Mapping[str, float]) -> float:
    """Cosine of the angle between the reasons of two incidents; carried suspicion only repeats earlier reasons.

    Examples
    --------
    >>> cosine({"source": 3.0, "host": 4.0}, {"host": 4.0}), cosine({"source": 1.0, "carried": 9.0}, {"source": 2.0})
    (0.8, 1.0)
    """
    own = [{name: bits for name, bits in one.items() if name != "carried"} for one in (a, b)]
    norms = [math.sqrt(math.fsum(bits * bits for bits in one.values())) for one in own]
    product = math.fsum(bits * own[1].get(name, 0.0) for name, bits in own[0].items())
    return product / (norms[0] * norms[1]) if all(norms) else 0.0
