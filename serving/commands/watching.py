"""Which rows of a list are new or have risen since they were last looked at."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from streamguard.serving.query.answers import IncidentRow

WATCHED_ROWS = 1000
"""Latest rows of the list that are compared after each change: five pages of a server."""
MAX_KNOWN = 20_000
"""Rows that are remembered; the one that was not seen for the longest time is forgotten first."""

Change = Literal["new", "risen"]


class _State(NamedTuple):
    bits: float
    entered: int


class Watch:
    """Remembers rows, and names those that differ.

    A row is risen if its evidence, as lists show it, is larger than ever before, or if strangers have entered more
    accounts. A campaign keeps its identity when another incident becomes its strongest one.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[str, _State] = OrderedDict()

    def compare(self, rows: Iterable[IncidentRow], grouped: bool) -> Iterator[tuple[Change, IncidentRow]]:
        """The rows that are new or have risen, and remember all of them.

        Parameters
        ----------
        grouped
            Whether a row stands for a whole campaign.
        """
        for row in rows:
            id = (row.campaign or row.id) if grouped else row.id
            now = _State(round(row.evidence_bits, 1), row.entered)
            before = self._known.pop(id, None)
            if before is None:
                self._known[id] = now
                yield "new", row
            else:
                self._known[id] = _State(max(before.bits, now.bits), max(before.entered, now.entered))
                if now.bits > before.bits or now.entered > before.entered:
                    yield "risen", row
            if len(self._known) > MAX_KNOWN:
                self._known.popitem(last=False)
