"""Signing in with a provider in a real browser: its rules for cookies and forms differ from those of a program."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from tests.prometheus import binary
from tests.serving_http import HttpSite, oidc, provider

pytestmark = pytest.mark.integration


def test_browser_goes_to_the_provider_and_comes_back_signed_in(tmp_path: Path) -> None:
    wrong: list[str] = []
    with (
        provider(require_nonce=True) as issuer,
        HttpSite(tmp_path, **oidc(issuer, tmp_path)).running() as site,
        sync_playwright() as playwright,
    ):
        chromium = playwright.chromium.launch(executable_path=binary("chromium"), args=["--no-sandbox"])
        context = chromium.new_context()
        page = context.new_page()
        # The provider's own page asks for a style sheet elsewhere, which is not our matter.
        context.route(
            lambda url: not url.startswith((site.address, issuer)), lambda route: route.fulfill(body="")
        )
        page.on(
            "console",
            lambda message: (
                message.type == "error"
                and not message.location["url"].startswith(issuer)
                and wrong.append(message.text)
            ),
        )
        page.goto(f"{site.address}/sign-in")
        page.get_by_role("link", name="Sign in with localhost").click()
        page.wait_for_url(f"{issuer}/**")
        page.get_by_role("button", name="1", exact=True).click()
        page.wait_for_url(f"{site.address}/")
        assert page.locator(".who").inner_text() == "ann (analyst)"
        cookies = {one["name"]: one for one in context.cookies()}
        session = cookies["streamguard_session"]
        assert session["sameSite"] == "Strict" and session["httpOnly"]
        assert "streamguard_sign_in" not in cookies
        page.get_by_role("button", name="Sign out").click()
        page.get_by_role("link", name="Sign in with localhost").wait_for()
        assert not [one for one in context.cookies() if one["name"] == "streamguard_session"]
        chromium.close()
    assert wrong == []
