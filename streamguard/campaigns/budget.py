"""Which campaigns are raised to a person: those above a fixed level, and few of one kind a day."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

import msgspec

from streamguard.campaigns.campaign import Campaign
from streamguard.campaigns.sighting import DAY
from streamguard.events.event_time import epoch_ms

FLOOR_BITS = 18.0
"""Score from which a campaign is raised. Planted rows cannot raise it, as they could a level that follows traffic."""
QUOTA = 2
"""Campaigns of one kind a day that are raised; a further one has to be stronger than the weaker of the best two."""
CERTAIN_BITS = 30.0
"""Score from which a campaign is raised whatever the quota, so that planted rows cannot hide it."""


class Decision(msgspec.Struct, frozen=True):
    """Whether a campaign is raised, against which level, and why.

    Attributes
    ----------
    raised
        Whether a person is called.
    level
        Score that decided, in bits.
    why
        `above the floor`, `certain`, `stronger than others of its kind today`, `below the floor` or `quota`.
    """

    raised: bool
    level: float
    why: str


def decide(campaigns: Iterable[Campaign]) -> Mapping[str, Decision]:
    """Decide for each campaign, by id; in the order of their first alerts, so a later campaign changes no decision.

    Days are those of event time, in UTC.
    """
    decisions: dict[str, Decision] = {}
    today: dict[tuple[int, str], list[float]] = defaultdict(list)
    for campaign in sorted(campaigns, key=lambda one: (one.first_seen, one.id)):
        best = today[(epoch_ms(campaign.first_seen) or 0) // DAY, campaign.kind]
        decision = _decision(campaign.score, sorted(best)[-QUOTA:])
        if decision.raised:
            best.append(campaign.score)
        decisions[campaign.id] = decision
    return decisions


def _decision(score: float, best: list[float]) -> Decision:
    """The decision for a score, given the best scores of its kind that were raised on its day, in ascending order."""
    if score < FLOOR_BITS:
        return Decision(False, FLOOR_BITS, "below the floor")
    if len(best) < QUOTA:
        return Decision(True, FLOOR_BITS, "above the floor")
    if score > best[0]:
        return Decision(True, best[0], "stronger than others of its kind today")
    if score >= CERTAIN_BITS:
        return Decision(True, CERTAIN_BITS, "certain")
    return Decision(False, best[0], "quota")
