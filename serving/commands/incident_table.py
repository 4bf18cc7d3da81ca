"""A list of incidents as text for a terminal, no wider than the terminal."""

from __future__ import annotations

from collections.abc import Sequence

import click

from streamguard.alerts.explain import Reason
from streamguard.alerts.usual import span
from streamguard.cli.incident_text import COLOURS, reason_line
from streamguard.serving.commands.terminal import columns, fitted, moment, named, padded, plain
from streamguard.serving.log.freshness import AsOf
from streamguard.serving.query.answers import IncidentRow
from streamguard.text import counted

MIN_NAME = 12
"""Columns that a name needs; with fewer it stands on the next line, with the time."""
MAX_ID = 40
"""Columns of an id; those of StreamGuard are shorter."""
MAX_SOURCE = 24
"""Columns of the name of a file in the last line."""
MIN_REASON = 44
"""Columns that a reason needs beside what it is a reason of; with fewer it stands on a line of its own."""
MAX_PATTERNS = 3
"""Patterns of an incident that are named; the others are counted."""
_INDENT = " " * 10
_SEVERITY, _BITS, _TIME, _GAP = 8, 6, 16, "  "


def table(rows: Sequence[IncidentRow], width: int) -> list[str]:
    """Incidents, one after the other: severity, bits, time, id and name, and below them what they are and why.

    Parameters
    ----------
    rows
        Incidents to print.
    width
        Columns of the terminal; no line needs more.
    """
    ids = [fitted(row.id, MAX_ID) for row in rows]
    longest = max([len("ID"), *map(columns, ids)])
    beside = width - (_SEVERITY + _BITS + _TIME + longest + 4 * len(_GAP)) >= MIN_NAME
    more = (f"{'LAST SEEN':{_TIME}}", padded("ID", longest), "WHO") if beside else ("ID",)
    lines = [fitted(_GAP.join((f"{'SEVERITY':{_SEVERITY}}", f"{'BITS':>{_BITS}}", *more)), width)]
    for row, id in zip(rows, ids, strict=True):
        name = named(row.entity)
        seen = moment(row.last_seen)
        cells = [f"{row.severity:{_SEVERITY}}", f"{row.evidence_bits:{_BITS}.1f}"]
        cells += [seen, padded(id, longest), name] if beside else [id]
        lines.append(coloured(fitted(_GAP.join(cells), width), row.severity))
        if not beside:
            lines.append(_INDENT + fitted(f"{seen}{_GAP}{name}", width - len(_INDENT)))
        lines += what(row, width)
    return [line.rstrip() for line in lines]


def what(row: IncidentRow, width: int) -> list[str]:
    """What an incident is and its strongest reason, in one or two indented lines."""
    width -= len(_INDENT)
    about = described(row)
    reason = strongest(row)
    if reason is None:
        return [_INDENT + fitted(about or "no reason", width)]
    space = width - columns(about) - 2
    if about and space < MIN_REASON:
        found = [about, reason_line(reason, width)]
    elif about:
        found = [f"{about}: {reason_line(reason, space)}"]
    else:
        found = [reason_line(reason, width)]
    return [_INDENT + fitted(line, width) for line in found]


def described(row: IncidentRow) -> str:
    """Patterns of an incident, and what its campaign has reached.

    A pattern that is also the strongest reason is left to that reason.

    Examples
    --------
    >>> from streamguard.alerts.incident import Entity
    >>> row = IncidentRow("3-7-1", Entity("user", "ann"), "high", 80.8, 14.0, "", "", 1, None, "brute_force",
    ...                   ("brute_force",), (), "new", "", "", None, False, True, "3-7-1", 5, 1)
    >>> described(row)
    'brute force, 5 incidents, 1 account entered'
    """
    reason = strongest(row)
    named = [plain(name) for name in row.patterns if reason is None or name != reason.feature]
    parts = named[:MAX_PATTERNS]
    if len(named) > MAX_PATTERNS:
        parts.append(f"{len(named) - MAX_PATTERNS} more")
    if row.campaign_incidents > 1:
        parts.append(counted(row.campaign_incidents, "incident"))
    if row.entered:
        parts.append(f"{counted(row.entered, 'account')} entered")
    parts += [row.status] if row.status != "new" else []
    parts += [row.classification.replace("_", " ")] if row.classification else []
    parts += [f"assigned to {row.assignee}"] if row.assignee else []
    parts += ["muted"] if row.muted else []
    return ", ".join(parts)


def strongest(row: IncidentRow) -> Reason | None:
    """The reason with most bits, of those that a list has; None without one."""
    return max(row.reasons, key=lambda reason: reason.bits, default=None)


def summary(shown: int, total: int, view: str, as_of: Sequence[AsOf], name: str) -> str:
    """How many rows match, how old the answer is, and what the list leaves out, in one line.

    Examples
    --------
    >>> summary(20, 1340, "all", (), "incidents.jsonl")
    '20 of 1,340 incidents; from incidents.jsonl'
    >>> summary(2, 2, "raised", (AsOf("security-alerts", (), 420),), "Kafka")
    '2 of 2 rows; 0.4 s old; raised and open, --all for every incident'
    """
    age = (
        f"{span(max(one.staleness_ms for one in as_of) / 1000)} old"
        if as_of
        else f"from {fitted(name, MAX_SOURCE)}"
    )
    if view == "all":
        return f"{shown:,} of {counted(total, 'incident')}; {age}"
    return f"{shown:,} of {counted(total, 'row')}; {age}; raised and open, --all for every incident"


def change_line(row: IncidentRow, sign: str, width: int) -> str:
    """An incident that is new or has risen, in one line."""
    about = described(row)
    head = f"{moment(row.last_seen)}  {sign:5}  {row.severity:{_SEVERITY}}  {row.evidence_bits:{_BITS}.1f}  "
    text = f"{head}{fitted(row.id, MAX_ID)}  {named(row.entity)}"
    rest = [about] if about else []
    if (reason := strongest(row)) is not None:
        rest.append(reason_line(reason))
    return coloured(fitted(": ".join([text, *rest]), width), row.severity)


def coloured(line: str, severity: str) -> str:
    """The line with its severity in colour; a terminal without colours shows it as it is."""
    return line.replace(severity, click.style(severity, fg=COLOURS.get(severity), bold=True), 1)
