"""One incident in words for a terminal: why, its campaign, its course, and its event."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click
import msgspec

from streamguard.alerts.explain import Reason
from streamguard.alerts.usual import span
from streamguard.campaigns.campaign import Campaign
from streamguard.cli.incident_text import COLOURS
from streamguard.serving.commands.terminal import INDENT, columns, fitted, moment, named, plain, wrapped
from streamguard.serving.decisions.case import Case
from streamguard.serving.decisions.wording import deeds, effect
from streamguard.serving.query.answers import IncidentAnswer, PublishedUpdate
from streamguard.text import counted, printable, shortened

MAX_TEXT = 400
"""Characters of a text of an event in a reason; JSON has the whole text."""
MAX_NAMES = 20
"""Names of a campaign that are printed; the numbers beside them count all."""
MAX_UPDATES = 30
"""Publications that are printed, the latest; JSON has all."""


def words(found: IncidentAnswer, width: int) -> str:
    """An incident in words.

    Parameters
    ----------
    width
        Columns of the terminal. Only lines of the event, which somebody may want to copy, are longer.
    """
    one = found.incident
    head = click.style(one.severity.upper(), fg=COLOURS.get(one.severity), bold=True)
    name = fitted(named(one.entity), width - columns(one.severity) - 2)
    lines = [f"{head}  {name}", *wrapped(_summary(found), width, "")]
    if one.patterns:
        lines += ["", "Patterns"]
        for pattern in one.patterns:
            lines += wrapped(f"{plain(pattern.name)} ({pattern.technique}): {pattern.description}", width)
    lines += ["", "Why: seen | usual"]
    lines += [line for reason in one.reasons for line in _reason(reason, width)] or [INDENT + "no reason"]
    if one.model.version:
        lines += wrapped(f"model {one.model.version}: {one.model.forest_bits or 0:.1f} bits", width)
    if one.peers is not None:
        lines += wrapped(
            f"usual for peers: {counted(one.peers.users, 'user')} of group {one.peers.group} lower it by "
            f"{one.peers.bits:.1f} bits",
            width,
        )
    if found.campaign is not None:
        lines += ["", "Campaign", *_campaign(found.campaign, width)]
    lines += ["", "Course", *_course(found.updates, width)]
    if found.case.history:
        lines += ["", "What people did", *_history(found.case, width)]
    origin = one.origin
    place = f" ({origin.topic} {origin.partition}:{origin.offset})" if origin.topic else ""
    lines += ["", fitted(f"Event{place}", width)]
    event = msgspec.json.format(msgspec.json.encode(one.event), indent=2).decode()
    lines += [printable(line) for line in event.split("\n")]
    if one.repaired:
        lines += wrapped(f"repaired: {', '.join(one.repaired)}", width, "")
    if found.as_of:
        age = span(max(one.staleness_ms for one in found.as_of) / 1000)
        lines += ["", f"{age} old"]
    return "\n".join(line.rstrip() for line in lines)


def _summary(found: IncidentAnswer) -> str:
    one, row = found.incident, found.row
    decision = ""
    if found.decision is not None:
        raised = "raised" if found.decision.raised else "recorded only"
        decision = f"; {raised}: {found.decision.why}"
    closed = f" as {row.classification.replace('_', ' ')}" if row.classification else ""
    muted = ", muted" if row.muted else ""
    technique = f"; technique {one.technique}" if one.technique else ""
    assigned = f", assigned to {row.assignee}" if row.assignee else ""
    return (
        f"{one.evidence_bits:.1f} bits, risk {one.risk}; {counted(one.count, 'alert')} from {moment(row.first_seen)} "
        f"to {moment(row.last_seen)} UTC{technique}; {row.status}{closed}{assigned}{muted}{decision}"
    )


def _reason(reason: Reason, width: int) -> Iterator[str]:
    yield from wrapped(
        f"{reason.bits:5.1f} bits  {plain(reason.feature)}: {shortened(reason.actual, MAX_TEXT)} | "
        f"{shortened(reason.typical, MAX_TEXT)}",
        width,
        INDENT,
        INDENT + " " * 12,
    )


def _campaign(campaign: Campaign, width: int) -> Iterator[str]:
    yield from wrapped(
        f"{counted(campaign.size, 'incident')} of one attack, id {campaign.id}: {plain(campaign.kind)}", width
    )
    for what, names, number in (
        ("tried", campaign.tried, campaign.users),
        ("entered", campaign.entered, campaign.accounts),
        ("from", campaign.sources, campaign.addresses),
    ):
        yield from wrapped(f"{what}: {_names(names, number)}", width, INDENT, INDENT * 2)


def _names(names: Sequence[str], number: int) -> str:
    """The first names, and how many others there are.

    Examples
    --------
    >>> _names((), 0), _names(("ann", "bob"), 2), _names(("ann",), 40)
    ('nobody', 'ann, bob', 'ann and 39 more')
    """
    shown = [shortened(name, MAX_TEXT) for name in names[:MAX_NAMES]]
    if not number:
        return "nobody"
    more = f" and {number - len(shown):,} more" if number > len(shown) else ""
    return ", ".join(shown) + more


def _course(updates: Sequence[PublishedUpdate], width: int) -> Iterator[str]:
    """A line for each publication, the oldest first."""
    if len(updates) > MAX_UPDATES:
        yield f"{INDENT}... {len(updates) - MAX_UPDATES:,} earlier publications: --json shows all"
    for update in updates[-MAX_UPDATES:]:
        one = update.incident
        patterns = f"  {', '.join(plain(pattern.name) for pattern in one.patterns)}" if one.patterns else ""
        line = (
            f"{INDENT}{moment(one.last_seen)}  {counted(one.count, 'alert'):>10}  {one.evidence_bits:6.1f} bits  "
            f"{one.severity:8}{patterns}"
        )
        yield fitted(line, width)


def _history(case: Case, width: int) -> Iterator[str]:
    """A line for each action, the oldest first."""
    if len(case.history) > MAX_UPDATES:
        yield f"{INDENT}... {len(case.history) - MAX_UPDATES:,} earlier actions: --json shows all"
    done = deeds(case)
    for one in case.history[-MAX_UPDATES:]:
        came = effect(one, case.history)
        note = f" ({came})" if came else ""
        why = f": {shortened(one.text, MAX_TEXT)}" if one.text else ""
        yield from wrapped(f"{moment(one.at)}  {one.by} {done[one.id]}{note}{why}", width, INDENT, INDENT * 2)
