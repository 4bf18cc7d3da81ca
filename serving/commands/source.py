"""What the commands ask: a server, the topics or a file, all with the same questions and answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from streamguard.serving.query.answers import Facets, IncidentAnswer, IncidentRow, Incidents
from streamguard.serving.query.filters import IncidentFilter, Sort
from streamguard.serving.query.incidents import MAX_PAGE


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


class Source(NamedTuple):
    """Incidents that can be asked for.

    Attributes
    ----------
    name
        Where they come from, for people.
    questions
        Answers.
    changes
        Returns an iterator that waits for the next change of the answers. The first change is that the source is
        ready. It ends if there are no changes.
    """

    name: str
    questions: Questions
    changes: Callable[[], Iterator[None]]


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
