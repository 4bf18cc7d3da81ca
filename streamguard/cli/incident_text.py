"""Incidents as text for a terminal: a table, or one incident in a few lines. Control characters are replaced."""

from __future__ import annotations

from collections.abc import Sequence

import click

from streamguard.alerts.explain import Reason
from streamguard.alerts.incident import Incident, PatternMatch
from streamguard.text import printable, shortened

MAX_CHARACTERS = 100
"""Maximum length of a value in the text; JSON output has the whole value."""
MAX_NAME_WIDTH = 40
_USUAL = "; usual: "
COLOURS = {"low": "white", "medium": "yellow", "high": "magenta", "critical": "red"}
"""Colours of the severities, for `click.style`."""


def table(incidents: Sequence[Incident], total: int) -> str:
    """Incidents as a table: one row for each, with its patterns and reasons below.

    Parameters
    ----------
    incidents
        Incidents to print.
    total
        Number of all incidents, printed or not.
    """
    if not total:
        return "no incidents\n"
    names = [printable(f"{one.entity.kind} {one.entity.value}") for one in incidents]
    width = max(len("WHO"), *(min(len(name), MAX_NAME_WIDTH) for name in names))
    lines = [
        f"{'BITS':>6}  {'RISK':>5}  {'SEVERITY':8}  {'EVENTS':>6}  {'FIRST SEEN':19}  {'LAST SEEN':19}  "
        f"{'WHO':{width}}  TECHNIQUE"
    ]
    for one, name in zip(incidents, names, strict=True):
        first, last = (time[:19].replace("T", " ") for time in (one.first_seen, one.last_seen))
        lines.append(
            f"{one.evidence_bits:6.1f}  {one.risk:5.1f}  {one.severity:8}  {one.count:6,}  {first}  {last}  "
            f"{name:{width}}  {one.technique or '-'}"
        )
        lines += [f"{'':9}{_pattern(pattern)}" for pattern in one.patterns]
        lines += [f"{'':9}{reason_line(reason)}" for reason in one.reasons]
    if total > len(incidents):
        lines.append(f"... and {total - len(incidents):,} more: --top 0 and --json show all")
    return "".join(line + "\n" for line in lines)


def paragraph(incident: Incident) -> str:
    """One incident in a few lines: entity, severity, risk, patterns, and the three strongest reasons."""
    head = click.style(f"{incident.severity.upper():8}", fg=COLOURS[incident.severity], bold=True)
    what = "; ".join(f"{p.description} ({p.technique})" for p in incident.patterns) or "unlike this user"
    name = printable(f"{incident.entity.kind} {incident.entity.value}")
    lines = [f"  {head} risk {incident.risk}  {name}: {what}"]
    lines += [f"{'':11}{reason_line(reason)}" for reason in incident.reasons[:3]]
    return "\n".join(lines)


def _pattern(pattern: PatternMatch) -> str:
    return f"{pattern.name.replace('_', ' ')}: {pattern.description}"


def reason_line(reason: Reason, width: int | None = None) -> str:
    """A reason in one line: what was seen, what is usual, and its weight.

    Parameters
    ----------
    width
        Maximum length of the line; longer texts in it are cut, the longest first. None: `MAX_CHARACTERS` of each text.
    """
    name, weight = f"{reason.feature.replace('_', ' ')}: ", f" ({reason.bits:.1f} bits)"
    limits = [MAX_CHARACTERS, MAX_CHARACTERS]
    if width is not None:
        space = max(width - len(name) - len(weight) - len(_USUAL), 2)
        lengths = [min(len(reason.actual), space), min(len(reason.typical), space)]
        limits = [max(space - lengths[1], space // 2), max(space - lengths[0], space - space // 2)]
    actual, typical = (
        printable(shortened(text, limit))
        for text, limit in zip((reason.actual, reason.typical), limits, strict=True)
    )
    return f"{name}{actual}{_USUAL}{typical}{weight}"
