"""The verdict of the rules: a table of which the first line that applies decides."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from streamguard.analyst.analysis import Verdict
from streamguard.analyst.case import Case
from streamguard.analyst.signs import (
    CERTAIN_BITS,
    IDENTITY,
    PEER_BITS,
    STRONG_BITS,
    WAVE,
    WAVE_BITS,
    Signs,
    signs_of,
)
from streamguard.campaigns.record import CampaignRecord

DESTRUCTIVE = frozenset(
    {
        "ransomware",
        "credential_dumping",
        "recovery_inhibited",
        "dns_tunnel",
        "generated_names",
        "mass_download",
    }
)
"""Patterns of what an intruder does and ordinary work does not."""
TOOLS = frozenset(
    {"encoded_command", "log_clearing", "audit_tampering", "living_off_the_land", "remote_execution"}
)
"""Patterns of tools that administrators have, too; where they are a habit of the user, the evidence stays low."""
MANY = frozenset({"password_spray", "distributed_guessing"})
"""Patterns of an attack on many users."""
GUESSING = frozenset({"brute_force", "success_after_failures"})
"""Patterns of an attack on one account."""


class Judgement(NamedTuple):
    """A verdict, the rule that it follows from, how sure it is, why, and the facts that the rule has looked at."""

    verdict: Verdict
    rule: str
    confidence: float
    reason: str
    refs: tuple[str, ...]


class Rule(NamedTuple):
    """A line of the table.

    Attributes
    ----------
    name
        Name of the rule, as an analysis states it.
    verdict, confidence
        What follows from it. The confidence is near the share of simulated incidents for which it was right.
    reason
        Why, in one sentence.
    rests_on
        Ids of facts, and names of patterns and components whose facts count.
    applies
        Whether it applies to signs.
    """

    name: str
    verdict: Verdict
    confidence: float
    reason: str
    rests_on: tuple[str, ...]
    applies: Callable[[Signs], bool]


RULES: tuple[Rule, ...] = (
    Rule(
        "a stranger entered", "true_positive", 0.97,
        "A login succeeded of which everything that the event states is foreign to the user.",
        ("N1", *IDENTITY), lambda s: s.entered,
    ),
    Rule(
        "confirmed before", "true_positive", 0.95,
        "A value of the event was marked by a person as part of an attack.",
        ("confirmed_before",), lambda s: "confirmed_before" in s.patterns,
    ),
    Rule(
        "an intruder's work", "true_positive", 0.95,
        "The alerts show work that intruders do and that is no habit of the user.",
        tuple(sorted(DESTRUCTIVE)), lambda s: bool(s.patterns & DESTRUCTIVE) and s.bits >= STRONG_BITS,
    ),
    Rule(
        "many users tried", "true_positive", 0.95,
        "Many users are tried at once, from addresses that are not theirs.",
        (*sorted(MANY), *WAVE), lambda s: bool(s.patterns & MANY),
    ),
    Rule(
        "administration tool", "true_positive", 0.8,
        "A tool of administrators, and of intruders, was used by a user who does not usually use it.",
        tuple(sorted(TOOLS)), lambda s: bool(s.patterns & TOOLS) and s.bits >= STRONG_BITS,
    ),
    Rule(
        "account guessed", "true_positive", 0.9,
        "Failures in a row far beyond typing errors are directed at one account.",
        (*sorted(GUESSING), "C1", *IDENTITY),
        lambda s: bool(s.patterns & GUESSING) and s.bits >= CERTAIN_BITS,
    ),
    Rule(
        "travel at a login", "true_positive", 0.85,
        "A login comes from another country sooner than a person can travel, with equipment foreign to the user.",
        ("impossible_travel", *IDENTITY),
        lambda s: "impossible_travel" in s.patterns and s.login and s.foreign >= 3,
    ),
    Rule(
        "transfers repeated", "true_positive", 0.75,
        "Far more data than usual was moved, in several steps.",
        ("exfiltration", "C1", "volume"),
        lambda s: "exfiltration" in s.patterns and s.alerts >= 5,
    ),
    Rule(
        "dormant account in other hands", "true_positive", 0.85,
        "An account is used again after weeks, and nearly all of its equipment is foreign to its user.",
        ("dormant_account", *IDENTITY), lambda s: "dormant_account" in s.patterns and s.foreign >= 3,
    ),
    Rule(
        "part of a wave", "true_positive", 0.85,
        "A login with foreign equipment failed while many users were tried at once.",
        (*WAVE, *IDENTITY),
        lambda s: s.login and not s.succeeded and s.wave >= WAVE_BITS and s.foreign >= 3,
    ),
    Rule(
        "everything is foreign", "true_positive", 0.85,
        "Address, place, host and agent are all foreign to the user.",
        IDENTITY, lambda s: s.foreign == len(IDENTITY),
    ),
    Rule(
        "usual for peers", "benign", 0.8,
        "What is new for the user is usual for the user's peers.",
        ("Q1",), lambda s: s.peers >= PEER_BITS and not s.patterns,
    ),
    Rule(
        "travel within a session", "suspicious", 0.5,
        "Another country appears sooner than a person can travel; a relay or a VPN would look the same.",
        ("impossible_travel", *IDENTITY), lambda s: "impossible_travel" in s.patterns,
    ),
    Rule(
        "dormant account", "suspicious", 0.5,
        "An account is used again after weeks; a user who comes back from a long leave would look the same.",
        ("dormant_account",), lambda s: "dormant_account" in s.patterns,
    ),
    Rule(
        "failures at one account", "suspicious", 0.5,
        "Failures in a row are directed at one account; a program with an old password would look the same.",
        ("brute_force",), lambda s: "brute_force" in s.patterns,
    ),
    Rule(
        "habit of the user", "suspicious", 0.4,
        "The form of an attack was found, but the user's habits lower its evidence.",
        ("V1", *sorted(DESTRUCTIVE | TOOLS)), lambda s: bool(s.patterns & (DESTRUCTIVE | TOOLS)),
    ),
    Rule(
        "own user after failures", "benign", 0.7,
        "The login that succeeds after failures comes from where the user usually works.",
        ("success_after_failures",), lambda s: "success_after_failures" in s.patterns and s.foreign <= 1,
    ),
    Rule(
        "transfer to an unusual place", "suspicious", 0.35,
        "Far more data than usual was moved, and more about it is unusual.",
        ("exfiltration", *IDENTITY, "resource"),
        lambda s: "exfiltration" in s.patterns and (s.lasting or s.foreign >= 2 or s.bits >= STRONG_BITS),
    ),
    Rule(
        "one large transfer", "benign", 0.6,
        "One large amount of data was moved, from equipment that the user usually has.",
        ("exfiltration", "C1"), lambda s: "exfiltration" in s.patterns,
    ),
    Rule(
        "failures in a wave", "suspicious", 0.6,
        "A login failed while many users were tried at once; most of its equipment is usual.",
        (*WAVE, *IDENTITY), lambda s: s.login and not s.succeeded and s.wave >= WAVE_BITS and s.foreign >= 1,
    ),
    Rule(
        "foreign equipment", "suspicious", 0.5,
        "Several of address, place, host and agent are foreign to the user, and the evidence is strong.",
        IDENTITY, lambda s: s.foreign >= 3 and s.bits >= STRONG_BITS,
    ),
    Rule(
        "foreign for longer", "suspicious", 0.4,
        "Equipment and targets are foreign to the user in several alerts.",
        ("C1", *IDENTITY, "resource"), lambda s: s.foreign >= 2 and s.doing >= WAVE_BITS and s.alerts >= 2,
    ),
    Rule(
        "unusual work at an unusual hour", "suspicious", 0.4,
        "Targets or actions, and the hour, are unusual for the user in several alerts.",
        ("C1", "hour", "resource", "action"), lambda s: s.odd_hour and s.doing >= 5.0 and s.alerts >= 2,
    ),
    Rule(
        "strong without a form", "suspicious", 0.3,
        "The evidence is strong, but of no known form of attack.",
        ("V1",), lambda s: s.bits >= STRONG_BITS,
    ),
    Rule(
        "not enough stated", "insufficient_data", 0.5,
        "The incident does not state enough to distinguish an attack from ordinary work.",
        ("V1",), lambda s: not s.stated or s.kind == "crowd",
    ),
    Rule(
        "a single weak alert", "benign", 0.8,
        "One weak alert of no known form of attack, with no more than one thing foreign to the user.",
        ("V1", "C1"), lambda s: s.foreign <= 1 and s.alerts == 1,
    ),
    Rule(
        "weak evidence", "benign", 0.6,
        "The evidence is weak and of no known form of attack.",
        ("V1",), lambda _: True,
    ),
)  # fmt: skip
"""The table, the strongest sign first. The last line applies to everything."""


def judge(case: Case) -> Judgement:
    """The verdict on an incident. It reads no clock and no model, so equal incidents have equal verdicts."""
    signs = signs_of(case)
    rule = next(rule for rule in RULES if rule.applies(signs))
    return Judgement(rule.verdict, rule.name, rule.confidence, rule.reason, _refs(rule, case))


def score(verdict: Verdict, confidence: float) -> float:
    """A verdict as a number from -1 (surely benign) to 1 (surely an attack), by which incidents can be ranked.

    Examples
    --------
    >>> [score(verdict, 0.6) for verdict in ("benign", "insufficient_data", "suspicious", "true_positive")]
    [-0.6, 0.0, 0.3, 0.8]
    """
    if verdict == "benign":
        return -confidence
    if verdict == "insufficient_data":
        return 0.0
    return 0.5 * confidence if verdict == "suspicious" else 0.5 + 0.5 * confidence


def _refs(rule: Rule, case: Case) -> tuple[str, ...]:
    """Ids of the facts that a rule rests on; those that the incident does not state are left out."""
    ids = {reason.feature: f"R{k}" for k, reason in reversed([*enumerate(case.reasons, 1)])}
    ids |= {reason.feature: f"H{k}" for k, reason in enumerate(case.earlier_reasons, 1)}
    ids |= {pattern.name: f"P{k}" for k, pattern in reversed([*enumerate(case.patterns, 1)])}
    ids |= {name: name for name in ("V1", "C1", "N1")}
    if case.incident.peers is not None:
        ids["Q1"] = "Q1"
    return tuple(dict.fromkeys(ids[name] for name in rule.rests_on if name in ids)) or ("V1",)


def judge_campaign(record: CampaignRecord) -> Judgement:
    """The verdict on a campaign: that of its strongest sign."""
    campaign = record.campaign
    patterns = frozenset(campaign.patterns)
    if campaign.accounts:
        return Judgement(
            "true_positive", "a stranger entered", 0.97, "At least one account was entered.", ("N1",)
        )
    if patterns & MANY:
        return Judgement(
            "true_positive", "many users tried", 0.95, "Many users are tried at once.", ("U1", "A1")
        )
    if patterns & DESTRUCTIVE and campaign.evidence_bits >= STRONG_BITS:
        return Judgement(
            "true_positive", "an intruder's work", 0.95, "The alerts show work that intruders do.", ("V1",)
        )
    if patterns and campaign.evidence_bits >= CERTAIN_BITS:
        return Judgement(
            "true_positive", "strong form of attack", 0.85,
            "The alerts show a known form of attack with strong evidence.", ("V1",),
        )  # fmt: skip
    if record.decision.raised:
        return Judgement(
            "suspicious",
            "raised",
            0.5,
            "The campaign is strong enough to be raised to a person.",
            ("V1", "B1"),
        )
    if patterns:
        return Judgement(
            "suspicious", "weak form of attack", 0.35,
            "The alerts show a known form of attack with weak evidence.", ("V1",),
        )  # fmt: skip
    return Judgement(
        "benign", "weak evidence", 0.6, "The evidence is weak and of no known form of attack.", ("V1",)
    )
