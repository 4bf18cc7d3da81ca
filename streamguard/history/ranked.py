"""Measures the ranked list of a judged history: its campaigns, what is raised, and a sweep over floors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamguard.alerts.incident import Incident
from streamguard.campaigns.budget import busy_days, decide
from streamguard.campaigns.campaign import campaigns
from streamguard.campaigns.entry import is_login, succeeded
from streamguard.campaigns.measures import LabelledCampaign, Labels, Measures, Point, measure, sweep
from streamguard.events.event import Event
from streamguard.settings.schema import Detection

UNNAMED = "attack without a campaign"
"""Label of attack events whose labels name no campaign: their rows are not benign, and no campaign is caught."""


@dataclass(slots=True)
class LabelledEntries:
    """The labelled campaigns of a history: their names, and whom they entered.

    Attributes
    ----------
    names
        Names in the order of their first events; a campaign's place is its number.
    entered
        Users with a successful login among the events of each campaign.
    """

    names: list[str] = field(default_factory=list)
    entered: list[set[str]] = field(default_factory=list)
    _numbers: dict[str, int] = field(default_factory=dict)

    def number(self, name: str, event: Event) -> int:
        """Number of the campaign of an attack event; a success is noted."""
        if name not in self._numbers:
            self._numbers[name] = len(self.names)
            self.names.append(name)
            self.entered.append(set())
        number = self._numbers[name]
        if event.user and is_login(event) and succeeded(event):
            self.entered[number].add(event.user)
        return number


class Ranked(msgspec.Struct, frozen=True):
    """The measures of a ranked list.

    Attributes
    ----------
    measures
        With the floor of the settings.
    busy_days
        Days on which more rows were raised than the settings expect, with their number.
    points
        The sweep; empty if none was asked for.
    """

    measures: Measures
    busy_days: dict[str, int]
    points: tuple[Point, ...]


def rank(
    updates: Iterable[Incident],
    incidents: Mapping[int, Incident],
    incident: NDArray[np.int64],
    attack: NDArray[np.bool_],
    campaign: NDArray[np.int64],
    first: int,
    truth: LabelledEntries,
    techniques: Mapping[str, str],
    days: int,
    detection: Detection,
    *,
    with_sweep: bool = False,
) -> Ranked:
    """Measure the campaigns of a history, of which rows with an alert in the measured part count.

    Parameters
    ----------
    updates
        All updates of the incidents.
    incidents
        By number.
    incident, attack, campaign
        (n,), for each event the number of its incident or -1, whether it is an attack, and the number of its campaign
        or -1.
    first
        Place of the first event that is measured. Labelled campaigns that began before are not counted.
    truth
        The labelled campaigns.
    techniques
        Their techniques by name, as far as the labels state them.
    days
        Number of measured days.
    detection
        Floor, and the number of rows that is expected on a day.
    with_sweep
        Whether to measure other floors, too.
    """
    labels = _labels(incidents, incident, attack, campaign, truth.names)
    recent = {incidents[number].id for number in np.unique(incident[first:]).tolist() if number in incidents}
    begun_before = set(np.unique(campaign[:first]).tolist())
    labelled = [
        LabelledCampaign(name, techniques.get(name), frozenset(truth.entered[number]))
        for number, name in enumerate(truth.names)
        if number not in begun_before
    ]
    ranked = campaigns(updates)
    measured = [row for row in ranked if not recent.isdisjoint(row.incidents)]
    decisions = decide(ranked, detection.floor_bits)
    points: Sequence[Point] = ()
    if with_sweep:
        points = sweep(ranked, [row.id for row in measured], labels, labelled, days)
    return Ranked(
        measure(measured, decisions, labels, labelled, days),
        busy_days(measured, decisions, detection.incidents_per_day),
        tuple(points),
    )


def _labels(
    incidents: Mapping[int, Incident],
    incident: NDArray[np.int64],
    attack: NDArray[np.bool_],
    campaign: NDArray[np.int64],
    names: Sequence[str],
) -> Labels:
    labels: dict[str, Counter[str | None]] = {one.id: Counter() for one in incidents.values()}
    alerted = np.flatnonzero(incident >= 0)
    for number, hit, of in zip(
        incident[alerted].tolist(), attack[alerted].tolist(), campaign[alerted].tolist(), strict=True
    ):
        if number in incidents:
            label = None if not hit else names[of] if of >= 0 else UNNAMED
            labels[incidents[number].id][label] += 1
    return labels
