"""The port for probes and metrics of a server: alive, ready, and how far it has followed its topics."""

from __future__ import annotations

import logging
import math
import sqlite3
import threading
from collections.abc import Mapping

import msgspec

from streamguard.errors import StreamGuardError, TemporaryError
from streamguard.metrics import (
    SERVE,
    SERVE_FOLLOWING,
    SERVE_INCIDENTS,
    SERVE_LAG,
    SERVE_OPEN_INCIDENTS,
    SERVE_PARTITIONS,
    SERVE_READY,
    SERVE_STALENESS,
    SERVE_TROUBLE,
    exposition,
)
from streamguard.probes import Answer, Server
from streamguard.serving.peers.profiles import Profiles
from streamguard.serving.projection.projector import Follower
from streamguard.serving.projection.store import Store
from streamguard.serving.query.service import QueryService
from streamguard.serving.replica.replica import Replica
from streamguard.settings.schema import Settings

_COUNTS = "SELECT coalesce(sum(incidents), 0), coalesce(sum(incidents * (status <> 'closed')), 0) FROM shapes"

_log = logging.getLogger(__name__)


def server(
    settings: Settings,
    service: QueryService,
    store: Store,
    followers: tuple[Follower, ...],
    replica: Replica,
    profiles: Profiles,
    threads: Mapping[str, threading.Thread],
) -> Server:
    """The port, which answers after `start`.

    Parameters
    ----------
    threads
        By the role of a topic, the thread that follows it.

    Raises
    ------
    TemporaryError
        If the port is in use.
    """
    own = settings.serve

    def page(path: str) -> Answer:
        ended = {role: thread.name for role, thread in threads.items() if not thread.is_alive()}
        # Without profiles a server still shows incidents; the same state might end this thread of every server.
        problem = service.ready or _ended([name for role, name in ended.items() if role != "changelog"])
        if path == "/metrics":
            SERVE_READY.set(not problem)
            for role, thread in threads.items():
                SERVE_FOLLOWING.labels(role).set(thread.is_alive())
            observe(store, followers, replica, profiles)
            return Answer(200, "text/plain; version=0.0.4; charset=utf-8", exposition(SERVE))
        if path == "/healthz":
            return Answer(200, "application/json", b'{"status":"alive"}')
        if path == "/readyz":
            body = {"status": "not ready", "reason": problem} if problem else {"status": "ready"}
            if "changelog" in ended:
                body["profiles"] = _ended([ended["changelog"]])
            # Another server would not answer either, so the balancer keeps this one.
            if missing := profiles.coverage().missing:
                body["partitions_missing"] = missing
            return Answer(503 if problem else 200, "application/json", msgspec.json.encode(body))
        return Answer(404, "text/plain", b"not found")

    try:
        return Server(page, own.metrics_host, own.metrics_port, own.metrics_allowed_hosts)
    except OSError as error:
        raise TemporaryError(
            f"metrics cannot be served on {own.metrics_host}:{own.metrics_port}: {error.strerror}; choose another "
            "serve.metrics_port (--metrics-port)"
        ) from None


def _ended(topics: list[str]) -> str:
    """Which topics a server does not follow any more, and what to do; empty if it follows all."""
    if not topics:
        return ""
    return (
        f"{', '.join(topics)}: not followed any more; the log of the server has the reason: remove it, and start the "
        "server again"
    )


def observe(store: Store, followers: tuple[Follower, ...], replica: Replica, profiles: Profiles) -> None:
    """Set the gauges of the projection and of the replica; an incident count is NaN while it cannot be read."""
    for follower in followers:
        SERVE_STALENESS.labels(follower.role).set(follower.progress.as_of().staleness_ms / 1000)
        SERVE_LAG.labels(follower.role).set(follower.lag)
        SERVE_TROUBLE.labels(follower.role).set(bool(follower.trouble))
    SERVE_TROUBLE.labels("changelog").set(bool(replica.trouble))
    SERVE_STALENESS.labels("changelog").set(replica.as_of().staleness_ms / 1000)
    SERVE_LAG.labels("changelog").set(replica.counters().lag)
    for where, count in zip(("here", "peer", "missing"), profiles.counts(), strict=True):
        SERVE_PARTITIONS.labels(where).set(count)
    try:
        found = store.reader().execute(_COUNTS).fetchone()
    except (sqlite3.Error, StreamGuardError) as error:
        _log.warning("incidents cannot be counted for the metrics: %s", error)
        found = (math.nan, math.nan)
    SERVE_INCIDENTS.set(found[0])
    SERVE_OPEN_INCIDENTS.set(found[1])
