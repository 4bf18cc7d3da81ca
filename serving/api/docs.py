"""The API documentation in a browser: Swagger UI from this host, over the OpenAPI document of the routes."""

from __future__ import annotations

from importlib.resources import files
from typing import Annotated

from litestar import Response, get
from litestar.params import PathParameter

_FILES = {
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "swagger-ui.css": "text/css; charset=utf-8",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""Swagger UI sets styles on its elements. The page shows the description of the routes, and no text of an event unless
a person asks for one there; it is then shown as text."""
_PAGE = b"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>API - StreamGuard</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="/static/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="/v1/docs/files/swagger-ui.css"></head>
<body><div id="swagger"></div>
<script src="/v1/docs/files/swagger-ui-bundle.js"></script><script src="/static/docs.js"></script></body></html>
"""


@get("/v1/docs", sync_to_thread=False, include_in_schema=False)
def documentation() -> Response[bytes]:
    """The page of Swagger UI."""
    return Response(
        _PAGE, media_type="text/html; charset=utf-8", headers={"Content-Security-Policy": _POLICY}
    )


@get("/v1/docs/files/{name:str}", sync_to_thread=True, include_in_schema=False)
def documentation_file(name: Annotated[str, PathParameter(max_length=40)]) -> Response[bytes]:
    """A file of Swagger UI."""
    if name not in _FILES:
        return Response(b"", status_code=404, media_type="text/plain")
    found = files("litestar_offline_docs").joinpath("static", name).read_bytes()
    return Response(found, media_type=_FILES[name], headers={"Cache-Control": "max-age=86400"})
