"""A local one-node Apache Kafka without Docker, which can be stopped, killed, and started again with its data."""

from __future__ import annotations

import base64
import contextlib
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import uuid
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from streamguard.errors import UnavailableError
from streamguard.jvm.jars import Jars
from streamguard.jvm.java import find_java
from streamguard.polling import poll_until

KAFKA_VERSION = "4.3.1"

KAFKA = Jars(
    f"kafka-{KAFKA_VERSION}",
    f"Apache Kafka {KAFKA_VERSION}",
    (
        ("org.apache.kafka", "kafka_2.13", KAFKA_VERSION),
        ("org.apache.logging.log4j", "log4j-slf4j-impl", "2.25.4"),  # without it the broker logs nothing
    ),
)

HOST = "127.0.0.1"
MAX_HELD = 64
"""Ports that this process keeps other processes from finding, the latest; programs listen on the earlier ones."""
STARTED = "Kafka Server started"
"""Message that the broker logs when it is unfenced and accepts requests."""

SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": 1,
    "controller.listener.names": "CONTROLLER",
    "auto.create.topics.enable": "false",  # automatic creation would give a topic the wrong number of partitions
    "group.initial.rebalance.delay.ms": 0,
    "group.min.session.timeout.ms": 1000,
    "offsets.topic.replication.factor": 1,
    "offsets.topic.num.partitions": 4,
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
    "transaction.state.log.num.partitions": 4,
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": 1000,
    "share.coordinator.state.topic.replication.factor": 1,
    "share.coordinator.state.topic.min.isr": 1,
    "broker.session.timeout.ms": 3000,  # a broker that was killed can register again after this time
    "broker.heartbeat.interval.ms": 500,
    "num.network.threads": 2,
    "num.io.threads": 4,
    "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,  # 128 MB by default, a third of this heap
}

LOGGING = """\
status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d %p %m (%c)%n
rootLogger.level = info
rootLogger.appenderRef.console.ref = console
logger.config.name = org.apache.kafka.common.config.AbstractConfig
logger.config.level = warn
"""

GUARDED = """
exec 3<&0
(read released <&3 || { kill -9 $$; [ -z "$0" ] || rm -rf "$0"; }) &
exec "$@" 3<&- </dev/null
"""
"""Shell script that replaces itself with a command. If its standard input ends without a line, the owner was killed:
the command is then killed, too, and the directory $0, if given, is removed."""


@dataclass(frozen=True, slots=True)
class Quorum:
    """The controllers of a cluster of several nodes, each of which is a `LocalKafka`.

    Attributes
    ----------
    voters
        Port of the controller of each node, by the node's number.
    cluster_id
        Kafka's id of the cluster.
    """

    voters: Mapping[int, int]
    cluster_id: str = field(default_factory=lambda: _random_id())

    @property
    def setting(self) -> str:
        """Value of `controller.quorum.voters`."""
        return ",".join(f"{node}@{HOST}:{port}" for node, port in self.voters.items())


class BrokerError(UnavailableError):
    """The local Kafka did not start, or has ended by itself; the message contains the last lines of its log."""


class LocalKafka:
    """One Kafka node on 127.0.0.1 that ends together with its owner, even if the owner is killed.

    Parameters
    ----------
    directory
        Holds data, configuration and log. If it belongs to an earlier broker, that broker's data and ports are used.
        None creates a temporary directory, which `close` removes.
    port
        Port for clients; None selects the port of the directory's earlier broker or, without one, a free port.
    heap_megabytes
        Size of the Java heap.
    protocol
        Security protocol for clients: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL.
    settings
        Additional settings of the broker, for example certificates or an authorizer; they override the usual ones.
    users
        Name -> password of each SCRAM-SHA-512 user that is created with the broker.
    node
        Number of this node in its cluster.
    quorum
        The cluster of several nodes that this one joins; it starts only when most of them do. None: it is alone.

    Notes
    -----
    ::

        with LocalKafka() as kafka:
            kafka.kill()             # simulates a crash
            kafka.start()            # uses the same port and the same data
            kafka.bootstrap_servers  # "127.0.0.1:21044"
    """

    def __init__(
        self,
        directory: Path | None = None,
        port: int | None = None,
        *,
        heap_megabytes: int = 384,
        protocol: str = "PLAINTEXT",
        settings: Mapping[str, object] | None = None,
        users: Mapping[str, str] | None = None,
        node: int = 1,
        quorum: Quorum | None = None,
    ) -> None:
        self._protocol = protocol
        self._settings = dict(settings or {})
        self._users = dict(users or {})
        self._node = node
        self._quorum = quorum
        self._temporary = directory is None
        self.directory = (
            Path(tempfile.mkdtemp(prefix="streamguard-kafka-")) if directory is None else directory.resolve()
        )
        kept = self._kept_ports()
        self.port = port or (kept[0] if kept else free_port())
        self._controller_port = quorum.voters[node] if quorum else kept[1] if kept else free_port()
        self._heap = f"-Xmx{heap_megabytes}m"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap_servers(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def log(self) -> Path:
        """Log file of the broker."""
        return self.directory / "broker.log"

    @property
    def pid(self) -> int | None:
        """Process id of the broker, or None if it does not run."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self, timeout: float = 90.0) -> None:
        """Start the broker with the existing data, if any, and wait until it accepts requests.

        Raises
        ------
        BrokerError
            If the broker already runs, a port is in use, or the broker ends or does not start within `timeout`
            seconds.
        JavaNotFoundError, JarsUnavailableError
            If this machine has no Java, or the libraries of Kafka are unavailable.
        """
        if self.pid:
            raise BrokerError(
                f"the local Kafka already runs as process {self.pid}: stop it before another start"
            )
        self.kill()  # releases the guard process of a broker that has ended by itself
        for port in (self.port, self._controller_port):
            if not _is_free(port):
                raise BrokerError(
                    f"port {port} on {HOST} is in use: choose another port, or stop the process that listens there"
                )
        java = find_java()
        jars = KAFKA.fetched(java)
        self._configure()
        run = [str(java), self._heap, "-XX:+UseSerialGC", "-cp", f"{jars}/*"]
        run.append(f"-Dlog4j2.configurationFile={self.directory / 'log4j2.properties'}")
        if not (self.directory / "data" / "meta.properties").exists():
            self._format(run)
        run += ["kafka.Kafka", str(self.directory / "server.properties")]
        log_start = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", GUARDED, str(self.directory) if self._temporary else "", *run],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C reaches only the owner, which then stops the broker in order
            )
        self._await_started(log_start, timeout)

    def stop(self, timeout: float = 30.0) -> None:
        """Shut the broker down in order, or kill it after `timeout` seconds; does nothing if it does not run."""
        self._end(signal.SIGTERM, timeout)

    def kill(self) -> None:
        """End the broker at once, as `kill -9` does; does nothing if it does not run."""
        self._end(signal.SIGKILL, None)

    def close(self) -> None:
        """Stop the broker, and remove its directory if it is temporary."""
        if self._temporary:
            self.kill()
            shutil.rmtree(self.directory, ignore_errors=True)
        else:
            self.stop()

    def check(self) -> None:
        """Raise `BrokerError` if the broker was started and has ended by itself."""
        if self._process and (code := self._process.poll()) is not None:
            raise BrokerError(
                f"the local Kafka has ended by itself with exit code {code}; {self._log_tail()}"
            )

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _kept_ports(self) -> tuple[int, int] | None:
        """Ports (broker, controller) of an earlier broker in this directory.

        The controller's port is part of the data, and clients expect the broker's port to stay the same.
        """
        try:
            lines = (self.directory / "server.properties").read_text().splitlines()
        except FileNotFoundError:
            return None
        broker, controller = dict(line.split("=", 1) for line in lines)["listeners"].split(",")
        return int(broker.rpartition(":")[2]), int(controller.rpartition(":")[2])

    def _configure(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        places: dict[str, object] = {
            "listeners": f"{self._protocol}://{HOST}:{self.port},CONTROLLER://{HOST}:{self._controller_port}",
            "advertised.listeners": f"{self._protocol}://{HOST}:{self.port}",
            "inter.broker.listener.name": self._protocol,
            "listener.security.protocol.map": f"CONTROLLER:PLAINTEXT,{self._protocol}:{self._protocol}",
            "log.dirs": self.directory / "data",
            "node.id": self._node,
        }
        if self._quorum is None:
            places["controller.quorum.bootstrap.servers"] = f"{HOST}:{self._controller_port}"
        else:
            places["controller.quorum.voters"] = self._quorum.setting
        settings = "".join(
            f"{name}={value}\n" for name, value in (SETTINGS | places | self._settings).items()
        )
        (self.directory / "server.properties").write_text(settings)
        (self.directory / "log4j2.properties").write_text(LOGGING)

    def _format(self, run: list[str]) -> None:
        tool = [*run, "-XX:TieredStopAtLevel=1", "kafka.tools.StorageTool", "format"]
        tool += ["--cluster-id", self._quorum.cluster_id if self._quorum else _random_id()]
        tool += ["--config", str(self.directory / "server.properties")]
        if self._quorum is None:
            tool.append("--standalone")
        for name, password in self._users.items():
            tool += ["--add-scram", f"SCRAM-SHA-512=[name={name},password={password}]"]
        with self.log.open("ab") as log:
            if subprocess.run(tool, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False).returncode:
                raise BrokerError(
                    f"the local Kafka could not format its data directory {self.directory / 'data'}; {self._log_tail()}"
                )

    def _await_started(self, log_start: int, timeout: float) -> None:
        def started() -> bool:
            if STARTED.encode() in self._logged_since(log_start):
                return True
            self.check()
            return False

        try:
            poll_until(started, timeout)
        except TimeoutError:
            self.kill()
            raise BrokerError(
                f"the local Kafka did not start within {timeout:g} s; {self._log_tail()}"
            ) from None

    def _logged_since(self, position: int) -> bytes:
        with self.log.open("rb") as log:
            log.seek(position)
            return log.read()

    def _log_tail(self, lines: int = 15) -> str:
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return f"the end of {self.log}:\n" + "\n".join(text.splitlines()[-lines:])

    def _end(self, how: signal.Signals, timeout: float | None) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdin
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(b"released\n")
            process.stdin.close()


def _random_id() -> str:
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "_")


_held: deque[socket.socket] = deque()


def free_port() -> int:
    """Find a free port on 127.0.0.1, which neither this process nor another one has found within the last moments.

    The port lies below the range that systems use for outgoing connections. Otherwise, a client that keeps trying to
    reach a stopped broker could be assigned the broker's port and connect to itself.

    A program takes seconds until it listens on its port. Until then, a UDP socket of this process holds the number,
    so that no other process finds it; the socket stands in the way of no TCP server.
    """
    for port in random.SystemRandom().sample(range(15_000, 30_000), 200):
        held = socket.socket(type=socket.SOCK_DGRAM)
        try:
            held.bind((HOST, port))
        except OSError:
            held.close()
            continue
        if _is_free(port):
            _held.append(held)
            if len(_held) > MAX_HELD:
                _held.popleft().close()
            return port
        held.close()
    raise BrokerError(f"no free port found on {HOST} between 15000 and 30000: choose one with `port`")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
