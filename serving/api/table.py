"""A list of incidents as CSV, of which no cell is a formula."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from urllib.parse import urlencode

from streamguard.serving.query.answers import IncidentRow
from streamguard.text import printable, shortened

COLUMNS = (
    "id", "entity_kind", "entity", "severity", "evidence_bits", "risk", "alerts", "first_seen", "last_seen", "kind",
    "technique", "patterns", "reason", "seen", "usual", "status", "assignee", "classification", "raised", "muted",
    "campaign", "campaign_incidents", "entered",
)  # fmt: skip
MAX_CELL = 1000
"""Characters of a cell; names and values of incidents are shorter."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""Beginnings of a cell that a spreadsheet may compute, as OWASP lists them, with their full-width forms."""


def cell(text: str) -> str:
    """A text as a cell: bounded, with control characters made visible, and never a formula.

    A spreadsheet computes a cell that begins with `=` and some other characters, and texts of incidents are written by
    attackers. An apostrophe before it makes it a text. Spaces before it do not hide it.

    Examples
    --------
    >>> cell('=HYPERLINK("http://evil.example")'), cell("ann"), cell(" @SUM(1)")
    ('\\'=HYPERLINK("http://evil.example")', 'ann', "' @SUM(1)")
    """
    guarded = text.lstrip(" \u00a0").startswith(_FORMULA)
    shown = shortened(printable(text), MAX_CELL)
    return f"'{shown}" if guarded else shown


def table(rows: Iterable[IncidentRow]) -> bytes:
    """Incidents as CSV (RFC 4180) in UTF-8: a line of names, then one line for each; every cell is quoted."""
    file = io.StringIO(newline="")
    writer = csv.writer(file, quoting=csv.QUOTE_ALL)
    writer.writerow(COLUMNS)
    for row in rows:
        reason = row.reasons[0] if row.reasons else None
        values = (
            row.id, row.entity.kind, row.entity.value, row.severity, row.evidence_bits, row.risk, row.alerts,
            row.first_seen, row.last_seen, row.kind, row.technique or "", " ".join(row.patterns),
            reason.feature if reason else "", reason.actual if reason else "", reason.typical if reason else "",
            row.status, row.assignee, row.classification, str(row.raised).lower(), str(row.muted).lower(),
            row.campaign or "", row.campaign_incidents, row.entered,
        )  # fmt: skip
        writer.writerow([cell(one) if isinstance(one, str) else one for one in values])
    return file.getvalue().encode("utf-8", "replace")


def next_link(path: str, query: Iterable[tuple[str, str]], cursor: str) -> str:
    """The header `Link` (RFC 8288) to the rest of a table."""
    pairs = [(name, value) for name, value in query if name != "cursor"]
    return f'<{path}?{urlencode([*pairs, ("cursor", cursor)])}>; rel="next"'
