"""Signing in with a provider: over real HTTP with a real provider, and with tokens that must be refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.serving_http import CLIENT, HttpSite, oidc, provider, sign_in


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    with provider(require_nonce=True) as issuer:
        yield issuer


@pytest.fixture
def site(tmp_path: Path, issuer: str) -> Iterator[HttpSite]:
    with HttpSite(tmp_path, **oidc(issuer, tmp_path)).running() as site:
        yield site


def test_person_signs_in_with_the_provider(site: HttpSite, issuer: str) -> None:
    client = site.client()
    form = client.get("/sign-in").text
    assert f"Sign in with {urlsplit(issuer).netloc}" in form and 'href="/sign-in/oidc"' in form
    there = client.get("/sign-in/oidc")
    asked = {name: value[0] for name, value in parse_qs(urlsplit(there.headers["location"]).query).items()}
    assert asked["client_id"] == CLIENT and asked["code_challenge_method"] == "S256"
    assert asked["redirect_uri"] == f"{site.address}/sign-in/oidc/callback"
    assert len({asked[one] for one in ("state", "nonce", "code_challenge")}) == 3
    cookie = there.headers["set-cookie"]
    assert "SameSite=lax" in cookie and "HttpOnly" in cookie and "Max-Age=600" in cookie
    assert all(asked[one] not in cookie for one in ("state", "nonce", "code_challenge"))
    signed = sign_in(client, "1")
    assert signed.status_code == 200, signed.text
    assert any(
        "streamguard_session=" in one and "SameSite=strict" in one and "HttpOnly" in one
        for one in signed.headers.get_list("set-cookie")
    )
    page = client.get("/").text
    assert "ann (analyst)" in page
    assert client.get("/v1/audit").status_code == 403
