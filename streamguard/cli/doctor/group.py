"""Checks of the workers' consumer group: its members, and its committed offsets against the topic."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from streamguard.cli.doctor.finding import Finding, fail, ok, warn
from streamguard.kafka import topics
from streamguard.polling import poll_until
from streamguard.settings.schema import Settings
from streamguard.text import counted

ANSWER_SECONDS = 4.0
"""Timeout of a request to the cluster."""
TRANSACTION_SECONDS = 3.0
"""How long a transaction may be open; senders keep theirs for milliseconds, or seconds at most."""
SETTLE_SECONDS = 3.0
"""How long requests are repeated while Kafka elects or loads the group's coordinator."""


def described(admin: Any, settings: Settings) -> Any | None:
    """Kafka's description of the group; None if there is no such group.

    Groups are listed first, because describing a group makes Kafka create its offsets topic.
    """
    from confluent_kafka import KafkaError, KafkaException

    settling = (
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
    )

    def answer() -> tuple[Any | None] | None:
        try:
            return (_described(admin, settings.worker.app_id),)
        except KafkaException as error:
            if error.args[0].code() not in settling:
                raise
            return None

    try:
        (found,) = poll_until(answer, SETTLE_SECONDS, 0.1) or (None,)
    except TimeoutError:
        return _described(admin, settings.worker.app_id)
    return found


def _described(admin: Any, app: str) -> Any | None:
    from confluent_kafka import KafkaException

    found = admin.list_consumer_groups(request_timeout=ANSWER_SECONDS).result()
    if app in {group.group_id for group in found.valid}:
        return admin.describe_consumer_groups(
            [app], include_authorized_operations=True, request_timeout=ANSWER_SECONDS
        )[app].result()
    if found.errors:  # a broker did not answer, so the group may exist
        raise KafkaException(found.errors[0])
    return None


def listed(admin: Any, cluster: Any, topic: str, what: Any, isolation: Any = None) -> dict[int, Any]:
    """The requested offset of each partition; empty if the topic does not exist.

    By default the end is the high watermark; with the isolation level `READ_COMMITTED` it is the last stable offset.
    """
    from confluent_kafka import IsolationLevel, TopicPartition

    if topic not in cluster.topics:
        return {}
    asked = {TopicPartition(topic, partition): what for partition in cluster.topics[topic].partitions}
    level = IsolationLevel.READ_UNCOMMITTED if isolation is None else isolation
    answers = (
        admin.list_offsets(asked, isolation_level=level, request_timeout=ANSWER_SECONDS) if asked else {}
    )
    return {asked.partition: answer.result() for asked, answer in answers.items()}


def workers(admin: Any, settings: Settings, cluster: Any) -> Iterator[Finding]:
    """Compare the workers, or the processes of the second fold, with the partitions."""
    events, app = settings.kafka.events_topic, settings.worker.app_id
    check, verb = ("sources", "sources") if settings.kafka.folds_sources else ("workers", "worker")
    about = described(admin, settings)
    state = about.state.name if about is not None else "EMPTY"
    if about is None or not about.members:
        yield warn(check, f"no worker of {app} is running", f"start one with `streamguard {verb}`")
        return
    if events not in cluster.topics:
        return  # the check of the topics reports it
    if state != "STABLE":
        yield warn(
            check,
            f"the group {app} of {counted(len(about.members), 'worker')} is in the state"
            f" {state.lower().replace('_', ' ')}",
            "run doctor again; if the state stays, a worker joins and leaves repeatedly: read the workers' logs",
        )
        return
    held = {
        member.member_id: {tp.partition for tp in member.assignment.topic_partitions if tp.topic == events}
        for member in about.members
    }
    partitions = set(cluster.topics[events].partitions)
    found = f"{counted(len(held), 'worker')} of {app} for {counted(len(partitions), 'partition')} of {events}"
    idle = sum(not held_by for held_by in held.values())
    if lost := partitions - set().union(*held.values()):
        yield fail(
            check,
            f"{found}: no worker reads the partitions {sorted(lost)}",
            "give all workers of this app_id the same settings, and restart one of them",
        )
    elif idle:
        yield warn(
            check,
            f"{found}: {counted(idle, 'worker')} idle",
            "keep it as a reserve; for more throughput start over with more partitions and another app_id"
            if idle == 1
            else "run fewer workers: one worker reads a partition",
        )
    else:
        yield ok(check, found)


def offsets(admin: Any, settings: Settings, cluster: Any) -> Iterator[Finding]:
    """Compare the committed offsets, or the beginning where none is committed, with the offsets that the topic has."""
    from confluent_kafka.admin import OffsetSpec

    topic, app = settings.kafka.events_topic, settings.worker.app_id
    committed = committed_offsets(admin, settings, cluster)
    first = listed(admin, cluster, topic, OffsetSpec.earliest())
    end = listed(admin, cluster, topic, OffsetSpec.latest())
    half = settings.kafka.events_retention_days / 2
    young = listed(
        admin, cluster, topic, OffsetSpec.for_timestamp(round((time.time() - half * 86_400) * 1000))
    )
    behind, healthy = 0, True
    for partition in sorted(end):
        start, stop = first[partition].offset, end[partition].offset
        offset = committed.get(partition, start)
        where = f"partition {partition} of {topic}: the committed offset of {app} is {offset}"
        behind += max(0, stop - offset)
        start_over = "to start over, choose another worker.app_id"
        if partition not in committed:
            where = f"partition {partition} of {topic}: {app} has committed no offset, and the log begins at {start}"
            if start > 0:
                found = (
                    f"{where}: a worker without a state of the partition never reads the "
                    f"{counted(start, 'offset')} before it, because Kafka has deleted them"
                )
                yield warn(
                    "offsets",
                    found,
                    "if you sent them in as history, set message.timestamp.type=LogAppendTime on the topic, and send "
                    "it again before the first start of a worker",
                )
                healthy = False
        if offset < start:
            expired = counted(start - offset, "offset")
            found = f"{where}, but the topic begins at {start}: {expired} expired before a worker read them"
            yield fail("offsets", found, f"raise retention.ms; {start_over}")
        elif offset > stop:
            found = f"{where}, but the topic ends at {stop}: it was truncated, or deleted and created again"
            yield fail("offsets", found, f"restore the topic, or, {start_over}")
        elif offset < (young[partition].offset if young[partition].offset >= 0 else stop):
            found = f"{where}; it ends at {stop}, and the next event is older than {half:g} days, half of the retention"
            yield warn("offsets", found, "start a worker or more workers, or raise retention.ms")
        else:
            continue
        healthy = False
    if healthy and not committed:
        yield ok("offsets", f"{app} has not committed an offset of {topic} yet, and no record has expired")
    elif healthy:
        yield ok(
            "offsets",
            f"{app} is {counted(behind, 'record')} behind in {counted(len(committed), 'partition')};"
            " no record expired unread",
        )


def transactions(admin: Any, settings: Settings, cluster: Any) -> Iterator[Finding]:
    """Look for a transaction of another program that stays open, and so blocks the reading of committed records.

    With one in the events topic, workers fall behind; with one in the changelog, where their own are short, they do not
    start.
    """
    from confluent_kafka import IsolationLevel
    from confluent_kafka.admin import OffsetSpec

    names = topics.names(settings)
    events, changelog = names["events"], names["changelog"]

    def opened() -> dict[tuple[str, int], tuple[int, int]]:
        """(First offset of the oldest open transaction, offsets from there to the end) of each partition."""
        found = {}
        for topic in (events, changelog):
            stable = listed(admin, cluster, topic, OffsetSpec.latest(), IsolationLevel.READ_COMMITTED)
            end = listed(admin, cluster, topic, OffsetSpec.latest())
            for p, at in stable.items():
                if end[p].offset > at.offset:
                    found[topic, p] = at.offset, end[p].offset - at.offset
        return found

    before = now = opened()

    def ended() -> bool:
        nonlocal now
        now = opened()
        return not any(now.get(place, (-1, 0))[0] == at for place, (at, _) in before.items())

    try:
        poll_until(ended, TRANSACTION_SECONDS, 0.5)
    except TimeoutError:
        for (topic, partition), (at, _) in sorted(before.items()):
            if now.get((topic, partition), (-1, 0))[0] != at:
                continue
            hidden = counted(now[topic, partition][1], "offset")
            effect = (
                f"no worker can read the {hidden} from there on"
                if topic == events
                else f"a worker that has to read the {hidden} from there on does not start"
            )
            yield warn(
                "transactions",
                f"partition {partition} of {topic}: a transaction of another program has been open at offset {at} "
                f"for more than {TRANSACTION_SECONDS:g} s; {effect}",
                "if it does not end, find its holder with `kafka-transactions.sh describe-producers --topic "
                f"{topic} --partition {partition}`; see StreamGuardBlocked in docs/runbooks.md",
            )
    else:
        yield ok("transactions", f"no transaction stays open in {events} and {changelog}")


def committed_offsets(admin: Any, settings: Settings, cluster: Any) -> dict[int, int]:
    """Offset that the group has committed of each partition of the events topic."""
    from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition

    topic, app = settings.kafka.events_topic, settings.worker.app_id
    if topic not in cluster.topics or described(admin, settings) is None:
        return {}
    asked = [TopicPartition(topic, partition) for partition in cluster.topics[topic].partitions]
    answer = admin.list_consumer_group_offsets(
        [ConsumerGroupTopicPartitions(app, asked)], request_timeout=ANSWER_SECONDS
    )[app].result()
    return {tp.partition: tp.offset for tp in answer.topic_partitions if tp.offset >= 0}
