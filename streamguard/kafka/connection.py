"""Which brokers, and how each side proves who it is: told to every Kafka client in its own words."""

from __future__ import annotations

import ssl
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streamguard.settings.schema import Security, Settings, SettingsError

MAX_PASSWORD_BYTES = 1024

REQUEST_TIMEOUT = 30.0
"""Seconds that a producer waits for a broker that restarts."""

_ALL_DOWN = "_ALL_BROKERS_DOWN"
_REMEDIES = {
    "_AUTHENTICATION": "look at security.username, security.password_file and security.mechanism",
    "_SSL": "look at security.ca_file, and at security.certificate_file if brokers ask for one",
}
"""What to do about what librdkafka names so."""


@dataclass(frozen=True, slots=True)
class Brokers:
    """Servers and what one needs to be let in.

    Parameters
    ----------
    servers
        `host:port`, several with commas.
    security
        From the settings; none of it is a secret, the files that it names are.

    Raises
    ------
    SettingsError
        If the parts of `security` do not fit together, or a file that it names cannot be used.

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

    def __post_init__(self) -> None:
        one = self.security
        if bool(one.username) != bool(one.password_file):
            raise SettingsError(
                "security.username and security.password_file belong together: set both or none"
            )
        if one.key_file and not one.certificate_file:
            raise SettingsError("security.key_file is the key of security.certificate_file: set that too")
        for name in ("ca_file", "certificate_file", "key_file"):
            if path := getattr(one, name):
                _text(name, path)
        object.__setattr__(self, "password", _password(one.password_file) if one.password_file else "")
        self.ssl_context()

    @classmethod
    def of(cls, settings: Settings) -> Brokers:
        """Those of the settings."""
        return cls(settings.kafka.bootstrap_servers, settings.security)

    def __str__(self) -> str:
        return self.servers

    @property
    def encrypted(self) -> bool:
        """Whether connections are TLS."""
        return self.security.tls or bool(self.security.ca_file or self.security.certificate_file)

    @property
    def protocol(self) -> str:
        """As Kafka calls it."""
        transport = "SSL" if self.encrypted else "PLAINTEXT"
        return f"SASL_{transport}" if self.security.username else transport

    def librdkafka(self, **more: Any) -> dict[str, Any]:
        """Configuration of a confluent-kafka client; `more` of it with `_` for `.`, which wins."""
        one = self.security
        asked: dict[str, Any] = {"bootstrap.servers": self.servers, "log_level": 0}
        if self.protocol != "PLAINTEXT":
            asked["security.protocol"] = self.protocol
        if one.username:
            asked |= {
                "sasl.mechanism": one.mechanism,
                "sasl.username": one.username,
                "sasl.password": self.password,
            }
        files = {
            "ssl.ca.location": one.ca_file,
            "ssl.certificate.location": one.certificate_file,
            "ssl.key.location": one.key_file or one.certificate_file,
        }
        return asked | {name: file for name, file in files.items() if file} | more

    def ssl_context(self) -> ssl.SSLContext | None:
        """For Python's own sockets; None without TLS."""
        if not self.encrypted:
            return None
        one = self.security
        try:
            context = ssl.create_default_context(cafile=one.ca_file or None)
        except ssl.SSLError as error:
            raise SettingsError(
                f"security.ca_file: {one.ca_file} has no certificate in PEM ({error})"
            ) from None
        if one.certificate_file:
            try:
                # An encrypted key would be asked for on the terminal, where there may be nobody.
                context.load_cert_chain(one.certificate_file, one.key_file or None, password=lambda: b"")
            except ssl.SSLError as error:
                raise SettingsError(
                    f"security.certificate_file: {one.certificate_file} and its key "
                    f"{one.key_file or 'in the same file'} are no pair in PEM without a passphrase ({error})"
                ) from None
        return context

    def aiokafka(self) -> dict[str, Any]:
        """Arguments of an aiokafka client."""
        one = self.security
        asked: dict[str, Any] = {"bootstrap_servers": self.servers}
        if self.protocol != "PLAINTEXT":
            asked |= {"security_protocol": self.protocol, "ssl_context": self.ssl_context()}
        if one.username:
            asked |= {
                "sasl_mechanism": one.mechanism,
                "sasl_plain_username": one.username,
                "sasl_plain_password": self.password,
            }
        return asked

    def java(self) -> dict[str, str]:
        """Properties of a Java client. They carry certificates and keys: other machines need no files."""
        one = self.security
        asked = {"bootstrap.servers": self.servers}
        if self.protocol != "PLAINTEXT":
            asked["security.protocol"] = self.protocol
        if one.username:
            module = "plain.Plain" if one.mechanism == "PLAIN" else "scram.Scram"
            asked |= {
                "sasl.mechanism": one.mechanism,
                "sasl.jaas.config": f"org.apache.kafka.common.security.{module}LoginModule required "
                f"username={_quoted(one.username)} password={_quoted(self.password)};",
            }
        if one.ca_file:
            asked |= {
                "ssl.truststore.type": "PEM",
                "ssl.truststore.certificates": _text("ca_file", one.ca_file),
            }
        if one.certificate_file:
            asked |= {
                "ssl.keystore.type": "PEM",
                "ssl.keystore.certificate.chain": _text("certificate_file", one.certificate_file),
                "ssl.keystore.key": _text("key_file", one.key_file or one.certificate_file),
            }
        return asked


def _password(path: str) -> str:
    password = _text("password_file", path).removesuffix("\n").removesuffix("\r")
    if not password or len(password.encode()) > MAX_PASSWORD_BYTES or not password.isprintable():
        raise SettingsError(
            f"security.password_file: {path} must hold the password alone, printable, of 1 to "
            f"{MAX_PASSWORD_BYTES:,} bytes"
        )
    return password


def _text(name: str, path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            return file.read(1 << 20).decode()
    except OSError as error:
        raise SettingsError(f"security.{name}: cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"security.{name}: {path} is not text, as PEM and passwords are") from None


def _quoted(value: str) -> str:
    """A JAAS string."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


class ClientErrors:
    """What brokers said to a librdkafka client, whose own exception says only that none answered.

    It is given as the client's `error_cb`, which is called while the client polls.
    """

    def __init__(self) -> None:
        self._said: dict[str, str] = {}

    def __call__(self, error: Any) -> None:
        self._said[error.name()] = error.str()

    @property
    def refused(self) -> bool:
        """Whether a broker let this client in no further: it will not do so later either."""
        return not self._said.keys().isdisjoint(_REMEDIES)

    @property
    def all_down(self) -> bool:
        """Whether no server could be connected to: one that is starting may be there soon."""
        return _ALL_DOWN in self._said

    def reason(self, error: Any, otherwise: str) -> tuple[str, str]:
        """What went wrong, and what to do about it; `error` and `otherwise` if the brokers said nothing."""
        for name, remedy in _REMEDIES.items():
            if name in self._said:
                return self._said[name], remedy
        said = [text for name, text in self._said.items() if name != _ALL_DOWN]
        return (said[-1] if said else error.str()), otherwise


def metadata(client: Any, heard: ClientErrors, patience: float, topic: str | None = None) -> Any:
    """What the cluster consists of, or one topic of it.

    Parameters
    ----------
    client
        A librdkafka client whose `error_cb` is `heard`.
    patience
        Seconds to wait for an answer; half of them where every connection is refused, and no longer than it takes
        to be told where brokers do not let this client in.

    Raises
    ------
    KafkaException
        Without an answer; `heard.reason` tells why.
    """
    from confluent_kafka import KafkaException

    began, step = time.monotonic(), 0.5
    while True:
        try:
            return client.list_topics(topic, timeout=step)
        except KafkaException:
            client.poll(0)
            waited = time.monotonic() - began
            if heard.refused or waited >= patience / (2 if heard.all_down else 1):
                raise
            step = min(2 * step, max(patience - waited, 0.5))
