"""Forms of the page in a real browser, with and without scripts: previews, questions, and what a mistake keeps."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.integration.test_serving_page import browser, publish
from tests.serving_stores import add, at
from tests.unit.test_campaigns import NOON, incident
from tests.unit.test_serving_acts import DAY, Listening

pytestmark = pytest.mark.integration

WITH_AND_WITHOUT_SCRIPTS = pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Listening]:
    site = Listening(tmp_path)
    yield site
    site.stop()


def check(page: Page) -> None:
    """Nothing keeps people with a screen reader out, and the page is not wider than a phone."""
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def unfold(page: Page, key: str) -> None:
    page.locator(f"details[data-key={key}] > summary").click()


def send(page: Page, key: str, button: str, **fields: str) -> None:
    """Fill in a form of an incident that is unfolded, and send it."""
    part = page.locator(f"details[data-key={key}]")
    for name, value in fields.items():
        part.locator(f"[name={name}]").fill(value)
    part.get_by_role("button", name=button, exact=True).click()


@WITH_AND_WITHOUT_SCRIPTS
def test_mute_shows_what_it_hides_and_hides_it_when_that_is_confirmed(site: Listening, scripts: bool) -> None:
    alike = incident("ann", NOON - DAY, {"resource": 21.0}, "exfiltration", count=3)
    other = incident("ann", NOON - 2 * DAY, {"hour": 20.0})
    add(site.store, [at(50, alike), at(51, other)])
    with browser(site, java_script_enabled=scripts) as page:
        page.goto(f"{site.address}/incidents/{site.ann}")
        unfold(page, "m")
        send(page, "m", "Show what it hides", until="7d", reason="a backup job")
        expect(page.locator("h1")).to_have_text("Mute incidents of user ann that are like this one?")
        expect(page.locator("#preview")).to_contain_text("hides 2 of 3 incidents in 30 days, 2 of them open")
        expect(page.locator("table.list tbody tr")).to_have_count(2)
        rows = page.locator("table.list tbody tr").evaluate_all("rows => rows.map(row => row.dataset.id)")
        assert rows == [site.ann, alike.id]
        assert site.topic.written == []
        page.get_by_role("button", name="Mute", exact=True).click()
        expect(page.locator(".lead")).to_contain_text("muted")
        assert (site.case(alike.id).muted, site.case(other.id).muted) == (True, False)
        assert site.case(site.ann).own_mutes[0].reason == "a backup job"


@WITH_AND_WITHOUT_SCRIPTS
def test_mistake_keeps_what_was_typed_and_says_what_is_wrong_where_it_is(
    site: Listening, scripts: bool
) -> None:
    with browser(site, java_script_enabled=scripts) as page:
        page.goto(f"{site.address}/incidents/{site.ann}")
        for key, button, values in (
            ("m", "Show what it hides", {"until": "next week", "reason": "a backup job"}),
            ("s", "Snooze", {"until": "2001-01-01", "reason": "after the holidays"}),
            ("k-duplicate", "Close as duplicate", {"duplicate_of": "no-such-id", "reason": "the same"}),
        ):
            if not page.locator(f"details[data-key={key}][open]").count():
                unfold(page, key)
            send(page, key, button, **values)
            part = page.locator(f"details[data-key={key}]")
            expect(part.get_by_role("alert")).to_be_focused()
            wrong = part.locator("[aria-invalid]")
            assert wrong.get_attribute("name") in ("until", "duplicate_of")
            for name, value in values.items():
                assert part.locator(f"[name={name}]").input_value() == value
        assert site.topic.written == []
        site.act(site.ann, by="carl", kind="acknowledge")
        unfold(page, "c")
        send(page, "c", "Add", text="no conflict")
        expect(page.locator(".history")).to_contain_text("no conflict")


def test_colleague_who_was_faster_costs_no_text(site: Listening) -> None:
    with browser(site) as page:
        page.goto(f"{site.address}/incidents/{site.ann}")
        site.act(site.ann, by="carl", kind="acknowledge")
        unfold(page, "k-close")
        page.locator("details[data-key=k-close] select").select_option("benign_positive")
        send(page, "k-close", "Close", reason="a penetration test")
        alert = page.locator("details[data-key=k-close]").get_by_role("alert")
        expect(alert).to_contain_text("carl has done acknowledge")
        page.locator("details[data-key=k-close]").get_by_role("button", name="Close", exact=True).click()
        page.locator("#status", has_text="closed").wait_for()
        case = site.case(site.ann)
        assert (case.classification, case.reason) == ("benign_positive", "a penetration test")


@WITH_AND_WITHOUT_SCRIPTS
def test_action_on_a_list_is_done_for_the_incidents_that_were_confirmed(
    site: Listening, scripts: bool
) -> None:
    with browser(site, java_script_enabled=scripts) as page:
        page.goto(f"{site.address}/?view=open&sort=time")
        page.get_by_text(re.compile("^Act on all")).click()
        page.locator("details.bulk select").select_option("false_positive")
        page.locator("details.bulk input[name=reason]").fill("a drill")
        page.get_by_role("button", name="Close all").click()
        number = len(site.incidents)
        expect(page.locator("#question")).to_have_text(f"Close {number} incidents as false positive?")
        expect(page.locator("table.list tbody tr")).to_have_count(5)
        assert site.topic.written == []
        late = publish(site, "zoe", 60.0, 50)
        page.get_by_role("button", name=f"Yes, for all {number} incidents").click()
        expect(page.get_by_role("alert")).to_contain_text(
            f"it had {number} incidents, and has {number + 1} now"
        )
        expect(page.get_by_role("alert")).to_be_focused()
        assert site.topic.written == []
        page.get_by_role("button", name=f"Yes, for all {number + 1} incidents").click()
        expect(page.locator("#done")).to_have_text(f"Done for {number + 1} of {number + 1} incidents.")
        assert (site.case(late).classification, site.case(late).reason) == ("false_positive", "a drill")
        page.get_by_role("button", name="Undo all of it").click()
        expect(page.locator("h1")).to_have_text("Undone")
        assert site.case(late).status == "new"
        page.get_by_role("link", name="Back to the list").click()
        page.wait_for_url(f"{site.address}/?view=open&sort=time")


def test_form_of_marked_rows_is_open_again_for_those_that_were_refused(site: Listening) -> None:
    with browser(site) as page:
        page.goto(f"{site.address}/?view=open")
        page.locator(f'tr[data-id="{site.ann}"]').focus()
        page.keyboard.press("s")
        page.keyboard.type("next week")
        page.keyboard.press("Tab")
        page.keyboard.type("on holiday")
        page.keyboard.press("Enter")
        dialog = page.locator("#form-s")
        expect(dialog.get_by_role("alert")).to_contain_text("is not a time and not a duration")
        expect(dialog.get_by_role("alert")).to_be_focused()
        assert dialog.locator("[name=reason]").input_value() == "on holiday"
        dialog.locator("[name=until]").fill("12h")
        page.keyboard.press("Enter")
        expect(page.locator("#said")).to_have_text("Done for 1 of 1 incident.")
        (entry,) = site.case(site.ann).history
        assert (entry.kind, entry.text) == ("snooze", "on holiday")


def test_questions_and_refused_forms_are_accessible_and_fit_a_phone(site: Listening) -> None:
    with browser(site, bypass_csp=True, viewport={"width": 390, "height": 800}) as page:
        page.goto(f"{site.address}/incidents/{site.ann}")
        unfold(page, "m")
        send(page, "m", "Show what it hides", until="next week", reason="r")
        expect(page.get_by_role("alert")).to_be_visible()
        check(page)
        send(page, "m", "Show what it hides", until="90m")
        expect(page.locator("#preview")).to_be_visible()
        check(page)
        page.goto(f"{site.address}/?view=open&since=yesterday")
        expect(page.get_by_role("alert")).to_be_focused()
        assert page.locator("[name=since]").input_value() == "yesterday"
        check(page)
        page.goto(f"{site.address}/?view=open")
        page.get_by_text(re.compile("^Act on all")).click()
        page.get_by_role("button", name="Acknowledge all, assign me").click()
        expect(page.locator("#question")).to_be_visible()
        check(page)
        publish(site, "zoe", 60.0, 50)
        page.get_by_role("button", name=re.compile("^Yes, for all")).click()
        expect(page.get_by_role("alert")).to_be_visible()
        check(page)
        page.get_by_role("button", name=re.compile("^Yes, for all")).click()
        expect(page.locator("#done")).to_be_visible()
        check(page)
