"""Checks of the metrics ports: each is free, or a worker or retrain answers on it."""

from __future__ import annotations

import errno
import http.client
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import msgspec

from streamguard.cli.doctor.finding import Finding, fail, ok, warn
from streamguard.serving import bind
from streamguard.settings.schema import Settings

_PATIENCE = 2.0
_LOOPBACK = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound
"""Where to ask a server that listens on all addresses."""


def ports(settings: Settings) -> Iterator[Finding]:
    """Check the worker's port, and the retrain's port if one is set."""
    worker, batch = settings.worker, settings.batch
    if worker.metrics_port:
        yield _port("worker", worker.metrics_host, worker.metrics_port)
    else:
        yield ok("ports", "worker.metrics_port is 0: the worker chooses a free port and logs it")
    if batch.metrics_port:
        yield _port("batch", batch.metrics_host, batch.metrics_port)


def _place(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _port(section: str, host: str, port: int) -> Finding:
    place, setting = _place(host, port), f"{section}.metrics_port"
    try:
        bind(host, port).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return _answered(section, _LOOPBACK.get(host, host), port)
        return fail(
            "ports",
            f"the {section} metrics cannot be served on {place}: {error.strerror}",
            f"set {section}.metrics_host to an address of this machine, and {setting} to a port above 1023",
        )
    return ok("ports", f"{place} is free for the {section} metrics")


def _answered(section: str, host: str, port: int) -> Finding:
    place = _place(host, port)
    status, body = _get(f"http://{place}/metrics")
    if status != 200 or b"\nstreamguard_" not in body:
        return fail(
            "ports",
            f"{place} is used by something that is not StreamGuard",
            f"set {section}.metrics_port to another port, or stop that process",
        )
    if section == "batch":
        return ok("ports", f"StreamGuard answers on {place}")
    lives, life = _get(f"http://{place}/healthz")
    ready, readiness = _get(f"http://{place}/readyz")
    if lives != 200:
        return fail(
            "ports", f"the worker at {place} failed its liveness check: {_reason(life)}", "restart the worker"
        )
    if ready != 200:
        return warn(
            "ports",
            f"the worker at {place} is live but not ready: {_reason(readiness)}",
            "wait while it restores its state; for another reason see StreamGuardNotReady in docs/runbooks.md",
        )
    return ok("ports", f"the worker at {place} is live and ready")


def _get(url: str) -> tuple[int, bytes]:
    """(status, body); (0, b"") if the port does not answer in HTTP."""
    try:
        # Requests to this machine must not go through a proxy that the environment names.
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
        answer: dict[str, Any] = msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.DecodeError:
        return "no answer"
    return f"{answer.get('reason')}: {answer.get('detail')}"
