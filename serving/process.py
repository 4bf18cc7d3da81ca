"""Runs one `streamguard serve`, from its settings to its exit code."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import secrets
import signal
import socket as sockets
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import uvicorn

from streamguard.errors import ConfigurationError, ExitCode, StreamGuardError, TemporaryError
from streamguard.files import lock
from streamguard.kafka import topics
from streamguard.kafka.connection import Brokers
from streamguard.metrics import (
    SERVE,
    SERVE_FOLLOWING,
    SERVE_INCIDENTS,
    SERVE_LAG,
    SERVE_OPEN_INCIDENTS,
    SERVE_READY,
    SERVE_STALENESS,
    SERVE_TROUBLE,
    exposition,
)
from streamguard.probes import Answer, Server, bind
from streamguard.serving.api.app import application
from streamguard.serving.api.keys import Keyring, new_key
from streamguard.serving.decisions.writer import ActionWriter
from streamguard.serving.page.routes import ROUTES, problem_page
from streamguard.serving.projection import projector
from streamguard.serving.projection.projector import Follower
from streamguard.serving.projection.store import Store
from streamguard.serving.query.detection import DetectionDesk
from streamguard.serving.query.events import EventQueries
from streamguard.serving.query.service import QueryService, Sources
from streamguard.serving.query.users import UserQueries
from streamguard.serving.replica.replica import Replica
from streamguard.serving.results.answers import Unavailable
from streamguard.serving.results.archive import ArchivedEvents
from streamguard.serving.results.batch import BatchResults
from streamguard.serving.results.dead_letters import DeadLetterSummary, dead_letters
from streamguard.serving.results.models import Models
from streamguard.serving.results.shared import Shared
from streamguard.settings.schema import Settings

SESSION_DAYS = 1.0
"""How long the key is valid that is made at the start without a file of keys: such a server is for trying it out."""
STOP_SECONDS = 5.0
"""How long open requests and streams may take to end after SIGTERM."""
ANSWER_SECONDS = 15
"""How long an idle connection stays open."""
DEAD_LETTER_SECONDS = 5.0
"""How long the dead letters may be read for an answer, which then has those that were read."""
THREADS = 40
"""Requests that are answered at the same time; each thread has a connection to the database."""
MAX_CONNECTIONS = 1000
"""Concurrent connections; further ones are answered with 503."""
_COUNTS = "SELECT count(*), coalesce(sum(status <> 'closed'), 0) FROM incidents"

_log = logging.getLogger(__name__)


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT, and return the exit code (`streamguard.errors`).

    Raises
    ------
    TemporaryError
        If the port or the data directory is in use.
    ConfigurationError
        If an address, a certificate or the file of the keys cannot be used.
    """
    own = settings.serve
    given = None
    if not own.keys_file:
        key, given = new_key("local", "admin", SESSION_DAYS * 86_400)
    keyring = Keyring(Path(own.keys_file) if own.keys_file else None, given)
    with _directory(Path(own.data_dir)) as directory:
        store = Store(directory, settings.detection.floor_bits)
        followers = _followers(settings, store)
        # Each start has a name of its own, because servers that share a name would end each other's transactions.
        transactional_id = f"{settings.worker.app_id}-serve-{secrets.token_hex(8)}"
        writer = ActionWriter(Brokers.of(settings), topics.names(settings)["decisions"], transactional_id)
        replica = Replica(settings, directory / "replica")
        service = QueryService(store, followers, writer)
        service.sources = _sources(settings, service, replica)
        socket = _socket(own.host, own.port)
        port = socket.getsockname()[1]
        scheme = "https" if own.certificate_file else "http"
        address = f"{scheme}://{_host(own.host)}:{port}"
        stop = threading.Event()
        threads = {
            one.role: threading.Thread(target=one.run, args=(stop,), name=one.topic) for one in followers
        }
        threads["changelog"] = threading.Thread(target=_follow, args=(replica, stop), name=replica.topic)
        health = _health(settings, service, store, followers, replica, threads)
        for thread in threads.values():
            thread.start()
        health.start("health")
        _log.info(
            "serving incidents of %s at %s",
            settings.kafka.bootstrap_servers,
            address,
            extra={"port": port, "metrics_port": health.port, "pid": os.getpid()},
        )
        if given is not None:
            # To standard output and not to the log, which other people may read.
            print(f"open {address}/sign-in?key={key}", flush=True)  # noqa: T201 - the result of the command
        try:
            asyncio.run(_serve(settings, keyring, service, socket))
        finally:
            stop.set()
            for thread in threads.values():
                thread.join()
            writer.close()
            store.close()
            socket.close()
    _log.info("the server has ended", extra={"exit_code": int(ExitCode.OK)})
    return ExitCode.OK


async def _serve(settings: Settings, keyring: Keyring, service: QueryService, socket: sockets.socket) -> None:
    own = settings.serve
    server = uvicorn.Server(
        uvicorn.Config(
            application(service, keyring, own, ROUTES, problem_page),
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="on",
            timeout_keep_alive=ANSWER_SECONDS,
            timeout_graceful_shutdown=round(STOP_SECONDS),
            limit_concurrency=MAX_CONNECTIONS,
            ssl_certfile=own.certificate_file or None,
            ssl_keyfile=own.private_key_file or None,
        )
    )
    # Requests wait for Kafka in threads: by default there are four more than cores.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS, "request"))
    server.config.load()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, lambda: setattr(server, "should_exit", True))
    with _own_signals(server):
        await server.serve(sockets=[socket])


@contextlib.contextmanager
def _own_signals(server: uvicorn.Server) -> Iterator[None]:
    """Keep uvicorn from taking the signals, after which it would raise them again: the process ends with 0."""
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
    yield


def _followers(settings: Settings, store: Store) -> tuple[Follower, ...]:
    brokers, names = Brokers.of(settings), topics.names(settings)
    return (
        projector.incidents(brokers, names["alerts"], store),
        projector.campaigns(brokers, names["campaigns"], store),
        projector.decisions(brokers, names["decisions"], store),
    )


def _follow(replica: Replica, stop: threading.Event) -> None:
    """Follow the state changelog. An error that waiting does not remove leaves profiles unknown, and the rest works."""
    try:
        replica.follow(stop)
    except StreamGuardError as error:
        _log.error("profiles are not known until the server is started again: %s", error)
    except Exception:  # noqa: BLE001 - whatever it is, incidents are still served
        _log.exception("profiles are not known until the server is started again: report this traceback")


def _sources(settings: Settings, service: QueryService, replica: Replica) -> Sources:
    brokers, batch = Brokers.of(settings), BatchResults(settings.batch.output)
    archive = ArchivedEvents(settings.serve.archive_dir or None)
    assert service.cases is not None
    letters = topics.names(settings)["dead_letter"]
    read_letters: Shared[DeadLetterSummary | Unavailable] = Shared(
        lambda: dead_letters(brokers, letters, DEAD_LETTER_SECONDS),
        Unavailable("unreadable", f"{letters} is being read for another request: ask again in some seconds"),
    )
    return Sources(
        users=UserQueries(service.incidents, replica, batch),
        events=EventQueries(service.incidents, brokers, archive),
        batch=batch,
        models=Models(settings),
        detection=DetectionDesk(settings, service.incidents, service.cases),
        dead_letters=read_letters,
    )


@contextlib.contextmanager
def _directory(path: Path) -> Iterator[Path]:
    """The data directory, which one process uses at a time."""
    try:
        held = lock.acquire(path / ".lock")
    except BlockingIOError:
        raise TemporaryError(
            f"another server uses {path}: give each its own serve.data_dir, or stop the other one"
        ) from None
    except OSError as error:
        raise ConfigurationError(
            f"serve.data_dir {path} cannot be used: {error.strerror}; make it writable or set another one"
        ) from None
    try:
        yield path
    finally:
        os.close(held)


def _socket(host: str, port: int) -> sockets.socket:
    try:
        return bind(host, port)
    except OSError as error:
        raise TemporaryError(
            f"the page cannot be served on {host}:{port}: {error.strerror}; stop the program that uses the port, or "
            "set serve.port (--port)"
        ) from None


def _health(
    settings: Settings,
    service: QueryService,
    store: Store,
    followers: tuple[Follower, ...],
    replica: Replica,
    threads: Mapping[str, threading.Thread],
) -> Server:
    own = settings.serve

    def page(path: str) -> Answer:
        ended = [thread.name for thread in threads.values() if not thread.is_alive()]
        problem = service.ready or _ended(ended)
        if path == "/metrics":
            SERVE_READY.set(not problem)
            for role, thread in threads.items():
                SERVE_FOLLOWING.labels(role).set(thread.is_alive())
            _observe(store, followers, replica)
            return Answer(200, "text/plain; version=0.0.4; charset=utf-8", exposition(SERVE))
        if path == "/healthz":
            return Answer(200, "application/json", b'{"status":"alive"}')
        if path == "/readyz":
            body = {"status": "not ready", "reason": problem} if problem else {"status": "ready"}
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
    """Why a server is not ready of which threads have ended; empty if none has."""
    if not topics:
        return ""
    return (
        f"{', '.join(topics)}: not followed any more; the log of the server has the reason: remove it, and start the "
        "server again"
    )


def _observe(store: Store, followers: tuple[Follower, ...], replica: Replica) -> None:
    """Set the gauges of the projection and of the replica; an incident count is NaN while it cannot be read."""
    for follower in followers:
        SERVE_STALENESS.labels(follower.role).set(follower.progress.as_of().staleness_ms / 1000)
        SERVE_LAG.labels(follower.role).set(follower.lag)
        SERVE_TROUBLE.labels(follower.role).set(bool(follower.trouble))
    SERVE_TROUBLE.labels("changelog").set(bool(replica.trouble))
    SERVE_STALENESS.labels("changelog").set(replica.as_of().staleness_ms / 1000)
    SERVE_LAG.labels("changelog").set(replica.counters().lag)
    try:
        found = store.reader().execute(_COUNTS).fetchone()
    except sqlite3.Error as error:
        _log.warning("incidents cannot be counted for the metrics: %s", error)
        found = (math.nan, math.nan)
    SERVE_INCIDENTS.set(found[0])
    SERVE_OPEN_INCIDENTS.set(found[1])


def _host(host: str) -> str:
    """A host as it stands in an address: every interface is reached by the loopback."""
    shown = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"[{shown}]" if ":" in shown else shown
