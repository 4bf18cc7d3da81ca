"""The API and the page without a network: keys, hosts, origins, rates, problems, and texts of attackers."""

from __future__ import annotations

import html
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from litestar.testing import TestClient

from streamguard.alerts.explain import Reason
from streamguard.alerts.incident import Entity
from streamguard.errors import ConfigurationError
from streamguard.events.event_time import epoch_ms
from streamguard.fold.patterns import PATTERNS
from streamguard.pictures.tactics import TACTICS
from streamguard.serving.api import keys
from streamguard.serving.api.app import application
from streamguard.serving.api.document import PROBLEMS
from streamguard.serving.api.keys import Key, Keyring, new_key
from streamguard.serving.api.security import HEADERS, MAX_BODY_BYTES, Rates
from streamguard.serving.page.routes import ROUTES, problem_page
from streamguard.serving.projection.store import Store
from streamguard.serving.query.service import QueryService
from streamguard.settings.schema import Serve
from tests.serving_stores import filled, placed, privacy
from tests.unit.test_campaigns import NOON, incident, lone, spray

HOSTILE = "<img src=x onerror=alert(1)>\"'\u202egnp.exe\x1b[31m=cmd|"


class Site:
    """A server over a store with a few incidents, and its keys."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        hostile = msgspec.structs.replace(
            lone("mallory", NOON),
            entity=Entity("user", HOSTILE),
            id="0-hostile-1",
            reasons=(Reason("resource", HOSTILE, HOSTILE, 12.0, 1.0),),
            event={"user": HOSTILE, "</script>": HOSTILE},
        )
        attack = spray(NOON, ["a", "b", "c"], entered="a")
        self.incidents = [*attack, incident("ann", NOON, {"resource": 21.0}, "exfiltration"), hostile]
        self.store: Store = filled(directory / "store", placed(self.incidents))
        self.key, key = new_key("ann", "investigator", 3600)
        self.viewing, viewing = new_key("vera", "viewer", 3600)
        self.expired, expired = new_key("old", "admin", -1)
        self.file = directory / "keys.json"
        keys.write(self.file, [key, viewing, expired])
        self.keyring = Keyring(self.file)
        service = QueryService(self.store, ())
        service.privacy = privacy()
        own = Serve(allowed_hosts="guard.example.com", **settings)
        self.app: Any = application(service, self.keyring, own, ROUTES, problem_page)

    def client(self, key: str | None = None) -> TestClient[Any]:
        client: TestClient[Any] = TestClient(self.app, base_url="http://localhost:8080")
        if key:
            client.headers["Authorization"] = f"Bearer {key}"
        return client


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.store.close()


def test_every_route_needs_a_key_except_the_form(site: Site) -> None:
    client = site.client()
    for path in (
        "/v1/incidents",
        "/v1/statistics",
        "/v1/stream",
        "/",
        "/incidents/x",
        "/rows",
        "/system",
    ):
        assert client.get(path).status_code == 401, path
    assert client.get("/sign-in").status_code == 200
    assert client.get("/static/page.js").status_code == 200
    for wrong in ("", "Bearer", "Bearer x", f"Bearer {site.expired}", f"Basic {site.key}"):
        assert client.get("/v1/incidents", headers={"Authorization": wrong}).status_code == 401, wrong


def test_key_opens_the_api_and_a_session_the_page(site: Site) -> None:
    assert site.client(site.key).get("/v1/incidents").status_code == 200
    client = site.client()
    assert client.get("/sign-in", params={"key": "wrong"}).status_code == 403
    signed = client.post("/sign-in", data={"key": site.key})
    cookie = signed.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and site.key not in cookie
    assert client.get("/").status_code == 200
    client.cookies.set("streamguard_session", client.cookies["streamguard_session"][::-1])
    assert client.get("/").status_code == 401


def test_key_that_is_removed_from_the_file_ends_its_sessions(site: Site) -> None:
    client = site.client()
    client.post("/sign-in", data={"key": site.key})
    assert client.get("/").status_code == 200
    keys.write(site.file, [one for one in keys.read(site.file) if one.name != "ann"])
    assert client.get("/").status_code == 401
    assert site.client(site.viewing).get("/v1/incidents").status_code == 200


def test_file_of_keys_holds_no_key_and_is_private(site: Site) -> None:
    assert site.key not in site.file.read_text()
    assert site.file.stat().st_mode & 0o077 == 0
    site.file.write_text("[{}]")
    with pytest.raises(ConfigurationError, match="cannot be read as a list of keys"):
        keys.read(site.file)


def test_foreign_host_is_refused_before_anything_else(site: Site) -> None:
    client = site.client(site.key)
    for host in ("evil.example", "guard.example.com.evil.example", "", "localhost.evil.example:80"):
        answer = client.get("/v1/incidents", headers={"Host": host})
        assert (answer.status_code, answer.json()["status"]) == (421, 421), host
    for host in ("127.0.0.1:8080", "[::1]:8080", "guard.example.com", "localhost"):
        assert client.get("/v1/incidents", headers={"Host": host}).status_code == 200, host


def test_page_of_another_site_cannot_use_the_session(site: Site) -> None:
    client = site.client()
    client.post("/sign-in", data={"key": site.key})
    for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        assert client.post("/sign-out", headers=headers).status_code == 403
    assert client.post("/sign-out", headers={"Origin": "http://localhost:8080"}).status_code == 200


def test_every_answer_has_the_headers_that_bound_the_page(site: Site) -> None:
    client = site.client()
    for path in ("/", "/v1/incidents", "/sign-in", "/nowhere"):
        answer = client.get(path, headers={"Host": "evil.example"} if path == "/nowhere" else {})
        for name, value in HEADERS.items():
            assert answer.headers[name] == value, (path, name)


def test_large_body_is_refused(site: Site) -> None:
    answer = site.client(site.key).post("/sign-in", content=b"x" * (MAX_BODY_BYTES + 1))
    assert answer.status_code == 413


def test_caller_who_asks_too_often_waits(tmp_path: Path) -> None:
    site = Site(tmp_path, requests_per_minute=3)
    client = site.client(site.key)
    answers = [client.get("/v1/statistics") for _ in range(4)]
    assert [one.status_code for one in answers] == [200, 200, 200, 429]
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 20
    assert answers[-1].json()["detail"].startswith("more than 3 requests a minute")
    assert site.client(site.viewing).get("/v1/statistics").status_code == 200
    site.store.close()


def test_rates_refill_steadily(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    rates = Rates(60)
    for _ in range(60):
        rates.count("ann")
    now[0] = 1.5
    rates.count("ann")
    with pytest.raises(Exception, match="wait 1 s"):
        rates.count("ann")


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/v1/incidents/none", 404, "there is no incident"),
        ("/v1/campaigns/none", 404, "there is no campaign"),
        ("/v1/incidents?cursor=AAAA", 400, "begin again without it"),
        ("/v1/incidents?since=yesterday", 400, "write 2026-11-30"),
        ("/v1/incidents?limit=0", 400, ""),
        ("/v1/incidents?limit=9999", 400, ""),
        ("/v1/incidents?severity=awful", 400, ""),
        ("/v1/incidents?severty=critical", 400, "has no parameter 'severty': it has assignee, at_least"),
        ("/v1/ranking?kind=user&kind=source", 400, "`kind` has several values: state one"),
        ("/v1/incidents?max_staleness=null", 400, "`max_staleness` has no value: leave it out"),
        ("/v1/ranking?kind=user&=0", 400, "has no parameter ''"),
        ("/v1/incidents?" + "&".join(["entity=a"] * 21), 400, ""),
        ("/v1/incidents?entity=" + "a" * 300, 400, ""),
        ("/v1/nowhere", 404, ""),
    ],
)
def test_problem_says_what_was_wrong(site: Site, path: str, status: int, text: str) -> None:
    answer = site.client(site.key).get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    body = answer.json()
    assert body["status"] == status and body["title"] and text in body["detail"]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/?statsu=new", "/ has no parameter 'statsu': it has assignee, campaign"),
        ("/rows?foo=1", "/rows has no parameter 'foo': it has"),
        ("/?view=all&view=open", "`view` has several values: state one"),
        ("/?raised=null", "`raised` has no value: leave it out"),
        ("/ranking?knid=user", "/ranking has no parameter 'knid': it has days, kind"),
        ("/system?since=2026-11-30", "/system has no parameter 'since': it has none"),
    ],
)
def test_page_refuses_a_parameter_that_it_does_not_have(site: Site, path: str, text: str) -> None:
    client = site.client()
    client.post("/sign-in", data={"key": site.key})
    answer = client.get(path, headers={"Accept": "text/html"})
    assert answer.status_code == 400 and answer.headers["content-type"].startswith("text/html")
    assert text in html.unescape(answer.text)


def test_action_on_a_list_refuses_a_parameter_that_it_does_not_have(site: Site) -> None:
    client = site.client()
    client.post("/sign-in", data={"key": site.key})
    assert client.post("/act?statsu=new", data={"kind": "acknowledge"}).status_code == 400
    page = client.get("/?view=all&sort=time&limit=20&kind=user&text=").text
    (query,) = set(re.findall(r'action="/act\?([^"]*)"', page))
    assert sorted(html.unescape(query).split("&")) == ["kind=user", "view=all"]


def test_provider_may_add_parameters_to_the_way_back(site: Site) -> None:
    answer = site.client().get("/sign-in/oidc/callback?state=a&code=b&iss=https://id.example")
    assert answer.status_code == 404 and "no provider is set" in answer.text


def test_unexpected_error_keeps_its_text(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr("streamguard.serving.query.totals.Totals.statistics", fail)
    answer = site.client(site.key).get("/v1/statistics")
    assert answer.status_code == 500
    assert "secret" not in answer.text


def test_texts_of_an_attacker_are_shown_and_do_nothing(site: Site) -> None:
    client = site.client()
    client.post("/sign-in", data={"key": site.key})
    for path in ("/?view=all", "/rows?view=all", "/incidents/0-hostile-1", "/ranking"):
        page = client.get(path).text
        assert "&lt;img src=x onerror=alert(1)&gt;" in page, path
        assert "<img" not in page and "\x1b" not in page and "\u202e" not in page, path
        assert "<script" not in page.replace('<script src="/static/page.js" defer></script>', ""), path
        assert not re.search(r"\son\w+=", re.sub(r"&[a-z#0-9]+;|onerror=alert", "", page)), path
        assert "style=" not in page, path
    body = site.client(site.key).get("/v1/incidents/0-hostile-1")
    assert body.headers["content-type"] == "application/json"
    assert body.json()["incident"]["entity"]["value"] == HOSTILE


def test_ranking_counts_the_incidents_of_the_latest_days(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    client = site.client()
    client.post("/sign-in", data={"key": site.key})
    known = site.client(site.key).get("/v1/ranking").json()["users"]
    latest = max(epoch_ms(one["last_seen"]) or 0 for one in known)
    monkeypatch.setattr("streamguard.serving.page.overview.time.time", lambda: latest / 1000 + 3 * 86_400)
    shown = {days: client.get(f"/ranking?days={days}").text.count("<tr tabindex") for days in (0, 2, 4)}
    assert shown[0] == len(known) and shown[2] == 0 and shown[4] > 0
    assert 'href="/ranking?kind=source&amp;days=4"' in client.get("/ranking?days=4").text


def test_page_shows_the_numbers_of_the_api(site: Site) -> None:
    client = site.client()
    client.post("/sign-in", data={"key": site.key})
    asked = site.client(site.key)
    for view, filters in (
        ("all", ""),
        ("open", "status=new&status=acknowledged&muted=false"),
        ("raised", "status=new&status=acknowledged&muted=false&raised=true&grouped=true"),
    ):
        page = client.get(f"/?view={view}").text
        rows = asked.get(f"/v1/incidents?{filters}").json()["incidents"]
        assert re.findall(r'data-id="([^"]+)"', page) == [one["id"] for one in rows]
        total = asked.get(f"/v1/incidents/facets?{filters}").json()["total"]
        assert f'id="total">{total}<' in page


def test_links_of_filters_add_and_remove_a_value(site: Site) -> None:
    client = site.client()
    client.post("/sign-in", data={"key": site.key})
    page = client.get("/?view=all").text
    assert 'href="/?view=all&amp;pattern=exfiltration"' in page
    chosen = client.get("/?view=all&pattern=exfiltration").text
    assert 'href="/?view=all" aria-current="true">exfiltration' in chosen
    assert chosen.count("data-id=") == 1


def test_problem_is_a_page_for_a_browser(site: Site) -> None:
    client = site.client()
    refused = client.get("/", headers={"Accept": "text/html"})
    assert refused.status_code == 401 and 'name="key"' in refused.text
    client.post("/sign-in", data={"key": site.key})
    missing = client.get("/incidents/none", headers={"Accept": "text/html"})
    assert missing.status_code == 404 and "there is no incident" in missing.text


def test_static_files_cannot_leave_their_directory(site: Site) -> None:
    client = site.client()
    for name in ("..%2froutes.py", "....css", "page.py", "missing.css", "%00.css"):
        assert client.get(f"/static/{name}").status_code in (400, 404), name


def test_openapi_document_describes_every_route_of_the_api(site: Site) -> None:
    document = site.client(site.key).get("/v1/openapi/document.json").json()
    assert document["openapi"].startswith("3.1")
    assert all(path.startswith("/v1/") for path in document["paths"])
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    assert len({one["operationId"] for one in operations}) == len(operations) >= 7
    for one in operations:
        summary, description = one["summary"], one["description"]
        assert description.startswith(summary) and " " in summary and len(summary) <= 100, summary
        assert not re.search(r"[.;:]$", summary) and one["tags"], summary
    assert json.dumps(document).count("bearer")
    for operation in operations:
        for status in PROBLEMS:
            assert list(operation["responses"][str(status)]["content"]) == ["application/problem+json"]
    text = json.dumps(document)
    assert "#/components/schemas/Problem" in text and "Problem" in document["components"]["schemas"]
    assert r"\\Z" not in text, "a pattern that JSON Schema reads otherwise"
    assert ", {}]" not in text, "an alternative that everything fulfils"
    assert document["components"]["schemas"]["ActionRequest"]["additionalProperties"] is False


def test_matrix_has_the_techniques_of_all_patterns() -> None:
    assert {technique for _, cells in TACTICS for technique, _ in cells} == {
        one.technique for one in PATTERNS
    }


def test_keyring_of_a_missing_file_has_no_keys(tmp_path: Path) -> None:
    assert Keyring(tmp_path / "none").principal("x") is None
    given, key = new_key("local", "admin", 60)
    found = Keyring(None, key).principal(given)
    assert found is not None and found.may("act")
    assert isinstance(key, Key) and not Keyring(None, key).principal(given + "x")
