"""`streamguard serve` on a real Kafka and in a real browser: what it shows is what the topics hold."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from axe_playwright_python.sync_playwright import Axe

from streamguard.alerts.explain import Reason
from streamguard.alerts.incident import Entity, Incident
from streamguard.campaigns.sighting import HOUR
from streamguard.polling import poll_until
from streamguard.serving.projection.store import Store
from tests.campaign_site import POISON, CampaignSite
from tests.serving_site import ServeProcess, browser
from tests.serving_stores import at
from tests.unit.test_campaigns import NOON, incident, lone, spray
from tests.unit.test_serving_query import many

pytestmark = pytest.mark.integration

HOSTILE = '<img src=x onerror="document.title=1">\u202egnp.exe\x1b[31m'


class ServingSite(CampaignSite):
    """Topics of incidents and campaigns, the campaigns process, and servers."""

    def serve(self, name: str = "a", data: str = "") -> ServeProcess:
        server = ServeProcess(self, name, data)
        self.servers.append(server)
        return server

    servers: list[ServeProcess]


@pytest.fixture
def site(kafka: str, tmp_path: Path) -> Iterator[ServingSite]:
    site = ServingSite(kafka, tmp_path)
    site.servers = []
    yield site
    for server in site.servers:
        if server.alive:
            server.kill()
    site.close()


def published(site: ServingSite, incidents: list[Incident]) -> list[Incident]:
    """Publish incidents, each about an event of its own."""
    placed = [at(k, one).incident for k, one in enumerate(incidents)]
    site.publish(placed)
    return placed


def attack() -> list[Incident]:
    """A spray that enters an account, and incidents of single users."""
    users = [f"user-{k}" for k in range(5)]
    return [
        *spray(NOON, users, entered="user-0"),
        incident("ann", NOON + 30 * HOUR, {"resource": 12.0, "hour": 9.0}, "exfiltration"),
        lone("bob", NOON + 60 * HOUR, bits=9.5),
    ]


def export(server: ServeProcess) -> list[bytes]:
    """Contents of the projection of a server that was stopped."""
    store = Store(server.data, 18.0)
    try:
        return list(store.export())
    finally:
        store.close()


def test_running_restarted_and_rebuilt_servers_have_the_same_projection(site: ServingSite) -> None:
    process = site.start()
    first = site.serve("first").await_serving()
    early = attack()
    site.publish([None, b"no incident", *POISON[1:4]])
    placed = published(site, early)
    site.await_published(process)
    first.await_incidents(len(early))
    first.process.send_signal(signal.SIGKILL)
    first.process.wait(20)
    later = [
        msgspec.structs.replace(one, count=one.count + 3, evidence_bits=one.evidence_bits + 4)
        for one in placed
    ]
    published(site, [*later, lone("eve", NOON + 90 * HOUR)])
    site.await_published(process)
    again, rebuilt = site.serve("first").await_serving(), site.serve("rebuilt").await_serving()
    for server in (again, rebuilt):
        server.await_incidents(len(early) + 1)
        poll_until(
            lambda server=server: any(row["campaign_incidents"] > 1 for row in server.incidents()), 60.0
        )
    site.await_published(process)
    assert process.terminate(10) == 0
    sequences = [one.ask("/v1/incidents?limit=1")["as_of"] for one in (again, rebuilt)]
    assert [one["positions"] for one in sequences[0]] == [one["positions"] for one in sequences[1]]
    for server in (again, rebuilt):
        assert server.terminate(15) == 0, server.tail()
    assert export(again) == export(rebuilt)
    assert len(export(again)) > len(early)


def test_topic_that_is_created_again_replaces_what_was_shown(site: ServingSite) -> None:
    server = site.serve().await_serving()
    published(site, attack())
    server.await_incidents(len(attack()))
    assert server.terminate(15) == 0
    site.delete_topic("alerts")
    site.create_topics()
    fresh = lone("zoe", NOON)
    published(site, [fresh])
    (row,) = site.serve("a").await_serving().await_incidents(1)
    assert row["id"] == fresh.id


def test_server_without_topics_says_so_and_serves_once_they_exist(site: ServingSite) -> None:
    site.delete_topic("alerts")
    server = site.serve().await_serving()
    assert server.incidents() == []
    assert any("run `streamguard topics create`" in line["message"] for line in server.lines())
    site.create_topics()
    published(site, [lone("zoe", NOON)])
    server.await_incidents(1)


def test_one_server_uses_a_data_directory(site: ServingSite) -> None:
    server = site.serve("a").await_serving()
    other = site.serve("other", data="a")
    assert other.process.wait(30) == 75
    assert "another server uses" in other.exit_message()
    assert server.alive


def test_key_appears_in_standard_output_only(site: ServingSite) -> None:
    server = site.serve().await_serving()
    assert all(server.key not in str(line) for line in server.lines())


def test_analyst_works_through_the_list_with_the_keyboard(site: ServingSite) -> None:
    process, server = site.start(), site.serve().await_serving()
    published(site, attack())
    site.await_published(process)
    server.await_incidents(len(attack()))
    poll_until(lambda: len(server.incidents("&raised=true&grouped=true")) == 2, 60.0)
    with browser(server) as page:
        rows = page.locator("#rows tbody tr")
        raised = server.incidents("&raised=true&grouped=true")
        assert rows.evaluate_all("rows => rows.map(row => row.dataset.id)") == [row["id"] for row in raised]
        assert page.locator("#total").inner_text() == str(len(raised))
        assert "1 account entered" in page.locator("#rows").inner_text()
        page.keyboard.press("j")
        page.keyboard.press("j")
        assert page.locator("tr.selected").get_attribute("data-id") == raised[1]["id"]
        page.keyboard.press("k")
        page.keyboard.press("Enter")
        page.wait_for_url("**/incidents/**")
        found = server.ask(f"/v1/incidents/{raised[0]['id']}")
        assert page.locator(".reasons tbody tr").count() == len(found["incident"]["reasons"])
        page.keyboard.press("Escape")
        page.wait_for_url(server.address + "/")
        (led,) = [row for row in raised if row["campaign"]]
        page.get_by_role("link", name=f"{led['campaign_incidents']} incidents").click()
        page.wait_for_url("**campaign=**")
        assert rows.count() == led["campaign_incidents"]
        rows.first.locator("a.open").click()
        page.wait_for_url("**/incidents/**")
        text = page.inner_text("main")
        assert (
            f"{led['campaign_incidents']} incidents of one attack: 5 users tried, 1 account entered (user-0)"
            in text
        )
        page.keyboard.press("Escape")
        page.wait_for_url(server.address + "/")
        page.keyboard.press("?")
        page.locator("#keys-on").uncheck()
        page.keyboard.press("Escape")
        page.keyboard.press("j")
        assert page.locator("tr.selected").count() == 0
        page.locator("#search").fill("ann")
        page.locator("#search").press("Enter")
        page.wait_for_url("**text=ann**")
        assert rows.count() == 1 and "user ann" in rows.first.inner_text()


def test_analyst_acts_with_the_keyboard_and_a_rebuilt_server_knows_it(site: ServingSite) -> None:
    server = site.serve().await_serving()
    ann, bob, cid = published(
        site, [incident(name, NOON, {"resource": 30.0}) for name in ("ann", "bob", "cid")]
    )
    server.await_incidents(3)
    with browser(server) as page:
        page.locator(f'tr[data-id="{ann.id}"]').focus()
        for key in ("x", "j", "x", "a"):
            page.keyboard.press(key)
        page.locator("tr", has_text="acknowledged, local").nth(1).wait_for()
        page.goto(f"{server.address}/incidents/{cid.id}")
        page.keyboard.press("c")
        page.keyboard.type("asked the owner")
        page.keyboard.press("Enter")
        page.locator(".history", has_text="asked the owner").wait_for()
        page.get_by_text("Close", exact=True).first.click()
        page.locator("details[open] select").select_option("benign_positive")
        page.locator("details[open] input[name=reason]").fill("a test of the team")
        page.keyboard.press("Enter")
        page.locator("#status", has_text="closed").wait_for()
        page.wait_for_load_state()
        page.keyboard.press("u")
        page.locator("#status", has_text="new").wait_for()
    shown = {row["id"]: (row["status"], row["assignee"]) for row in server.incidents()}
    assert shown == {
        ann.id: ("acknowledged", "local"),
        bob.id: ("acknowledged", "local"),
        cid.id: ("new", ""),
    }
    assert server.terminate(15) == 0
    rebuilt = site.serve("rebuilt").await_serving()
    assert {row["id"]: (row["status"], row["assignee"]) for row in rebuilt.await_incidents(3)} == shown
    history = rebuilt.ask(f"/v1/incidents/{cid.id}")["case"]["history"]
    assert [(one["kind"], one["by"], bool(one["undone_by"])) for one in history] == [
        ("comment", "local", False), ("close", "local", True), ("undo", "local", False),
    ]  # fmt: skip
    assert rebuilt.terminate(15) == 0
    assert export(rebuilt) == export(server)


def test_rows_change_in_place_and_new_rows_wait_behind_a_button(site: ServingSite) -> None:
    server = site.serve().await_serving()
    (ann, bob) = published(
        site, [incident("ann", NOON, {"resource": 30.0}), incident("bob", NOON, {"resource": 25.0})]
    )
    server.await_incidents(2)
    with browser(server) as page:
        page.keyboard.press("j")
        page.keyboard.press("j")
        assert page.locator("tr.selected").get_attribute("data-id") == bob.id
        risen = msgspec.structs.replace(ann, count=7, evidence_bits=33.0)
        published(
            site,
            [risen, incident("cid", NOON, {"resource": 40.0}), incident("dan", NOON, {"resource": 20.0})],
        )
        page.get_by_role("button", name="2 new rows: show them").wait_for()
        page.locator(f'tr[data-id="{ann.id}"]', has_text="33.0").wait_for()
        assert page.locator("#rows tbody tr").count() == 2
        assert page.locator("tr.selected").get_attribute("data-id") == bob.id
        page.get_by_role("button", name="2 new rows: show them").click()
        assert page.locator("#rows tbody tr").count() == 4
        assert page.locator("tr.selected").get_attribute("data-id") == bob.id


def test_texts_of_an_attacker_do_nothing_in_the_browser(site: ServingSite) -> None:
    hostile = msgspec.structs.replace(
        lone("mallory", NOON),
        entity=Entity("user", HOSTILE),
        reasons=(Reason("resource", HOSTILE, HOSTILE, 12.0, 1.0),),
        event={"user": HOSTILE, "command": "x" * 500_000},
    )
    server = site.serve().await_serving()
    published(site, [hostile])
    server.await_incidents(1)
    with browser(server) as page:
        page.goto(server.address + "/?view=all")
        assert page.locator("#rows img").count() == 0
        assert "<img src=x" in page.locator("#rows").inner_text()
        page.locator("a.open").first.click()
        page.wait_for_url("**/incidents/**")
        assert page.locator("main img").count() == 0
        assert page.title().startswith("user <img")
        assert "\u202e" not in page.content()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_are_accessible(site: ServingSite, scheme: str) -> None:
    process, server = site.start(), site.serve().await_serving()
    ann, *_ = published(site, [incident("ann", NOON, {"resource": 30.0}, "exfiltration"), *attack()])
    site.await_published(process)
    server.await_incidents(len(attack()) + 1)
    paths = (
        "",
        "?view=all",
        f"incidents/{ann.id}",
        "users/ann",
        "ranking",
        "models",
        "techniques",
        "system",
        "sign-in",
    )
    with browser(server, bypass_csp=True, color_scheme=scheme) as page:
        for path in (*paths, "sign-in"):
            page.goto(f"{server.address}/{path}")
            found = Axe().run(page)
            assert found.violations_count == 0, found.generate_report()


def test_every_number_of_the_list_is_that_of_the_topic(site: ServingSite) -> None:
    """More than 500 incidents: pages, counts of filters, totals and ranking, in the browser, the API and the topic."""
    server = site.serve().await_serving()
    made = published(site, many(620))
    server.await_incidents(len(made))
    bits = sorted((round(one.evidence_bits, 1) for one in made), reverse=True)
    severities = Counter(one.severity for one in made)
    with browser(server) as page:
        page.goto(f"{server.address}/?view=all&limit=200")
        shown: list[float] = []
        while True:
            cells = page.locator("#rows tbody tr td:nth-child(2)").all_inner_texts()
            shown += map(float, cells)
            if not page.locator("#next").count():
                break
            page.locator("#next").click()
            page.wait_for_load_state()
        assert shown == bits
        page.goto(f"{server.address}/?view=all")
        assert page.locator("#total").inner_text() == f"{len(made):,}"
        for severity, count in severities.items():
            line = page.locator(".facets li", has=page.get_by_role("link", name=severity, exact=True)).first
            assert line.inner_text() == f"{severity} {count:,}"
            assert server.ask(f"/v1/incidents/facets?severity={severity}")["total"] == count
        page.goto(f"{server.address}/system")
        totals = dict(
            zip(
                page.locator(".totals dt").all_inner_texts(),
                page.locator(".totals dd").all_inner_texts(),
                strict=True,
            )
        )
        assert totals["Incidents"] == f"{len(made):,}"
        assert totals["Alerts"] == f"{sum(one.count for one in made):,}"
        page.goto(f"{server.address}/ranking")
        ranked = server.ask("/v1/ranking?limit=50")["users"]
        assert page.locator("#rows tbody tr td:nth-child(2)").all_inner_texts() == [
            f"{one['score']:.1f}" for one in ranked
        ]
        users = Counter(one.entity.value for one in made)
        assert all(one["incidents"] == users[one["entity"]["value"]] for one in ranked)


def test_eight_tabs_share_one_stream(site: ServingSite) -> None:
    """A browser opens six connections to a host: a stream in each tab would block the seventh."""
    server = site.serve().await_serving()
    published(site, [incident("ann", NOON, {"resource": 30.0})])
    server.await_incidents(1)
    with browser(server) as page:
        tabs = [page.context.new_page() for _ in range(7)]
        for tab in tabs:
            tab.goto(server.address + "/")
        published(site, [incident("bob", NOON, {"resource": 31.0})])
        for tab in (page, *tabs):
            tab.get_by_role("button", name="1 new row: show it").wait_for()


def test_list_fits_a_phone(site: ServingSite) -> None:
    server = site.serve().await_serving()
    published(site, attack())
    server.await_incidents(len(attack()))
    with browser(server, viewport={"width": 390, "height": 800}) as page:
        for path in ("/?view=all", "/ranking", "/techniques", "/system"):
            page.goto(server.address + path)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
