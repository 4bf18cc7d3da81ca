"""The facts and the story of a campaign: who was tried, who was entered, from where and since when."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from streamguard.analyst.analysis import MAX_TEXT, Claim, Fact
from streamguard.analyst.facts import Statement, Text, clean, feature_words, moment, reason_texts
from streamguard.analyst.knowledge import technique_use
from streamguard.analyst.narrative import STRONGEST, judged
from streamguard.analyst.playbook import TECHNIQUE
from streamguard.analyst.verdict import Judgement
from streamguard.campaigns.record import CampaignRecord
from streamguard.text import counted, shortened

MAX_NAMES = 8
"""Names of a list that a sentence shows."""


def campaign_facts(record: CampaignRecord) -> tuple[Fact, ...]:
    """The facts of a campaign; their ids have the meaning that they have in `streamguard.analyst.facts`."""
    return tuple(statement.fact() for statement in campaign_statements(record))


def campaign_statements(record: CampaignRecord) -> Iterator[Statement]:
    """The facts of a campaign, with the texts of its incidents kept apart.

    `E1` states its size, `U1` who was tried, `N1` who was entered, `A1` the sources, `B1` the decision.
    """
    campaign = record.campaign
    yield Statement("E1", f"The campaign joins {counted(campaign.size, 'incident')}.")
    yield Statement("T1", f"The first alert is of {moment(campaign.first_seen)}.")
    yield Statement("T2", f"The last alert is of {moment(campaign.last_seen)}.")
    yield Statement("C1", f"The campaign has {counted(campaign.alerts, 'alert')}.")
    yield Statement(
        "V1",
        f"The risk is {campaign.risk:.1f} of 100, from {campaign.evidence_bits:.1f} bits of evidence; the score is "
        f"{campaign.score:.1f} bits.",
    )
    raised = "is raised to a person" if record.decision.raised else "is not raised to a person"
    yield Statement("B1", f"The campaign {raised}: {{}}.", (Text("words", clean(record.decision.why)),))
    yield _names("U1", f"{counted(campaign.users, 'user')} tried", campaign.users, campaign.tried, "user")
    if campaign.accounts:
        words = f"A stranger's login succeeded for {counted(campaign.accounts, 'account')}"
        yield _names("N1", words, campaign.accounts, campaign.entered, "user")
    else:
        yield Statement("N1", "No alert shows a stranger's login that succeeded.")
    words = f"The alerts come from {counted(campaign.addresses, 'source address').replace('addresss', 'addresses')}"
    yield _names("A1", words, campaign.addresses, campaign.sources, "address")
    for k, name in enumerate(campaign.patterns[:24], 1):
        use = technique_use(TECHNIQUE.get(name, "unknown"))
        texts = (Text("words", clean(feature_words(name))), Text("words", use.name), Text("words", use.id))
        yield Statement(f"P{k}", "Pattern: {} ({}, {}).", texts)
    for k, reason in enumerate(campaign.reasons[:12], 1):
        words = feature_words(reason.feature)
        yield Statement(
            f"R{k}",
            f"{words[:1].upper()}{words[1:]}: {{}}; usual: {{}} ({reason.bits:.1f} bits).",
            reason_texts(reason),
        )


def campaign_story(record: CampaignRecord, judgement: Judgement) -> tuple[Claim, ...]:
    """The sentences of a campaign: size and time, who was tried, who was entered, how, and the verdict."""
    facts = {fact.id: fact.text for fact in campaign_facts(record)}
    made = [
        (f"{facts['E1']} {facts['C1']} {facts['T1']} {facts['T2']}", ("E1", "C1", "T1", "T2")),
        *((facts[id], (id,)) for id in ("U1", "N1", "A1")),
        *((facts[id], (id,)) for id in facts if id[0] == "P" and int(id[1:]) <= STRONGEST),
        *((facts[id], (id,)) for id in facts if id[0] == "R" and int(id[1:]) <= STRONGEST),
        (judged(judgement), judgement.refs),
    ]
    return tuple(Claim(shortened(text, MAX_TEXT), refs) for text, refs in made)


def _names(id: str, words: str, count: int, names: Sequence[str], kind: str) -> Statement:
    shown = tuple(Text(kind, clean(name, 60)) for name in names[:MAX_NAMES])  # type: ignore[arg-type]
    places = ", ".join("{}" for _ in shown)
    more = " and others" if count > len(shown) and shown else ""
    return Statement(id, f"{words}: {places}{more}." if shown else f"{words}.", shown)
