"""The ports of /metrics: free, or answered by the worker or retrain that they are for."""

from __future__ import annotations

import errno
import http.client
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import msgspec

from streamguard.cli.doctor.finding import Finding, fail, ok, warn
from streamguard.settings.schema import Settings

_PATIENCE = 2.0


def ports(settings: Settings) -> Iterator[Finding]:
    """The worker's, and a retrain's if it has one."""
    worker, batch = settings.worker, settings.batch
    if worker.metrics_port:
        yield _port("worker", worker.metrics_host, worker.metrics_port)
    else:
        yield ok("ports", "worker.metrics_port is 0: the worker takes any that is free and logs which")
    if batch.metrics_port:
        yield _port("batch", batch.metrics_host, batch.metrics_port)


def _port(section: str, host: str, port: int) -> Finding:
    place, setting = f"{host}:{port}", f"{section}.metrics_port"
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            everywhere = host in ("", "0.0.0.0")  # noqa: S104 - asked, not bound
            return _answered(section, "127.0.0.1" if everywhere else host, port)
        return fail(
            "ports",
            f"{place} cannot be served: {error.strerror}",
            f"set {section}.metrics_host to an address of this machine, {setting} to a port above 1023",
        )
    return ok("ports", f"{place} is free for {section}'s metrics")


def _answered(section: str, host: str, port: int) -> Finding:
    place = f"{host}:{port}"
    status, body = _get(f"http://{place}/metrics")
    if status != 200 or b"\nstreamguard_" not in body:
        return fail(
            "ports",
            f"{place} is used by something that is not StreamGuard",
            f"end it, or set {section}.metrics_port to another port",
        )
    if section == "batch":
        return ok("ports", f"{place} is answered by StreamGuard")
    lives, life = _get(f"http://{place}/healthz")
    ready, readiness = _get(f"http://{place}/readyz")
    if lives != 200:
        return fail("ports", f"the worker at {place} does not live: {_reason(life)}", "start it again")
    if ready != 200:
        return warn(
            "ports",
            f"the worker at {place} lives and is not ready: {_reason(readiness)}",
            "wait while it recovers; for anything else look into its log",
        )
    return ok("ports", f"the worker at {place} lives and is ready")


def _get(url: str) -> tuple[int, bytes]:
    """(status, body); (0, b"") if what listens there speaks no HTTP."""
    try:
        # A proxy of the environment has no business on this machine's own ports.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url, timeout=_PATIENCE) as answer:
            return answer.status, answer.read(1 << 24)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(1 << 16)
    except (OSError, ValueError, http.client.HTTPException):
        return 0, b""


def _reason(body: bytes) -> str:
    try:
        told: dict[str, Any] = msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.DecodeError:
        return "no answer"
    return f"{told.get('reason')}: {told.get('detail')}"
