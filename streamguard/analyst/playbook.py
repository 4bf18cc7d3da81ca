"""Which steps of the closed list follow from an incident or a campaign."""

from __future__ import annotations

from collections.abc import Iterable

from streamguard.analyst.case import Case
from streamguard.analyst.knowledge import AFTER, STEPS
from streamguard.analyst.verdict import Judgement
from streamguard.campaigns.record import CampaignRecord
from streamguard.fold.patterns import PATTERNS

MAX_STEPS = 10
"""Steps of an analysis."""
TECHNIQUE = {pattern.name: pattern.technique for pattern in PATTERNS}
"""Name of a pattern -> its technique."""


def steps(case: Case, judgement: Judgement) -> tuple[str, ...]:
    """Ids of the steps for an incident, in the order of the closed list."""
    techniques = [pattern.technique for pattern in case.incident.patterns]
    return _ordered(judgement, techniques, entered=case.involved.entered.count > 0)


def campaign_steps(record: CampaignRecord, judgement: Judgement) -> tuple[str, ...]:
    """Ids of the steps for a campaign, in the order of the closed list."""
    techniques = [TECHNIQUE[name] for name in record.campaign.patterns if name in TECHNIQUE]
    return _ordered(judgement, techniques, entered=record.campaign.accounts > 0)


def _ordered(judgement: Judgement, techniques: Iterable[str], *, entered: bool) -> tuple[str, ...]:
    """The steps of the verdict, of an entry and of techniques; if they are too many, the first ones of each count."""
    wanted = dict.fromkeys(AFTER[judgement.verdict])
    if judgement.verdict != "benign":
        if entered:
            wanted |= dict.fromkeys(AFTER["entered"])
        for technique in techniques:
            wanted |= dict.fromkeys(AFTER.get(technique) or AFTER.get(technique.partition(".")[0]) or ())
    kept = frozenset(list(wanted)[:MAX_STEPS])
    return tuple(id for id in STEPS if id in kept)
