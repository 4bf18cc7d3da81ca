"""What a server measures: requests by class, and the projection at each scrape; nothing of a request is a label."""

from __future__ import annotations

import asyncio
import math
import sqlite3
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streamguard import metrics
from streamguard.errors import UnavailableError
from streamguard.serving import health as health_module
from streamguard.serving import process
from streamguard.serving.api.measure import Measured
from streamguard.serving.decisions.ledger import Logged
from streamguard.serving.decisions.record import VERSION, Close, Target
from streamguard.serving.log.reader import Bounds, TopicState
from streamguard.serving.log.record import LogRecord
from streamguard.serving.peers.holders import Holders
from streamguard.serving.peers.profiles import Profiles
from streamguard.serving.projection import projector
from streamguard.serving.projection.projector import REASONS, Follower
from streamguard.serving.projection.store import Store
from streamguard.serving.query.service import QueryService
from streamguard.serving.replica.replica import Replica
from streamguard.settings.schema import Serve, Settings
from tests.unit.test_serving_api import Site


def value(name: str, **labels: str) -> float:
    found = metrics.SERVE.get_sample_value(f"streamguard_serve_{name}", labels)
    assert found is not None, (name, labels)
    return found


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.store.close()


def requests(route: str, status: str) -> float:
    return value("requests_total", route=route, status=status)


@pytest.mark.parametrize(
    ("path", "route", "status"),
    [
        ("/v1/incidents", "api", "2xx"),
        ("/v1/incidents/none", "api", "4xx"),
        ("/v1/mallory", "api", "4xx"),
        ("/", "page", "2xx"),
        ("/incidents/none", "page", "4xx"),
        ("/static/page.css", "static", "2xx"),
        ("/v1/docs", "static", "2xx"),
        ("/sign-in", "sign_in", "2xx"),
    ],
)
def test_requests_are_counted_and_timed_by_class(site: Site, path: str, route: str, status: str) -> None:
    before, timed = requests(route, status), value("request_seconds_count", route=route)
    site.client(site.key).get(path)
    assert requests(route, status) == before + 1
    assert value("request_seconds_count", route=route) == timed + 1


def test_refused_host_and_missing_key_are_counted(site: Site) -> None:
    before = requests("api", "4xx")
    assert site.client().get("/v1/incidents").status_code == 401
    assert site.client(site.key).get("/v1/incidents", headers={"Host": "evil.example"}).status_code == 421
    assert requests("api", "4xx") == before + 2


def test_no_request_adds_a_series(site: Site) -> None:
    def series() -> set[tuple[str, tuple[tuple[str, str], ...]]]:
        return {
            (s.name, tuple(s.labels.items())) for family in metrics.SERVE.collect() for s in family.samples
        }

    before = series()
    client = site.client(site.key)
    for k in range(50):
        client.get(f"/v1/incidents/user-{k}?entity=user-{k}", headers={"X-Name": f"user-{k}"})
        client.request(f"M{k}", f"/nowhere-{k}")
    assert series() == before


def test_answer_that_never_begins_is_an_error_of_the_server() -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError

    before = requests("api", "5xx")
    with pytest.raises(RuntimeError):
        asyncio.run(Measured(broken)({"type": "http", "path": "/v1/incidents"}, None, None))  # type: ignore[arg-type]
    assert requests("api", "5xx") == before + 1


@pytest.mark.parametrize(("status", "during"), [(200, 1), (429, 0)])
def test_open_streams_are_counted_while_they_are_open(status: int, during: int) -> None:
    counts: list[tuple[float, float]] = []

    def now() -> tuple[float, float]:
        return value("open_streams"), value("request_seconds_count", route="stream")

    async def stream(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": []})
        counts.append(now())
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def sent(message: Any) -> None:
        pass

    before = now()
    asyncio.run(Measured(stream)({"type": "http", "path": "/v1/stream"}, None, sent))  # type: ignore[arg-type]
    assert counts == [(before[0] + during, before[1] + 1)]
    assert now() == (before[0], before[1] + 1), "timed once, to the beginning of its answer"


def follower(site: Site) -> Follower:
    return Follower("alerts", None, "security-alerts", site.store, lambda batch: Counter(), lambda db: None)  # type: ignore[arg-type]


def test_scrape_has_the_projection_and_its_topics(site: Site, tmp_path: Path) -> None:
    one = follower(site)
    service = QueryService(site.store, (one,))
    settings = Settings(serve=Serve(metrics_port=0))
    stop, replica = threading.Event(), Replica(settings, tmp_path / "replica")
    threads = {
        "alerts": threading.Thread(target=stop.wait, name="security-alerts"),
        "changelog": threading.Thread(target=stop.wait, name="state-changelog"),
    }
    for thread in threads.values():
        thread.start()
    health = health_module.server(
        settings, service, site.store, (one,), replica, Profiles(Holders(replica)), threads
    )
    health.start("health")

    def scraped() -> dict[str, str]:
        with urllib.request.urlopen(f"http://127.0.0.1:{health.port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return dict(line.rsplit(" ", 1) for line in lines if line.startswith("streamguard_serve"))

    found = scraped()
    assert found["streamguard_serve_ready"] == "0.0"
    assert float(found["streamguard_serve_incidents"]) == len({one.id for one in site.incidents})
    assert found["streamguard_serve_open_incidents"] == found["streamguard_serve_incidents"]
    assert found['streamguard_serve_trouble{topic="alerts"}'] == "0.0"
    for topic in ("alerts", "changelog"):
        assert 0 <= float(found[f'streamguard_serve_staleness_seconds{{topic="{topic}"}}']) < 60
    one.caught_up.set()
    one.trouble = "the topic does not exist"
    one._known(TopicState("id", {0: Bounds(0, 7), 1: Bounds(3, 5)}))
    found = scraped()
    assert found["streamguard_serve_ready"] == "1.0"
    assert found['streamguard_serve_trouble{topic="alerts"}'] == "1.0"
    assert found['streamguard_serve_lag_records{topic="alerts"}'] == "12.0"
    assert found['streamguard_serve_trouble{topic="changelog"}'] == "0.0"
    replica._follower.trouble = "no broker answers"
    alive = threads["changelog"]
    threads["changelog"] = threading.Thread(name="state-changelog")  # as one that has ended
    with urllib.request.urlopen(f"http://127.0.0.1:{health.port}/readyz", timeout=10) as answer:
        assert b"state-changelog: not followed any more" in answer.read(), "incidents are still shown"
    threads["changelog"] = alive
    threads["alerts"] = threading.Thread(name="security-alerts")  # as one that has ended
    found = scraped()
    assert found['streamguard_serve_trouble{topic="changelog"}'] == "1.0"
    assert found['streamguard_serve_following{topic="alerts"}'] == "0.0"
    assert found['streamguard_serve_following{topic="changelog"}'] == "1.0"
    assert found["streamguard_serve_ready"] == "0.0"
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"http://127.0.0.1:{health.port}/readyz", timeout=10)
    assert refused.value.code == 503
    assert b"security-alerts: not followed any more" in refused.value.read()
    stop.set()


def test_closed_incidents_are_not_open_and_an_unreadable_store_has_no_number(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = Replica(Settings(), tmp_path / "replica")
    close = Close(
        version=VERSION, id="1", incidents=(Target(id=site.incidents[0].id, seen=99),), by="ann",
        at="2026-01-01T00:00:00.000Z", classification="benign_positive",
    )  # fmt: skip
    site.store.add_actions("streamguard-decisions", [(b"1", Logged(0, close))], [], {})
    health_module.observe(site.store, (), replica, Profiles(Holders(replica)))
    assert value("open_incidents") == value("incidents") - 1

    def gone(self: Store) -> sqlite3.Connection:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(Store, "reader", gone)
    health_module.observe(site.store, (), replica, Profiles(Holders(replica)))
    assert math.isnan(value("incidents")) and math.isnan(value("open_incidents"))


def test_records_are_counted_by_what_became_of_them(site: Site) -> None:
    one = follower(site)

    def counted(result: str) -> float:
        return value("records_total", topic="alerts", result=result)

    before = counted("read"), counted("not_an_incident")
    one._pass(Counter(not_an_incident=2), [LogRecord(0, k, 0, None, b"") for k in range(5)])
    assert (counted("read"), counted("not_an_incident")) == (before[0] + 3, before[1] + 2)


def test_every_reason_and_every_followed_topic_is_declared(site: Site) -> None:
    (records,) = [one for one in metrics.DECLARED if one.metric is metrics.SERVE_RECORDS]
    assert set(records.labels["result"]) == {"read", *REASONS}
    followed = process._followers(Settings(), site.store)
    assert tuple(one.role for one in followed) == metrics.SERVED_TOPICS


def test_follower_knows_that_it_does_not_know_the_end(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    one = follower(site)
    answers = [TopicState("id", {0: Bounds(0, 4)}), UnavailableError("no broker answers")]

    def asked(*_: Any) -> TopicState:
        answer = answers.pop(0)
        if isinstance(answer, UnavailableError):
            raise answer
        return answer

    monkeypatch.setattr(projector, "topic_state", asked)
    state = TopicState("id", {0: Bounds(0, 3)})
    assert not one._differs(state)
    assert (one.lag, one.trouble, one._answered) == (4, "", True)
    assert not one._differs(state)
    assert (one.lag, one.trouble, one._answered) == (4, "no broker answers", False)
