"""Settings from a file and from the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamguard.settings.load import load, override
from streamguard.settings.schema import Settings, SettingsError


def test_defaults_apply_without_file_and_variables() -> None:
    assert load(environ={}) == Settings()


def test_environment_overrides_the_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('[worker]\nchunk_events = 200\napp_id = "a"\n[detection]\nalert_risk = 60\n')
    found = load(
        file, {"STREAMGUARD_WORKER_CHUNK_EVENTS": "300", "STREAMGUARD_KAFKA_EVENTS_TOPIC": "t", "PATH": "x"}
    )
    assert found.worker.chunk_events == 300
    assert found.worker.app_id == "a"
    assert found.kafka.events_topic == "t"
    assert found.detection.alert_risk == 60.0


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("[worker]\nchunk_event = 1\n", "chunk_event"),
        ("[work]\n", "work"),
        ('[worker]\nchunk_events = "many"\n', "chunk_events"),
        ('[worker]\nchunk_events = "300"\n', "chunk_events"),
        ("[worker\n", "TOML"),
    ],
)
def test_invalid_file_is_reported_with_file_and_setting(tmp_path: Path, text: str, names: str) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(text)
    with pytest.raises(SettingsError) as refused:
        load(file, {})
    assert names in str(refused.value)
    assert str(file) in str(refused.value)


def test_binary_file_is_refused_with_its_name(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match=r"settings\.toml is not valid TOML"):
        load(file, {})


def test_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.toml"):
        load(tmp_path / "nowhere.toml", {})


def test_invalid_variable_is_reported() -> None:
    for name in ("STREAMGUARD_WORKER_CHUNK_EVENTS", "STREAMGUARD_WORKER_NO_SUCH"):
        with pytest.raises(SettingsError, match=name):
            load(environ={name: "many"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[detection]\nalert_rsk = 3", "there is no setting detection.alert_rsk; did you mean alert_risk?"),
        ("[detekion]\nalert_risk = 3", "there is no section 'detekion'; did you mean detection?"),
        ("[batch]\nzzz = 3", "there is no setting batch.zzz"),
    ],
)
def test_misspelled_name_is_reported_with_the_right_one(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(SettingsError) as refused:
        load(tmp_path / "a.toml", {})
    assert str(refused.value) == f"{tmp_path / 'a.toml'}: {message}"


@pytest.mark.parametrize(
    "servers",
    [
        "",
        "localhost",
        "127.0.0.1:99999",
        "127.0.0.1:0",
        "http://127.0.0.1:9092",
        "a:1,,b:2",
        "a:1 b:2",
        "[::1]",
    ],
)
def test_address_that_is_none_is_refused_at_once(servers: str) -> None:
    with pytest.raises(
        SettingsError, match=r"the command line: kafka\.bootstrap_servers: .* is not host:port"
    ):
        override(Settings(), kafka={"bootstrap_servers": servers})


@pytest.mark.parametrize("servers", ["localhost:9092", "a:1, b:2", "[::1]:9092", "kafka-0.kafka.svc:65535"])
def test_addresses_of_brokers_are_accepted(servers: str) -> None:
    assert override(Settings(), kafka={"bootstrap_servers": servers}).kafka.bootstrap_servers == servers


@pytest.mark.parametrize("name", ["a b", "", "..", "x" * 201, "caf\u00e9", "a/b"])
def test_name_that_kafka_refuses_is_refused_at_once(name: str) -> None:
    with pytest.raises(
        SettingsError, match=r"kafka\.events_topic: .* is not a valid name of a topic: use letters"
    ):
        override(Settings(), kafka={"events_topic": name})


def test_setting_outside_of_its_section_is_reported_with_the_section(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text("alert_risk = 80\n")
    with pytest.raises(SettingsError, match=r"write it under \[detection\]"):
        load(tmp_path / "settings.toml", {})


def test_risk_from_100_on_is_refused_with_the_scale(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("[detection]\nalert_risk = 150\n")
    with pytest.raises(SettingsError) as refused:
        load(tmp_path / "a.toml", {})
    assert str(refused.value) == (
        f"{tmp_path / 'a.toml'}: detection.alert_risk must be a number < 100.0: a risk of 80 is one event in ten "
        "thousand, of 85.7 one in a million"
    )
    assert load(environ={"STREAMGUARD_DETECTION_ALERT_RISK": "99.9"}).detection.alert_bits < 4000


def test_variable_with_misspelled_section_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"DETEKTION_ALERT_RISK: .*did you mean detection"):
        load(environ={"STREAMGUARD_DETEKTION_ALERT_RISK": "3"})


def test_variables_of_other_programs_are_ignored() -> None:
    assert load(environ={"STREAMGUARD_HOME": "/x", "STREAMGUARD_": "y"}) == Settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WORKER_CHUNK_EVENTS", "0"),
        ("WORKER_CHECKPOINT_SECONDS", "-1"),
        ("WORKER_RESIDENT_PROFILES", "-5"),
        ("WORKER_METRICS_PORT", "99999"),
        ("DETECTION_ALERT_RISK", "nan"),
        ("DETECTION_ALERT_RISK", "-1"),
        ("DETECTION_ALERT_RISK", "100"),
        ("KAFKA_PARTITIONS", "0"),
    ],
)
def test_value_out_of_bounds_is_refused_with_its_name(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"STREAMGUARD_{name}"):
        load(environ={f"STREAMGUARD_{name}": value})


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("WORKER_CHUNK_EVENTS", "many", "worker.chunk_events must be a whole number"),
        ("WORKER_CHUNK_EVENTS", "0", "worker.chunk_events must be a whole number >= 1"),
        ("MODELS_SHADOW", "perhaps", "models.shadow must be true or false"),
    ],
)
def test_required_type_of_a_value_is_described(name: str, value: str, wanted: str) -> None:
    with pytest.raises(SettingsError, match=f"{wanted}$"):
        load(environ={f"STREAMGUARD_{name}": value})


def test_service_variables_of_kubernetes_are_ignored() -> None:
    environ = {
        "STREAMGUARD_WORKER_PORT": "tcp://10.0.0.1:9464",
        "STREAMGUARD_WORKER_SERVICE_HOST": "10.0.0.1",
        "STREAMGUARD_WORKER_PORT_9464_TCP_ADDR": "10.0.0.1",
        "STREAMGUARD_WORKER_METRICS_PORT": "1234",
    }
    assert load(environ=environ).worker.metrics_port == 1234
    metrics_service = {"STREAMGUARD_WORKER_METRICS_PORT": "tcp://10.0.0.1:9464"}
    assert load(environ=metrics_service) == Settings()


@pytest.mark.parametrize("name", ["WORKER_METRIC_PORT", "KAFKA_PORT", "WORKER_SERVICE_NAME"])
def test_misspelled_name_similar_to_a_kubernetes_variable_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match=f"STREAMGUARD_{name}: there is no setting"):
        load(environ={f"STREAMGUARD_{name}": "9092"})
