"""What one request may cost: the time of its statements; and a damaged database, which is built again."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from litestar.testing import TestClient

from streamguard.kafka import control
from streamguard.serving.api import app as app_module
from streamguard.serving.api.limits import Limited
from streamguard.serving.projection import reader as reader_module
from streamguard.serving.projection.database import RebuiltError
from streamguard.serving.projection.reader import DamagedStoreError, TooCostlyError, limited, waiting
from streamguard.serving.projection.store import Store
from streamguard.serving.query.detection import DetectionDesk, DetectionRequest
from streamguard.serving.query.filters import IncidentFilter
from streamguard.serving.query.service import QueryService
from streamguard.serving.query.totals import Totals
from streamguard.settings.schema import Models, Settings
from tests.serving_stores import ALERTS, add, filled, placed, queries
from tests.unit.test_campaigns import NOON, lone
from tests.unit.test_serving_actions import Topic
from tests.unit.test_serving_api import Site

MANY = 4000
"""Incidents of a costly question: it has more instructions of SQLite than there are between two looks at the clock."""
EVERYTHING = IncidentFilter(text="u")


def many(directory: Path) -> Store:
    return filled(
        directory, placed(lone(f"user-{k}", NOON + 1000 * k) for k in range(MANY)), grouped=False, batch=1000
    )


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    store = many(tmp_path_factory.mktemp("large"))
    yield store
    store.close()


def test_question_that_costs_too_much_is_given_up_and_the_next_one_is_answered(large: Store) -> None:
    asked = queries(large)
    with limited(0.0):
        with pytest.raises(TooCostlyError, match=r"narrow the question by a time \(`since`\)"):
            asked.facets(EVERYTHING)
        with pytest.raises(TooCostlyError):
            Totals(large, lambda: ()).ranked(wanted=IncidentFilter(status=("new",)))
        assert asked.incident(asked.page(IncidentFilter(entity=("user-7",))).incidents[0].id).row.alerts == 1
    assert asked.facets(EVERYTHING).total == MANY, "the same thread and connection, without the limit"


def test_limit_is_that_of_all_statements_together_and_waiting_is_free(
    large: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    asked = queries(large)
    with limited(3.0):
        now[0] = 50.0  # the request waits for a thread
        asked.facets(EVERYTHING)
        with waiting():
            now[0] = 100.0
        asked.facets(EVERYTHING)
        now[0] = 102.9
        asked.facets(EVERYTHING)
        now[0] = 103.1
        with pytest.raises(TooCostlyError):
            asked.facets(EVERYTHING)


def test_time_that_kafka_takes_of_a_desk_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a request whose record is written would be answered as too costly."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(reader_module, "_STEPS", 1)  # every statement looks at the clock
    (tmp_path / "models.key").write_bytes(bytes(range(32)))
    store = filled(
        tmp_path / "desks", placed([msgspec.structs.replace(lone("ann", NOON), id="0-7-18bcfe5687b")])
    )
    topic = Topic(store)
    service = QueryService(store, [topic], topic)  # type: ignore[list-item, arg-type]
    assert service.cases is not None and service.unmasking is not None
    write = topic.write

    def slowly(action: Any) -> int:
        now[0] += 5.0
        return write(action)

    def described(*_: Any) -> tuple[str, int]:
        now[0] += 5.0
        return "topic-id", 4

    monkeypatch.setattr(topic, "write", slowly)
    monkeypatch.setattr(control, "described", described)
    settings = Settings(models=Models(key_file=str(tmp_path / "models.key")))
    wanted = DetectionRequest(decision="attack", field="source", value="203.0.113.9")
    desk = DetectionDesk(settings, service.incidents, service.cases)
    (row,) = service.incidents.page(IncidentFilter()).incidents
    with limited(3.0):
        assert service.unmasking.ask(row.id, "a mail was sent", "ann", masked=True).state == "open"
    with limited(3.0):
        assert desk.decide(row.id, wanted, "bob").partition == 0
    store.close()


def test_request_of_a_costly_question_is_answered_with_a_problem_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_module, "Limited", lambda app: Limited(app, 0.0))
    site = Site(tmp_path)
    add(site.store, placed(lone(f"user-{k}", NOON) for k in range(MANY)), 1000)
    client: TestClient[Any] = site.client(site.key)
    answer = client.get("/v1/incidents/facets?text=u")
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/too-costly")
    assert "narrow the question" in answer.json()["detail"] and int(answer.headers["Retry-After"]) > 0
    assert client.get("/v1/incidents/facets?entity=user-1").status_code == 200
    client.post("/sign-in", data={"key": site.key})
    page = client.get("/?text=u&view=all", headers={"Accept": "text/html"})
    assert page.status_code == 503 and "narrow the question" in page.text
    assert int(page.headers["Retry-After"]) > 0, "an answer for people says it, too"
    site.store.close()


def overwrite_middle(store: Store) -> None:
    """Overwrite all but the first and the last page of the file, as a bad disk does."""
    with sqlite3.connect(store.path) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (size,) = db.execute("PRAGMA page_size").fetchone()
    db.close()
    data = bytearray(store.path.read_bytes())
    assert len(data) > 20 * size
    data[size:-size] = b"\xa5" * (len(data) - 2 * size)
    store.path.write_bytes(data)


def test_pages_that_are_damaged_in_the_middle_lead_to_an_empty_store_that_can_be_filled(
    tmp_path: Path,
) -> None:
    updates = placed(lone(f"user-{k}", NOON + 1000 * k) for k in range(300))
    filled(tmp_path, updates).close()
    store = Store(tmp_path, 18.0)
    overwrite_middle(store)
    with pytest.raises(DamagedStoreError, match="built again from the topics"):
        queries(store).page(IncidentFilter())
    assert store.damaged.is_set()
    store.begin()
    assert (store.generation, store.damaged.is_set(), store.positions(ALERTS)) == (1, False, {})
    assert queries(store).page(IncidentFilter()).incidents == ()
    add(store, updates)
    whole = filled(tmp_path / "whole", updates, grouped=False)
    assert list(store.export()) == list(whole.export())
    for one in (store, whole):
        one.close()


def test_writer_that_meets_the_damage_reports_it(tmp_path: Path) -> None:
    updates = placed(lone(f"user-{k}", NOON + 1000 * k) for k in range(300))
    filled(tmp_path, updates).close()
    store = Store(tmp_path, 18.0)
    overwrite_middle(store)
    with pytest.raises(DamagedStoreError):
        add(store, updates)
    assert store.damaged.is_set()
    store.close()


def test_value_that_is_no_json_any_more_is_damage_and_an_invalid_one_is_not() -> None:
    for broken in (b"\xa5\xa5", b'{"a":'):
        with pytest.raises(msgspec.DecodeError) as error:
            msgspec.json.decode(broken)
        assert reader_module.is_damage(error.value)
    with pytest.raises(msgspec.ValidationError) as invalid:
        msgspec.json.decode(b"1", type=str)
    assert not reader_module.is_damage(invalid.value)


def test_thread_that_filled_the_former_database_cannot_leave_a_gap_in_the_new_one(tmp_path: Path) -> None:
    """Two followers share the store: one of them replaces it while the other one has a batch in its hands."""
    store = filled(tmp_path, placed([msgspec.structs.replace(lone("ann", NOON), id="0-7-18bcfe5687b")]))
    store.begin()

    def replace() -> None:
        store.damaged.set()
        store.begin()

    other = threading.Thread(target=replace)
    other.start()
    other.join()
    with pytest.raises(RebuiltError):
        add(store, placed([lone("bob", NOON)]))
    store.begin()
    add(store, placed([lone("bob", NOON)]))
    assert len(queries(store).page(IncidentFilter()).incidents) == 1
    store.close()
