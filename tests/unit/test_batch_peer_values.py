"""Peer groups reach the worker with the model: what is usual in a department weighs less for its people."""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from streamguard.alerts.incident import Incident
from streamguard.alerts.verdict import FOREST_LIMIT
from streamguard.batch.detection.clusters import PeerGroups, peer_groups
from streamguard.batch.detection.peer_values import _known, _members, peer_values
from streamguard.batch.folding.fold_result import FoldResult, UserTable
from streamguard.batch.folding.loading import load
from streamguard.batch.job import Request, retrain
from streamguard.batch.runs import Runs
from streamguard.events.event import parse
from streamguard.events.subject import subject_of
from streamguard.fold.profile import PROFILE
from streamguard.history.files import Batch
from streamguard.history.incidents import Incidents
from streamguard.history.replay import Replay
from streamguard.models.forest import Forest, with_peers
from streamguard.models.peer_values import PeerValues, hashed
from streamguard.models.registry import Registry
from streamguard.settings.schema import Batch as BatchSettings
from streamguard.settings.schema import Clusters, Detection, Gate, Kafka, Settings, Training
from streamguard.settings.schema import Models as Place
from streamguard.state.codec import pack, unpack
from tests.streams import DAY, HOUR, MINUTE, START, Partition, event

PEOPLE, DAYS, HOSTS = 30, 40, 12
SHIFTS = {"sales": 7, "night": 19}
"""Departments, and the hour at which each begins."""
THREAT = {"sales": 0.1, "night": 0.7}
"""Usual threat scores, which depend on the hour; they make the two K-Means groups the departments."""
LATER = START + DAYS * DAY


def used(person: int) -> list[int]:
    """The hosts that a person uses: four of the twelve of the department."""
    return [(person + step) % HOSTS for step in range(4)]


def work(ts: int, department: str, person: int, place_of: str, number: int, **fields: Any) -> bytes:
    """An event of a person at a host of a department, with a share of the same number."""
    name, host = f"{department}-{person}", f"{place_of}-host-{number}"
    place = {"hostname": host, "geo_location": "DE-Berlin", "user_agent": "Firefox"}
    source = f"10.{list(SHIFTS).index(department)}.0.{person}"
    return event(
        ts,
        name,
        "login",
        **(
            {"status": "success", "source_ip": source, "metadata": place, "threat_score": THREAT[department]}
            | {"network_details": {"destination_hostname": f"{place_of}-share-{number}"}}
            | fields
        ),
    )


def history() -> list[bytes]:
    """Two departments that do the same with their own hosts, at other hours."""
    choose = random.Random(5)
    out = []
    for department, begin in SHIFTS.items():
        for person in range(PEOPLE):
            for day in range(DAYS):
                for k in range(6):
                    ts = START + day * DAY + begin * HOUR + k * 40 * MINUTE + choose.randrange(20 * MINUTE)
                    out.append(
                        work(
                            ts, department, person, department, choose.choices(used(person), (17, 1, 1, 1))[0]
                        )
                    )
    return sorted(out, key=lambda value: json.loads(value)["timestamp"])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Forest]:
    """A retrain of the local engine over the history, and the model that a worker loads."""
    directory = tmp_path_factory.mktemp("departments")
    (directory / "events.jsonl").write_bytes(b"\n".join(history()) + b"\n")
    settings = Settings(
        training=Training(trees=30),
        clusters=Clusters(groups=3),  # one is small: the first user of a log differs from all others
        kafka=Kafka(partitions=1),
        gate=Gate(min_overlap=0.0, max_drift=1000.0, max_alert_ratio=1000.0, min_injected_auc=0.0),
        batch=BatchSettings(engine="local", output=str(directory / "runs")),
        models=Place(registry=str(directory / "models")),
    )
    outcome = retrain(settings, Request(input=str(directory / "events.jsonl")), lambda text: None)
    assert outcome.current, outcome.message
    registry = Registry.of(settings.models)
    return settings, registry.load(outcome.version or "")


def folded(settings: Settings) -> tuple[FoldResult, PeerGroups]:
    """The history of the run, and its peer groups."""
    run = Runs(settings.batch.output).latest()
    assert run is not None
    result = load(sorted((run / "history").glob("*.parquet")), settings.sampling.rows, 1000)
    return result, peer_groups(result.usual, settings.clusters, seed=settings.training.seed)


def incidents(forest: Forest | None, values: list[bytes]) -> dict[str, Incident]:
    """Incidents of users after the history, by user; the threshold is low, so that one visit is enough for an alert."""
    replay = Replay(1, detection=Detection(alert_risk=70.0), forest=forest)
    for part in (history(), values):
        replay.feed(Batch(0, [], part, *parse(part), {}))
    return {one.entity.value: one for one in replay.incidents() if int(one.id.split("-")[2], 16) >= LATER}


def test_host_of_the_own_department_weighs_less_than_for_others(trained: tuple[Settings, Forest]) -> None:
    _, forest = trained
    assert forest.peers is not None and sorted(forest.peers.sizes.tolist()) == [0, PEOPLE - 1, PEOPLE]
    assert 9 not in used(2)
    visits = [
        work(LATER + SHIFTS["sales"] * HOUR + HOUR, "sales", 2, "sales", 9),
        work(LATER + SHIFTS["night"] * HOUR + HOUR, "night", 2, "sales", 9),
    ]
    without, found = incidents(with_peers(forest, None), visits), incidents(forest, visits)
    own, other = found["sales-2"], found["night-2"]
    assert abs(without["sales-2"].evidence_bits - without["night-2"].evidence_bits) < 1.0
    assert other.peers is None and other.evidence_bits == without["night-2"].evidence_bits
    assert own.peers is not None and own.peers.bits > 3.0
    assert own.evidence_bits == pytest.approx(without["sales-2"].evidence_bits - own.peers.bits, abs=0.011)
    assert own.risk < without["sales-2"].risk and own.severity == "low"
    peers = [number for number in range(PEOPLE) if 9 in used(number) and number != 2]
    reason = next(one for one in own.reasons if one.feature == "resource")
    assert reason.typical.endswith(f"; usual for {len(peers)} of {own.peers.users} peers")


def test_state_and_what_is_published_do_not_depend_on_peers(trained: tuple[Settings, Forest]) -> None:
    _, forest = trained
    visits = [work(LATER + SHIFTS["sales"] * HOUR + k * MINUTE, "sales", 2, "sales", 6 + k) for k in range(6)]
    found, saved = [], []
    for model in (None, forest, with_peers(forest, None)):
        partition = Partition(detection=Detection(alert_risk=70.0))
        partition.run(history())
        folded = partition.state.fold(visits, np.arange(10**6, 10**6 + len(visits)), model)
        partition.save()
        saved.append(partition.saved)
        found.append(
            [(update.event, update.incident.id, update.incident.count) for update in folded.incidents]
        )
        if model is forest:
            assert folded.relief.any()
    assert saved[0] == saved[1] == saved[2]
    assert found[0] == found[1] == found[2] != []


def test_relief_of_one_alert_does_not_lower_the_evidence_of_another(trained: tuple[Settings, Forest]) -> None:
    """An incident of several alerts, some of which are relieved, against the rule applied alert by alert."""
    _, forest = trained
    begin = LATER + SHIFTS["sales"] * HOUR
    steps = [("sales", 9, {}), ("night", 3, {}), ("sales", 8, {}), ("night", 4, {"threat_score": 5.0})]
    steps += [("sales", 7, {"threat_score": 9.0}), ("sales", 6, {"event_type": "file_access"})]
    visits = [
        work(begin + k * MINUTE, "sales", 2, place, n, **more) for k, (place, n, more) in enumerate(steps)
    ]
    partition = Partition(detection=Detection(alert_risk=70.0))
    partition.run(history())
    folded = partition.state.fold(visits, np.arange(10**6, 10**6 + len(visits)), forest)
    assert (folded.kind != 0).all()
    strength, own = folded.strength, folded.strength - folded.relief
    assert (folded.relief > 0).tolist() == [place == "sales" for place, _, _ in steps]
    published = {update.event: update.incident for update in folded.incidents}
    assert {0, 3, 4} <= published.keys()
    for i, incident in published.items():
        before = max(strength[:i], default=0.0)
        strongest = max(max(before, own[i]) + 0.5 * np.log2(i + 1), min(folded.forest[i], FOREST_LIMIT))
        assert incident.evidence_bits == pytest.approx(strongest, abs=0.006)
        assert (incident.peers is not None) == (folded.relief[i] > 0)
        if incident.peers is not None:
            lowered = max(before, strength[i]) - max(before, own[i])
            assert incident.peers.bits == pytest.approx(lowered, abs=0.006)
    final = incidents(forest, visits)["sales-2"]
    alerts = range(len(visits))
    known = max(max(own[: i + 1]) + 0.5 * np.log2(i + 1) for i in alerts)
    assert known > FOREST_LIMIT
    assert final.evidence_bits == pytest.approx(known, abs=0.006)
    assert final.count == len(visits)


def expected(result: FoldResult, groups: PeerGroups) -> dict[int, dict[tuple[str, str], int]]:
    """Oracle: who has what, counted event by event from the history, not from profiles."""
    seen: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
    for value in history():
        one = json.loads(value)
        of = seen[one["user"]]
        of["source", one["source_ip"]] += 1
        of["host", one["metadata"]["hostname"]] += 1
        of["agent", one["metadata"]["user_agent"]] += 1
        of["location", one["metadata"]["geo_location"]] += 1
        of["resource", one["network_details"]["destination_hostname"]] += 1
        of["action", one["event_type"]] += 1
    return seen


def test_counts_are_those_of_an_oracle_over_the_events(trained: tuple[Settings, Forest]) -> None:
    """Of values that were brought often enough to be learned beyond doubt; those in between may count or not."""
    settings, forest = trained
    result, groups = folded(settings)
    peers = forest.peers
    assert peers is not None
    seen = expected(result, groups)
    group_of = {name: peers.group_of(name) for name in seen}
    assert Counter(group_of.values())[None] == 1  # the user in the small group
    checked = 0
    for group in range(len(peers.sizes)):
        members = [name for name, of in group_of.items() if of == group]
        assert peers.size(group) == len(members)
        for field, text in {key for name in members for key in seen[name]}:
            sure = sum(seen[name][field, text] >= 8 for name in members)
            possible = sum(seen[name][field, text] >= 1 for name in members)
            having = peers.having(group, field, text)
            if sure >= 3:
                assert sure <= having <= possible, (field, text)
                checked += 1
            elif possible < 3:
                assert having == 0, (field, text)
    assert checked > 40


def test_no_name_and_no_value_is_in_the_artifact(trained: tuple[Settings, Forest]) -> None:
    settings, forest = trained
    data = (Path(settings.models.registry) / "versions" / forest.version / "peers.safetensors").read_bytes()
    for text in ("sales", "night", "host", "share", "DE-Berlin", "Firefox", "10.0.0."):
        assert text.encode() not in data
    peers = forest.peers
    assert peers is not None
    plain = np.uint64(hashed("sales-2", "user", bytes(16)))
    assert plain not in peers.users and peers.group_of("sales-2") is not None


def test_same_history_gives_the_same_bytes_and_another_salt_for_another_model(
    trained: tuple[Settings, Forest],
) -> None:
    settings, forest = trained
    result, groups = folded(settings)
    bare = with_peers(forest, None)
    again = peer_values(result, groups, bare.version)
    assert again is not None and forest.peers is not None
    assert again.pack() == forest.peers.pack()
    assert with_peers(bare, again).version == forest.version != bare.version
    other = peer_values(result, groups, "0" * 12)
    assert other is not None and not set(other.users.tolist()) & set(again.users.tolist())


def _stored(result: FoldResult, change: Any) -> FoldResult:
    """The same result with changed profiles of users."""
    states = {}
    for partition, stored in result.states.items():
        items = []
        for key, value in stored:
            if key[:1] == b"u":
                profile = unpack(value, PROFILE, "a profile")[0].copy()
                change(key[1:].decode(), profile)
                value = pack(profile)
            items.append((key, value))
        states[partition] = items
    return replace(result, states=states)


def test_values_that_only_failed_or_hardly_weigh_anything_and_strangers_do_not_count(
    trained: tuple[Settings, Forest],
) -> None:
    settings, _ = trained
    result, groups = folded(settings)

    def count(change: Any) -> PeerValues | None:
        return peer_values(_stored(result, change), groups, "0" * 12)

    def failed(name: str, profile: Any) -> None:
        profile["sketch_proven"] = 0

    def light(name: str, profile: Any) -> None:
        profile["sketch_weight"] = 0.99

    def stranger(name: str, profile: Any) -> None:
        profile["learned"], profile["events"] = 2.9, 19.0

    assert count(lambda name, profile: None) is not None
    assert count(failed) is None and count(light) is None and count(stranger) is None

    def one_stranger(name: str, profile: Any) -> None:
        if name == "night-4":
            stranger(name, profile)

    found, whole = count(one_stranger), count(lambda name, profile: None)
    assert found is not None and whole is not None
    assert found.group_of("night-4") is None and whole.group_of("night-4") is not None
    assert found.sizes.sum() == whole.sizes.sum() - 1


def test_cut_off_texts_count_for_nothing(trained: tuple[Settings, Forest]) -> None:
    settings, _ = trained
    result, groups = folded(settings)
    states = {}
    for partition, stored in result.states.items():
        pages = {key: value for key, value in stored if key[:1] == b"w"}
        for key, value in pages.items():
            hashes, texts = msgspec.msgpack.decode(value)
            long = [text and text.ljust(96, "x") for text in texts]
            pages[key] = msgspec.msgpack.encode((hashes, long))
        states[partition] = sorted((dict(stored) | pages).items())
    assert peer_values(replace(result, states=states), groups, "0" * 12) is None


def test_members_and_profiles_meet_whatever_the_names(trained: tuple[Settings, Forest]) -> None:
    """Users are sorted by subject and profiles by key; sources and users without a profile are left out."""
    names = ["ann", "b", "", "é", "zoë", "\0x", "\0u", "\U0001d6fc", "\uffff", "u", "a10.0.0.1", "10.0.0.1"]
    partition = Partition()
    partition.run(
        [
            event(START + k * MINUTE, name or None, source_ip="10.0.0.1", status="success")
            for k in range(25)
            for name in names
        ]
    )
    subjects = sorted([*(subject_of(name, "10.0.0.1") for name in names), "nobody"])
    settings, _ = trained
    result, groups = folded(settings)
    table = next(iter(result.users[0]))
    some = UserTable(**{f.name: getattr(table, f.name)[1 : 1 + len(subjects)] for f in fields(UserTable)})
    some = replace(some, user=np.array(subjects, object))
    members = list(_members([some], groups))
    assert len(members) == len(subjects) - 1
    found = [name for part, _, _ in _known(iter(members), sorted(partition.saved.items())) for name in part]
    assert found == [name for name in subjects if name not in ("nobody", subject_of("", "10.0.0.1"))]


def test_incident_that_began_before_is_not_relieved_by_what_is_unknown(
    trained: tuple[Settings, Forest],
) -> None:
    """The first alert is the strongest, and peers do not relieve it; they relieve the eighth, which is published."""
    _, forest = trained
    begin = LATER + SHIFTS["sales"] * HOUR
    visits = [work(begin, "sales", 2, "night", 3, threat_score=20.0, event_type="file_access")]
    visits += [work(begin + k * MINUTE, "sales", 2, "sales", (5 + k) % HOSTS) for k in range(1, 8)]
    partition = Partition(detection=Detection(alert_risk=70.0))
    partition.run(history())
    first = partition.state.fold(visits[:7], np.arange(10**6, 10**6 + 7), forest)
    eighth = partition.state.fold(visits[7:], np.array([10**6 + 7]), forest)
    assert first.relief[0] == 0.0 < eighth.relief[0] and first.evidence[0] > eighth.evidence[0] + 5.0
    assert eighth.kind[0] > 0 and eighth.incident["count"][0] == 8
    whole, part = Incidents(), Incidents()
    whole.follow(first)
    for one in (whole, part):
        one.follow(eighth)
    wanted = first.evidence[0] + 0.5 * np.log2(8)
    assert whole.incidents()[0].evidence_bits == pytest.approx(wanted, abs=0.2)
    assert part.incidents()[0].evidence_bits == pytest.approx(wanted, abs=0.2)
    assert eighth.incidents[0].incident.evidence_bits == pytest.approx(wanted, abs=0.2)
