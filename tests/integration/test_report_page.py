"""`report.html` in a real browser: readable at both widths, accessible, linked, without requests, and harmless."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from msgspec.structs import replace
from playwright.sync_api import Page, sync_playwright

from streamguard.alerts.incident import Entity
from streamguard.batch.reporting import html
from streamguard.batch.reporting.ranking import ranking
from streamguard.fold.features import NAMES
from streamguard.runs.report import Report
from tests.batches import fold_result
from tests.prometheus import binary
from tests.unit.test_batch_report import HOSTILE, hostile, made

pytestmark = pytest.mark.integration

WIDTHS = {"wide": 1280, "phone": 390}
CANARY = '<img src=x onerror="document.title=1">\u202egnp.exe\x1b[31m'


@contextmanager
def opened(report: Report, directory: Path, **options: Any) -> Iterator[Page]:
    """The report in Chromium; an error of the page, or any request but that for the file, fails the test."""
    path = directory / "report.html"
    path.write_text(html.render(report), encoding="utf-8")
    wrong: list[str] = []
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=binary("chromium"), args=["--no-sandbox"])
        page = chromium.new_context(**options).new_page()
        page.on("console", lambda message: message.type == "error" and wrong.append(message.text))
        page.on("request", lambda request: request.url == path.as_uri() or wrong.append(request.url))
        page.goto(path.as_uri())
        yield page
        chromium.close()
    assert wrong == []


@pytest.fixture(scope="module")
def report() -> Report:
    """All sections are filled, with an address whose incident names a user."""
    found = made(fold_result(), drift={name: 0.02 * k for k, name in enumerate(NAMES)})
    user = found.incidents[0]
    address = replace(
        user, entity=Entity("source", "192.0.2.7"), evidence_bits=50.0,
        event={"user": user.entity.value, "source_ip": "192.0.2.7"},
    )  # fmt: skip
    return replace(found, incidents=[*found.incidents, address])


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_report_is_accessible_and_fits(report: Report, tmp_path: Path, width: str, scheme: Any) -> None:
    viewport = {"width": WIDTHS[width], "height": 800}
    with opened(report, tmp_path, viewport=viewport, color_scheme=scheme, bypass_csp=True) as page:
        page.locator("details").evaluate_all("all => all.forEach(one => one.open = true)")
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        colours = page.evaluate(
            "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
        )
        assert len(set(colours)) == 2


@pytest.mark.parametrize("width", WIDTHS)
def test_reader_goes_from_the_ranking_to_the_reasons_and_to_who_is_connected(
    report: Report, tmp_path: Path, width: str
) -> None:
    first, second = next((one, one.related[0]) for one in ranking(report) if one.related)
    with opened(report, tmp_path, viewport={"width": WIDTHS[width], "height": 800}) as page:
        page.get_by_role("row").get_by_role("link", name="source 192.0.2.7").click()
        assert first.place == 1 and page.url.endswith("#e1")
        card = page.locator("article#e1")
        assert card.evaluate("card => card.getBoundingClientRect().top < innerHeight")
        reason = first.incidents[0].reasons[0]
        row = card.locator(".reasons tbody tr").first
        for text in (reason.actual, reason.typical, f"{reason.bits:.1f}"):
            assert row.get_by_text(text, exact=False).first.is_visible(), text
        card.get_by_role("link", name=f"user {second.entity.value}").click()
        assert page.url.endswith(f"#e{second.place}")
        page.locator(f"article#e{second.place}").get_by_role("link", name="source 192.0.2.7").click()
        assert page.url.endswith("#e1")
        page.get_by_role("link", name="T1110.001 Password guessing").click()
        assert page.url.endswith("#e1-1")


def test_pictures_are_followed_by_tables_with_the_same_figures(report: Report, tmp_path: Path) -> None:
    with opened(report, tmp_path) as page:
        tables = page.locator("svg:not(.bar) ~ details table")
        assert tables.count() == page.locator("svg:not(.bar)").count() == 3
        tables.evaluate_all("all => all.forEach(one => one.closest('details').open = true)")
        days = page.locator("svg.columns ~ details tbody tr").all_inner_texts()
        assert [line.split() for line in days] == [["2023-11-14", str(len(report.incidents))]]
        assert page.locator("table.hours tbody tr").nth(22).locator("td").nth(1).inner_text() == "100.0 %"
        counts = page.locator("svg.scores + details td.number").all_inner_texts()
        assert sum(int(count.replace(",", "")) for count in counts) == report.totals.sampled


def test_texts_of_an_attacker_do_nothing(tmp_path: Path) -> None:
    found = made(hostile(), drift={})
    first = found.incidents[0]
    canary = replace(
        first,
        entity=Entity("crowd", CANARY),
        event={CANARY: CANARY, "user": CANARY},
        technique=CANARY,
        reasons=tuple(replace(one, feature=CANARY, actual=CANARY, typical=CANARY) for one in first.reasons),
        patterns=tuple(
            replace(one, name=CANARY, technique=CANARY, description=CANARY) for one in first.patterns
        ),
    )
    users = [replace(one, user=CANARY, why=[CANARY, HOSTILE[0]]) for one in found.users]
    with opened(replace(found, incidents=[canary, *found.incidents], users=users), tmp_path) as page:
        assert page.locator("img, script, iframe").count() == 0
        assert page.title() == f"StreamGuard report {found.run_id}"
        assert "<img src=x" in page.inner_text("main")
        assert "\u202e" not in page.content() and "\x1b" not in page.content()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
