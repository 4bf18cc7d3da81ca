"""The OpenAPI document: what Litestar derives from the routes, with the problems that every route may answer with."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from litestar import Request
from litestar.openapi.plugins import JsonRenderPlugin

from streamguard.serving.api.problems import MEDIA_TYPE, Problem

PROBLEMS = {
    400: "A parameter, a header or the body is not as it should be",
    401: "Without a valid key",
    403: "The role of the key may not do this",
    404: "Nothing of this id or name is known, or this server has no such results",
    409: "Somebody else has acted meanwhile, or the action does not fit the incident",
    412: "The incident is not as `If-Match` says",
    413: "The body is too large, or its length is not stated",
    421: "This host is not served here",
    429: "More requests than a key may make; `Retry-After` says when to ask again",
    501: "The settings of this server do not allow it",
    503: "The answer would be older than the request allows, or its source does not answer; ask again",
}
"""By status, when any route answers with problem details."""
_SCHEMAS = "#/components/schemas/"


class Document(JsonRenderPlugin):
    """Answers with the document as JSON."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:  # noqa: ARG002
        """The document."""
        return msgspec.json.encode(completed(openapi_schema))


def completed(document: dict[str, Any]) -> dict[str, Any]:
    """The document with the problems of every route, in the dialect of JSON Schema that OpenAPI has."""
    document = _in_dialect(document)
    schemas = document["components"]["schemas"]
    _, problem = msgspec.json.schema_components([Problem], ref_template=_SCHEMAS + "{name}")
    schemas |= problem
    content = {MEDIA_TYPE: {"schema": {"$ref": f"{_SCHEMAS}{Problem.__name__}"}}}
    for path in document["paths"].values():
        for operation in path.values():
            if text := operation.get("description"):
                operation["summary"] = _summary(text)
            operation["responses"] |= {
                str(status): {"description": text, "content": content} for status, text in PROBLEMS.items()
            }
            for one in operation.get("parameters", ()):
                one["schema"] = _without_null(one["schema"])
            if any(one["name"] == "If-None-Match" for one in operation.get("parameters", ())):
                operation["responses"]["304"] = {
                    "description": "The caller has the answer: nothing has changed"
                }
            for body in operation.get("requestBody", {}).get("content", {}).values():
                name = body["schema"].get("$ref", "").removeprefix(_SCHEMAS)
                if name:  # the structs of requests forbid unknown fields, which Litestar does not say
                    schemas[name]["additionalProperties"] = False
    return document


def _summary(text: str) -> str:
    """What an operation does in a line of a menu: the first line of its description up to its first pause.

    Examples
    --------
    >>> _summary("Show one user: what is usual, and the incidents.\\n\\nMore."), _summary("List the runs.")
    ('Show one user', 'List the runs')
    """
    return re.split(r"[;:] ", text.partition("\n")[0], maxsplit=1)[0].removesuffix(".")


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a parameter, which cannot be null in an address: it is left out.

    Examples
    --------
    >>> _without_null({"oneOf": [{"type": "integer"}, {"type": "null"}], "description": "a number"})
    {'type': 'integer', 'description': 'a number'}
    """
    match schema.get("oneOf"):
        case [one, {"type": "null"}]:
            rest = {name: value for name, value in schema.items() if name not in ("oneOf", "default")}
            return {**one, **rest}
    return schema


def _in_dialect(value: Any) -> Any:
    r"""A part of the document.

    Litestar describes the items of a bounded `tuple[T, ...]` as `T` or anything. The places of `tuple[T, T]` become
    items, because some clients misread `prefixItems`. Patterns are those of Python, whose `\Z` is the letter Z in a
    pattern of JSON Schema.

    Examples
    --------
    >>> _in_dialect({"items": {"oneOf": [{"type": "string", "pattern": r"^a\Z"}, {}]}})
    {'items': {'type': 'string', 'pattern': '^a$'}}
    """
    if isinstance(value, list):
        return [_in_dialect(one) for one in value]
    if not isinstance(value, dict):
        return value
    match value.get("oneOf"):
        case [one, {**rest}] if not rest:
            return _in_dialect(one)
    found = {name: _in_dialect(one) for name, one in value.items()}
    places = found.get("prefixItems")
    if isinstance(places, list) and all(one == places[0] for one in places):
        del found["prefixItems"]
        found |= {"items": places[0], "minItems": len(places), "maxItems": len(places)}
    pattern = found.get("pattern")
    if isinstance(pattern, str) and pattern.endswith(r"\Z"):
        found["pattern"] = pattern.removesuffix(r"\Z") + "$"
    return found
