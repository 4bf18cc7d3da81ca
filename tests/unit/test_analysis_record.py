"""The analysis contract; `python -m tests.unit.test_analysis_record` writes its JSON Schema and its reference page."""

from __future__ import annotations

import json
from importlib.resources import files

import jsonschema
import msgspec
import pytest

from streamguard.analyst.analysis import Analysis, decode, encode, json_schema
from streamguard.analyst.rules import analyse
from tests.schema_page import ROOT, reference
from tests.unit.test_campaigns import NOON, incident

SCHEMA = ROOT / "streamguard" / "analyst" / "analysis.schema.json"
PAGE = ROOT / "docs" / "reference" / "analysis.md"
START = "## Analysis"


def schema_text() -> str:
    return json.dumps(json_schema(), indent=1) + "\n"


def test_schema_and_page_are_current() -> None:
    assert SCHEMA.read_text() == schema_text()
    page = PAGE.read_text()
    assert page[page.index(START) :] == reference("Analysis", json_schema())


def test_every_field_is_described_and_schema_is_part_of_the_package() -> None:
    schema = json.loads((files("streamguard.analyst") / "analysis.schema.json").read_text())
    for described in (schema, *schema["$defs"].values()):
        assert described["description"]
        for field, what in described["properties"].items():
            assert what.get("description"), field


def test_analysis_is_valid_and_read_again_and_later_fields_are_ignored() -> None:
    analysis = analyse(incident("ann", NOON, {"source": 12.0}, "brute_force"))
    value = encode(analysis)
    jsonschema.Draft202012Validator(json_schema()).validate(json.loads(value))
    assert decode(value) == analysis
    assert decode(json.dumps({**json.loads(value), "of_a_later_version": 1}).encode()) == analysis


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("verdict", "guilty"),
        ("confidence", 1.5),
        ("analyst", "oracle"),
        ("revision", 0),
        ("summary", "x" * 2001),
        ("claims", [{"text": "no fact", "refs": ["nothing"]}]),
    ],
)
def test_value_outside_the_contract_is_refused(field: str, value: object) -> None:
    body = {**msgspec.to_builtins(analyse(incident("ann", NOON, {"source": 12.0}))), field: value}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(json_schema()).validate(body)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(body, Analysis)


def main() -> None:
    """Write the schema and the reference of its fields."""
    SCHEMA.write_text(schema_text())
    introduction, _, _ = PAGE.read_text().partition(START)
    PAGE.write_text(introduction + reference("Analysis", json_schema()))


if __name__ == "__main__":
    main()
