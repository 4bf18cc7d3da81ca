"""Connection settings of each Kafka client, and errors for unusable credentials."""

from __future__ import annotations

import pickle
import socket
import ssl
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from confluent_kafka import KafkaError, KafkaException

from streamguard.kafka.connection import Brokers, ClientErrors, metadata
from streamguard.kafka.reach import UnreachableError, require_one, unreached
from streamguard.settings.schema import Security, SettingsError
from tests.certificates import Authority

SERVERS = "127.0.0.1:9092"
PASSWORD = 'a "quoted\\" pass=word; with everything'


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def password(tmp_path: Path) -> str:
    file = tmp_path / "password"
    file.write_text(PASSWORD + "\n")
    return str(file)


def test_all_clients_get_the_same_settings(authority: Authority, password: str) -> None:
    own = str(authority.issue("client"))
    brokers = Brokers(
        SERVERS,
        Security(
            ca_file=str(authority.file), certificate_file=own, username="worker", password_file=password
        ),
    )
    assert brokers.protocol == "SASL_SSL"
    confluent, aio, java = brokers.librdkafka(), brokers.aiokafka(), brokers.java()
    assert confluent["security.protocol"] == aio["security_protocol"] == java["security.protocol"]
    assert confluent["sasl.mechanism"] == aio["sasl_mechanism"] == java["sasl.mechanism"]
    assert confluent["sasl.username"] == aio["sasl_plain_username"] == "worker"
    assert confluent["sasl.password"] == aio["sasl_plain_password"] == PASSWORD
    assert java["sasl.jaas.config"] == (
        "org.apache.kafka.common.security.scram.ScramLoginModule required "
        r'username="worker" password="a \"quoted\\\" pass=word; with everything";'
    )
    assert confluent["ssl.ca.location"] == str(authority.file)
    assert confluent["ssl.certificate.location"] == confluent["ssl.key.location"] == own
    assert aio["ssl_context"].verify_mode is ssl.CERT_REQUIRED
    assert aio["ssl_context"].check_hostname
    assert java["ssl.truststore.certificates"] == authority.file.read_text()
    assert java["ssl.keystore.key"] == java["ssl.keystore.certificate.chain"] == Path(own).read_text()


def test_brokers_sent_to_another_machine_need_no_files(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = authority.issue("client")
    sent = pickle.dumps(Brokers(SERVERS, Security(ca_file=str(authority.file), certificate_file=str(own))))
    own.unlink()
    authority.file.unlink()
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    context = pickle.loads(sent).aiokafka()["ssl_context"]
    assert len(context.get_ca_certs()) == 1
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert not list(temporary.iterdir()), "no key stays on the disk"


@pytest.mark.parametrize(
    ("asked", "protocol"),
    [
        ({}, "PLAINTEXT"),
        ({"tls": True}, "SSL"),
        ({"ca_file": "ca"}, "SSL"),
        ({"username": "me", "password_file": "password"}, "SASL_PLAINTEXT"),
        ({"username": "me", "password_file": "password", "tls": True}, "SASL_SSL"),
    ],
)
def test_protocol_follows_from_the_settings(
    asked: dict[str, Any], protocol: str, authority: Authority, password: str
) -> None:
    files = {"ca": str(authority.file), "password": password}
    security = Security(**{name: files.get(value, value) for name, value in asked.items()})
    assert Brokers(SERVERS, security).protocol == protocol


def test_plain_mechanism_is_passed_to_java(password: str) -> None:
    security = Security(tls=True, mechanism="PLAIN", username="me", password_file=password)
    assert "plain.PlainLoginModule" in Brokers(SERVERS, security).java()["sasl.jaas.config"]


def test_password_is_never_printed(password: str) -> None:
    brokers = Brokers(SERVERS, Security(username="me", password_file=password))
    assert PASSWORD not in repr(brokers) + str(brokers) + repr(brokers.security)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"username": "me"}, "username and security.password_file belong together"),
        ({"password_file": "text"}, "username and security.password_file belong together"),
        ({"key_file": "text"}, "certificate_file, the certificate of this key, is not: set both"),
        ({"ca_file": "absent"}, r"security\.ca_file: cannot read .*absent: No such file"),
        ({"ca_file": "text"}, r"security\.ca_file: .*text has no certificate in PEM"),
        ({"certificate_file": "certificate"}, "must be a matching pair in PEM format without a passphrase"),
        ({"certificate_file": "client", "key_file": "other"}, "must be a matching pair in PEM format"),
        ({"username": "me", "password_file": "."}, "cannot read .*: Is a directory"),
        ({"username": "me", "password_file": "absent"}, "password_file: cannot read .*absent"),
        ({"username": "me", "password_file": "empty"}, "must contain only the password"),
        ({"username": "me", "password_file": "lines"}, "must contain only the password"),
        ({"username": "me", "password_file": "bytes"}, "is not UTF-8 text"),
        ({"username": "me", "password_file": "long"}, "1 to 1,024 bytes"),
    ],
)
def test_unusable_credentials_are_reported(
    asked: dict[str, str], expected: str, authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "text").write_text("what is not PEM")
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "lines").write_text("one\ntwo\n")
    (tmp_path / "long").write_text("x" * 1025)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    (tmp_path / "certificate").write_bytes(authority.file.read_bytes())
    files = {"client": authority.issue("client"), "other": authority.issue("other")}
    given = {
        name: value if name == "username" else str(files.get(value, tmp_path / value))
        for name, value in asked.items()
    }
    with pytest.raises(SettingsError, match=expected):
        Brokers(SERVERS, Security(**given))


def test_encrypted_key_is_refused_without_a_prompt(authority: Authority, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    issued = authority.issue("client").read_bytes()
    key = serialization.load_pem_private_key(issued, None)
    locked = tmp_path / "locked.pem"
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"passphrase"),
        )
    )
    security = Security(certificate_file=str(tmp_path / "client.pem"), key_file=str(locked))
    with pytest.raises(SettingsError, match="without a passphrase"):
        Brokers(SERVERS, security)


NOWHERE = Brokers("127.0.0.1:1")


class Silent:
    """A client whose brokers report one error at each poll and fail to answer a given number of times."""

    def __init__(self, errors: ClientErrors, error: int | None, silences: int) -> None:
        self._errors, self._error, self._silences = errors, error, silences
        self.asked: list[float] = []

    def list_topics(self, topic: str | None, timeout: float) -> SimpleNamespace:
        self.asked.append(timeout)
        if len(self.asked) > self._silences:
            return SimpleNamespace(topics=[topic], brokers={})
        raise KafkaException(KafkaError(KafkaError._TRANSPORT))

    def poll(self, timeout: float) -> None:
        if self._error is not None:
            self._errors(KafkaError(self._error))


def test_refused_connection_is_raised_without_waiting() -> None:
    errors = ClientErrors()
    client = Silent(errors, KafkaError._AUTHENTICATION, silences=1000)
    with pytest.raises(KafkaException):
        metadata(NOWHERE, client, errors, 1e9)
    assert len(client.asked) == 1
    assert "security.password_file" in errors.reason(KafkaError(KafkaError._TRANSPORT), "otherwise")[1]


def test_timeout_doubles_after_each_late_answer() -> None:
    errors = ClientErrors()
    client = Silent(errors, None, silences=3)
    assert metadata(NOWHERE, client, errors, 60.0, "events").topics == ["events"]
    assert client.asked == [0.5, 1.0, 2.0, 4.0]


def test_silent_brokers_are_reported_with_the_remedy_of_the_caller() -> None:
    errors = ClientErrors()
    with pytest.raises(KafkaException):
        metadata(NOWHERE, Silent(errors, KafkaError._ALL_BROKERS_DOWN, silences=1000), errors, 0.0)
    reason, remedy = errors.reason(KafkaError(KafkaError._TRANSPORT), "start one")
    assert reason
    assert remedy == "start one"


def cluster(*addresses: tuple[str, int]) -> SimpleNamespace:
    """Metadata of a cluster whose brokers advertise these addresses."""
    brokers = {k: SimpleNamespace(id=k, host=host, port=port) for k, (host, port) in enumerate(addresses)}
    return SimpleNamespace(orig_broker_name="10.0.0.1:9092/bootstrap", brokers=brokers)


def test_one_broker_that_can_be_reached_is_enough_and_none_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        require_one(cluster(("kafka-0.invalid", 9092), ("127.0.0.1", port)))
        assert [bool(failure) for _, failure in unreached(cluster(("..", 1), ("127.0.0.1", port)))] == [
            True,
            False,
        ]
    with pytest.raises(UnreachableError) as raised:
        require_one(cluster(("kafka-0.invalid", 9092), ("127.0.0.1", port)))
    message = str(raised.value)
    assert message.startswith(
        "Kafka answers at 10.0.0.1:9092, but 2 brokers that it advertises cannot be reached"
    )
    assert "0 at kafka-0.invalid:9092 (" in message and f"1 at 127.0.0.1:{port} (" in message
    require_one(cluster())


@pytest.mark.parametrize(
    ("servers", "exposed"),
    [("127.0.0.1:9092,[::1]:9092,localhost:9092", False), ("127.0.0.1:9092,kafka-1:9092", True)],
)
@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
def test_password_without_tls_to_another_machine_is_a_warning(
    servers: str, exposed: bool, mechanism: str, tmp_path: Path
) -> None:
    (tmp_path / "password").write_text("secret")
    security = Security(username="ann", password_file=str(tmp_path / "password"), mechanism=mechanism)
    assert ("without encryption: set security.tls" in Brokers(servers, security).exposed) == exposed
    assert not Brokers(servers, msgspec.structs.replace(security, tls=True)).exposed
    assert not Brokers(servers).exposed
