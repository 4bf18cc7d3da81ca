"""The port of /metrics, /healthz and /readyz, with a bounded number of connections."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec

from streamguard.agents.consumer.progress import DEAD_SECONDS, Progress
from streamguard.agents.errors import RefusedError
from streamguard.metrics import READY, WORKER, exposition

MAX_CONNECTIONS = 32
"""At a time; more are closed unheard."""
IDLE_SECONDS = 75.0
"""A connection that is silent for longer is closed: many scrapers come once a minute."""


class _Server(ThreadingHTTPServer):
    """A thread for each connection, of which there is a bounded number."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._room = threading.Semaphore(MAX_CONNECTIONS)
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def finish_request(self, request: Any, client_address: Any) -> None:
        try:
            super().finish_request(request, client_address)
        finally:
            self._room.release()


class HealthServer:
    """Serves metrics and health on one port.

    Raises
    ------
    RefusedError
        If the port cannot be bound; the message names it and the setting.
    """

    def __init__(self, progress: Progress, host: str, port: int) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = IDLE_SECONDS

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                problem = progress.not_ready()
                READY.set(problem is None)
                if path == "/metrics":
                    self._answer(200, "text/plain; version=0.0.4; charset=utf-8", exposition(WORKER))
                elif path == "/healthz":
                    hangs = progress.hangs(DEAD_SECONDS)
                    self._json(503 if hangs else 200, hangs or {"status": "alive"})
                elif path == "/readyz":
                    self._json(503 if problem else 200, problem or {"status": "ready"})
                else:
                    self._json(404, {"detail": "there are /metrics, /healthz and /readyz"})

            def _json(self, status: int, body: dict[str, object]) -> None:
                self._answer(status, "application/json", msgspec.json.encode(body) + b"\n")

            def _answer(self, status: int, kind: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Requests are not logged."""

        try:
            self._server = _Server((host, port), Handler)
        except OSError as error:
            raise RefusedError(
                f"cannot serve metrics on {host}:{port}: {error.strerror}; choose another --metrics-port"
            ) from None

    @property
    def port(self) -> int:
        """The port in use; a free one was chosen if 0 was asked for."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Serve from a thread of its own."""
        threading.Thread(target=self._server.serve_forever, name="health", daemon=True).start()
