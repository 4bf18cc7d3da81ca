"""The table of rules: each line is reached, the strongest sign decides, and habits, peers and duration count."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from streamguard.alerts.incident import Incident, Peers
from streamguard.analyst.analysis import Verdict
from streamguard.analyst.case import Case
from streamguard.analyst.facts import facts_of
from streamguard.analyst.verdict import RULES, judge, judge_campaign, score
from streamguard.campaigns.budget import Decision, decide
from streamguard.campaigns.campaign import campaigns
from streamguard.campaigns.record import CampaignRecord
from tests.schema_page import ROOT
from tests.unit.test_campaigns import NOON, incident, spray, users_of

FOREIGN = {"source": 18.0, "location": 12.0, "host": 12.0, "agent": 9.0}
LOGIN = {"type": "login", "status": "failed"}
WORK = {"type": "file_access", "status": "success"}


def made(bits: dict[str, float], *patterns: str, evidence: float = 10.0, **fields: Any) -> Incident:
    """An incident with this evidence, by default of weak evidence and of work from usual equipment."""
    one = incident("ann", NOON, bits, *patterns, **{**WORK, **fields})
    return msgspec.structs.replace(one, evidence_bits=evidence)


CASES: dict[str, Incident] = {
    "a stranger entered": made(FOREIGN, type="login", status="success"),
    "confirmed before": made({"source": 3.0}, "confirmed_before"),
    "an intruder's work": made({"resource": 3.0}, "ransomware", evidence=15.0),
    "many users tried": made({"source": 6.0}, "distributed_guessing", **LOGIN),
    "administration tool": made({"command": 6.0}, "encoded_command", evidence=15.0),
    "account guessed": made({"failure": 6.0}, "brute_force", evidence=25.0, **LOGIN),
    "travel at a login": made({**FOREIGN, "host": 1.0}, "impossible_travel", evidence=25.0, **LOGIN),
    "transfers repeated": made({"volume": 6.0}, "exfiltration", count=5),
    "dormant account in other hands": made({**FOREIGN, "agent": 1.0}, "dormant_account"),
    "part of a wave": made(
        {**FOREIGN, "agent": 1.0, "crowd_new_source_failure": 9.0}, evidence=12.0, **LOGIN
    ),
    "everything is foreign": made(FOREIGN, **LOGIN),
    "usual for peers": msgspec.structs.replace(made({"resource": 9.0}), peers=Peers(1, 40, 6.0)),
    "travel within a session": made({"location": 12.0, "source": 12.0}, "impossible_travel", evidence=20.0),
    "dormant account": made({"source": 8.0}, "dormant_account"),
    "failures at one account": made({"failure": 6.0}, "brute_force", evidence=12.0, **LOGIN),
    "habit of the user": made({"command": 3.0}, "encoded_command", evidence=11.0),
    "own user after failures": made({"transition": 9.0}, "success_after_failures", evidence=15.0),
    "transfer to an unusual place": made({"volume": 6.0, "resource": 9.0}, "exfiltration", evidence=15.0),
    "one large transfer": made({"volume": 6.0}, "exfiltration"),
    "failures in a wave": made({"source": 8.0, "crowd_new_source_failure": 9.0}, **LOGIN),
    "foreign equipment": made({**FOREIGN, "agent": 1.0}, evidence=15.0),
    "foreign for longer": made({"source": 8.0, "host": 8.0, "resource": 9.0}, count=2),
    "unusual work at an unusual hour": made({"hour": 6.0, "resource": 6.0}, count=2),
    "strong without a form": made({"transition": 9.0}, evidence=15.0),
    "not enough stated": made({"crowd_failure": 9.0}, kind="crowd"),
    "a single weak alert": made({"source": 8.0}),
    "weak evidence": made({"resource": 9.0}, count=3),
}


def test_every_rule_has_a_case_and_names_are_unique() -> None:
    assert list(CASES) == [rule.name for rule in RULES]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_rule_decides_its_case_and_rests_on_facts(rule: Any) -> None:
    one = CASES[rule.name]
    judgement = judge(Case.of(one))
    assert judgement[:4] == (rule.verdict, rule.name, rule.confidence, rule.reason)
    ids = {fact.id for fact in facts_of(one)}
    assert judgement.refs and set(judgement.refs) <= ids
    assert not any(letter.isdigit() for letter in rule.reason)  # numbers come from facts alone


def test_page_shows_the_table_in_its_order() -> None:
    lines = (ROOT / "docs" / "analyst.md").read_text().splitlines()
    rows = [
        f"| {rule.name} | {rule.verdict.replace('_', ' ')} | {rule.confidence:.2f} | {rule.reason} |"
        for rule in RULES
    ]
    assert [line for line in lines if line in rows] == rows


def verdict(one: Incident) -> Verdict:
    return judge(Case.of(one)).verdict


def test_success_of_a_stranger_turns_failures_into_an_entry() -> None:
    failed = made({"source": 18.0, "host": 9.0}, type="login", status="failed", place="", agent="")
    entered = made({"source": 18.0, "host": 9.0}, type="login", status="success", place="", agent="")
    assert judge(Case.of(failed)).rule != "a stranger entered"
    assert judge(Case.of(entered)).rule == "a stranger entered"


def test_entry_in_an_earlier_update_counts() -> None:
    before = made(FOREIGN, type="login", status="success")
    now = msgspec.structs.replace(made({"resource": 3.0}), id=before.id, count=2)
    assert verdict(now) == "benign"
    assert judge(Case.of(now, [before])).rule == "a stranger entered"


@pytest.mark.parametrize("pattern", ["ransomware", "encoded_command"])
def test_habit_that_lowers_the_evidence_lowers_the_verdict(pattern: str) -> None:
    assert verdict(made({"command": 3.0}, pattern, evidence=20.0)) == "true_positive"
    assert verdict(made({"command": 3.0}, pattern, evidence=11.0)) == "suspicious"


def test_peers_do_not_excuse_a_pattern() -> None:
    one = made({"resource": 9.0}, "ransomware", evidence=15.0)
    excused = msgspec.structs.replace(one, peers=Peers(1, 40, 6.0))
    assert verdict(excused) == "true_positive"


def test_several_transfers_weigh_more_than_one() -> None:
    one, three, many = (made({"volume": 6.0}, "exfiltration", count=count) for count in (1, 3, 5))
    assert [verdict(one), verdict(three), verdict(many)] == ["benign", "suspicious", "true_positive"]


def test_incident_without_reasons_is_not_judged() -> None:
    assert verdict(made({})) == "insufficient_data"


def test_scores_rank_the_verdicts() -> None:
    ranked = [score("benign", 0.9), score("benign", 0.1), score("insufficient_data", 0.9)]
    ranked += [score("suspicious", 0.1), score("suspicious", 1.0), score("true_positive", 0.1)]
    assert ranked == sorted(ranked)
    assert all(-1 <= one <= 1 for one in ranked)


def test_campaign_with_an_entered_account_is_judged_by_it() -> None:
    rows = campaigns(spray(NOON, users_of(20), entered="user-007"))
    (row,) = rows
    record = CampaignRecord(1, row, decide(rows)[row.id])
    assert judge_campaign(record).rule == "a stranger entered"
    none = CampaignRecord(1, msgspec.structs.replace(row, accounts=0, entered=()), record.decision)
    assert judge_campaign(none).rule == "many users tried"


@pytest.mark.parametrize(
    ("patterns", "bits", "raised", "rule"),
    [
        (("ransomware",), 15.0, True, "an intruder's work"),
        (("impossible_travel",), 25.0, True, "strong form of attack"),
        ((), 15.0, True, "raised"),
        (("impossible_travel",), 10.0, False, "weak form of attack"),
        ((), 10.0, False, "weak evidence"),
    ],
)
def test_campaign_without_an_entry(patterns: tuple[str, ...], bits: float, raised: bool, rule: str) -> None:
    (row,) = campaigns([made({"source": 8.0})])
    row = msgspec.structs.replace(row, patterns=patterns, evidence_bits=bits)
    assert judge_campaign(CampaignRecord(1, row, Decision(raised, 12.0, "above the floor"))).rule == rule
