"""The page in a real browser over a server with a topic in memory: rows that change, requests, keys and forms."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect, sync_playwright

from streamguard.polling import poll_until
from tests.prometheus import binary
from tests.serving_stores import add, at
from tests.unit.test_campaigns import NOON, incident
from tests.unit.test_serving_acts import Listening

pytestmark = pytest.mark.integration


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Listening]:
    site = Listening(tmp_path)
    yield site
    site.stop()


@contextmanager
def browser(site: Listening, name: str = "alice", **options: Any) -> Iterator[Page]:
    """The list in Chromium, for somebody who has signed in with the form; an error of a script fails the test."""
    wrong: list[str] = []
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=binary("chromium"), args=["--no-sandbox"])
        page = chromium.new_context(**options).new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(f"{site.address}/sign-in")
        page.locator("input[name=key]").fill(site.keys[name])
        page.keyboard.press("Enter")
        page.wait_for_url(f"{site.address}/")
        yield page
        chromium.close()
    assert wrong == []


def row(page: Page, id: str) -> str:
    return page.locator(f'tr[data-id="{id}"]').inner_text()


def publish(site: Listening, name: str, bits: float, offset: int) -> str:
    """Publish an incident of a user, and say that something has changed."""
    one = incident(name, NOON, {"resource": bits})
    add(site.store, [at(offset, one)])
    site.topic._reached()
    return one.id


def test_row_that_a_colleague_closes_says_so_and_stays(site: Listening) -> None:
    with browser(site) as page:
        page.locator(f'tr[data-id="{site.ann}"]').focus()
        page.keyboard.press("x")
        site.act(site.ann, by="carl", kind="close")
        closed = page.locator(f'tr[data-id="{site.ann}"]', has_text="no longer in this list")
        closed.wait_for()
        assert closed.evaluate("row => row.classList.contains('marked') && row === document.activeElement")
        assert "no longer" not in row(page, site.bob)
        before = page.locator("#rows tbody tr").count()
        site.act(site.ann, by="carl", kind="reopen")
        page.locator(f'tr[data-id="{site.ann}"]').filter(has_not_text="no longer in this list").wait_for()
        site.act(site.ann, by="carl", kind="close")
        page.get_by_role("button", name="1 row is no longer in this list: remove it").click()
        assert page.locator("#rows tbody tr").count() == before - 1


def test_row_that_others_push_to_the_next_page_is_still_in_the_list(site: Listening) -> None:
    with browser(site) as page:
        page.goto(f"{site.address}/?view=open&limit=2")
        weaker = page.locator("#rows tbody tr").last.get_attribute("data-id")
        assert weaker is not None
        publish(site, "zoe", 60.0, 50)
        page.get_by_role("button", name="1 new row: show it").wait_for()
        assert "no longer" not in row(page, weaker)
        site.act(weaker, by="carl", kind="acknowledge", assignee="carl")
        page.locator(f'tr[data-id="{weaker}"]', has_text="acknowledged, carl").wait_for()
        site.act(weaker, by="carl", kind="close")
        page.locator(f'tr[data-id="{weaker}"]', has_text="no longer in this list").wait_for()


def test_list_is_asked_for_at_most_every_two_seconds_and_not_while_it_is_hidden(site: Listening) -> None:
    with browser(site) as page:
        asked: list[str] = []
        page.route("**/v1/stream", lambda route: route.abort())  # it could report a change at any moment
        page.clock.install()
        page.goto(f"{site.address}/?view=open")
        poll_until(lambda: not page.evaluate("busy || due"), 20.0)
        page.clock.pause_at(page.evaluate("Date.now() + 10_000"))
        page.on("request", lambda one: "/rows" in one.url and asked.append(one.url))

        def change() -> None:
            page.evaluate("new BroadcastChannel('streamguard').postMessage(1)")

        def show(hidden: str) -> None:
            page.evaluate(
                f"Object.defineProperty(document, 'hidden', {{ value: {hidden}, configurable: true }}); "
                "document.dispatchEvent(new Event('visibilitychange'))"
            )

        with page.expect_response(re.compile("/rows")):
            change()
        poll_until(lambda: not page.evaluate("busy"), 20.0)
        for _ in range(5):
            change()
            poll_until(lambda: page.evaluate("due"), 20.0)
        page.clock.run_for(1_900)
        assert len(asked) == 1
        with page.expect_response(re.compile("/rows")):
            page.clock.run_for(200)
        poll_until(lambda: not page.evaluate("busy"), 20.0)
        assert len(asked) == 2
        show("true")
        page.clock.run_for(5_000)
        change()
        poll_until(lambda: page.evaluate("due"), 20.0)
        page.clock.run_for(5_000)
        assert len(asked) == 2
        with page.expect_response(re.compile("/rows")):
            show("false")
        assert len(asked) == 3


def test_keys_in_the_list_mark_a_range_and_act_on_it(site: Listening) -> None:
    with browser(site) as page:
        page.goto(f"{site.address}/?view=open")
        ids = page.locator("#rows tbody tr").evaluate_all("rows => rows.map(row => row.dataset.id)")
        for key in ("j", "j", "x", "j", "j", "Shift+X"):
            page.keyboard.press(key)
        marked = page.locator("tr.marked").evaluate_all("rows => rows.map(row => row.dataset.id)")
        assert marked == ids[1:4]
        page.keyboard.press("m")
        expect(page.locator("#said")).to_contain_text("Mute is about one incident")
        page.keyboard.press("c")
        expect(page.locator("#form-c h2")).to_have_text("Comment on 3 incidents")
        page.keyboard.type("one scanner")
        page.keyboard.press("Enter")
        expect(page.locator("#said")).to_have_text("Done for 3 of 3 incidents.")
        for id in ids:
            assert [one.text for one in site.case(id).comments] == (["one scanner"] if id in marked else [])
        page.keyboard.press("s")
        page.keyboard.type("2030-01-01")
        page.keyboard.press("Enter")
        expect(page.locator("#said")).to_have_text("Done for 1 of 1 incident.")
        assert site.case(ids[3]).snoozed_until == "2030-01-01T00:00:00.000Z"
        page.keyboard.press("c")
        page.keyboard.press("Escape")
        page.keyboard.press("m")
        page.wait_for_url(f"**/incidents/{ids[3]}#do-m")
        page.keyboard.type("2030-02-01")
        assert page.locator("details[data-key=m] input[name=until]").input_value() == "2030-02-01"
        assert [one.kind for one in site.case(ids[3]).history] == ["comment", "snooze"]


def test_keys_of_the_list_are_switched_off_together(site: Listening) -> None:
    with browser(site) as page:
        page.keyboard.press("?")
        page.locator("#keys-on").uncheck()
        page.keyboard.press("Escape")
        page.locator(f'tr[data-id="{site.ann}"]').focus()
        for key in ("x", "Shift+X", "c", "s", "m", "e", "!"):
            page.keyboard.press(key)
        assert page.locator("tr.marked").count() == page.locator("dialog[open]").count() == 0
        assert page.url == f"{site.address}/"


def test_viewer_learns_that_keys_need_another_role(site: Listening) -> None:
    with browser(site, "vera") as page:
        page.locator("#rows tbody tr").first.focus()
        for key in "csm":
            page.keyboard.press(key)
            expect(page.locator("#said")).to_have_text("Your role may not act on incidents.")
        assert page.url == f"{site.address}/"


def test_action_on_a_list_is_undone_with_one_key(site: Listening) -> None:
    with browser(site) as page:
        page.goto(f"{site.address}/?view=open&sort=time")
        page.get_by_text(re.compile("^Act on all")).click()
        page.get_by_role("button", name="Acknowledge all, assign me").click()
        expect(page.locator("#question")).to_have_text("Acknowledge 6 incidents, and assign to alice?")
        page.get_by_role("button", name="Yes, for all 6 incidents").click()
        expect(page.locator("#done")).to_have_text("Done for 6 of 6 incidents.")
        page.keyboard.press("u")
        expect(page.locator("#done")).to_have_text("Undo: done for 6 of 6 incidents.")
        page.keyboard.press("Escape")
        page.wait_for_url(f"{site.address}/?view=open&sort=time")
    assert {site.case(one.id).status for one in site.incidents} == {"new"}


def test_incident_is_closed_as_a_duplicate_of_one_that_was_seen_before(site: Listening) -> None:
    site.act(site.ann, by="carl", kind="close", classification="benign_positive", reason="a test")
    again = incident("ann", NOON + 3_600_000, {"resource": 22.0}, "exfiltration")
    add(site.store, [at(50, again)])
    with browser(site) as page:
        page.goto(f"{site.address}/incidents/{again.id}")
        seen = page.locator(".earlier tbody tr")
        for text in ("user ann", "user, kind", "benign positive", "carl", "a test"):
            expect(seen).to_contain_text(text)
        page.get_by_text("Close as duplicate", exact=True).first.click()
        page.locator("input[name=duplicate_of]").fill(site.ann)
        page.keyboard.press("Enter")
        page.locator("#status", has_text="closed").wait_for()
        page.get_by_role("link", name=site.ann, exact=True).click()
        page.wait_for_url(f"{site.address}/incidents/{site.ann}")
        assert page.locator("#id").inner_text() == site.ann


def test_forms_and_notes_are_accessible_and_fit_a_phone(site: Listening) -> None:
    site.act(site.ann, by="carl", kind="close", reason="a test")
    again = incident("ann", NOON + 3_600_000, {"resource": 22.0}, "exfiltration")
    add(site.store, [at(50, again)])
    with browser(site, bypass_csp=True, viewport={"width": 390, "height": 800}) as page:

        def check() -> None:
            found = Axe().run(page)
            assert found.violations_count == 0, found.generate_report()
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")

        page.goto(f"{site.address}/incidents/{again.id}")
        page.get_by_text("Close as duplicate", exact=True).first.click()
        check()
        page.goto(f"{site.address}/?view=open")
        site.act(again.id, by="carl", kind="close")
        page.get_by_text("no longer in this list", exact=True).wait_for()
        page.locator("#rows tbody tr").first.focus()
        page.keyboard.press("s")
        check()
