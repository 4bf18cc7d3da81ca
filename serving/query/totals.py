"""Questions about all incidents together: entities by risk, techniques, and totals."""

from __future__ import annotations

from collections.abc import Mapping

from streamguard.alerts.incident import Entity, rfc3339
from streamguard.events.event_time import DAY_MS
from streamguard.risk import SEVERITIES
from streamguard.serving.log.freshness import AsOf
from streamguard.serving.projection.ranking import scored
from streamguard.serving.query.answers import Count, RankedUser, RankedUsers, Statistics
from streamguard.serving.query.filters import Conditions, IncidentFilter
from streamguard.serving.query.reading import Reading

MAX_RANKED = 200
"""Entities of a ranking."""


class Totals(Reading):
    """Rankings and totals."""

    def ranked(
        self, kind: str = "user", limit: int = 50, wanted: IncidentFilter | None = None
    ) -> RankedUsers:
        """Entities of a kind by their score (`projection.ranking.scored`).

        Parameters
        ----------
        wanted
            Which incidents count; None: all, whose scores are kept.
        """
        as_of = self._as_of()
        entities, values, counting = "entities", (), "(SELECT count(*) FROM entities WHERE kind = ?)"
        if wanted is not None and wanted != IncidentFilter():
            where = Conditions(wanted).rows
            entities, values = f"({scored(f'incidents WHERE {where.text}')})", where.values
            counting = "count(*) FILTER (WHERE kind = ?) OVER ()"
        found = self._rows(
            f"SELECT *, {counting} AS total FROM {entities} WHERE kind = ? "  # noqa: S608 - marks only
            "ORDER BY score DESC, name LIMIT ?",
            kind, *values, kind, max(1, min(limit, MAX_RANKED)),
        )  # fmt: skip
        return RankedUsers(
            tuple(
                RankedUser(
                    Entity(kind, row["name"]),  # type: ignore[arg-type]
                    round(row["score"], 1),
                    row["incidents"],
                    row["open"],
                    SEVERITIES[row["severity"]],
                    rfc3339(row["last_ms"]),
                )
                for row in found
            ),
            found[0]["total"] if found else 0,
            as_of,
        )

    def techniques(self) -> tuple[dict[str, int], tuple[AsOf, ...]]:
        """Number of incidents by ATT&CK technique."""
        as_of = self._as_of()
        found = self._rows(
            "SELECT value, sum(incidents) FROM shapes, json_each(shapes.techniques) GROUP BY 1 ORDER BY 1"
        )
        return dict(map(tuple, found)), as_of

    def as_of(self) -> tuple[AsOf, ...]:
        """How far the projection is."""
        return self._as_of()

    def opened(self, offsets: Mapping[int, tuple[int, int]]) -> dict[int, int]:
        """Incidents by the partition of the events topic in which they began.

        Incidents of the second fold are left out: a run has none.

        Parameters
        ----------
        offsets
            By partition, the first offset and the first one after the last, in which an incident counts.
        """
        if not offsets:
            return {}
        values = ", ".join(["(?, ?, ?)"] * len(offsets))
        found = self._rows(
            f"WITH wanted (partition, first, last) AS (VALUES {values}) "  # noqa: S608 - question marks
            "SELECT wanted.partition, count(*) FROM (SELECT CAST(id AS INTEGER) AS partition, "
            "CAST(substr(id, instr(id, '-') + 1) AS INTEGER) AS began FROM incidents WHERE id GLOB '[0-9]*-[0-9]*') "
            "AS one JOIN wanted ON wanted.partition = one.partition AND began >= first AND began < last GROUP BY 1",
            *(
                value
                for partition, (first, last) in sorted(offsets.items())
                for value in (partition, first, last)
            ),
        )
        return dict(map(tuple, found))

    def statistics(self) -> Statistics:
        """Totals of the live results."""
        as_of = self._as_of()
        ((incidents, open, raised),) = self._rows(
            "SELECT coalesce(sum(incidents), 0), coalesce(sum(incidents * (status <> 'closed')), 0), "
            "coalesce(sum(incidents * (raised AND lead)), 0) FROM shapes"
        )
        ((alerts,),) = self._rows("SELECT coalesce(sum(alerts), 0) FROM days")
        ((campaigns,),) = self._rows("SELECT count(*) FROM campaigns")
        severities = self._rows("SELECT severity, sum(incidents) FROM shapes GROUP BY 1 ORDER BY 1 DESC")
        days = self._rows("SELECT day, incidents FROM days ORDER BY day DESC LIMIT 90")
        return Statistics(
            incidents, open, raised, campaigns, alerts,
            tuple(Count(SEVERITIES[severity], count) for severity, count in severities),
            tuple(Count(rfc3339(day * DAY_MS)[:10], count) for day, count in reversed(days)),
            as_of,
        )  # fmt: skip
