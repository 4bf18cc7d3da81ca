"""Who takes part in an incident: the users that were tried, those that were entered, and the sources."""

from __future__ import annotations

from collections.abc import Mapping, Set

from streamguard.alerts.incident import Involved, Names
from streamguard.campaigns.entry import is_entry
from streamguard.campaigns.name_set import NameSet
from streamguard.events.address import ADDRESS
from streamguard.events.event import Event


class Participants:
    """The participants of the alerts of one incident, in bounded memory, whatever the order of the alerts.

    Examples
    --------
    >>> some = Participants()
    >>> some.add(Event(1, "login", "ann", source_ip="192.0.2.1", status="failed"), "user", {"source": 9.0}, frozenset())
    >>> some.involved().users.names, some.involved().entered.count
    (('ann',), 0)
    """

    def __init__(self) -> None:
        self._users, self._entered, self._sources = NameSet(), NameSet(), NameSet()

    def add(self, event: Event, entity_kind: str, bits: Mapping[str, float], patterns: Set[str]) -> None:
        """Add an alert; the parameters are those of `streamguard.campaigns.entry.is_entry`."""
        user = event.user or ""
        self._users.add(user)
        self._sources.add(ADDRESS[event.source_ip or ""][0])
        if is_entry(event, entity_kind, bits, patterns):
            self._entered.add(user)

    def add_source(self, source: str) -> None:
        """Add the address whose incident it is."""
        self._sources.add(source)

    def add_user(self, user: str) -> None:
        """Add the user whose incident it is."""
        self._users.add(user)

    def merge(self, other: Involved, without: Set[str] = frozenset()) -> None:
        """Add the participants that an incident names, except some users."""
        self._users.merge(_rest(other.users, without))
        self._entered.merge(_rest(other.entered, without))
        self._sources.merge(other.sources)

    def involved(self) -> Involved:
        """The participants, as an incident names them."""
        return Involved(self._users.names(), self._entered.names(), self._sources.names())


def _rest(names: Names, without: Set[str]) -> Names:
    """The names except some of them.

    Examples
    --------
    >>> _rest(Names(2, ("ann", "bob")), {"ann", "eve"})
    Names(count=1, names=('bob',))
    """
    kept = tuple(name for name in names.names if name not in without)
    return Names(names.count - (len(names.names) - len(kept)), kept)
