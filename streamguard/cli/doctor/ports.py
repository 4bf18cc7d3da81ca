"""Checks of the ports: each is free, or the part of StreamGuard that uses it answers on it."""

from __future__ import annotations

import errno
import http.client
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import msgspec

from streamguard.cli.doctor.finding import Finding, fail, ok, warn
from streamguard.probes import bind
from streamguard.settings.schema import Settings

_PATIENCE = 2.0
_LOOPBACK = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound
"""Where to ask a server that listens on all addresses."""


def ports(settings: Settings) -> Iterator[Finding]:
    """Check the worker's port, the ports of `serve`, and the retrain's port if one is set."""
    worker, batch, serve = settings.worker, settings.batch, settings.serve
    if worker.metrics_port:
        yield _port("worker", worker.metrics_host, worker.metrics_port)
    else:
        yield ok("ports", "worker.metrics_port is 0: the worker chooses a free port and logs it")
    if batch.metrics_port:
        yield _port("batch", batch.metrics_host, batch.metrics_port)
    if serve.metrics_port:
        yield _of_server(_port("serve", serve.metrics_host, serve.metrics_port))
    if serve.port:
        yield _of_server(_page(settings))


def _of_server(finding: Finding) -> Finding:
    """A finding about `serve`, which many machines do not run: a failure is a warning."""
    if finding.status != "fail":
        return finding
    return warn(finding.check, f"{finding.found}; `serve` needs it, a worker does not", finding.remedy)


def _page(settings: Settings) -> Finding:
    """Check the port of the API and the page."""
    serve = settings.serve
    place = _place(serve.host, serve.port)
    problem = _problem(serve.host, serve.port)
    if problem is None:
        return ok("ports", f"{place} is free for the page")
    if problem.errno != errno.EADDRINUSE:
        return fail(
            "ports",
            f"the page cannot be served on {place}: {problem.strerror}",
            "set serve.host to an address of this machine, and serve.port to a port above 1023",
        )
    if serve.certificate_file:
        return ok("ports", f"{place} is in use; it was not asked, because serve.certificate_file is set")
    status, body = _get(f"http://{_place(_LOOPBACK.get(serve.host, serve.host), serve.port)}/sign-in")
    if status == 200 and b"StreamGuard" in body:
        return ok("ports", f"the page answers on {place}")
    return fail(
        "ports",
        f"{place} is used by something that does not answer as StreamGuard's page",
        "set serve.port to another port, or stop that process",
    )


def _problem(host: str, port: int) -> OSError | None:
    """Why a port cannot be listened on; None if it can."""
    try:
        bind(host, port).close()
    except OSError as error:
        return error
    return None


def _place(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _port(section: str, host: str, port: int) -> Finding:
    place, setting = _place(host, port), f"{section}.metrics_port"
    error = _problem(host, port)
    if error is not None:
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
    if section != "worker":
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
