"""Tables of the fields of a JSON Schema, for the reference pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def reference(name: str, schema: dict[str, Any]) -> str:
    """A heading, a sentence and a table of fields for the object of this name, and for each one that it refers to."""
    parts = []
    for title, described in {name: schema, **schema["$defs"]}.items():
        rows = [
            f"| `{field}` | {_kind(what)} | {what.get('description', '')} |"
            for field, what in described["properties"].items()
        ]
        head = ["| field | type | meaning |", "|---|---|---|"]
        parts.append("\n".join([f"## {title}", "", described["description"], "", *head, *rows]))
    return "\n\n".join(parts) + "\n"


def _kind(what: dict[str, Any]) -> str:
    """The type of a field in words."""
    if "anyOf" in what:
        return " or ".join(_kind(part) for part in what["anyOf"])
    if "allOf" in what:
        return " and ".join(_kind(part) for part in what["allOf"])
    if "$ref" in what:
        name = what["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "enum" in what:
        return ", ".join(f"`{value}`" for value in what["enum"])
    if what.get("type") == "array":
        return f"array of {_kind(what['items'])}"
    return str(what.get("type", "any JSON"))
