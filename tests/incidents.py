"""Incidents as readers get them: every incident that a test sees is valid under the published JSON Schema."""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib.resources import files
from typing import Any

import jsonschema
import msgspec

from streamguard.alerts.incident import Incident, decode, encode

SCHEMA = files("streamguard.alerts") / "incident.schema.json"
_validator = jsonschema.Draft202012Validator(
    json.loads(SCHEMA.read_text()), format_checker=jsonschema.FormatChecker()
)


def published(value: bytes) -> dict[str, Any]:
    """A record of the alerts topic as a dictionary.

    Raises
    ------
    jsonschema.ValidationError
        If it is not valid under the schema.
    """
    body: dict[str, Any] = msgspec.json.decode(value)
    _validator.validate(body)
    assert encode(decode(value)) == value
    return body


def bodies(incidents: Iterable[Incident]) -> list[dict[str, Any]]:
    """Incidents as they would be published."""
    return [published(encode(incident)) for incident in incidents]
