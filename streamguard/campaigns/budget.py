"""Which campaigns are raised to a person: those above a fixed level, and few of one kind a day."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from streamguard.campaigns.campaign import Campaign
from streamguard.campaigns.sighting import DAY
from streamguard.events.event_time import epoch_ms
from streamguard.settings.schema import Detection

FLOOR_BITS = Detection().floor_bits
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
        `above the floor`, `stronger than others of its kind today`, `certain`, `an account was entered`, `below the
        floor` or `quota`.
    """

    raised: bool
    level: float
    why: str


def decide(campaigns: Iterable[Campaign], floor: float = FLOOR_BITS) -> Mapping[str, Decision]:
    """Decide for each campaign, by id; in the order of their first alerts, so a later campaign changes no decision.

    Days are those of event time, in UTC.

    Parameters
    ----------
    campaigns
        All campaigns of the days.
    floor
        Setting `detection.floor_bits`.
    """
    decisions: dict[str, Decision] = {}
    today: dict[tuple[int, str], list[float]] = defaultdict(list)
    for campaign in sorted(campaigns, key=lambda one: (one.first_seen, one.id)):
        best = today[_day(campaign), campaign.kind]
        decision = decide_one(campaign.score, campaign.accounts, sorted(best)[-QUOTA:], floor)
        if decision.raised:
            best.append(campaign.score)
        decisions[campaign.id] = decision
    return decisions


def busy_days(
    campaigns: Iterable[Campaign], decisions: Mapping[str, Decision], per_day: float
) -> dict[str, int]:
    """Days on which more campaigns were raised than `detection.incidents_per_day`, with their number, in order.

    Parameters
    ----------
    campaigns
        All campaigns.
    decisions
        Result of `decide`.
    per_day
        Number that is expected at most.
    """
    raised = Counter(one.first_seen[:10] for one in campaigns if decisions[one.id].raised)
    return {day: number for day, number in sorted(raised.items()) if number > per_day}


def _day(campaign: Campaign) -> int:
    return (epoch_ms(campaign.first_seen) or 0) // DAY


def decide_one(
    score: float, accounts: int, best: Sequence[float] = (), floor: float = FLOOR_BITS
) -> Decision:
    """The decision for a campaign.

    Parameters
    ----------
    score, accounts
        Those of the campaign.
    best
        The best scores of its kind that were raised on its day, ascending, at most `QUOTA`.
    floor
        Setting `detection.floor_bits`.
    """
    if score < floor:
        return Decision(False, floor, "below the floor")
    if len(best) < QUOTA:
        return Decision(True, floor, "above the floor")
    if score > best[0]:
        return Decision(True, best[0], "stronger than others of its kind today")
    if score >= CERTAIN_BITS:
        return Decision(True, CERTAIN_BITS, "certain")
    if accounts:  # few benign rows name an entry, and it is what planted rows would hide
        return Decision(True, floor, "an account was entered")
    return Decision(False, best[0], "quota")
