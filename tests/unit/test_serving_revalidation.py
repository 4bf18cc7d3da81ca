"""Lists that a caller has already, what may be stored, and compressed answers."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamguard.kafka.connection import Brokers
from streamguard.serving.api import revalidation
from streamguard.serving.api.keys import Principal
from streamguard.serving.log.reader import Bounds, TopicState
from streamguard.serving.projection import projector
from tests.serving_stores import ALERTS
from tests.unit.test_serving_actions import Site

LISTS = ("/v1/incidents", "/v1/incidents/facets", "/v1/ranking", "/v1/statistics")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.store.close()


@pytest.mark.parametrize("path", LISTS)
def test_unchanged_list_is_answered_without_reading_it(
    site: Site, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = site.client()
    first = client.get(path)
    known = {"If-None-Match": first.headers["ETag"]}
    assert first.headers["Cache-Control"] == "private, no-cache"

    def read() -> None:
        raise AssertionError("the projection is read")

    with monkeypatch.context() as patch:
        patch.setattr(site.store, "reader", read)
        again = client.get(path, headers=known)
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["ETag"] == first.headers["ETag"]
        several = {"If-None-Match": f'"other", {first.headers["ETag"]}'}
        assert client.get(path, headers=several).status_code == 304
        assert client.get(path, headers={"If-None-Match": "*"}).status_code == 304
    site.act(site.ann, kind="close")
    changed = client.get(path, headers=known)
    assert changed.status_code == 200 and changed.headers["ETag"] != first.headers["ETag"]


def test_list_changes_when_the_topic_has_lost_its_beginning(site: Site) -> None:
    one = projector.incidents(Brokers("127.0.0.1:1"), ALERTS, site.store)
    before = one.progress.sequence
    one._trim_to(TopicState("id", {0: Bounds(0, 1000)}))
    assert one.progress.sequence == before, "nothing is gone"
    one._trim_to(TopicState("id", {0: Bounds(1000, 1000)}))
    assert site.client().get("/v1/incidents").json()["incidents"] == []
    assert one.progress.sequence == before + 1


def test_tag_belongs_to_the_question_and_to_who_asks(site: Site) -> None:
    def asked(query: str, name: str = "alice", known: str = "") -> int:
        return site.client(name).get(f"/v1/incidents{query}", headers={"If-None-Match": known}).status_code

    own = site.client().get("/v1/incidents?status=new").headers["ETag"]
    assert asked("?status=new", known=own) == 304
    assert [asked("", known=own), asked("?status=new&limit=1", known=own)] == [200, 200]
    assert asked("?status=new", "vera", own) == 200
    viewer, analyst = Principal("ann", "viewer"), Principal("ann", "analyst")
    assert revalidation.tag(1, "/", b"", viewer) != revalidation.tag(1, "/", b"", analyst)


def test_freshness_is_checked_before_an_unchanged_list_is_confirmed(site: Site) -> None:
    own = site.client().get("/v1/incidents").headers["ETag"]
    late = site.client().get("/v1/incidents?at_least=d9000000", headers={"If-None-Match": own})
    assert late.status_code == 503


def test_everything_else_is_not_stored(site: Site) -> None:
    client = site.signed_in()
    for path in ("/", "/rows", f"/incidents/{site.ann}", f"/v1/incidents/{site.ann}", "/v1/nowhere"):
        assert client.get(path).headers["Cache-Control"] == "no-store", path


def test_long_answers_are_compressed_for_who_accepts_it(site: Site) -> None:
    client = site.signed_in()
    for path in ("/", "/v1/incidents", "/static/page.js", "/static/page.css"):
        with client.stream("GET", path, headers={"Accept-Encoding": "gzip"}) as answer:
            raw = b"".join(answer.iter_raw())
            assert answer.headers["Content-Encoding"] == "gzip", path
            assert "Accept-Encoding" in answer.headers["Vary"]
        plain = client.get(path, headers={"Accept-Encoding": "identity"})
        assert "Content-Encoding" not in plain.headers
        assert len(raw) < len(plain.content) / 2
        if path.startswith("/static"):
            assert gzip.decompress(raw) == plain.content
    for path in ("/sign-in", "/v1/incidents/none"):
        assert "Content-Encoding" not in client.get(path, headers={"Accept-Encoding": "gzip"}).headers, path
