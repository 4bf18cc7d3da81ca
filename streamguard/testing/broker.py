"""A real one-node Apache Kafka on loopback, without Docker: start, stop, kill, start again with its data."""

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
from collections.abc import Mapping
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
STARTED = "Kafka Server started"
"""What the broker logs once it is unfenced and takes requests."""

SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": 1,
    "controller.listener.names": "CONTROLLER",
    "auto.create.topics.enable": "false",  # a client that creates a topic gets its partition count wrong
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
    "broker.session.timeout.ms": 3000,  # a broker that was killed is let in again after this
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
"""Runs a command in the place of this shell. If its standard input ends without a line, the owner was killed:
then the command is killed too, and the directory $0 removed, if one is given."""


class BrokerError(UnavailableError):
    """The local Kafka did not start or ended by itself; the message has the last lines of its log."""


class LocalKafka:
    """One Kafka node on 127.0.0.1 that ends with its owner, also when the owner is killed.

    Parameters
    ----------
    directory
        Keeps data, configuration and log; an earlier broker's directory is continued, on its ports. None
        means a temporary one that is removed by `close`.
    port
        Where clients connect; None means a free one, or the directory's own.
    heap_megabytes
        Java heap.
    protocol
        How clients connect: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL.
    settings
        More of the broker's, or others than `SETTINGS`: certificates, an authorizer.
    users
        Name -> password of each SCRAM-SHA-512 user that is there from the start.

    Notes
    -----
    ::

        with LocalKafka() as kafka:
            kafka.kill()             # as if the process had crashed
            kafka.start()            # same port, same data
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
    ) -> None:
        self._protocol = protocol
        self._settings = dict(settings or {})
        self._users = dict(users or {})
        self._temporary = directory is None
        self.directory = (
            Path(tempfile.mkdtemp(prefix="streamguard-kafka-")) if directory is None else directory.resolve()
        )
        kept = self._kept_ports()
        self.port = port or (kept[0] if kept else free_port())
        self._controller_port = kept[1] if kept else free_port()
        self._heap = f"-Xmx{heap_megabytes}m"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap_servers(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def log(self) -> Path:
        """What the broker says."""
        return self.directory / "broker.log"

    @property
    def pid(self) -> int | None:
        """The broker's process, or None if it does not run."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self, timeout: float = 90.0) -> None:
        """Start and wait until requests are served; continues the data that is there.

        Raises
        ------
        BrokerError
            If the broker already runs, a port is taken, or it ends or stays silent for `timeout` seconds.
        JavaNotFoundError, JarsUnavailableError
            If this machine has nothing to run it with.
        """
        if self.pid:
            raise BrokerError(f"the local Kafka already runs as process {self.pid}")
        self.kill()  # lets the guard of one that ended by itself go
        for port in (self.port, self._controller_port):
            if not _is_free(port):
                raise BrokerError(
                    f"port {port} on {HOST} is in use: end what listens there or choose another port"
                )
        java = find_java()
        jars = KAFKA.fetched(java)
        self._configure()
        run = [str(java), self._heap, "-XX:+UseSerialGC", "-cp", f"{jars}/*"]
        run.append(f"-Dlog4j2.configurationFile={self.directory / 'log4j2.properties'}")
        if not (self.directory / "data" / "meta.properties").exists():
            self._format(run)
        run += ["kafka.Kafka", str(self.directory / "server.properties")]
        said_before = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", GUARDED, str(self.directory) if self._temporary else "", *run],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the owner, who stops the broker in order
            )
        self._await_started(said_before, timeout)

    def stop(self, timeout: float = 30.0) -> None:
        """Shut down in order, or kill it after `timeout` seconds. Nothing if it does not run."""
        self._end(signal.SIGTERM, timeout)

    def kill(self) -> None:
        """End at once, as `kill -9` does. Nothing if it does not run."""
        self._end(signal.SIGKILL, None)

    def close(self) -> None:
        """Stop for good: a temporary directory is removed."""
        if self._temporary:
            self.kill()
            shutil.rmtree(self.directory, ignore_errors=True)
        else:
            self.stop()

    def check(self) -> None:
        """Raise `BrokerError` if the broker was started and has ended by itself."""
        if self._process and (code := self._process.poll()) is not None:
            raise BrokerError(f"the local Kafka ended by itself with code {code}; {self._last_words()}")

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
        """Ports of an earlier broker here: the controller's is part of its data, clients expect the other."""
        try:
            lines = (self.directory / "server.properties").read_text().splitlines()
        except FileNotFoundError:
            return None
        broker, controller = dict(line.split("=", 1) for line in lines)["listeners"].split(",")
        return int(broker.rpartition(":")[2]), int(controller.rpartition(":")[2])

    def _configure(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        places = {
            "listeners": f"{self._protocol}://{HOST}:{self.port},CONTROLLER://{HOST}:{self._controller_port}",
            "advertised.listeners": f"{self._protocol}://{HOST}:{self.port}",
            "inter.broker.listener.name": self._protocol,
            "listener.security.protocol.map": f"CONTROLLER:PLAINTEXT,{self._protocol}:{self._protocol}",
            "controller.quorum.bootstrap.servers": f"{HOST}:{self._controller_port}",
            "log.dirs": self.directory / "data",
        }
        settings = "".join(
            f"{name}={value}\n" for name, value in (SETTINGS | self._settings | places).items()
        )
        (self.directory / "server.properties").write_text(settings)
        (self.directory / "log4j2.properties").write_text(LOGGING)

    def _format(self, run: list[str]) -> None:
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "_")
        tool = [*run, "-XX:TieredStopAtLevel=1", "kafka.tools.StorageTool", "format", "--standalone"]
        tool += ["--cluster-id", cluster, "--config", str(self.directory / "server.properties")]
        for name, password in self._users.items():
            tool += ["--add-scram", f"SCRAM-SHA-512=[name={name},password={password}]"]
        with self.log.open("ab") as log:
            if subprocess.run(tool, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False).returncode:
                raise BrokerError(
                    f"the local Kafka could not prepare its data directory; {self._last_words()}"
                )

    def _await_started(self, said_before: int, timeout: float) -> None:
        def started() -> bool:
            if STARTED.encode() in self._said_since(said_before):
                return True
            self.check()
            return False

        try:
            poll_until(started, timeout)
        except TimeoutError:
            self.kill()
            raise BrokerError(
                f"the local Kafka did not start within {timeout:g} s; {self._last_words()}"
            ) from None

    def _said_since(self, position: int) -> bytes:
        with self.log.open("rb") as log:
            log.seek(position)
            return log.read()

    def _last_words(self, lines: int = 15) -> str:
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


def free_port() -> int:
    """A port on 127.0.0.1 that nothing listens on.

    Taken from below the range that systems give to outgoing connections: a client that keeps trying to
    reach a broker that is down could otherwise be given the broker's own port and connect to itself.
    """
    for port in random.sample(range(15_000, 30_000), 200):
        if _is_free(port):
            return port
    raise BrokerError(f"no free port found on {HOST} between 15000 and 30000")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
