"""Whether stored state and topics belong together, and what the worker says if they do not."""

from __future__ import annotations

import pytest

from streamguard.agents.errors import RefusedError
from streamguard.agents.task.compatibility import (
    Bounds,
    OpenTransactionError,
    SavedState,
    check_identity,
    check_source,
    check_stable,
    check_unlearned,
    check_whole,
    continues,
)
from streamguard.state.identity import StateIdentity, TopicIdentity
from streamguard.state.store import ChangelogPosition

EVENTS = TopicIdentity("events", "id-2")
HERE = StateIdentity("app", 3, EVENTS, "log-2")
OLD_LOG = StateIdentity("app", 3, EVENTS, "log-1")
OLD_CLUSTER = StateIdentity("app", 3, TopicIdentity("events", "id-1"), "log-1")
START_OVER = "set another worker.app_id, run `streamguard topics create`"


@pytest.mark.parametrize(
    ("stored", "start", "end", "next_offset", "expected"),
    [
        (TopicIdentity("events", "id-1"), 0, 900, 500, "created again (id id-1, now id-2)"),
        (TopicIdentity("other", "id-2"), 0, 900, 500, "not the topic of the stored state (other)"),
        (EVENTS, 0, 400, 500, "ends at offset 400"),
        (EVENTS, 600, 900, 500, "100 offsets expired before they were read"),
    ],
)
def test_incompatible_source_is_refused(
    stored: TopicIdentity, start: int, end: int, next_offset: int, expected: str
) -> None:
    with pytest.raises(RefusedError) as refused:
        check_source(EVENTS, 3, Bounds(start, end, end), stored, next_offset)
    message = str(refused.value)
    assert expected in message
    assert "events" in message and "partition 3" in message and "500" in message
    assert START_OVER in message


def test_events_behind_an_open_transaction_are_not_called_lost() -> None:
    with pytest.raises(OpenTransactionError, match=r"at offset 400, .* up to offset 500 .* nothing is lost"):
        check_source(EVENTS, 3, Bounds(0, 400, 500), EVENTS, 450)
    assert check_source(EVENTS, 3, Bounds(0, 400, 500), EVENTS, 400) == 400


def test_new_application_starts_at_the_first_available_offset() -> None:
    assert check_source(EVENTS, 0, Bounds(70, 900, 900), None, None) == 70


def test_open_transaction_in_the_changelog_is_temporary_and_named() -> None:
    check_stable("state", 1, Bounds(0, 90, 90))
    with pytest.raises(OpenTransactionError) as waiting:
        check_stable("state", 1, Bounds(0, 70, 90))
    message = str(waiting.value)
    assert "partition 1 of state at offset 70" in message and "--start-offset 70" in message
    assert "nothing is lost" in message and START_OVER not in message


@pytest.mark.parametrize(
    ("local", "bounds", "expected"),
    [
        (None, Bounds(0, 90, 90), True),
        (None, Bounds(5, 90, 90), False),
        (ChangelogPosition("log-2", 70), Bounds(0, 90, 90), True),
        (ChangelogPosition("log-2", 70), Bounds(70, 90, 90), True),
        (ChangelogPosition("log-2", 70), Bounds(71, 90, 90), False),
        (ChangelogPosition("log-2", 91), Bounds(0, 90, 90), False),
        (ChangelogPosition("log-1", 70), Bounds(0, 90, 90), False),
    ],
)
def test_changelog_continues_a_copy_of_the_same_topic_and_range(
    local: ChangelogPosition | None, bounds: Bounds, expected: bool
) -> None:
    assert continues(local, HERE, bounds) is expected


BOUNDS = Bounds(0, 90, 90)
STATE = SavedState(HERE, exists=True)


@pytest.mark.parametrize(
    ("local", "bounds", "saved"),
    [
        # The changelog was created again, and a worker has started over on it.
        (ChangelogPosition.at(50, OLD_LOG, 1), BOUNDS, STATE),
        # The directory belongs to another cluster, and this one has a state of its own.
        (ChangelogPosition.at(50, OLD_CLUSTER, 1), BOUNDS, STATE),
        (ChangelogPosition("log-1", 50, 1), BOUNDS, STATE),
        # The beginning of the changelog was deleted, but a complete copy was written again after it.
        (ChangelogPosition.at(50, HERE, 1), Bounds(60, 90, 90), SavedState(HERE, True, 60)),
        (None, Bounds(60, 90, 90), SavedState(HERE, True, 70)),
    ],
)
def test_whole_changelog_replaces_a_copy_that_it_does_not_continue(
    local: ChangelogPosition | None, bounds: Bounds, saved: SavedState
) -> None:
    assert not continues(local, HERE, bounds)
    check_whole("state", HERE, bounds, local, saved)


@pytest.mark.parametrize(
    ("local", "bounds", "saved", "expected", "remedy"),
    [
        (ChangelogPosition.at(50, OLD_LOG, 1), BOUNDS, SavedState(), "created again", "another --data-dir"),
        (ChangelogPosition.at(50, OLD_LOG, 1), BOUNDS, SavedState(OLD_LOG, True), "created", "--data-dir"),
        (ChangelogPosition("log-1", 50, 1), BOUNDS, SavedState(None, True), "created", "move the directory"),
        # Both topics are new and empty: another cluster, perhaps by a wrong address, or all of Kafka was lost.
        (ChangelogPosition.at(50, OLD_CLUSTER, 1), BOUNDS, SavedState(), "another Kafka cluster", "--data-dir"),
        (ChangelogPosition.at(91, HERE, 1), BOUNDS, STATE, "records were lost", "bring the newer log"),
        (ChangelogPosition("log-2", 91, 1), BOUNDS, STATE, "committed records were lost", "move it away"),
        (ChangelogPosition.at(5, HERE, 1), Bounds(6, 90, 90), STATE, "starts at offset 6", "complete copy"),
        (None, Bounds(6, 90, 90), STATE, "no local copy", "complete copy"),
        (ChangelogPosition.at(5, HERE, 1), Bounds(6, 90, 90), SavedState(HERE, True, 5), "offset 6", "copy"),
    ],
)  # fmt: skip
def test_changelog_that_lacks_the_state_is_refused_with_the_gentlest_remedy_first(
    local: ChangelogPosition | None,
    bounds: Bounds,
    saved: SavedState,
    expected: str,
    remedy: str,
) -> None:
    with pytest.raises(RefusedError) as refused:
        check_whole("state", HERE, bounds, local, saved)
    message = str(refused.value)
    assert expected in message and "partition 3" in message and "state" in message
    assert 0 < message.index(remedy) < message.index(START_OVER)


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (OLD_LOG, "created again (id log-1, now log-2) while a worker was running"),
        (StateIdentity("app", 4, EVENTS, "log-2"), "contains the state of partition 4"),
        (StateIdentity("other", 3, EVENTS, "log-2"), "of the application other"),
    ],
)
def test_checkpoint_of_something_else_is_refused(stored: StateIdentity, expected: str) -> None:
    with pytest.raises(RefusedError) as refused:
        check_identity("state", HERE, stored)
    assert expected in str(refused.value)


def test_checkpoint_of_this_partition_and_one_without_identity_are_accepted() -> None:
    check_identity("state", HERE, HERE)
    check_identity("state", HERE, None)
    # The events topic is compared by `check_source`, whose message has the offsets.
    check_identity("state", HERE, StateIdentity("app", 3, OLD_CLUSTER.source, "log-2"))


@pytest.mark.parametrize("committed", [None, 0])
def test_unprocessed_partition_may_start(committed: int | None) -> None:
    check_unlearned("events", "state", 1, "group", committed)


def test_processed_partition_without_state_is_refused() -> None:
    with pytest.raises(RefusedError) as refused:
        check_unlearned("events", "state", 1, "group", 500)
    message = str(refused.value)
    assert all(part in message for part in ("partition 1 of events", "changelog state", "group group", "500"))
    assert "worker.app_id" in message and "--delete-offsets" in message
