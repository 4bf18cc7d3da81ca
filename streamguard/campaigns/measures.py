"""Measures the ranked list against labels: what was raised, caught, mixed and named, and how much there is to read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from streamguard.campaigns.budget import Decision, decide
from streamguard.campaigns.campaign import Campaign

FLOORS = tuple(float(bits) for bits in range(6, 41))
"""Floors of a sweep, in bits: from below the weakest alert to above the score that the quota never hides."""

Labels = Mapping[str, Mapping[str | None, int]]
"""Incident -> label -> number of its alerts; the label None stands for benign events."""


class LabelledCampaign(msgspec.Struct, frozen=True):
    """An attack, as labels describe it.

    Attributes
    ----------
    name
        Name of the label.
    technique
        ATT&CK technique; None if the labels state none.
    entered
        Users with a successful login among the labelled events.
    """

    name: str
    technique: str | None
    entered: frozenset[str]


class Outcome(msgspec.Struct, frozen=True):
    """What became of a labelled campaign.

    Attributes
    ----------
    name, technique
        Those of the labels.
    caught
        Whether a raised row contains it.
    rows
        Number of raised rows that contain it.
    score, why, found_as
        Score, decision and technique of the highest row that contains it; None if no row does.
    """

    name: str
    technique: str | None
    caught: bool
    rows: int
    score: float | None
    why: str | None
    found_as: str | None


class Measures(msgspec.Struct, frozen=True):
    """How well the ranked list shows the labelled campaigns.

    Attributes
    ----------
    rows, raised, benign
        Number of rows, of raised rows, and of raised rows without an attack.
    raised_per_day, benign_per_day
        The same by days with events.
    total, caught
        Number of labelled campaigns, and of those that a raised row contains.
    rows_per_campaign
        Mean number of raised rows that contain a campaign that was caught; None if none was.
    purity
        Mean share of the incidents of a raised row with alerts of its main campaign, over the rows with an attack; None
        if there are none.
    accounts, named, wrong
        Accounts that were entered in the caught campaigns, those of them that a row names, and number of names in rows
        with an attack whose account was not entered.
    rows_to_read
        Number of rows from the top until all labelled campaigns but one are seen; None if so many are never seen.
    outcomes
        One for each labelled campaign.
    """

    rows: int
    raised: int
    benign: int
    raised_per_day: float
    benign_per_day: float
    total: int
    caught: int
    rows_per_campaign: float | None
    purity: float | None
    accounts: int
    named: int
    wrong: int
    rows_to_read: int | None
    outcomes: tuple[Outcome, ...]


class Point(msgspec.Struct, frozen=True):
    """A point of a sweep: the budget that a floor costs, and the campaigns that it catches."""

    floor: float
    raised_per_day: float
    benign_per_day: float
    caught: int
    missed: tuple[str, ...]


def measure(
    ranked: Sequence[Campaign],
    decisions: Mapping[str, Decision],
    labels: Labels,
    truth: Sequence[LabelledCampaign],
    days: int,
) -> Measures:
    """Compare the ranked list with labels.

    Parameters
    ----------
    ranked
        Rows, the first to read first.
    decisions
        By id of the row.
    labels
        Of all alerts; an incident without an entry counts as benign.
    truth
        Labelled campaigns to measure. Rows of other labels are attacks, too, but not counted as caught or missed.
    days
        Number of days with events.
    """
    found = {row.id: _attacks(row, labels) for row in ranked}
    raised = [row for row in ranked if decisions[row.id].raised]
    attacks = [row for row in raised if found[row.id]]
    entered = {one.name: one.entered for one in truth}
    outcomes = tuple(_outcome(one, ranked, decisions, found) for one in truth)
    caught = [one for one in outcomes if one.caught]
    named: set[tuple[str, str]] = set()
    wrong = 0
    for row in attacks:
        for user in row.entered:
            of = {(name, user) for name in found[row.id] if user in entered.get(name, ())}
            named |= of
            # The accounts of a campaign that is not measured are unknown.
            wrong += not of and found[row.id] <= entered.keys()
    benign = len(raised) - len(attacks)
    return Measures(
        rows=len(ranked),
        raised=len(raised),
        benign=benign,
        raised_per_day=len(raised) / max(days, 1),
        benign_per_day=benign / max(days, 1),
        total=len(truth),
        caught=len(caught),
        rows_per_campaign=_mean([one.rows for one in caught]),
        purity=_mean([_purity(row, labels) for row in attacks]),
        accounts=sum(len(entered[one.name]) for one in caught),
        named=len(named),
        wrong=wrong,
        rows_to_read=_rows_to_read([found[row.id] for row in ranked], entered.keys()),
        outcomes=outcomes,
    )


def sweep(
    ranked: Sequence[Campaign],
    counted: Iterable[str],
    labels: Labels,
    truth: Sequence[LabelledCampaign],
    days: int,
    floors: Iterable[float] = FLOORS,
) -> list[Point]:
    """Measure the list with each of some floors.

    Parameters
    ----------
    ranked
        All rows; all of them count for the quota of a day.
    counted
        Ids of the rows that are measured.
    floors
        Values of `detection.floor_bits`.
    """
    ids = frozenset(counted)
    measured = [row for row in ranked if row.id in ids]
    points = []
    for floor in floors:
        one = measure(measured, decide(ranked, floor), labels, truth, days)
        missed = tuple(outcome.name for outcome in one.outcomes if not outcome.caught)
        points.append(Point(floor, one.raised_per_day, one.benign_per_day, one.caught, missed))
    return points


def _attacks(row: Campaign, labels: Labels) -> frozenset[str]:
    """Labels of the attacks in a row."""
    return frozenset(label for id in row.incidents for label in labels.get(id, ()) if label is not None)


def _outcome(
    campaign: LabelledCampaign,
    ranked: Sequence[Campaign],
    decisions: Mapping[str, Decision],
    found: Mapping[str, frozenset[str]],
) -> Outcome:
    rows = [row for row in ranked if campaign.name in found[row.id]]
    raised = [row for row in rows if decisions[row.id].raised]
    shown = next(iter(raised or rows), None)
    return Outcome(
        name=campaign.name,
        technique=campaign.technique,
        caught=bool(raised),
        rows=len(raised),
        score=shown.score if shown else None,
        why=decisions[shown.id].why if shown else None,
        found_as=shown.technique if shown else None,
    )


def _purity(row: Campaign, labels: Labels) -> float:
    incidents = Counter(label for id in row.incidents for label in labels.get(id, ()) if label is not None)
    return max(incidents.values()) / len(row.incidents)


def _rows_to_read(attacks: Sequence[frozenset[str]], names: Iterable[str]) -> int | None:
    missing = set(names)
    for number, found in enumerate(attacks, 1):
        missing -= found
        if len(missing) <= 1:
            return number
    return None


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
