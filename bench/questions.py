"""The lists that `bench.serving` asks for: the views of the page, filters that people use, and the hardest ones."""

from __future__ import annotations

from typing import NamedTuple

from bench.many_incidents import DAY_MS, DAYS
from streamguard.alerts.incident import rfc3339
from streamguard.simulate.simulation import START_MS

_OPEN = "status=new&status=acknowledged&muted=false"


def _since(days: float) -> str:
    return f"since={rfc3339(START_MS + int((DAYS - days) * DAY_MS))}"


class Question(NamedTuple):
    """A list.

    Attributes
    ----------
    name
        What it is called in the table.
    query
        Parameters of the request.
    kind
        To which figure it counts: the views, filtered lists, or lists by frequent names.
    """

    name: str
    query: str
    kind: str

    def group(self, asked: str) -> str:
        """The figure of this question when a list, the next page or facets are asked for."""
        if self.kind == "frequent":
            return f"{'facets' if asked == 'facets' else 'list'} of a frequent word or a busy user"
        return "list with filters" if asked == "list" and self.kind == "filters" else asked


LISTS = (
    Question("raised, open, grouped", f"{_OPEN}&raised=true&grouped=true", "views"),
    Question("open", _OPEN, "views"),
    Question("all", "", "views"),
)
"""The views of the page."""
NARROWED = tuple(
    Question(name, query, "filters")
    for name, query in (
        ("severity low", "severity=low"),
        ("critical and open", f"severity=critical&{_OPEN}"),
        ("closed", "status=closed"),
        ("closed as false positive", "classification=false_positive"),
        ("not raised", "raised=false"),
        ("frequent pattern", "pattern=impossible_travel"),
        ("rare pattern", "pattern=ransomware"),
        ("technique", "technique=T1110.003"),
        ("assignee", f"assignee=analyst-3&{_OPEN}"),
        ("crowds", "kind=crowd"),
        ("last day", _since(1)),
        ("last week", _since(7)),
        ("last 30 days", _since(30)),
        ("last 75 days", _since(75)),
        ("an hour long ago", f"{_since(50)}&until={rfc3339(START_MS + (DAYS - 50) * DAY_MS + 3_600_000)}"),
        ("week, critical, open", f"{_since(7)}&severity=critical&{_OPEN}"),
        ("user", "entity=user-000400"),
        ("rare word", "text=user-000400"),
    )
)
"""Filters."""
FREQUENT = tuple(
    Question(name, query, "frequent")
    for name, query in (
        ("busiest user", "entity=user-000000"),
        ("frequent word", "text=impossible_travel"),
        ("beginning of most names", "text=user-0"),
    )
)
"""Lists by a name that a large part of all incidents has."""
