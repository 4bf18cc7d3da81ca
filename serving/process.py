"""Runs one `streamguard serve`, from its settings to its exit code."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
import os
import secrets
import signal
import socket as sockets
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

from streamguard import memory_release
from streamguard.errors import ConfigurationError, ExitCode, StreamGuardError, TemporaryError
from streamguard.files import lock
from streamguard.kafka import topics
from streamguard.kafka.connection import Brokers
from streamguard.probes import bind
from streamguard.serving import health as serving_health
from streamguard.serving.api.app import application
from streamguard.serving.api.keys import Keyring, new_key
from streamguard.serving.api.peers import PeerAccess, peer_group
from streamguard.serving.api.sessions import Sessions, session_secret
from streamguard.serving.audit.log import AuditLog
from streamguard.serving.audit.reading import latest
from streamguard.serving.connections import bounded_server, raise_file_limit
from streamguard.serving.decisions.writer import ActionWriter
from streamguard.serving.masking.pseudonyms import Pseudonyms, key_of
from streamguard.serving.masking.viewer import Privacy
from streamguard.serving.page.routes import ROUTES, problem_page
from streamguard.serving.peers.holders import Holders
from streamguard.serving.peers.partitions import parse
from streamguard.serving.peers.profiles import Profiles
from streamguard.serving.peers.sources import SourceStates
from streamguard.serving.projection import projector
from streamguard.serving.projection.projector import Follower
from streamguard.serving.projection.store import Store
from streamguard.serving.query.archived import ArchivedQueries
from streamguard.serving.query.compare import CompareQueries
from streamguard.serving.query.detection import DetectionDesk
from streamguard.serving.query.events import EventQueries
from streamguard.serving.query.service import QueryService, Sources
from streamguard.serving.query.sources import SourceQueries
from streamguard.serving.query.users import UserQueries
from streamguard.serving.replica.replica import Replica
from streamguard.serving.results.answers import Unavailable
from streamguard.serving.results.archive import ArchivedEvents
from streamguard.serving.results.batch import BatchResults
from streamguard.serving.results.dead_letters import DeadLetterSummary, dead_letters
from streamguard.serving.results.models import Models
from streamguard.serving.results.shared import Shared
from streamguard.settings.schema import Serve, Settings
from streamguard.settings.sign_in import missing

if TYPE_CHECKING:
    from streamguard.serving.oidc.flow import Flow

SESSION_DAYS = 1.0
"""How long the key is valid that is made at the start without a file of keys: such a server is for trying it out."""
STOP_SECONDS = 5.0
"""How long open requests and streams may take to end after SIGTERM."""
DEAD_LETTER_SECONDS = 5.0
"""How long the dead letters may be read for an answer, which then has those that were read."""
KAFKA_SECONDS = 1.0
"""How long Kafka may take to answer before the log says that the server waits for it."""
THREADS = 40
"""Requests that are answered at the same time; each thread has a connection to the database."""

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
    memory_release.keep_whole()
    own = settings.serve
    if problem := missing(own):
        raise ConfigurationError(problem)
    given = None
    if not own.keys_file and not own.oidc_issuer:
        key, given = new_key("local", "admin", SESSION_DAYS * 86_400)
    held = parse(own.partitions) if own.partitions else None
    access = PeerAccess.of(own)
    group = peer_group(own, topics.names(settings)["changelog"])
    keyring = Keyring(Path(own.keys_file) if own.keys_file else None, given)
    secret = session_secret(own.session_key_file) or secrets.token_bytes(32)
    flow = _flow(own, secret)
    if flow is None and not keyring.has_keys():
        _log.warning(
            "nobody can sign in: %s has no valid key; add one with `streamguard keys add`, or set serve.oidc_issuer",
            own.keys_file,
        )
    raise_file_limit()
    with contextlib.ExitStack() as used:  # what was opened is closed in the opposite order, whatever happens
        directory = used.enter_context(_directory(Path(own.data_dir)))
        pseudonyms = Pseudonyms(key_of(own.pseudonym_key_file, directory))
        store = Store(directory, settings.detection.floor_bits, pseudonyms.of, pseudonyms.fingerprint)
        used.callback(store.close)
        followers = _followers(settings, store)
        # Each start has a name of its own, because servers that share a name would end each other's transactions.
        transactional_id = f"{settings.worker.app_id}-serve-{secrets.token_hex(8)}"
        writer = ActionWriter(Brokers.of(settings), topics.names(settings)["decisions"], transactional_id)
        used.callback(writer.close)
        replica = Replica(settings, directory / "replica", held)
        holders = Holders(replica, group)
        profiles = Profiles(holders)
        service = QueryService(store, followers, writer)
        service.sources = _sources(settings, store, service, replica, profiles, SourceStates(holders))
        service.audit_log = lambda limit: latest(Brokers.of(settings), topics.names(settings)["audit"], limit)
        socket = _socket(own.host, own.port)
        used.callback(socket.close)
        app = application(
            service,
            keyring,
            own,
            ROUTES,
            functools.partial(problem_page, provider=flow.host if flow else ""),
            sessions=Sessions(keyring, secret, flow.policy if flow else ""),
            peer_access=access,
            state={"flow": flow},
        )
        server = bounded_server(app, own, STOP_SECONDS)
        stop = threading.Event()
        threads = {
            one.role: threading.Thread(target=one.run, args=(stop,), name=one.topic) for one in followers
        }
        threads["changelog"] = threading.Thread(target=_follow, args=(replica, stop), name=replica.topic)
        asking = [threading.Thread(target=group.watch, args=(stop,), name="peers")] if group else []
        health = serving_health.server(settings, service, store, followers, replica, profiles, threads)
        # The log of a server that cannot start would have no end.
        audit = AuditLog(Brokers.of(settings), topics.names(settings)["audit"])
        used.callback(audit.close)
        service.privacy = Privacy(pseudonyms, audit)
        for thread in (*threads.values(), *asking):
            thread.start()
            used.callback(thread.join)
        used.callback(stop.set)
        silence = threading.Timer(KAFKA_SECONDS, _note_silence, (followers, Brokers.of(settings)))
        silence.daemon = True
        silence.start()
        used.callback(silence.cancel)
        health.start("health")
        scheme = "https" if own.certificate_file else "http"
        port = socket.getsockname()[1]
        address = f"{scheme}://{_host(own.host)}:{port}"
        _log.info(
            "serving incidents of %s at %s",
            settings.kafka.bootstrap_servers,
            address,
            extra={"port": port, "metrics_port": health.port, "pid": os.getpid()},
        )
        if given is not None:
            # To standard output and not to the log, which other people may read.
            print(f"open {address}/sign-in?key={key}", flush=True)  # noqa: T201 - the result of the command
        # The objects that were loaded live until the end. A full collection skips them, and so takes 80 ms less, during
        # which no request is answered.
        gc.collect()
        gc.freeze()
        asyncio.run(_serve(server, socket))
    _log.info("the server has ended", extra={"exit_code": int(ExitCode.OK)})
    return ExitCode.OK


async def _serve(server: uvicorn.Server, socket: sockets.socket) -> None:
    # Requests wait for Kafka in threads: by default there are four more than cores.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS, "request"))
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


def _note_silence(followers: Sequence[Follower], brokers: Brokers) -> None:
    """Say what the server waits for if Kafka has not answered; why it does not answer follows some seconds later."""
    if not any(one.caught_up.is_set() or one.trouble or one.lag for one in followers):
        _log.warning("waiting for Kafka at %s", brokers)


def _follow(replica: Replica, stop: threading.Event) -> None:
    """Follow the state changelog. An error that waiting does not remove leaves profiles unknown, and the rest works."""
    try:
        replica.follow(stop)
    except StreamGuardError as error:
        _log.error("profiles are not known until the server is started again: %s", error)
    except Exception:  # noqa: BLE001 - whatever it is, incidents are still served
        _log.exception("profiles are not known until the server is started again: report this traceback")


def _sources(
    settings: Settings,
    store: Store,
    service: QueryService,
    replica: Replica,
    profiles: Profiles,
    states: SourceStates,
) -> Sources:
    brokers, batch = Brokers.of(settings), BatchResults(settings.batch.output)
    archive = ArchivedEvents(settings.serve.archive_dir or None)
    assert service.cases is not None
    letters = topics.names(settings)["dead_letter"]
    models = Models(settings)
    read_letters: Shared[DeadLetterSummary | Unavailable] = Shared(
        lambda: dead_letters(brokers, letters, DEAD_LETTER_SECONDS),
        Unavailable("unreadable", f"{letters} is being read for another request: ask again in some seconds"),
    )
    return Sources(
        users=UserQueries(service.incidents, profiles, batch),
        events=EventQueries(service.incidents, brokers, archive),
        batch=batch,
        models=models,
        detection=DetectionDesk(settings, service.incidents, service.cases),
        compare=CompareQueries(
            service.totals, replica, batch, models.has_champion, settings.detection.forget_ms
        ),
        archived=ArchivedQueries(service.incidents, archive),
        addresses=SourceQueries(store, service.incidents, service.totals, states, batch),
        dead_letters=read_letters,
    )


def _flow(own: Serve, secret: bytes) -> Flow | None:
    """How people sign in with a provider; what that needs is loaded only if a provider is set: 12 MB."""
    if not own.oidc_issuer:
        return None
    from streamguard.serving.oidc.flow import Flow

    return Flow(own, secret)


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


def _host(host: str) -> str:
    """A host as it stands in an address: every interface is reached by the loopback."""
    shown = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"[{shown}]" if ":" in shown else shown
