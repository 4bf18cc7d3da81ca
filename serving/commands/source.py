"""What the commands ask: a server, the topics or a file, all with the same questions and answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

from streamguard.serving.query.answers import Facets, IncidentAnswer, IncidentRow, Incidents, RankedUsers
from streamguard.serving.query.events import IncidentEvents
from streamguard.serving.query.filters import EntityKind, IncidentFilter, Sort
from streamguard.serving.query.mutes import MutePreview
from streamguard.serving.query.reading import MAX_PAGE, NotFoundError
from streamguard.serving.query.requests import ActionRequest
from streamguard.serving.query.users import Timeline, UserAnswer


class Questions(Protocol):
    """Questions about incidents; `IncidentQueries` answers them from a store, and `Server` over HTTP."""

    def page(
        self, wanted: IncidentFilter, sort: Sort = "evidence", limit: int = 50, after: str | None = None
    ) -> Incidents:
        """A page of incidents, the strongest or the latest first."""

    def facets(self, wanted: IncidentFilter) -> Facets:
        """Counts of a list, in total and by value."""

    def incident(self, id: str) -> IncidentAnswer:
        """One incident with every publication of it, the oldest first."""


class Users(Protocol):
    """Questions about users."""

    def ranked(self, kind: EntityKind, limit: int, wanted: IncidentFilter) -> RankedUsers:
        """Entities by the risk of their incidents; the filter selects which incidents count."""

    def user(self, name: str) -> UserAnswer:
        """Everything about one user."""

    def timeline(self, name: str) -> Timeline:
        """What happened with the incidents of a user, the latest first."""


class Desk(Protocol):
    """Where people act on incidents."""

    def me(self) -> str:
        """The name in which actions are written."""

    def preview_mute(self, id: str, until: str) -> MutePreview:
        """What a mute would hide."""

    def act(self, id: str, wanted: ActionRequest, action_id: str) -> IncidentAnswer:
        """Act on an incident; a repeated request with the same id of the action acts once.

        Raises
        ------
        ConflictError
            If somebody else has acted before.
        """


class Source(NamedTuple):
    """Incidents and users that can be asked for.

    Attributes
    ----------
    name
        Where they come from, for people.
    questions, users
        Answers.
    events
        The raw events of an incident.
    changes
        Returns an iterator that waits for the next change of the answers. The first change is that the source is
        ready. It ends if there are no changes.
    desk
        Acts on incidents; None for a source that can only be read.
    """

    name: str
    questions: Questions
    users: Users
    events: Callable[[str], IncidentEvents]
    changes: Callable[[], Iterator[None]]
    desk: Desk | None


def rows(questions: Questions, wanted: IncidentFilter, sort: Sort, top: int | None) -> Iterator[IncidentRow]:
    """The first rows of a list, asked for page by page; None: all rows."""
    after = None
    while top is None or top > 0:
        limit = MAX_PAGE if top is None else min(top, MAX_PAGE)
        page = questions.page(wanted, sort, limit, after)
        yield from page.incidents
        after = page.next
        if after is None:
            return
        if top is not None:
            top -= len(page.incidents)


@contextmanager
def ids_named() -> Iterator[None]:
    """Within this context, an error about an unknown incident names the command that lists ids."""
    try:
        yield
    except NotFoundError as error:
        raise NotFoundError(f"{error}; `streamguard incidents list --all` lists the ids") from None
