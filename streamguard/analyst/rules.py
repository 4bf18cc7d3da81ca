"""The deterministic analyst: an incident or a campaign -> its analysis, without a model, a clock or chance."""

from __future__ import annotations

from collections.abc import Sequence

from streamguard.alerts.incident import Incident
from streamguard.analyst.analysis import MAX_CLAIMS, MAX_SUMMARY, Analysis
from streamguard.analyst.campaign_narrative import campaign_facts, campaign_story
from streamguard.analyst.case import Case
from streamguard.analyst.facts import statements
from streamguard.analyst.instructions import MAX_FIELDS, instruction_fields
from streamguard.analyst.knowledge import technique_uses
from streamguard.analyst.narrative import ordinary, story, unknown
from streamguard.analyst.playbook import campaign_steps, steps
from streamguard.analyst.verdict import judge, judge_campaign
from streamguard.campaigns.record import CampaignRecord
from streamguard.text import shortened


def analyse(incident: Incident, updates: Sequence[Incident] = ()) -> Analysis:
    """The analysis of an incident; equal arguments give equal bytes.

    Parameters
    ----------
    incident
        As last published.
    updates
        Its earlier updates, as far as they are known: what they show counts, too.
    """
    case = Case.of(incident, updates)
    judgement = judge(case)
    claims = story(case, judgement)
    return Analysis(
        incident_id=incident.id,
        revision=incident.count,
        analyst="rules",
        verdict=judgement.verdict,
        rule=judgement.rule,
        confidence=judgement.confidence,
        summary=shortened(" ".join(claim.text for claim in claims), MAX_SUMMARY),
        claims=claims[:MAX_CLAIMS],
        facts=tuple(statement.fact() for statement in statements(case)),
        ordinary=ordinary(case),
        unknown=unknown(case),
        instructions=instruction_fields(incident.event),
        techniques=technique_uses(pattern.technique for pattern in incident.patterns),
        next_steps=steps(case, judgement),
    )


def analyse_campaign(record: CampaignRecord, incidents: Sequence[Incident] = ()) -> Analysis:
    """The analysis of a campaign, which says who was tried and who was entered.

    Parameters
    ----------
    record
        As published.
    incidents
        Its incidents, as far as they are known. Their events are searched for instructions, and their patterns give
        the techniques.
    """
    campaign = record.campaign
    members = frozenset(campaign.incidents)
    known = sorted(
        (one for one in incidents if one.id in members), key=lambda one: (-one.evidence_bits, one.id)
    )
    judgement = judge_campaign(record)
    claims = campaign_story(record, judgement)
    fields = dict.fromkeys(field for one in known for field in instruction_fields(one.event))
    found = dict.fromkeys(pattern.technique for one in known for pattern in one.patterns)
    own = [campaign.technique] if campaign.technique else []
    return Analysis(
        incident_id=campaign.id,
        revision=max(campaign.alerts, 1),
        analyst="rules",
        verdict=judgement.verdict,
        rule=judgement.rule,
        confidence=judgement.confidence,
        summary=shortened(" ".join(claim.text for claim in claims), MAX_SUMMARY),
        claims=claims[:MAX_CLAIMS],
        facts=campaign_facts(record),
        unknown=("What happened after the last alert, and whether the users know of it.",),
        instructions=tuple(fields)[:MAX_FIELDS],
        techniques=technique_uses([*own, *found]),
        next_steps=campaign_steps(record, judgement),
    )
