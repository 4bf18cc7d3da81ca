"""The one place where analyses are made: by the rules; another analyst can be plugged in here."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import msgspec

from streamguard.alerts.incident import Incident
from streamguard.analyst import rules
from streamguard.analyst.analysis import Analysis
from streamguard.analyst.similar import Similarity
from streamguard.errors import DataError
from streamguard.text import counted

MAX_INCIDENTS = 100_000
"""Incidents that are held; more of them are refused, because memory is bounded."""
MAX_UPDATES = 50
"""Earlier updates of one incident that are held, the latest ones."""


class History:
    """What was read of incidents: the latest update of each, and some earlier ones."""

    def __init__(self) -> None:
        self._updates: dict[str, deque[Incident]] = {}

    def __len__(self) -> int:
        return len(self._updates)

    def add(self, update: Incident) -> None:
        """Add an update; updates of one incident may arrive in any order.

        Raises
        ------
        DataError
            If there are more than `MAX_INCIDENTS` incidents.
        """
        known = self._updates.get(update.id)
        if known is None:
            if len(self._updates) >= MAX_INCIDENTS:
                raise DataError(f"there are more than {counted(MAX_INCIDENTS, 'incident')}: split the file")
            known = self._updates[update.id] = deque(maxlen=MAX_UPDATES + 1)
        if known and known[-1].count > update.count:
            latest = known.pop()
            known.extend((update, latest))
        else:
            known.append(update)

    def __contains__(self, id: str) -> bool:
        return id in self._updates

    def analyses(self, wanted: str | None = None) -> Iterator[Analysis]:
        """One analysis for each incident, in the order of their first alerts; similar ones are earlier ones.

        Parameters
        ----------
        wanted
            Id of the only incident to analyse; None: all.
        """
        index = Similarity(max(len(self._updates), 1))
        for updates in sorted(self._updates.values(), key=lambda one: (one[-1].first_seen, one[-1].id)):
            latest = updates[-1]
            if wanted is None or latest.id == wanted:
                analysis = rules.analyse(latest, tuple(updates)[:-1])
                yield msgspec.structs.replace(analysis, similar=index.nearest(latest))
            index.add(latest.id, latest)
