"""What an incident states, as numbered facts by which every sentence of an analysis can be checked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from streamguard.alerts.explain import Reason
from streamguard.alerts.incident import Incident
from streamguard.alerts.usual import span
from streamguard.analyst.analysis import MAX_TEXT, Fact
from streamguard.analyst.case import Case
from streamguard.analyst.knowledge import technique_use
from streamguard.fold.patterns import PATTERNS
from streamguard.text import counted, printable, shortened

MAX_VALUE = 120
"""Characters of a text of the event, and of the words of a reason, that a fact shows."""

Kind = Literal[
    "user",
    "address",
    "place",
    "host",
    "agent",
    "target",
    "path",
    "command",
    "name",
    "type",
    "reason",
    "rule",
    "words",
]
"""What a text of the incident is. `words` are those of StreamGuard, all others may be an attacker's."""

_OWN_WORDS = frozenset(
    {
        "unheard_actions", "hour", "interval", "volume", "threat", "carried",
        "crowd_new_source", "crowd_failure", "crowd_new_user", "crowd_new_source_failure",
        "brute_force", "success_after_failures", "distributed_guessing", "dormant_account", "mass_download",
        "ransomware", "exfiltration", "generated_names",
    }
)  # fmt: skip
"""Components and patterns whose reasons contain no text of an event."""
_KIND_OF_REASON: dict[str, Kind] = {
    "source": "address",
    "location": "place",
    "host": "host",
    "agent": "agent",
    "resource": "target",
    "transition": "type",
    "failure": "reason",
    "outcome": "type",
    "source_spread": "address",
    "action": "type",
    "command": "command",
    "impossible_travel": "place",
    "password_spray": "address",
    "dns_tunnel": "name",
}
"""What the texts of a reason are; those of other patterns are command lines."""


class Text(NamedTuple):
    """A text of the incident within a sentence: what it is, and itself, safe to print and of bounded length."""

    kind: Kind
    text: str


class Statement(NamedTuple):
    """A fact whose texts from the incident are kept apart, so that they can be replaced by placeholders.

    Attributes
    ----------
    id
        Id of the fact.
    template
        Sentence of StreamGuard in the form of `str.format`.
    texts
        What the template contains.
    """

    id: str
    template: str
    texts: tuple[Text, ...] = ()

    def fact(self) -> Fact:
        """The fact with its texts."""
        return Fact(self.id, shortened(self.template.format(*(text for _, text in self.texts)), MAX_TEXT))


def facts_of(incident: Incident, updates: Sequence[Incident] = ()) -> tuple[Fact, ...]:
    """The facts of an incident, in the order of their ids' first letters: who, when, how often, why, how, where.

    Parameters
    ----------
    incident
        As last published.
    updates
        Its earlier updates, as far as they are known.

    Notes
    -----
    `E1` is the entity, `T1` and `T2` are the first and the last alert, `C1` is their number, `V1` the risk, `N1` who
    was tried and entered, `P1` ... are patterns, `R1` ... reasons, `H1` ... those of earlier alerts, `S1` ... what the
    event states, `O1` is its outcome, `Q1` are the peers, `M1` is the forest, `D1` is what was repaired.
    """
    return tuple(statement.fact() for statement in statements(Case.of(incident, updates)))


def statements(case: Case) -> Iterator[Statement]:
    """The facts of a case, with the texts of the incident kept apart."""
    incident = case.incident
    yield _entity(incident)
    yield Statement("T1", f"The first alert is of {moment(incident.first_seen)}.")
    lasts = span(case.seconds)
    yield Statement("T2", f"The last alert is of {moment(incident.last_seen)}, {lasts} after the first one.")
    yield Statement("C1", f"The incident has {counted(incident.count, 'alert')}.")
    yield Statement(
        "V1",
        f"The risk is {incident.risk:.1f} of 100 ({incident.severity}), from {incident.evidence_bits:.1f} bits of "
        "evidence.",
    )
    yield _participants(case)
    for k, pattern in enumerate(case.patterns, 1):
        use = technique_use(pattern.technique)
        description = _PATTERN_WORDS.get(pattern.name)
        words = description or "{}"
        shown = () if description else (Text("rule", clean(pattern.description or pattern.name)),)
        technique = (Text("words", clean(use.name)), Text("words", clean(use.id, 20)))
        yield Statement(f"P{k}", f"Pattern: {words} ({{}}, {{}}).", (*shown, *technique))
    for k, reason in enumerate(case.reasons, 1):
        yield _reason(f"R{k}", reason)
    for k, reason in enumerate(case.earlier_reasons, 1):
        yield _reason(f"H{k}", reason, "In an earlier alert, ")
    yield from _of_the_event(case)
    if incident.peers is not None:
        peers = incident.peers
        yield Statement(
            "Q1",
            f"What is new for the user is usual among {counted(peers.users, 'peer')} of group {peers.group}, which "
            f"lowers the evidence by {peers.bits:.1f} bits.",
        )
    if incident.model.forest_bits is not None:
        yield Statement("M1", f"The forest adds {incident.model.forest_bits:.1f} bits of evidence.")
    if incident.repaired:
        fields = clean(", ".join(incident.repaired[:8]))
        yield Statement("D1", "The event was repaired before it was scored: {}.", (Text("words", fields),))


def clean(text: str, limit: int = MAX_VALUE) -> str:
    r"""A text of the incident as it may be shown: without control characters, on one line, of bounded length.

    Examples
    --------
    >>> clean("a\nb\x1b[31m"), clean("x" * 9, 5)
    ('a�b�[31m', 'xxxx…')
    """
    return shortened(printable(shortened(text, 4 * limit)).strip(), limit)


def moment(time: str) -> str:
    """A published time to the second.

    Examples
    --------
    >>> moment("2023-11-14T22:13:20.123Z")
    '2023-11-14 22:13:20 UTC'
    """
    day, _, rest = time.partition("T")
    return f"{clean(day, 10)} {clean(rest.partition('.')[0].removesuffix('Z'), 12)} UTC"


def feature_words(feature: str) -> str:
    """What a reason is about, in words.

    Examples
    --------
    >>> feature_words("source"), feature_words("brute_force"), feature_words("of a later version")
    ('source address', 'many failed logins in a row within minutes', 'further evidence')
    """
    return _PATTERN_WORDS.get(feature) or _COMPONENT_WORDS.get(feature) or "further evidence"


def reason_texts(reason: Reason) -> tuple[Text, Text]:
    """What a reason shows, and what is usual instead."""
    kind: Kind = "words" if reason.feature in _OWN_WORDS else _KIND_OF_REASON.get(reason.feature, "command")
    own = reason.feature in _OWN_WORDS or kind in ("command", "reason", "type")
    return (
        Text(kind, clean(reason.actual) or "not stated"),
        Text("words" if own else kind, clean(reason.typical) or "not stated"),
    )


def _entity(incident: Incident) -> Statement:
    kind, value = incident.entity.kind, clean(incident.entity.value) or "without a name"
    if kind == "user":
        return Statement("E1", "The incident is about the user {}.", (Text("user", value),))
    if kind == "source":
        return Statement("E1", "The incident is about the source address {}.", (Text("address", value),))
    return Statement("E1", "The incident is about all users of {} together.", (Text("words", value),))


def _participants(case: Case) -> Statement:
    users = counted(case.involved.users.count, "user")
    entered = case.involved.entered
    if not entered.count:
        return Statement(
            "N1",
            f"The alerts that are known name {users}; none of them shows a stranger's login that succeeded.",
        )
    names = tuple(Text("user", clean(name, 60)) for name in entered.names[:3])
    places = ", ".join("{}" for _ in names)
    more = " and others" if entered.count > len(names) else ""
    return Statement(
        "N1",
        f"The alerts that are known name {users}; a stranger's login succeeded for "
        f"{counted(entered.count, 'account')}: {places}{more}.",
        names,
    )


def _reason(id: str, reason: Reason, before: str = "") -> Statement:
    words = before + feature_words(reason.feature)
    sentence = f"{words[:1].upper()}{words[1:]}: {{}}; usual: {{}} ({reason.bits:.1f} bits)."
    return Statement(id, sentence, reason_texts(reason))


def _of_the_event(case: Case) -> Iterator[Statement]:
    for k, (words, text) in enumerate(stated(case), 1):
        yield Statement(f"S{k}", f"The latest published event states the {words} {{}}.", (text,))
    event = case.event
    if event is not None:
        what = "a login" if case.sighting.is_login else "an event"
        end = "succeeded" if case.sighting.succeeded else "did not succeed"
        yield Statement("O1", f"The latest published event is {what} that {end}.")


def stated(case: Case) -> Iterator[tuple[str, Text]]:
    """What the latest published event states, each with its name in words; nothing if the event was too large."""
    event = case.event
    if event is None:
        return
    metadata, file, process = case.sighting.metadata, event.file_details, event.process_details
    network, dns, auth = event.network_details, event.dns_details, event.auth_details
    texts: tuple[tuple[str, Kind, object], ...] = (
        ("type", "type", event.event_type),
        ("status", "type", event.status),
        ("user", "user", event.user),
        ("source address", "address", event.source_ip),
        ("place", "place", metadata.geo_location),
        ("host", "host", metadata.hostname),
        ("agent", "agent", metadata.user_agent),
        ("destination address", "address", event.destination_ip),
        ("destination host", "host", network.destination_hostname if network else None),
        ("file", "path", file.file_path if file else None),
        ("program", "command", process.process_name if process else None),
        ("command line", "command", process.command_line if process else None),
        ("DNS name", "name", dns.query_name if dns else None),
        ("reason of failure", "reason", event.failure_reason or (auth.failure_reason if auth else None)),
        ("rule of the source", "rule", event.rule_name),
    )
    for words, kind, value in texts:
        if isinstance(value, str) and (shown := clean(value)):
            yield words, Text(kind, shown)


_COMPONENT_WORDS = {
    "source": "source address",
    "location": "place",
    "host": "host",
    "agent": "agent",
    "resource": "target",
    "transition": "order of events",
    "failure": "failure",
    "outcome": "outcome",
    "hour": "hour of the week",
    "interval": "time since the event before",
    "volume": "amount of data",
    "threat": "threat score of the source",
    "crowd_new_source": "addresses new to their users",
    "crowd_failure": "failures of all users",
    "crowd_new_user": "new users",
    "crowd_new_source_failure": "failures from new addresses",
    "source_spread": "failures of one source",
    "carried": "suspicion of the same source",
    "action": "action",
    "command": "command",
    "unheard_actions": "actions new to all users",
}
"""Component -> what it is about; a test compares the keys with the declared components."""
_PATTERN_WORDS = {pattern.name: pattern.description for pattern in PATTERNS}
