"""schemathesis against a running server: every route answers as the OpenAPI document says, whatever is sent."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import CHECKS, not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from streamguard.serving.api.parameters import MAX_OFFSET
from streamguard.settings.schema import Serve
from tests.campaign_site import CampaignSite
from tests.harness import settings_toml
from tests.serving_site import ServeProcess
from tests.serving_stores import at
from tests.unit.test_campaigns import NOON, lone, spray

pytestmark = pytest.mark.integration

EXAMPLES = 30
"""Requests of each route and of each way to choose its names; with them, all routes take a minute."""
AHEAD = {f"d{k}" for k in range(1, 1001)}
"""Tokens for which a server waits two seconds, which has a test of its own."""
STREAM = "/v1/stream"
"""It has no end, so it has a test of its own."""
PLAIN_TEXT = {"/problems/wrong-cursor", "/problems/wrong-time", "/problems/wrong-action"}
"""Problems of texts that only look right: no schema says that a cursor is one of this list, or that a day exists."""
REFUSALS = {
    501: {"/problems/not-configured"},
    503: {"/problems/too-stale", "/problems/not-up-to-bound", "/problems/try-again"},
}
"""Problems with a status of 500 or more that are right: what the request demands, this server does not have now."""
KAFKA = ("/events", "/detection", "/dead-letters")
"""Ends of routes that ask Kafka in each request."""


class Site:
    """A server over a few incidents, and its document."""

    def __init__(self, kafka: str, directory: Path) -> None:
        self.topics = CampaignSite(kafka, directory)
        served = msgspec.structs.replace(self.topics.settings, serve=Serve(requests_per_minute=1_000_000))
        (directory / "streamguard.toml").write_text(settings_toml(served))
        self.incidents = [*spray(NOON, ["a", "b", "c"], entered="a"), lone("ann", NOON)]
        self.topics.publish(at(k, one).incident for k, one in enumerate(self.incidents))
        self.server = ServeProcess(self.topics, "schema").await_serving()
        self.server.await_incidents(len(self.incidents))
        self.headers = {"Authorization": f"Bearer {self.server.key}"}
        document = requests.get(
            f"{self.server.address}/v1/openapi/document.json", headers=self.headers, timeout=20
        ).json()
        # Every request has the key; that none is answered without one is held in tests/unit/test_serving_api.py.
        document.pop("security")
        self.schema = schemathesis.openapi.from_dict(document)

    def close(self) -> None:
        assert self.server.alive, self.server.tail()
        assert self.server.terminate(20) == 0, self.server.tail()
        self.topics.close()


@pytest.fixture(scope="module")
def site(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(kafka, tmp_path_factory.mktemp("schema"))
    yield site
    site.close()


def operations(site: Site) -> list[Any]:
    return [found.ok() for found in site.schema.get_all_operations()]


def checked(site: Site, operation: Any, mode: GenerationMode, names: dict[str, str]) -> None:
    """Send generated requests of one route, and check each answer against the document."""
    few = operation.path.endswith(KAFKA)

    @settings(
        max_examples=5 if few else EXAMPLES,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def send(case: Any) -> None:
        for name, value in names.items():
            if name in (case.path_parameters or {}):
                case.path_parameters[name] = value
        if mode is GenerationMode.POSITIVE and (case.query or {}).get("at_least") in AHEAD:
            case.query["at_least"] = "d0"
        answer = case.call(base_url=site.server.address, headers=site.headers, timeout=30)
        excluded = [positive_data_acceptance, not_a_server_error]
        if any(value in ([], {}, None) for value in (case.query or {}).values()):
            excluded.append(negative_data_rejection)  # an empty list does not appear in an address
        case.validate_response(answer, excluded_checks=excluded, headers=site.headers)
        if answer.status_code >= 500:  # the server is whole, and says why it does not answer
            assert answer.json()["type"] in REFUSALS[answer.status_code], answer.json()
        if answer.status_code in (429, 503):
            assert int(answer.headers["retry-after"][0]) > 0
        if mode is GenerationMode.POSITIVE and answer.status_code == 400:
            body = answer.json()
            if all(str(MAX_OFFSET) in one["message"] for one in body.get("errors", [{"message": ""}])):
                return  # the generator takes a float for the largest number, which is larger by one
            assert answer.json().get("type") in PLAIN_TEXT, (
                answer.json(),
                case.query,
                case.headers,
                case.body,
            )

    send()


@pytest.mark.timeout(300)
def test_every_route_answers_as_its_document_says(site: Site) -> None:
    began = time.monotonic()
    seen, failed = set(), list[BaseException]()
    for operation in operations(site):
        seen.add((operation.method, operation.path))
        if operation.path == STREAM:
            continue
        real = {"id": site.incidents[0].id, "name": "ann"}
        ways = [(GenerationMode.POSITIVE, {}), (GenerationMode.NEGATIVE, {}), (GenerationMode.POSITIVE, real)]
        for mode, names in ways[: 3 if operation.path_parameters else 2]:
            try:
                checked(site, operation, mode, names)
            except Unsatisfiable:
                assert mode is GenerationMode.NEGATIVE, "the route takes nothing that could be wrong"
            except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001 - all routes are looked at, and all failures are shown
                failed.append(error)
        print(operation.label, round(time.monotonic() - began))
    if failed:
        raise BaseExceptionGroup("answers that the document does not describe", failed)
    assert ("get", STREAM) in seen and len(seen) >= 24
    assert len(CHECKS.get_all()) > 5, "schemathesis has found its checks"


def test_stream_takes_positions_and_refuses_everything_else(site: Site) -> None:
    for last, status in (("", 400), ("41", 200), ("x", 400), ("-1", 400), ("9" * 19, 400), (None, 200)):
        headers = site.headers | ({"Last-Event-ID": last} if last is not None else {})
        with requests.get(site.server.address + STREAM, headers=headers, stream=True, timeout=20) as answer:
            assert answer.status_code == status, last
            kind = "text/event-stream" if status == 200 else "application/problem+json"
            assert answer.headers["Content-Type"].partition(";")[0] == kind
            assert "Content-Encoding" not in answer.headers or status != 200
