"""Incidents and users of a running `streamguard serve`, asked over its API."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from urllib.parse import quote, urlencode

import msgspec

from streamguard.alerts.incident import rfc3339
from streamguard.errors import StreamGuardError, TemporaryError, UnavailableError
from streamguard.serving.commands.connection import Connection, RefusedError, T
from streamguard.serving.commands.source import Source
from streamguard.serving.query.answers import Facets, IncidentAnswer, Incidents, RankedUsers
from streamguard.serving.query.events import IncidentEvents
from streamguard.serving.query.filters import EntityKind, IncidentFilter, Sort
from streamguard.serving.query.mutes import MutePreview
from streamguard.serving.query.requests import ActionRequest
from streamguard.serving.query.users import Timeline, UserAnswer

STREAM_SECONDS = 45.0
"""How long the stream of changes may be silent: three times the interval at which a server writes into it."""
RETRY_SECONDS = 2.0
"""Pause before a stream that has ended is opened again, or an action is repeated whose answer is lost."""
ATTEMPTS = 3
"""Times that an action is sent if its answer is lost."""
MAX_LINE_BYTES = 64 << 10
"""Longest line of the stream of changes."""


class _Caller(msgspec.Struct):
    """Who the server says that the key belongs to."""

    name: str


class Server(Connection):
    """The API of a server; see `Connection` for the parameters."""

    def page(
        self, wanted: IncidentFilter, sort: Sort = "evidence", limit: int = 50, after: str | None = None
    ) -> Incidents:
        """A page of incidents, the strongest or the latest first."""
        asked = [*parameters(wanted), ("sort", sort), ("limit", str(limit))]
        if after is not None:
            asked.append(("cursor", after))
        return self.ask(f"/v1/incidents?{urlencode(asked)}", Incidents)

    def facets(self, wanted: IncidentFilter) -> Facets:
        """Counts of a list, in total and by value."""
        return self.ask(f"/v1/incidents/facets?{urlencode(parameters(wanted))}", Facets)

    def incident(self, id: str) -> IncidentAnswer:
        """One incident with every publication of it, the oldest first.

        Raises
        ------
        NotFoundError
            If there is no such incident.
        """
        return self.ask(incident_path(id), IncidentAnswer)

    def events(self, id: str) -> IncidentEvents:
        """The raw events of an incident."""
        return self.ask(f"{incident_path(id)}/events", IncidentEvents)

    def ranked(self, kind: EntityKind, limit: int, wanted: IncidentFilter) -> RankedUsers:
        """Entities by the risk of their incidents; the filter selects which incidents count."""
        asked = [("kind", kind), ("limit", str(limit)), *parameters(wanted)]
        return self.ask(f"/v1/ranking?{urlencode(asked)}", RankedUsers)

    def user(self, name: str) -> UserAnswer:
        """Everything about one user."""
        return self.ask(f"/v1/users/{quote(name, safe='')}", UserAnswer)

    def timeline(self, name: str) -> Timeline:
        """What happened with the incidents of a user, the latest first."""
        return self.ask(f"/v1/users/{quote(name, safe='')}/timeline", Timeline)

    def me(self) -> str:
        """The name of the key."""
        return self.ask("/v1/me", _Caller).name

    def preview_mute(self, id: str, until: str) -> MutePreview:
        """What a mute would hide."""
        return self.ask(f"{incident_path(id)}/mute?{urlencode({'until': until})}", MutePreview)

    def act(self, id: str, wanted: ActionRequest, action_id: str) -> IncidentAnswer:
        """Act on an incident. A request whose answer is lost is repeated: the server acts once.

        Raises
        ------
        ConflictError
            If somebody else has acted before.
        """
        return self.written(f"{incident_path(id)}/actions", IncidentAnswer, wanted, action_id, id)

    def written(self, path: str, answer: type[T], wanted: object, action_id: str, id: str) -> T:
        """The answer to a request that writes something about an incident; see `act`."""
        for attempt in range(ATTEMPTS):
            try:
                return self.ask(path, answer, wanted, action_id)
            except RefusedError:
                raise
            except (TemporaryError, UnavailableError) as error:
                if attempt == ATTEMPTS - 1:
                    raise type(error)(
                        f"{error}; the action may have been written: `streamguard incidents show {id}` says so"
                    ) from None
                time.sleep(RETRY_SECONDS)
        raise AssertionError("unreachable")

    def changes(self) -> Iterator[None]:
        """Wait for changes; several that follow each other closely are one.

        Raises
        ------
        StreamGuardError
            If the server cannot be reached at first, or refuses the key later.
        """
        changed = threading.Event()
        ended: list[StreamGuardError] = []
        stream = self.open("/v1/stream", STREAM_SECONDS)
        threading.Thread(target=self._listen, args=(stream, changed, ended), daemon=True).start()
        while True:
            yield
            changed.wait()
            changed.clear()
            if ended:
                raise ended[0]

    def _listen(
        self, stream: http.client.HTTPResponse | None, changed: threading.Event, ended: list[StreamGuardError]
    ) -> None:
        """Set `changed` at every change, and after every interruption of the stream."""
        while True:
            try:
                with stream or self.open("/v1/stream", STREAM_SECONDS) as lines:
                    if stream is None:
                        changed.set()
                    while line := lines.readline(MAX_LINE_BYTES):
                        if line.startswith(b"event: changed"):
                            changed.set()
            except RefusedError as error:
                ended.append(error)
                changed.set()
                return
            except (StreamGuardError, OSError, http.client.HTTPException):
                changed.set()  # the next question reports what is wrong
            stream = None
            time.sleep(RETRY_SECONDS)


def source(address: str, key: str) -> Source:
    """The incidents and users of a server."""
    server = Server(address, key)
    return Source(server.address, server, server, server.events, server.changes, server)


def incident_path(id: str) -> str:
    """The address of an incident below that of a server."""
    return f"/v1/incidents/{quote(id, safe='')}"


def parameters(wanted: IncidentFilter) -> list[tuple[str, str]]:
    """The query parameters of a filter, without those that filter nothing.

    Examples
    --------
    >>> parameters(IncidentFilter(since=0, severity=("high", "critical"), raised=True))
    [('since', '1970-01-01T00:00:00.000Z'), ('severity', 'high'), ('severity', 'critical'), ('raised', 'true')]
    """
    found = []
    for name, value in msgspec.structs.asdict(wanted).items():
        if name in ("pseudonym", "id"):
            continue  # the server finds pseudonyms among the entities, and ids are those of rows that the page marks
        if isinstance(value, bool):
            if value or name != "grouped":
                found.append((name, str(value).lower()))
        elif isinstance(value, int):
            found.append((name, rfc3339(value)))
        elif isinstance(value, str):
            found += [(name, value)] if value else []
        else:
            found += [(name, one) for one in value or ()]
    return found
