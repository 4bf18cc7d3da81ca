"""The campaign contract; `python -m tests.unit.test_campaign_record` writes its JSON Schema and its reference page."""

from __future__ import annotations

import json
from importlib.resources import files

import jsonschema
import msgspec
import pytest

from streamguard.campaigns.budget import Decision, decide
from streamguard.campaigns.campaign import Campaign, campaigns
from streamguard.campaigns.record import (
    MAX_RECORD_BYTES,
    SCHEMA_VERSION,
    CampaignRecord,
    decode,
    encode,
    json_schema,
)
from tests.schema_page import ROOT, reference
from tests.unit.test_campaigns import NOON, incident, spray, users_of

SCHEMA = ROOT / "streamguard" / "campaigns" / "campaign.schema.json"
PAGE = ROOT / "docs" / "reference" / "campaign.md"
START = "## CampaignRecord"


def schema_text() -> str:
    return json.dumps(json_schema(), indent=1) + "\n"


def of(rows: list[Campaign]) -> tuple[Campaign, Decision]:
    (row,) = rows
    return row, decide(rows)[row.id]


def test_schema_and_page_are_current() -> None:
    assert SCHEMA.read_text() == schema_text()
    page = PAGE.read_text()
    assert page[page.index(START) :] == reference("CampaignRecord", json_schema())


def test_every_field_is_described_and_schema_is_part_of_the_package() -> None:
    schema = json.loads((files("streamguard.campaigns") / "campaign.schema.json").read_text())
    for described in (schema, *schema["$defs"].values()):
        assert described["description"] and "Attributes" not in described["description"]
        for field, what in described["properties"].items():
            assert what.get("description"), field
    assert set(schema["required"]) == set(CampaignRecord.__struct_fields__)
    assert set(schema["$defs"]["Campaign"]["required"]) == set(Campaign.__struct_fields__)


def test_record_is_valid_deterministic_and_read_again() -> None:
    campaign, decision = of(campaigns(spray(NOON, users_of(20), entered="user-007")))
    value = encode(campaign, decision)
    jsonschema.Draft202012Validator(json_schema()).validate(json.loads(value))
    assert decode(value) == CampaignRecord(SCHEMA_VERSION, campaign, decision)
    assert value == encode(*of(campaigns(reversed(spray(NOON, users_of(20), entered="user-007")))))
    later = {**json.loads(value), "of_a_later_version": 1}
    assert decode(json.dumps(later).encode()).campaign == campaign


@pytest.mark.parametrize(("letter", "kept"), [("x", 1000), ("\u00e4", 500), ("\U0001f600", 250)])
def test_lists_are_cut_until_the_record_fits_and_all_are_counted(letter: str, kept: int) -> None:
    """A letter takes one, two or four bytes; a name has at most 256 letters."""
    users = [f"u{k:04}" + letter * 251 for k in range(1100)]
    made = [incident(user, NOON + 1000 * k, {"crowd_new_source_failure": 15.0}, "password_spray")
            for k, user in enumerate(users)]  # fmt: skip
    made = [msgspec.structs.replace(one, id=f"0-{k}") for k, one in enumerate(made)]
    campaign, decision = of(campaigns(made))
    value = encode(campaign, decision)
    assert len(value) <= MAX_RECORD_BYTES
    read = decode(value).campaign
    assert (read.users, read.size) == (1100, 1100)
    assert len(read.tried) == kept
    assert read.tried == campaign.tried[: len(read.tried)]


def main() -> None:
    """Write the schema and the reference of its fields."""
    SCHEMA.write_text(schema_text())
    introduction, _, _ = PAGE.read_text().partition(START)
    PAGE.write_text(introduction + reference("CampaignRecord", json_schema()))


if __name__ == "__main__":
    main()
