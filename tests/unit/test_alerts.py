"""Incidents in their published form: readable, complete and bounded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from streamguard.alerts.explain import MAX_CHARACTERS, MAX_REASONS
from streamguard.fold.components import COMPONENTS
from streamguard.settings.schema import Detection
from tests.incidents import bodies
from tests.streams import HOUR, START, Partition, event, fold_one, habit

BASE = habit(3000)
NOW = START + 3000 * 20_000
HOME = {"source_ip": "10.3.0.1", "metadata": {"geo_location": "DE-Berlin", "hostname": "laptop-3"}}


def one(value: bytes, base: list[bytes] = BASE) -> dict[str, Any]:
    """The incident of a single event after an ordinary day, decoded from its published form."""
    before = Partition()
    before.run(base)
    partition = Partition(before.saved, detection=Detection(alert_risk=0.0))
    (update,) = fold_one(partition, value, len(base)).incidents
    (body,) = bodies([update.incident])
    return body


def stolen() -> bytes:
    return event(
        NOW,
        "user3",
        "process_execution",
        source_ip="203.0.113.9",
        status="success",
        metadata={"geo_location": "DE-Hamburg", "hostname": "kali"},
        process_details={"process_name": "powershell.exe", "command_line": "powershell -enc " + "QQBB" * 8},
        note="kept for the reader",
    )


def test_incident_has_entity_time_severity_and_event() -> None:
    body = one(stolen())
    assert body["entity"] == {"kind": "user", "value": "user3"}
    assert body["first_seen"] == body["last_seen"] == "2025-01-06T16:40:00.000Z"
    assert body["count"] == 1
    decades = body["evidence_bits"] / np.log2(10)
    assert body["risk"] == pytest.approx(100 * decades / (decades + 1), abs=0.11)
    assert body["risk"] > 85.7 and body["severity"] == "critical"
    assert body["technique"] == "T1059.001"
    assert [p["name"] for p in body["patterns"]] == ["encoded_command"]
    assert body["origin"] == {"topic": None, "partition": 0, "offset": 3000}
    assert body["event"]["note"] == "kept for the reader"
    assert body["model"] == {"version": None, "forest_bits": None, "weight": None}
    assert body["id"].startswith("0-3000-")


def test_reasons_list_the_usual_values_with_their_shares() -> None:
    visit = event(
        NOW, "user3", source_ip="203.0.113.9", metadata={"geo_location": "DE-Hamburg", "hostname": "kali"}
    )
    reasons = {r["feature"]: r for r in one(visit)["reasons"]}
    source = reasons["source"]
    assert source["actual"] == "203.0.113.9"
    first, second = source["typical"].split(", ")[:2]
    assert first.startswith("10.3.0.1 (")
    assert second.startswith("10.3.0.2 (")
    assert 80 < int(first.split("(")[1].rstrip("%)")) <= 97
    assert reasons["location"]["actual"] == "DE-Hamburg"
    assert reasons["location"]["typical"] == "DE-Berlin (100%)"
    assert "laptop-3" in reasons["host"]["typical"]


def test_reasons_are_limited_sorted_and_add_up() -> None:
    reasons = one(stolen())["reasons"]
    assert 3 <= len(reasons) <= MAX_REASONS
    assert len({r["feature"] for r in reasons}) == len(reasons)
    components = [r["bits"] for r in reasons if r["feature"] in COMPONENTS and r["feature"] != "carried"]
    assert components == sorted(components, reverse=True)
    assert all(b >= 1.0 for b in components)
    assert 0.5 < sum(r["share"] for r in reasons) <= 1.01
    assert all(set(r) == {"feature", "actual", "typical", "bits", "share"} for r in reasons)
    assert all(isinstance(r[name], str) and r[name] for r in reasons for name in ("actual", "typical"))


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (
            "network_connection",
            {"network_details": {"bytes_sent": 3e11, "destination_hostname": "far.example"}},
        ),
        ("file_access", {"file_details": {"file_path": "/a/b", "operation": "read", "file_size_bytes": 10}}),
        ("dns_query", {"dns_details": {"query_name": "q" * 50 + ".t.example", "response_code": 3}}),
        ("process_execution", {"process_details": {"command_line": "mimikatz"}}),
        ("auth_attempt", {"auth_details": {"failure_reason": "bad_password"}, "status": "failed"}),
        ("never_seen", {"threat_score": 0.99}),
    ],
)
def test_every_event_type_can_be_explained(kind: str, fields: dict[str, Any]) -> None:
    for user in ("user3", "nobody", None):
        body = one(event(NOW + 5 * HOUR, user, kind, **{**HOME, **fields}))
        assert body["reasons"]
        assert "nan" not in str(body["reasons"])


def test_unknown_user_has_no_usual_values() -> None:
    reasons = {r["feature"]: r for r in one(event(NOW, "nobody", **HOME), habit(3000))["reasons"]}
    assert all(
        "nothing known yet" in r["typical"] for name, r in reasons.items() if name in ("source", "host")
    )


def test_long_texts_are_truncated() -> None:
    long = "x" * 5000
    body = one(event(NOW, "user3", source_ip=long, metadata={"hostname": long, "user_agent": long}))
    assert max(len(r["actual"]) for r in body["reasons"]) <= MAX_CHARACTERS
    assert body["event"]["source_ip"] == long
    assert one(event(NOW, None, source_ip=long))["entity"]["value"] == long[:MAX_CHARACTERS]


def test_lower_alert_risk_adds_alerts() -> None:
    """A lower threshold alerts the same events and more."""
    values = [*BASE, stolen()]

    def offsets(risk_from: float) -> set[int]:
        chunks = Partition(detection=Detection(alert_risk=risk_from)).chunks(values)
        return {500 * n + k for n, f in enumerate(chunks) for k in np.flatnonzero(f.kind).tolist()}

    assert 3000 in offsets(78.3) <= offsets(75.0) <= offsets(66.7)
    assert len(offsets(66.7)) > len(offsets(78.3))
