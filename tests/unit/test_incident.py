"""The incident contract; `python -m tests.unit.test_incident` writes its JSON Schema and its reference page."""

from __future__ import annotations

import json

import jsonschema
import msgspec
import pytest

from streamguard.alerts.incident import (
    SCHEMA_VERSION,
    Incident,
    brought_up_to_date,
    decode,
    encode,
    json_schema,
)
from streamguard.history.incidents import worst_first
from tests.batches import incident
from tests.incidents import published
from tests.schema_page import ROOT, reference

SCHEMA = ROOT / "streamguard" / "alerts" / "incident.schema.json"
PAGE = ROOT / "docs" / "reference" / "incident.md"
START = "## Incident"


def schema_text() -> str:
    return json.dumps(json_schema(), indent=1) + "\n"


def test_schema_and_page_are_current() -> None:
    assert SCHEMA.read_text() == schema_text()
    page = PAGE.read_text()
    assert page[page.index(START) :] == reference("Incident", json_schema())


def test_every_field_is_described() -> None:
    schema = json_schema()
    for described in (schema, *schema["$defs"].values()):
        for field, what in described["properties"].items():
            assert what.get("description"), field
    assert set(schema["required"]) == set(Incident.__struct_fields__) - {"repaired", "involved", "peers"}


def test_incident_is_immutable() -> None:
    with pytest.raises(AttributeError):
        incident("ann", 1).risk = 0.0  # type: ignore[misc]


def test_reader_gets_the_published_incident_and_ignores_later_fields() -> None:
    one = incident("ann", 7)
    assert decode(encode(one)) == one
    later = {**msgspec.to_builtins(one), "schema_version": SCHEMA_VERSION, "of_a_later_version": [1]}
    assert decode(msgspec.json.encode(later)) == one


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("severity", "grave"),
        ("risk", 101.0),
        ("entity", {"kind": "host", "value": "a"}),
        ("count", 0),
        ("first_seen", "today"),
    ],
)
def test_value_outside_the_contract_is_refused(field: str, value: object) -> None:
    body = {**msgspec.to_builtins(incident("ann", 7)), field: value}
    with pytest.raises(jsonschema.ValidationError):
        published(msgspec.json.encode(body))
    with pytest.raises(msgspec.ValidationError):
        decode(msgspec.json.encode(body))


def test_worst_incident_is_first_whatever_the_number_of_alerts() -> None:
    high = msgspec.structs.replace(
        incident("ann", 1), risk=84.4, severity="high", evidence_bits=18.0, count=90
    )
    critical = msgspec.structs.replace(
        incident("bob", 2), risk=97.0, severity="critical", evidence_bits=110.0
    )
    assert worst_first([high, critical]) == [critical, high]


def test_incidents_with_equal_published_evidence_are_ordered_by_risk() -> None:
    """Both have 10.02 bits when rounded; their risks follow from the unrounded evidence."""
    low, high = (
        brought_up_to_date(
            incident("ann", k), first_ms=0, last_ms=0, count=9 - k, evidence=10.017 + k / 200, lowered=0.0
        )
        for k in range(2)
    )
    assert low.evidence_bits == high.evidence_bits == 10.02
    assert low.risk < high.risk
    assert worst_first([low, high]) == [high, low]


if __name__ == "__main__":
    SCHEMA.write_text(schema_text())
    text = PAGE.read_text()
    PAGE.write_text(text[: text.index(START)] + reference("Incident", json_schema()))
