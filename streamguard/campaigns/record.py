"""The record of the campaigns topic: a campaign with its decision, as JSON of bounded size."""

from __future__ import annotations

import inspect
import re
from typing import Annotated, Any

import msgspec

from streamguard.campaigns.budget import Decision
from streamguard.campaigns.campaign import Campaign
from streamguard.campaigns.name_set import MAX_NAMES

SCHEMA_VERSION = 1
"""Rises when a field changes its meaning or is removed; a new field leaves it as it is."""
MAX_RECORD_BYTES = 500_000
"""Size of the largest record. Kafka accepts 1 MB by default, and a batch of the transaction has to fit into that."""


_MEANINGS = {
    "technique": "ATT&CK technique that most incidents with a pattern have; null without a pattern",
    "first_seen": "Event time of the first alert, RFC 3339 in UTC with milliseconds",
    "last_seen": "Event time of the latest alert, RFC 3339 in UTC with milliseconds",
    "risk": "Risk of the incident with the largest evidence",
    "severity": "Severity of the incident with the largest evidence",
    "users": "Number of users that were tried",
    "accounts": "Number of users that were entered",
    "addresses": "Number of source addresses",
    "size": "Number of incidents",
    "tried": "Users that were tried, sorted; at most 1,000",
    "entered": "Users that were entered, sorted; at most 1,000",
    "sources": "Source addresses, sorted; at most 1,000",
    "incidents": "Ids of the incidents, sorted; at most 1,000",
}
"""Meaning of fields that `Campaign` describes together; the others have the description of their class."""


class CampaignRecord(msgspec.Struct, frozen=True):
    """A campaign and whether it is raised to a person, as published under the campaign's id."""

    schema_version: Annotated[int, msgspec.Meta(description="Version of this schema")]
    campaign: Annotated[Campaign, msgspec.Meta(description="What is known of the attack")]
    decision: Annotated[Decision, msgspec.Meta(description="Whether it is raised, and why")]


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(CampaignRecord)


def encode(campaign: Campaign, decision: Decision) -> bytes:
    """The record as JSON, the same bytes for the same values.

    If it would be larger than `MAX_RECORD_BYTES`, every list is cut to its first 500 names, or 250, and so on. The
    numbers beside the lists still count all names.
    """
    names = MAX_NAMES
    while True:
        value = _encoder.encode(CampaignRecord(SCHEMA_VERSION, _cut(campaign, names), decision))
        if len(value) <= MAX_RECORD_BYTES or not names:
            return value
        names //= 2


def decode(value: bytes) -> CampaignRecord:
    """A record from JSON; fields of later versions are ignored.

    Raises
    ------
    msgspec.ValidationError
        If a field is missing or does not fit.
    """
    return _decoder.decode(value)


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of `CampaignRecord`; `campaign.schema.json` beside this module holds it."""
    _, components = msgspec.json.schema_components([CampaignRecord], ref_template="#/$defs/{name}")
    for kind in (Campaign, Decision):
        component, text = components[kind.__name__], inspect.getdoc(kind) or ""
        component["description"] = text.partition("\n")[0]
        for names, meaning in _attributes(text):
            for name in names:
                component["properties"][name]["description"] = _MEANINGS.get(name, meaning)
    record = components.pop("CampaignRecord")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **record, "$defs": components}


def _cut(campaign: Campaign, names: int) -> Campaign:
    """The campaign with at most so many members in each of its lists."""
    fields = msgspec.structs.asdict(campaign)
    long = {
        field: value[:names]
        for field, value in fields.items()
        if isinstance(value, tuple) and len(value) > names
    }
    return msgspec.structs.replace(campaign, **long) if long else campaign


def _attributes(text: str) -> list[tuple[list[str], str]]:
    """(names, meaning) of each entry in the section `Attributes` of a docstring in numpydoc style.

    Examples
    --------
    >>> _attributes("What.\\n\\nAttributes\\n----------\\na, b\\n    First\\n    line.\\nc\\n    Other.")
    [(['a', 'b'], 'First line'), (['c'], 'Other')]
    """
    section = text.partition("Attributes\n----------\n")[2].partition("\n\n")[0]
    entries = re.findall(r"^(\S.*)\n((?:[ ]+.*(?:\n|\Z))+)", section, re.MULTILINE)
    return [(names.split(", "), " ".join(lines.split()).removesuffix(".")) for names, lines in entries]
