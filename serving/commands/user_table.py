"""Users by risk, and the timeline of one, as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from streamguard.alerts.usual import span
from streamguard.serving.commands.incident_table import coloured
from streamguard.serving.commands.terminal import columns, fitted, moment, plain
from streamguard.serving.log.freshness import AsOf
from streamguard.serving.query.answers import RankedUsers
from streamguard.serving.query.filters import EntityKind
from streamguard.serving.query.users import TimelineEntry
from streamguard.text import counted

MIN_NAME = 16
"""Columns that a name needs; with fewer, columns that matter less are left out."""
MAX_ID = 40
"""Columns of an id; those of StreamGuard are shorter."""
MIN_TEXT = 40
"""Columns that a text needs beside its time; with fewer it stands on a line of its own."""
MAX_SOURCE = 24
"""Columns of the name of a file in the last line."""
_GAP = "  "
_HEADS = (("SCORE", ">7"), ("SEVERITY", "<8"), ("LAST SEEN", "<16"), ("INCIDENTS", ">9"), ("OPEN", ">5"))


def ranking(found: RankedUsers, width: int, name: str, kind: EntityKind = "user") -> list[str]:
    """Users in one line each: score, severity, latest alert, numbers of incidents, and name.

    Parameters
    ----------
    width
        Columns of the terminal; no line needs more.
    name
        Where the answer comes from, for one that does not say how old it is.
    kind
        What is ranked.
    """
    heads = list(_HEADS)
    while len(heads) > 2 and width - _columns(heads) < MIN_NAME:
        heads.pop()
    lines = [fitted(_GAP.join([*(f"{head:{form}}" for head, form in heads), kind.upper()]), width)]
    for one in found.users:
        values = (
            f"{one.score:.1f}",
            one.severity,
            moment(one.last_seen),
            f"{one.incidents:,}",
            f"{one.open:,}",
        )
        cells = [f"{value:{form}}" for value, (_, form) in zip(values, heads, strict=False)]
        lines.append(coloured(fitted(_GAP.join([*cells, one.entity.value]), width), one.severity))
    shown = f"{len(found.users):,} of {counted(found.total, kind)}"
    below = f"{shown}, the riskiest first; {age(found.as_of, name)}"
    return [*(lines if found.users else []), fitted(below, width)]


def timeline(
    entries: Sequence[TimelineEntry], limit: int | None, as_of: Sequence[AsOf], width: int, name: str
) -> list[str]:
    """What happened, the latest first, in one line each, or in two if the text needs the room.

    Parameters
    ----------
    limit
        Entries to print; None: all.
    width, name
        See `ranking`.
    """
    lines = []
    for one in entries[:limit]:
        bits = f"{one.evidence_bits:6.1f}" if one.evidence_bits else " " * 6
        severity = one.severity if one.evidence_bits else ""
        head = f"{moment(one.at)}{_GAP}{fitted(plain(one.kind), 11):11}{_GAP}{severity:8}{_GAP}{bits}{_GAP}"
        head += fitted(one.incident, MAX_ID)
        beside = width - columns(head) - len(_GAP) >= MIN_TEXT
        lines.append(coloured(fitted(f"{head}{_GAP}{one.text}" if beside else head, width), severity))
        if one.text and not beside:
            lines.append(fitted(f"{' ' * 18}{one.text}", width))
    shown = len(entries) if limit is None else min(limit, len(entries))
    below = f"{shown:,} of {len(entries):,} {'entry' if len(entries) == 1 else 'entries'}; {age(as_of, name)}"
    return [*(line.rstrip() for line in lines), fitted(below, width)]


def age(as_of: Sequence[AsOf], name: str) -> str:
    """How old an answer is, or where it comes from.

    Examples
    --------
    >>> age((), "incidents.jsonl"), age((AsOf("security-alerts", (), 420),), "Kafka")
    ('from incidents.jsonl', '0.4 s old')
    """
    if not as_of:
        return f"from {fitted(name, MAX_SOURCE)}"
    return f"{span(max(one.staleness_ms for one in as_of) / 1000)} old"


def _columns(heads: Sequence[tuple[str, str]]) -> int:
    return sum(int(form[1:]) + len(_GAP) for _, form in heads)
