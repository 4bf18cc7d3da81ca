"""Serves /metrics, /healthz and /readyz on one port."""

from __future__ import annotations

import errno

import msgspec
from prometheus_client import CollectorRegistry, Gauge

from streamguard.agents.consumer.liveness import DEAD_SECONDS, Liveness
from streamguard.agents.errors import Ending, RefusedError
from streamguard.errors import TemporaryError
from streamguard.metrics import exposition
from streamguard.probes import Answer, Server


class HealthServer:
    """Serves metrics and health on one port.

    Parameters
    ----------
    progress
        Progress of the process.
    registry
        Metrics of the process.
    ready
        The gauge that says whether it is ready.
    host, port
        Address; port 0 selects any free port.
    allowed_hosts
        Further names under which this machine is asked, separated by commas.

    Raises
    ------
    TemporaryError
        If another process uses the port.
    RefusedError
        If the port cannot be bound for another reason; the message names it and the setting.
    """

    def __init__(
        self,
        progress: Liveness,
        registry: CollectorRegistry,
        ready: Gauge,
        host: str,
        port: int,
        allowed_hosts: str = "",
    ) -> None:
        self._progress = progress
        self._registry = registry
        self._ready = ready
        try:
            self._server = Server(self._page, host, port, allowed_hosts)
        except OSError as error:
            # The former process, which still ends, frees its port; a wrong address stays wrong.
            passing = error.errno == errno.EADDRINUSE
            raise (TemporaryError if passing else RefusedError)(
                f"metrics cannot be served on {host}:{port}: {error.strerror}; "
                f"{f'start the {Ending.program} again when the port is free, or ' if passing else ''}choose another "
                "--metrics-port"
            ) from None

    @property
    def port(self) -> int:
        """The port in use; if the requested port was 0, a free port that the system selected."""
        return self._server.port

    def start(self) -> None:
        """Serve requests in a separate thread."""
        self._server.start("health")

    def _page(self, path: str) -> Answer:
        problem = self._progress.not_ready()
        self._ready.set(problem is None)
        if path == "/metrics":
            return Answer(200, "text/plain; version=0.0.4; charset=utf-8", exposition(self._registry))
        if path == "/healthz":
            hangs = self._progress.hangs(DEAD_SECONDS)
            return _json(503 if hangs else 200, hangs or {"status": "alive"})
        if path == "/readyz":
            return _json(503 if problem else 200, problem or {"status": "ready"})
        return _json(404, {"detail": "unknown path: use /metrics, /healthz or /readyz"})


def _json(status: int, body: dict[str, object]) -> Answer:
    return Answer(status, "application/json", msgspec.json.encode(body) + b"\n")
