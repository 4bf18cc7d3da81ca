"""The verdict of the rules: a table of signs, of which the first that applies decides."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from streamguard.analyst.analysis import Verdict
from streamguard.analyst.case import Case
from streamguard.campaigns.record import CampaignRecord


class Judgement(NamedTuple):
    """A verdict, the rule that it follows from, how sure it is, why, and the facts that the rule has looked at."""

    verdict: Verdict
    rule: str
    confidence: float
    reason: str
    refs: tuple[str, ...]


class Rule(NamedTuple):
    """A line of the table."""

    name: str
    verdict: Verdict
    confidence: float
    reason: str
    applies: Callable[[Case], bool]


RULES: tuple[Rule, ...] = (
    Rule(
        "entered",
        "true_positive",
        0.9,
        "A stranger's login succeeded.",
        lambda case: case.involved.entered.count > 0,
    ),
    Rule(
        "pattern",
        "true_positive",
        0.8,
        "The alerts show a known form of attack.",
        lambda case: bool(case.incident.patterns),
    ),
    Rule(
        "strong evidence",
        "suspicious",
        0.6,
        "The evidence is strong, but shows no known form of attack.",
        lambda case: case.incident.evidence_bits >= 14.0,
    ),
    Rule(
        "weak evidence",
        "benign",
        0.6,
        "The evidence is weak, and shows no known form of attack.",
        lambda case: bool(case.incident.reasons),
    ),
)


def judge(case: Case) -> Judgement:
    """The verdict on an incident."""
    for rule in RULES:
        if rule.applies(case):
            return Judgement(rule.verdict, rule.name, rule.confidence, rule.reason, ("V1", "N1"))
    return Judgement(
        "insufficient_data",
        "nothing stated",
        0.5,
        "The incident states neither a pattern nor a reason.",
        ("V1",),
    )


def judge_campaign(record: CampaignRecord) -> Judgement:
    """The verdict on a campaign."""
    campaign = record.campaign
    if campaign.accounts:
        return Judgement("true_positive", "entered", 0.9, "A stranger's login succeeded.", ("N1",))
    if campaign.patterns:
        return Judgement("true_positive", "pattern", 0.8, "The alerts show a known form of attack.", ("V1",))
    if record.decision.raised:
        return Judgement(
            "suspicious", "raised", 0.6, "The campaign is strong enough to be raised to a person.", ("V1",)
        )
    return Judgement(
        "benign", "not raised", 0.6, "The campaign is too weak to be raised to a person.", ("V1",)
    )
