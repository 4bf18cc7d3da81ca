"""Forms of the page, filled in and sent as a browser without scripts does."""

from __future__ import annotations

import html
import re
from typing import Any

from litestar.testing import TestClient

_FORM = re.compile(r'<form method="post" action="([^"]*)"[^>]*>(.*?)</form>', re.DOTALL)
_HIDDEN = re.compile(r'<input type="hidden" name="(\w+)" value="([^"]*)">')


def forms(page: str, path: str) -> list[tuple[str, dict[str, str]]]:
    """(address, hidden fields) of the forms of a page whose addresses begin with a path."""
    found = [
        (html.unescape(address), {name: html.unescape(value) for name, value in _HIDDEN.findall(body)})
        for address, body in _FORM.findall(page)
    ]
    return [(address, fields) for address, fields in found if address.startswith(path)]


def asked(client: TestClient[Any], address: str, **fields: str) -> tuple[str, dict[str, str]]:
    """Send a form that the page answers with a question, and return the form of the question."""
    page = client.post(address, data=fields)
    assert page.status_code == 200, page.text
    (form,) = forms(page.text, "/act" if address.startswith("/act") else "/incidents/")
    return form


def confirmed(client: TestClient[Any], address: str, **fields: str) -> Any:
    """Send a form, and confirm what the page asks."""
    to, hidden = asked(client, address, **fields)
    return client.post(to, data=hidden)
