"""Questions about one user: what is usual, what the batch layer says, the incidents, and how they went on."""

from __future__ import annotations

from typing import Annotated

import msgspec

from streamguard.events.event_time import epoch_ms
from streamguard.serving.decisions.wording import deed
from streamguard.serving.log.freshness import AsOf
from streamguard.serving.peers.profiles import Profiles
from streamguard.serving.peers.signing import Asker
from streamguard.serving.query.answers import IncidentRow
from streamguard.serving.query.filters import IncidentFilter
from streamguard.serving.query.incidents import IncidentQueries
from streamguard.serving.query.reading import NotFoundError
from streamguard.serving.replica.profile import UserProfile
from streamguard.serving.replica.replica import ReplicaNotReadyError
from streamguard.serving.results.answers import Unavailable
from streamguard.serving.results.batch import BatchResults
from streamguard.serving.results.comparison import Comparison, LiveCounts
from streamguard.serving.results.run_answers import BatchUserAnswer

INCIDENTS_SHOWN = 50
"""Incidents of a user in one answer, the latest."""
TIMELINE_INCIDENTS = 50
"""Incidents of a timeline, the latest; each has a few publications and actions."""


def _described(text: str) -> msgspec.Meta:
    return msgspec.Meta(description=text)


class UserAnswer(msgspec.Struct, frozen=True):
    """One user, from the live state, the latest run of the batch layer and the incidents."""

    user: str
    profiles: Annotated[
        tuple[UserProfile, ...],
        _described("What is usual, one entry for each partition; more than one reveals two partitioners"),
    ]
    profiles_missing: Annotated[
        str,
        _described(
            "Why profiles are not known now, or which partitions were not asked; empty if all are known"
        ),
    ]
    batch: Annotated[BatchUserAnswer | None, _described("What the latest run says; null if there is none")]
    batch_missing: Annotated[str, _described("Why it is null; empty if it is not")]
    comparisons: Annotated[tuple[Comparison, ...], _described("Speed against batch, one for each profile")]
    incidents: Annotated[tuple[IncidentRow, ...], _described("The latest incidents")]
    as_of: tuple[AsOf, ...]


class TimelineEntry(msgspec.Struct, frozen=True):
    """Something that happened with an incident of a user."""

    at: Annotated[str, _described("Event time of a publication; the server's time of an action")]
    kind: Annotated[str, _described("`published`, or the kind of the action")]
    incident: str
    evidence_bits: Annotated[float, _described("Evidence of the incident then; 0 for an action")]
    severity: str
    text: str


class Timeline(msgspec.Struct, frozen=True):
    """What happened with the incidents of a user, the latest first."""

    user: str
    entries: tuple[TimelineEntry, ...]
    as_of: tuple[AsOf, ...]


class UserNames(msgspec.Struct, frozen=True):
    """Names of users with a profile, in alphabetical order."""

    users: tuple[str, ...]
    next: Annotated[str | None, _described("`after` of the next page; null at the end")]
    as_of: tuple[AsOf, ...]


class UserQueries:
    """Answers about users; every method may be called from any thread.

    Parameters
    ----------
    incidents
        Answers about incidents.
    profiles
        Profiles of the live state.
    batch
        Runs of the batch layer.

    Attributes
    ----------
    profiles
        See above.
    """

    def __init__(self, incidents: IncidentQueries, profiles: Profiles, batch: BatchResults) -> None:
        self._incidents = incidents
        self.profiles = profiles
        self._batch = batch

    def user(self, name: str, asker: Asker | None = None) -> UserAnswer:
        """Everything about one user.

        Parameters
        ----------
        name
            Name of the user.
        asker
            For whom peers are asked about partitions that are not held here; None: they are not asked.

        Raises
        ------
        NotFoundError
            If neither a profile, nor the batch layer, nor an incident has the user.
        PartitionUnavailableError
            If no server answers for a partition that may have the profile.
        """
        try:
            profiles, missing, live = self.profiles.of(name, asker)
        except ReplicaNotReadyError as error:
            profiles, missing, live = (), str(error), self.profiles.as_of()
        found = self._batch.user(name)
        batch = None if isinstance(found, Unavailable) else found
        rows = self._incidents.page(IncidentFilter(entity=(name,), kind=("user",)), "time", INCIDENTS_SHOWN)
        if not (profiles or missing or rows.incidents or (batch is not None and batch.entries)):
            raise NotFoundError(
                f"nothing is known of a user {name[:100]!r}: names are compared letter by letter"
            )
        compared = (self._batch.compare(name, live_counts(one)) for one in profiles)
        return UserAnswer(
            user=name,
            profiles=profiles,
            profiles_missing=missing,
            batch=batch,
            batch_missing=found.message if isinstance(found, Unavailable) else "",
            comparisons=tuple(one for one in compared if not isinstance(one, Unavailable)),
            incidents=rows.incidents,
            as_of=(*rows.as_of, live, *((batch.as_of,) if batch is not None else ())),
        )

    def names(self, after: str = "", limit: int = 100, asker: Asker | None = None) -> UserNames:
        """Names of users with a profile, of all partitions.

        Raises
        ------
        ReplicaNotReadyError
            If the profiles are not known now.
        PartitionUnavailableError
            If no server answers for a partition.
        """
        names, live = self.profiles.names(after, limit + 1, asker)
        return UserNames(names[:limit], names[limit - 1] if len(names) > limit else None, (live,))

    def timeline(self, name: str) -> Timeline:
        """What happened with the incidents of a user, the latest first."""
        return timeline_of(self._incidents, name)


def live_counts(profile: UserProfile) -> LiveCounts:
    """What a comparison with the batch layer looks at of a profile."""
    sources = next((one for one in profile.usual if one.field == "source"), None)
    return LiveCounts(
        partition=profile.partition,
        offset=profile.source_offset,
        topic_id=profile.topic_id or "",
        events=profile.events,
        sources=len(sources.values) if sources is not None else None,
        failure_share=profile.failure_share,
        last_seen_ms=epoch_ms(profile.last_seen),
    )


def timeline_of(incidents: IncidentQueries, name: str) -> Timeline:
    """What happened with the incidents of a user, the latest first."""
    rows = incidents.page(IncidentFilter(entity=(name,), kind=("user",)), "time", TIMELINE_INCIDENTS)
    entries = []
    for row in rows.incidents:
        answer = incidents.incident(row.id)
        for update in answer.updates:
            one = update.incident
            what = ", ".join(pattern.description for pattern in one.patterns)
            reason = f"{one.reasons[0].feature}: {one.reasons[0].actual}" if one.reasons else ""
            entries.append(
                TimelineEntry(
                    one.last_seen, "published", one.id, one.evidence_bits, one.severity, what or reason
                )
            )
        for entry in answer.case.history:
            what = deed(entry, answer.case.history) if entry.kind == "undo" else entry.value
            text = ": ".join(part for part in (entry.by, what, entry.text) if part)
            entries.append(TimelineEntry(entry.at, entry.kind, row.id, 0.0, row.severity, text))
    ordered = sorted(entries, key=lambda one: (epoch_ms(one.at) or 0, one.incident, one.kind), reverse=True)
    return Timeline(name, tuple(ordered), rows.as_of)
