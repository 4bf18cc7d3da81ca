"""A user who is forgotten leaves the projection, in whatever order the topics are read, and other users stay."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import pytest

from streamguard.decisions import forgotten
from streamguard.decisions.forgotten import Forgotten, ForgottenError, decode, digest_of, encode
from streamguard.serving.decisions.codec import encode as encode_action
from streamguard.serving.log.reader import LogRecord
from streamguard.serving.projection import projector
from streamguard.serving.projection.projector import Batch
from streamguard.serving.projection.store import Store
from streamguard.serving.query.reading import NotFoundError
from tests.case_actions import action, close
from tests.serving_stores import ALERTS, at, put_campaigns, queries
from tests.unit.test_campaigns import NOON, incident

TOPIC, ID = "streamguard-decisions", "topic-id"
SALT = "5a" * 16


def record(
    user: str, *ends: int, incidents: tuple[str, ...] = (), topic_id: str = ID, salt: str = SALT
) -> Forgotten:
    return Forgotten(
        version=1,
        at="2026-11-30T09:00:00.000Z",
        topic_id=topic_id,
        ends=ends,
        salt=salt,
        digest=digest_of(user, salt),
        incidents=incidents,
    )


ANN, LATER, BOB, LONG = (
    incident("ann", NOON, {"resource": 21.0}),
    incident("ann", NOON + 90_000_000, {"resource": 22.0}),
    incident("bob", NOON, {"resource": 25.0}),
    incident("ann@example.org", NOON, {"hour": 20.0}),
)
RISEN = msgspec.structs.replace(ANN, count=ANN.count + 5, evidence_bits=ANN.evidence_bits + 3)
UPDATES = [at(0, ANN), at(1, BOB), at(2, RISEN), at(3, LONG), at(4, LATER)]
"""Of these, the first three are older than the record."""
ACTIONS: list[tuple[bytes, bytes | None]] = [
    (b"own/1", encode_action(close("own", incidents=(ANN.id,)))),
    (b"bulk/1", encode_action(action("acknowledge", "bulk", expected="own", incidents=(ANN.id, BOB.id)))),
    (b"bob/1", encode_action(action("comment", "bob", text="seen", incidents=(BOB.id,)))),
    (b"later/1", encode_action(action("comment", "later", text="seen", incidents=(LATER.id,)))),
    (b"\0forgotten/1", encode(record("ann", 3, incidents=(ANN.id,)))),
    (b"own/1", None),
    (b"bulk/2", encode_action(action("acknowledge", "more", incidents=(BOB.id, LATER.id)))),
]


def decisions(store: Store, first: int, values: list[tuple[bytes, bytes | None]]) -> None:
    follower = projector.decisions(None, TOPIC, store)  # type: ignore[arg-type]
    records = [LogRecord(0, first + k, 1, key, value) for k, (key, value) in enumerate(values)]
    assert not follower._apply(Batch(records, {0: (first + len(values), 1)}))


def opened(directory: Path) -> Store:
    store = Store(directory, 18.0)
    store.follow(ALERTS, ID)
    store.follow(TOPIC, "other-id")
    return store


def filled(directory: Path, seed: int) -> list[bytes]:
    """The export after both topics were read in an order that the seed decides."""
    store, chance = opened(directory), random.Random(seed)
    read = decided = 0
    while read < len(UPDATES) or decided < len(ACTIONS):
        size = chance.randint(1, 4)
        if (chance.random() < 0.5 and read < len(UPDATES)) or decided == len(ACTIONS):
            part = UPDATES[read : read + size]
            read += len(part)
            store.add_updates(ALERTS, part, {0: (read, 1)})
        else:
            values = ACTIONS[decided : decided + size]
            decisions(store, decided, values)
            decided += len(values)
    found = list(store.export())
    store.close()
    return found


def test_order_of_reading_does_not_matter_and_nothing_of_the_user_is_left(tmp_path: Path) -> None:
    exports = [filled(tmp_path / str(seed), seed) for seed in range(40)]
    assert all(one == exports[0] for one in exports)
    lines = exports[0]
    assert not any(ANN.id.encode() in line for line in lines if b'"forgotten"' not in line)
    assert sum(b'"ann"' in line for line in lines) == 1, "the incident that came later"
    assert any(LATER.id.encode() in line and b'"seen"' in line for line in lines)
    assert any(LONG.id.encode() in line for line in lines)
    assert any(BOB.id.encode() in line and b"acknowledged" in line for line in lines)


def test_compacted_topic_gives_the_same_as_the_whole_one(tmp_path: Path) -> None:
    store = opened(tmp_path / "compacted")
    for offset, (key, value) in enumerate(ACTIONS):
        if value is not None and (key, None) not in ACTIONS:
            decisions(store, offset, [(key, value)])
    store.add_updates(ALERTS, UPDATES, {0: (5, 1)})
    assert list(store.export()) == filled(tmp_path / "whole", 1)
    store.close()


def test_campaign_of_a_forgotten_user_alone_is_not_shown(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.add_updates(ALERTS, UPDATES[:2], {0: (2, 1)})
    put_campaigns(store, [ANN, BOB])
    members = dict(store.reader().execute("SELECT incident, campaign FROM members").fetchall())
    assert queries(store).campaign(members[ANN.id]).campaign.incidents == (ANN.id,)
    decisions(store, 0, [(b"\0forgotten/1", encode(record("ann", 2)))])
    with pytest.raises(NotFoundError):
        queries(store).campaign(members[ANN.id])
    assert queries(store).campaign(members[BOB.id]).campaign.incidents == (BOB.id,)
    store.close()


def test_record_about_another_topic_of_this_name_has_no_effect(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.add_updates(ALERTS, UPDATES[:1], {0: (1, 1)})
    decisions(store, 0, [(b"\0forgotten/1", encode(record("ann", 3, topic_id="former")))])
    store.add_updates(ALERTS, UPDATES[1:3], {0: (3, 1)})
    assert store.reader().execute("SELECT count(*) FROM incidents").fetchone()[0] == 2
    store.close()


def test_record_does_not_contain_the_name_and_is_read_within_bounds() -> None:
    made = encode(record("ann@example.org", 3, 4))
    assert b"ann" not in made
    found = decode(made)
    assert found.is_about("ann@example.org") and not found.is_about("ann")
    assert [found.reaches(*place) for place in ((0, 2), (0, 3), (1, 3), (2, 0))] == [True, False, True, False]
    assert digest_of("ann", "00" * 16) != digest_of("ann", SALT)
    for wrong in (
        b"",
        b"[]",
        b'{"kind":"close"}',
        made.replace(b'"version":1', b'"version":2'),
        b"[" * 100_000,
    ):
        with pytest.raises(ForgottenError):
            decode(wrong)


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that are hashed, one for each time."""
    found: list[str] = []

    def counting(user: str, salt: str) -> str:
        found.append(user)
        return digest_of(user, salt)

    monkeypatch.setattr(forgotten, "digest_of", counting)
    return found


def test_name_is_hashed_once_whatever_the_number_of_forgotten_users(
    tmp_path: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(tmp_path)
    salt = forgotten.salt_of(())
    records = [record(f"user-{k}", 3, salt=salt) for k in range(300)] + [record("ann", 3, salt=salt)]
    decisions(store, 0, [(b"\0forgotten/%d" % k, encode(one)) for k, one in enumerate(records)])
    reads: list[bytes] = []
    monkeypatch.setattr(forgotten, "decode", lambda value: reads.append(value) or decode(value))
    for k, one in enumerate(UPDATES):
        store.add_updates(ALERTS, [one], {0: (k + 1, 1)})
    assert sorted(hashed) == sorted({one.incident.entity.value for one in UPDATES})
    assert len(reads) == len(records), "records are read once"
    shown = {row[0] for row in store.reader().execute("SELECT id FROM incidents")}
    assert shown == {BOB.id, LONG.id, LATER.id}
    # Users who are forgotten when their incidents are there already: each name is hashed once for a batch of records.
    hashed.clear()
    decisions(
        store,
        400,
        [(b"\0forgotten/b%d" % k, encode(record(f"user-{k}", 9, salt=salt))) for k in range(300)]
        + [(b"\0forgotten/bob", encode(record("bob", 9, salt=salt)))],
    )
    assert len(hashed) == 3
    assert store.reader().execute("SELECT count(*) FROM incidents WHERE entity = 'bob'").fetchone()[0] == 0
    store.close()


def test_records_with_salts_of_their_own_hold_too_and_later_ones_take_the_first_salt(tmp_path: Path) -> None:
    old = [record("bob", 9, salt="01" * 16), record("ann", 3, salt="02" * 16)]
    assert forgotten.salt_of(old) == "01" * 16
    assert forgotten.salt_of(()) != forgotten.salt_of(())
    store = opened(tmp_path)
    decisions(store, 0, [(b"\0forgotten/%d" % k, encode(one)) for k, one in enumerate(old)])
    store.add_updates(ALERTS, UPDATES, {0: (5, 1)})
    assert {row[0] for row in store.reader().execute("SELECT id FROM incidents")} == {LONG.id, LATER.id}
    # A record that is deleted has no effect on what is read after it, nor has one of a topic that was followed before.
    decisions(store, 2, [(b"\0forgotten/0", None)])
    store.add_updates(ALERTS, UPDATES[1:2], {0: (6, 1)})
    assert BOB.id in {row[0] for row in store.reader().execute("SELECT id FROM incidents")}
    store.follow(ALERTS, "made-again", store.clear_updates)
    store.add_updates(ALERTS, UPDATES[:1], {0: (1, 1)})
    assert {row[0] for row in store.reader().execute("SELECT id FROM incidents")} == {ANN.id}
    store.close()


def test_record_of_a_later_version_is_passed_over_and_counted(tmp_path: Path) -> None:
    store = opened(tmp_path)
    follower = projector.decisions(None, TOPIC, store)  # type: ignore[arg-type]
    made = encode(record("ann", 3)).replace(b'"version":1', b'"version":2')
    passed = follower._apply(Batch([LogRecord(0, 0, 1, forgotten.new_key(), made)], {0: (1, 1)}))
    assert dict(passed) == {"not_an_action": 1}
    store.close()
