"""Serves /metrics, /healthz and /readyz on one port, with a bounded number of connections."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec

from streamguard.agents.consumer.progress import DEAD_SECONDS, Progress
from streamguard.agents.errors import RefusedError
from streamguard.metrics import READY, WORKER, exposition

MAX_CONNECTIONS = 32
"""Concurrent connections; excess connections are closed."""
IDLE_SECONDS = 75.0
"""A connection that is idle for longer is closed. Many scrapers send a request once a minute."""


class _Server(ThreadingHTTPServer):
    """An HTTP server with one thread per connection and a bounded number of connections."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._free_connections = threading.Semaphore(MAX_CONNECTIONS)
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free_connections.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def finish_request(self, request: Any, client_address: Any) -> None:
        try:
            super().finish_request(request, client_address)
        finally:
            self._free_connections.release()


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
                    self._json(404, {"detail": "unknown path: use /metrics, /healthz or /readyz"})

            def _json(self, status: int, body: dict[str, object]) -> None:
                self._answer(status, "application/json", msgspec.json.encode(body) + b"\n")

            def _answer(self, status: int, kind: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Do nothing: requests are not logged."""

        try:
            self._server = _Server((host, port), Handler)
        except OSError as error:
            raise RefusedError(
                f"metrics cannot be served on {host}:{port}: {error.strerror}; choose another --metrics-port"
            ) from None

    @property
    def port(self) -> int:
        """The port in use; if the requested port was 0, a free port that the system selected."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Serve requests in a separate thread."""
        threading.Thread(target=self._server.serve_forever, name="health", daemon=True).start()
