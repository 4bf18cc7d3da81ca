"""Lists with one row for a campaign: which incident a row shows, and how such rows are counted."""

from __future__ import annotations

from streamguard.serving.projection.shapes import LONE
from streamguard.serving.query.condition import Condition, Rows

SCATTERED = 20_000
"""Incidents of campaigns up to which those of a list are read by shape and then sorted; more are read by campaign."""
_RANK = "({0}.status <> 'closed' AND NOT {0}.muted, {0}.evidence, {0}.id)"
"""By what the incident that a row shows is chosen; the same as `projection.rows` chooses the lead of a campaign by."""


def shown(matching: Condition) -> Condition:
    """The condition that no other incident of the campaign, for which a condition holds, is shown instead.

    Parameters
    ----------
    matching
        The condition of the list on the table `incidents`, without names of tables.
    """
    return Condition(
        f"(shape IN (SELECT number FROM shapes WHERE lead = {LONE}) OR NOT EXISTS ("  # noqa: S608 - our own names, marks
        "SELECT 1 FROM incidents AS other INDEXED BY incidents_by_campaign WHERE other.campaign = incidents.campaign "
        f"AND other.campaign <> '' AND {_RANK.format('other')} > {_RANK.format('incidents')} AND {matching.text}))",
        matching.values,
    )


def campaign_shapes(rows: Rows, matching: Condition, members: int, *, chosen: bool) -> list[str]:
    """Of each campaign of a list, the numbers of the shapes of its selected incidents, separated by commas.

    Parameters
    ----------
    rows
        Runs a statement.
    matching
        The condition of the list on the table `incidents`.
    members
        Upper limit of the incidents that this selects.
    chosen
        Whether the condition selects incidents by their numbers.
    """
    by = "incidents_by_member" if members <= SCATTERED else "incidents_by_campaign"
    found = rows(
        f"SELECT group_concat(shape) FROM incidents {'NOT INDEXED' if chosen else f'INDEXED BY {by}'} "  # noqa: S608
        f"WHERE campaign <> '' AND {matching.text} GROUP BY campaign",
        *matching.values,
    )
    return [str(shapes) for (shapes,) in found]
