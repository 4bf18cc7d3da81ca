"""Refuses query parameters that a route does not have: with a typing error, a filter would select everything."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from litestar import Request
from litestar.exceptions import ValidationException
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute

_KNOWN, _KNOWN_PAGES = "known_parameters", "known_parameters_of_pages"
_OPEN = ("/sign-in", "/static/", "/v1/")
"""Paths beside those of the document whose parameters select nothing: a provider of identities adds its own ones."""
_SHOWN = 60
"""Characters of a name in the answer."""


class _Kind(NamedTuple):
    """Whether a parameter may be repeated, and whether its values are texts."""

    repeatable: bool
    textual: bool


def refuse_unknown(request: Request[Any, Any, Any]) -> None:
    """Check the names of the query parameters of a request to a route of the OpenAPI document, or of the page.

    Raises
    ------
    ValidationException
        If a name is none of the route, or has several values where the route takes one.
    """
    handler = request.route_handler
    if not isinstance(handler, HTTPRouteHandler) or not request.query_params:
        return
    known = _known(request).get(str(handler.operation_id))
    if known is None and not request.url.path.startswith(_OPEN):
        known = _known_pages(request).get(str(handler))
    if known is None:
        return
    unknown = sorted(set(request.query_params) - known.keys())
    if unknown:
        raise ValidationException(
            f"{request.url.path} has no parameter {unknown[0][:_SHOWN]!r}: it has {', '.join(sorted(known)) or 'none'}"
        )
    for name, kind in known.items():
        values = request.query_params.getall(name, [])
        if not kind.repeatable and len(values) > 1:
            raise ValidationException(f"`{name}` has several values: state one")
        if not kind.textual and any(value.lower() in ("null", "none") for value in values):
            raise ValidationException(f"`{name}` has no value: leave it out")


def _known(request: Request[Any, Any, Any]) -> dict[str, dict[str, _Kind]]:
    """The query parameters of each operation of the document, by name."""
    state = request.app.state
    if _KNOWN not in state:
        state[_KNOWN] = {
            operation["operationId"]: {
                one["name"]: _Kind(
                    *(f'"{kind}"' in json.dumps(one["schema"]) for kind in ("array", "string"))
                )
                for one in operation.get("parameters", ())
                if one["in"] == "query"
            }
            for path in request.app.openapi_schema.to_schema()["paths"].values()
            for operation in path.values()
        }
    found: dict[str, dict[str, _Kind]] = state[_KNOWN]
    return found


def _known_pages(request: Request[Any, Any, Any]) -> dict[str, dict[str, _Kind]]:
    """The query parameters of each page, by its function; a parameter has the values that it has in the document."""
    state = request.app.state
    if _KNOWN_PAGES not in state:
        kinds = {name: kind for own in _known(request).values() for name, kind in own.items()}
        state[_KNOWN_PAGES] = {
            str(handler): {
                one.field_alias: _Kind(
                    one.is_sequence, kinds[one.field_alias].textual if one.field_alias in kinds else True
                )
                for one in model.expected_query_params
            }
            for route in request.app.routes
            if isinstance(route, HTTPRoute)
            for handler, model in route.route_handler_map.values()
            if not handler.resolve_include_in_schema()
        }
    found: dict[str, dict[str, _Kind]] = state[_KNOWN_PAGES]
    return found
