"""Brokers and their security settings, translated to the configuration of each Kafka client."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import ssl
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streamguard.kafka.reach import UnreachableError, require_one, unreached
from streamguard.settings.schema import Security, Settings, SettingsError

MAX_PASSWORD_BYTES = 1024

REQUEST_TIMEOUT = 30.0
"""Seconds that a producer waits for an answer; a broker that restarts is back by then."""

_ALL_DOWN = "_ALL_BROKERS_DOWN"
_NAME_WITH_ID = re.compile(r":\d+/\d+: ")
"""How librdkafka names a broker that it knows from metadata, `host:port/id`; a bootstrap server has no id."""
_REMEDIES = {
    "_AUTHENTICATION": "check security.username, security.password_file and security.mechanism",
    "_SSL": "check security.ca_file, and security.certificate_file if the brokers require a client certificate",
}
"""Remedy for each of these errors of librdkafka."""


@dataclass(frozen=True, slots=True)
class Brokers:
    """Addresses of the brokers, and the credentials to connect to them.

    Parameters
    ----------
    servers
        `host:port`; several are separated by commas.
    security
        The section of the settings. It contains no secrets, but names the files that do.

    Raises
    ------
    SettingsError
        If the parts of `security` contradict each other, or a file that it names cannot be used.

    Examples
    --------
    >>> Brokers("127.0.0.1:9092").protocol
    'PLAINTEXT'
    >>> Brokers("127.0.0.1:9092").librdkafka()
    {'bootstrap.servers': '127.0.0.1:9092', 'log_level': 0}
    """

    servers: str
    security: Security = field(default_factory=Security)
    password: str = field(init=False, repr=False)
    texts: dict[str, str] = field(init=False, repr=False, compare=False)
    """Contents of the files with certificates and keys, for tasks on machines that do not have these files."""

    def __post_init__(self) -> None:
        security = self.security
        if bool(security.username) != bool(security.password_file):
            raise SettingsError(
                "security.username and security.password_file belong together: set both or neither"
            )
        if security.key_file and not security.certificate_file:
            raise SettingsError(
                "security.key_file is set, but security.certificate_file, the certificate of this key, is not: set both"
            )
        paths = {name: getattr(security, name) for name in ("ca_file", "certificate_file", "key_file")}
        texts = {name: _text(name, path) for name, path in paths.items() if path}
        object.__setattr__(self, "texts", texts)
        password = _password(security.password_file) if security.password_file else ""
        object.__setattr__(self, "password", password)
        self.ssl_context()

    @classmethod
    def of(cls, settings: Settings) -> Brokers:
        """The brokers of the settings."""
        return cls(settings.kafka.bootstrap_servers, settings.security)

    def __str__(self) -> str:
        return self.servers

    @property
    def encrypted(self) -> bool:
        """Whether connections use TLS."""
        return self.security.tls or bool(self.security.ca_file or self.security.certificate_file)

    @property
    def exposed(self) -> str:
        """Warning about a password that is sent without TLS to another machine; empty if there is none."""
        if not self.security.username or self.encrypted or all(map(_is_loopback, self.servers.split(","))):
            return ""
        sent = (
            "the password" if self.security.mechanism == "PLAIN" else "a proof of the password and all events"
        )
        return (
            f"{self.protocol} sends {sent} to {self.servers} without encryption: set security.tls, and "
            "security.ca_file if the brokers' certificates are signed by a private authority"
        )

    @property
    def protocol(self) -> str:
        """Kafka's name of the security protocol."""
        transport = "SSL" if self.encrypted else "PLAINTEXT"
        return f"SASL_{transport}" if self.security.username else transport

    def librdkafka(self, **more: Any) -> dict[str, Any]:
        """Configuration of a confluent-kafka client.

        Parameters
        ----------
        more
            Further options, written with `_` instead of `.`; they override the others.
        """
        security = self.security
        options: dict[str, Any] = {"bootstrap.servers": self.servers, "log_level": 0}
        if self.protocol != "PLAINTEXT":
            options["security.protocol"] = self.protocol
        if security.username:
            options |= {
                "sasl.mechanism": security.mechanism,
                "sasl.username": security.username,
                "sasl.password": self.password,
            }
        files = {
            "ssl.ca.location": security.ca_file,
            "ssl.certificate.location": security.certificate_file,
            "ssl.key.location": security.key_file or security.certificate_file,
        }
        return options | {name: file for name, file in files.items() if file} | more

    def ssl_context(self) -> ssl.SSLContext | None:
        """TLS context for sockets of Python; None without TLS."""
        if not self.encrypted:
            return None
        security = self.security
        with contextlib.ExitStack() as stack:
            files = {
                name: stack.enter_context(_file(getattr(security, name), text))
                for name, text in self.texts.items()
            }
            try:
                context = ssl.create_default_context(cafile=files.get("ca_file"))
            except ssl.SSLError as error:
                raise SettingsError(
                    f"security.ca_file: {security.ca_file} has no certificate in PEM format ({error})"
                ) from None
            if security.certificate_file:
                try:
                    # Without this password, OpenSSL would ask for that of an encrypted key on the terminal and wait.
                    context.load_cert_chain(
                        files["certificate_file"], files.get("key_file"), password=lambda: b""
                    )
                except ssl.SSLError as error:
                    raise SettingsError(
                        f"security.certificate_file: {security.certificate_file} and its key "
                        f"{security.key_file or 'in the same file'} must be a matching pair in PEM format without a "
                        f"passphrase ({error})"
                    ) from None
        return context

    def aiokafka(self) -> dict[str, Any]:
        """Arguments of an aiokafka client."""
        security = self.security
        options: dict[str, Any] = {"bootstrap_servers": self.servers}
        if self.protocol != "PLAINTEXT":
            options |= {"security_protocol": self.protocol, "ssl_context": self.ssl_context()}
        if security.username:
            options |= {
                "sasl_mechanism": security.mechanism,
                "sasl_plain_username": security.username,
                "sasl_plain_password": self.password,
            }
        return options

    def java(self) -> dict[str, str]:
        """Properties of a Java client. They contain the certificates and keys, so other machines need no files."""
        security = self.security
        options = {"bootstrap.servers": self.servers}
        if self.protocol != "PLAINTEXT":
            options["security.protocol"] = self.protocol
        if security.username:
            module = "plain.Plain" if security.mechanism == "PLAIN" else "scram.Scram"
            options |= {
                "sasl.mechanism": security.mechanism,
                "sasl.jaas.config": f"org.apache.kafka.common.security.{module}LoginModule required "
                f"username={_quoted(security.username)} password={_quoted(self.password)};",
            }
        if security.ca_file:
            options |= {
                "ssl.truststore.type": "PEM",
                "ssl.truststore.certificates": _text("ca_file", security.ca_file),
            }
        if security.certificate_file:
            options |= {
                "ssl.keystore.type": "PEM",
                "ssl.keystore.certificate.chain": _text("certificate_file", security.certificate_file),
                "ssl.keystore.key": _text("key_file", security.key_file or security.certificate_file),
            }
        return options


@contextlib.contextmanager
def _file(path: str, text: str) -> Iterator[str]:
    """The path, or on a machine without this file that of a temporary one, which only this user can read."""
    if Path(path).is_file():
        yield path
        return
    with tempfile.NamedTemporaryFile("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        yield file.name


def _password(path: str) -> str:
    password = _text("password_file", path).removesuffix("\n").removesuffix("\r")
    if not password or len(password.encode()) > MAX_PASSWORD_BYTES or not password.isprintable():
        raise SettingsError(
            f"security.password_file: {path} must contain only the password, with printable characters and a length "
            f"of 1 to {MAX_PASSWORD_BYTES:,} bytes"
        )
    return password


def _text(name: str, path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            return file.read(1 << 20).decode()
    except OSError as error:
        raise SettingsError(f"security.{name}: cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(
            f"security.{name}: {path} is not UTF-8 text; use a file in PEM format or, for a password, a text file"
        ) from None


def _is_loopback(server: str) -> bool:
    """Whether `host:port` is this machine.

    Examples
    --------
    >>> _is_loopback("127.0.0.1:9092"), _is_loopback("[::1]:9092"), _is_loopback("kafka-1:9092")
    (True, True, False)
    """
    host = server.strip().rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _quoted(value: str) -> str:
    """A quoted string of a JAAS configuration."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


class ClientErrors:
    """Collects the errors of a librdkafka client, whose exceptions report only that no broker answered.

    An object of this class is the client's `error_cb`, which librdkafka calls while the client polls.
    """

    def __init__(self) -> None:
        self._messages: dict[str, str] = {}
        self.advertised = False
        """Whether a broker failed whose address is from metadata: Kafka has answered before."""

    def __call__(self, error: Any) -> None:
        self._messages[error.name()] = error.str()
        self.advertised |= bool(_NAME_WITH_ID.search(error.str()))

    @property
    def refused(self) -> bool:
        """Whether a broker rejected the credentials or the certificate, which waiting does not change."""
        return not self._messages.keys().isdisjoint(_REMEDIES)

    @property
    def all_down(self) -> bool:
        """Whether the connection to every server failed; a broker that is starting may accept connections soon."""
        return _ALL_DOWN in self._messages

    def reason(self, error: Any, otherwise: str) -> tuple[str, str]:
        """Reason of a failure and its remedy.

        Parameters
        ----------
        error
            Error of the client, which is the reason if no more specific error was collected.
        otherwise
            Remedy if the collected errors have none of their own.
        """
        for name, remedy in _REMEDIES.items():
            if name in self._messages:
                return self._messages[name], remedy
        messages = [text for name, text in self._messages.items() if name != _ALL_DOWN]
        return (messages[-1] if messages else error.str()), otherwise


def metadata(
    brokers: Brokers, client: Any, errors: ClientErrors, patience: float, topic: str | None = None
) -> Any:
    """Read the metadata of the cluster, or of one of its topics, and check that its brokers can be reached.

    A client that knows advertised addresses may ask these instead of the bootstrap servers. If one of them fails, a new
    client asks the bootstrap servers, which distinguishes unreachable addresses from a cluster that is down.

    Parameters
    ----------
    brokers
        The client's brokers.
    client
        A librdkafka client whose `error_cb` is `errors`.
    errors
        Collects the client's errors.
    patience
        Seconds to wait for an answer. The wait is half as long if every connection is refused, ends at once if a broker
        rejects the credentials or the certificate, and may last twice as long if a broker has answered before.
    topic
        Name of the topic; None for the whole cluster.

    Raises
    ------
    KafkaException
        If no broker answers; `errors.reason` returns the reason.
    UnreachableError
        If one answers, but none of the addresses that it advertises can be reached.
    """
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    began, step = time.monotonic(), 0.5
    while True:
        try:
            cluster = client.list_topics(topic, timeout=step)
        except KafkaException:
            client.poll(0)
            waited = time.monotonic() - began
            nobody = errors.all_down and not errors.advertised
            last = errors.refused or waited >= patience / (2 if nobody else 1)
            if errors.advertised:
                # A busy machine may need longer than a step, so the last question has the whole patience.
                with contextlib.suppress(KafkaException):
                    require_one(
                        AdminClient(brokers.librdkafka()).list_topics(timeout=patience if last else step)
                    )
            if last:
                raise
            step = min(2 * step, max(patience - waited, 0.5))
        else:
            require_one(cluster)
            return cluster


def diagnosis(brokers: Brokers, patience: float = 3.0) -> UnreachableError | None:
    """Why a client of a cluster that answers may still fail: brokers that it advertises cannot be reached.

    Returns
    -------
    UnreachableError or None
        Names every broker that cannot be reached; None if all can, or if nothing answers.
    """
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    try:
        cluster = AdminClient(brokers.librdkafka()).list_topics(timeout=patience)
    except KafkaException:
        return None
    failures = [failure for _, failure in unreached(cluster) if failure]
    return UnreachableError(cluster, failures) if failures else None
