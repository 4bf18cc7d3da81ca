"""Metrics of `streamguard serve` on a real Kafka: an outage is seen, also while nothing is published."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamguard.testing.broker import LocalKafka
from tests.campaign_site import CampaignSite
from tests.harness import eventually
from tests.serving_site import ServeProcess
from tests.serving_stores import at
from tests.unit.test_campaigns import NOON, lone

pytestmark = pytest.mark.integration

STALE = 'streamguard_serve_staleness_seconds{topic="alerts"}'
TROUBLE = 'streamguard_serve_trouble{topic="alerts"}'

COUNTED = {
    "streamguard_serve_ready": 1,
    "streamguard_serve_incidents": 1,
    'streamguard_serve_records_total{result="read",topic="alerts"}': 1,
    'streamguard_serve_records_total{result="not_an_incident",topic="alerts"}': 1,
    'streamguard_serve_lag_records{topic="alerts"}': 0,
    TROUBLE: 0,
}


def test_an_outage_of_the_broker_shows_while_it_lasts(tmp_path: Path) -> None:
    with LocalKafka() as broker:
        site = CampaignSite(broker.bootstrap_servers, tmp_path / "site")
        server = ServeProcess(site, "a").await_serving()
        try:
            site.publish([b"no incident", at(0, lone("ann", NOON)).incident])
            server.await_incidents(1)
            for name, wanted in COUNTED.items():
                eventually(f"{name} is {wanted}", lambda n=name, w=wanted: server.metric(n) == w)

            broker.kill()
            eventually("the outage is known", lambda: server.metric(TROUBLE) == 1)
            stale = server.metric(STALE)
            assert stale is not None
            eventually("the projection grows stale", lambda: (server.metric(STALE) or 0) > stale + 3)
            assert server.ask("/v1/statistics")["incidents"] == 1, "what was read is still served"
            eventually(
                "names are refused, because the audit log cannot be written",
                lambda: server.ask("/v1/incidents").get("type") == "/problems/no-audit",
            )

            broker.start()
            eventually("the topic is followed again", lambda: server.metric(TROUBLE) == 0)
            eventually("names are shown again", lambda: "incidents" in server.ask("/v1/incidents"))
            site.publish([at(1, lone("bob", NOON)).incident])
            server.await_incidents(2)
            eventually("the projection is whole", lambda: (server.metric(STALE) or 0) < stale)
        finally:
            server.kill()
            site.close()
