"""Questions about source addresses and about everybody: live state, latest run, incidents and campaigns."""

from __future__ import annotations

from typing import Annotated

import msgspec

from streamguard.campaigns.record import decode as decode_campaign
from streamguard.events.address import ADDRESS
from streamguard.serving.log.freshness import AsOf
from streamguard.serving.peers.signing import Asker
from streamguard.serving.peers.sources import FoundSources, SourceStates
from streamguard.serving.projection.store import Store
from streamguard.serving.query.answers import IncidentRow, RankedUser
from streamguard.serving.query.filters import MAX_WORD, IncidentFilter
from streamguard.serving.query.incidents import IncidentQueries
from streamguard.serving.query.reading import NotFoundError
from streamguard.serving.query.totals import Totals
from streamguard.serving.replica.crowd import Crowd, FailingSource
from streamguard.serving.replica.profile import UserProfile
from streamguard.serving.replica.replica import ReplicaNotReadyError
from streamguard.serving.results.answers import Unavailable
from streamguard.serving.results.batch import BatchResults
from streamguard.serving.results.run_answers import BatchUserAnswer
from streamguard.serving.results.users import SourceUser

INCIDENTS_SHOWN = 50
"""Incidents of one answer, the latest."""
MAX_CAMPAIGNS = 50
"""Campaigns of an address in one answer, those with the most incidents."""


def _described(text: str) -> msgspec.Meta:
    return msgspec.Meta(description=text)


class SourceCampaign(msgspec.Struct, frozen=True):
    """An attack in which an address takes part."""

    id: str
    incidents: int
    users: Annotated[int, _described("Users that were tried")]
    accounts: Annotated[int, _described("Accounts that a stranger entered")]
    last_seen: str


class SourceAnswer(msgspec.Struct, frozen=True):
    """One address, from the live state, the latest run of the batch layer, incidents and campaigns."""

    address: Annotated[str, _described("In the canonical spelling")]
    failing: Annotated[
        tuple[FailingSource, ...], _described("What each partition knows of its failures within hours")
    ]
    profiles: Annotated[tuple[UserProfile, ...], _described("What is usual for its events without a user")]
    live_missing: Annotated[
        str,
        _described("Why both are not known now, or in which partitions; empty if they are known in all"),
    ]
    batch: Annotated[
        BatchUserAnswer | None, _described("What the latest run says of its events without a user")
    ]
    users: Annotated[
        tuple[SourceUser, ...],
        _described("Users of the address among the events that the latest run has kept, at most 100"),
    ]
    batch_missing: Annotated[str, _described("Why both are not known; empty if they are")]
    incidents: Annotated[tuple[IncidentRow, ...], _described("The latest incidents of the address")]
    mentions: Annotated[
        tuple[IncidentRow, ...], _described("The latest incidents of users and crowds whose reasons name it")
    ]
    campaigns: tuple[SourceCampaign, ...]
    as_of: tuple[AsOf, ...]


class SourceList(msgspec.Struct, frozen=True):
    """Addresses that need attention."""

    ranked: Annotated[tuple[RankedUser, ...], _described("Addresses with incidents, by risk")]
    failing: Annotated[
        tuple[FailingSource, ...], _described("Addresses that fail now, those of the most users first")
    ]
    live_missing: Annotated[
        str,
        _described("Why `failing` is not known now, or in which partitions; empty if it is known in all"),
    ]
    as_of: tuple[AsOf, ...]


class CrowdAnswer(msgspec.Struct, frozen=True):
    """Everybody together, partition by partition."""

    partitions: tuple[Crowd, ...]
    live_missing: Annotated[
        str, _described("Which partitions are not among them, and why; empty if all with an event are")
    ]
    incidents: Annotated[tuple[IncidentRow, ...], _described("The latest incidents of crowds")]
    as_of: tuple[AsOf, ...]


class SourceQueries:
    """Answers about addresses and the crowd; every method may be called from any thread.

    Parameters
    ----------
    store
        The projection.
    incidents, totals
        Answers about incidents.
    states
        Live state, here and at peers.
    batch
        Runs of the batch layer.

    Attributes
    ----------
    states
        See above.
    """

    def __init__(
        self,
        store: Store,
        incidents: IncidentQueries,
        totals: Totals,
        states: SourceStates,
        batch: BatchResults,
    ) -> None:
        self._store = store
        self._incidents = incidents
        self._totals = totals
        self.states = states
        self._batch = batch

    def listed(self, limit: int = 50, asker: Asker | None = None) -> SourceList:
        """Addresses with incidents, and addresses that fail now.

        Parameters
        ----------
        asker
            For whom peers are asked about partitions that are not held here; None: they are not asked.
        """
        failing, _, missing, live = self._live(None, asker)
        ranked = self._totals.ranked("source", limit)
        return SourceList(ranked.users, failing, missing, (*ranked.as_of, live))

    def source(self, address: str, asker: Asker | None = None) -> SourceAnswer:
        """Everything about one address; for `asker` see `listed`.

        Raises
        ------
        NotFoundError
            If nothing is known of it in any partition; if one is not answered for, that is not known.
        """
        address = ADDRESS[address][0]
        failing, profiles, missing, live = self._live(address, asker)
        row, used = self._batch.user(f"source {address}"), self._batch.of_source(address)
        batch = None if isinstance(row, Unavailable) or not row.entries else row
        users = () if isinstance(used, Unavailable) else used.users
        own = self._incidents.page(
            IncidentFilter(entity=(address,), kind=("source",)), "time", INCIDENTS_SHOWN
        )
        mentions = self._incidents.page(
            IncidentFilter(word=address[:MAX_WORD], kind=("user", "crowd")), "time", INCIDENTS_SHOWN
        )
        campaigns = self._campaigns(address)
        if not (
            failing
            or profiles
            or missing
            or batch
            or users
            or own.incidents
            or mentions.incidents
            or campaigns
        ):
            raise NotFoundError(f"nothing is known of an address {address[:100]!r}")
        run = () if isinstance(used, Unavailable) else (used.as_of,)
        return SourceAnswer(
            address,
            failing,
            profiles,
            missing,
            batch,
            users,
            used.message if isinstance(used, Unavailable) else "",
            own.incidents,
            mentions.incidents,
            campaigns,
            (*own.as_of, live, *run),
        )

    def crowd(self, asker: Asker | None = None) -> CrowdAnswer:
        """Everybody together; for `asker` see `listed`.

        Raises
        ------
        ReplicaNotReadyError
            If the changelog has not been read.
        """
        crowds, missing, live = self.states.crowds(asker)
        rows = self._incidents.page(IncidentFilter(kind=("crowd",)), "time", INCIDENTS_SHOWN)
        return CrowdAnswer(crowds, missing, rows.incidents, (*rows.as_of, live))

    def _live(self, address: str | None, asker: Asker | None) -> FoundSources:
        try:
            return self.states.of(address, asker)
        except ReplicaNotReadyError as error:
            return FoundSources((), (), str(error), self.states.as_of())

    def _campaigns(self, address: str) -> tuple[SourceCampaign, ...]:
        rows = self._store.reader().execute(
            "SELECT value FROM campaigns WHERE instr(CAST(value AS TEXT), ?)", (f'"{address}"',)
        )
        found = [decode_campaign(value).campaign for (value,) in rows]
        named = [one for one in found if address in one.sources]
        named.sort(key=lambda one: (-one.size, one.id))
        return tuple(
            SourceCampaign(one.id, one.size, one.users, one.accounts, one.last_seen)
            for one in named[:MAX_CAMPAIGNS]
        )
