"""Kafka as a worker meets it: brokers, topics, permissions, the group, its offsets, clocks. Nothing is written."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from streamguard.cli.doctor import group
from streamguard.cli.doctor.finding import Finding, fail, ok, warn
from streamguard.kafka.connection import Brokers, ClientErrors, metadata
from streamguard.settings.schema import Settings
from streamguard.text import counted

if TYPE_CHECKING:
    from streamguard.kafka.acls import Acl

ANSWER_SECONDS = 4.0
"""A cluster that has not answered by then is not there."""
MAX_BROKERS = 16
"""Brokers that are each connected to."""
SKEW_SECONDS = 2.0
"""A record this far in the future was stamped by another clock than this machine's."""
_CONNECT_SECONDS = 1.0
_AGAIN_SECONDS = 1.0
"""What fails is asked again once after this: a new topic may have no leader yet, a busy broker may be late."""


def kafka(settings: Settings) -> Iterator[Finding]:
    """Everything that can be asked, or one line if nobody answers."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    brokers = Brokers.of(settings)
    heard = ClientErrors()
    admin = AdminClient(brokers.librdkafka(error_cb=heard))
    try:
        cluster = metadata(admin, heard, ANSWER_SECONDS)
    except KafkaException as error:
        reason, remedy = heard.reason(
            error.args[0], "start one with `streamguard broker`, or set kafka.bootstrap_servers"
        )
        yield fail(
            "broker",
            f"no Kafka answers at {brokers} ({reason});"
            " topics, permissions, workers, offsets and clocks could not be looked at",
            remedy,
        )
        return
    checks: dict[str, Callable[[], Iterator[Finding]]] = {
        "broker": lambda: _brokers(brokers, cluster),
        "topics": lambda: _topics(settings),
        "permissions": lambda: _permissions(admin, settings),
        "workers": lambda: group.workers(admin, settings, cluster),
        "offsets": lambda: group.offsets(admin, settings, cluster),
        "clock": lambda: _clock(admin, settings, cluster),
    }
    for name, check in checks.items():
        for patience in (_AGAIN_SECONDS, 0.0):
            try:
                found = list(check())
                break
            except KafkaException as error:
                found = [
                    fail(
                        name,
                        f"Kafka does not tell: {error.args[0].str()}",
                        "where it is not authorized, see `permissions`; otherwise look into the brokers' logs",
                    )
                ]
                time.sleep(patience)
        yield from found


def _brokers(asked: Brokers, cluster: Any) -> Iterator[Finding]:
    brokers = sorted(cluster.brokers.values(), key=lambda broker: broker.id)
    unreachable = []
    for broker in brokers[:MAX_BROKERS]:
        try:
            socket.create_connection((broker.host, broker.port), _CONNECT_SECONDS).close()
        except OSError as error:
            unreachable.append(f"{broker.id} at {broker.host}:{broker.port} ({error.strerror or error})")
    if unreachable:
        yield fail(
            "broker",
            f"of {len(brokers)} brokers, not reached from here: {', '.join(unreachable)}",
            "set advertised.listeners to addresses that clients reach, and let the firewall pass them",
        )
        return
    yield ok("broker", f"{asked}: {counted(len(brokers), 'broker')}")


def _topics(settings: Settings) -> Iterator[Finding]:
    from streamguard.kafka import topics

    try:
        deviations = topics.check(settings)
    except topics.TopicsError as error:
        yield fail("topics", str(error), "if it is not authorized, see `permissions`")
        return
    for deviation in deviations:
        yield fail("topics", deviation.found, deviation.remedy)
    if not deviations:
        yield ok("topics", f"{', '.join(topics.names(settings).values())}: as required")


def _permissions(admin: Any, settings: Settings) -> Iterator[Finding]:
    """What the brokers let this client do; only transactional ids have no such answer."""
    from confluent_kafka import KafkaError, KafkaException, TopicCollection

    from streamguard.kafka.acls import Acl, acls_of

    needed = {right.name: right.operations for right in acls_of(settings)["worker"] if right.kind == "topic"}
    answers = admin.describe_topics(
        TopicCollection(list(needed)),
        include_authorized_operations=True,
        request_timeout=ANSWER_SECONDS,
    )
    asked, refused = 0, False
    for name, operations in needed.items():
        try:
            allowed = {operation.name for operation in answers[name].result().authorized_operations}
        except KafkaException as error:
            if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                continue
            if error.args[0].code() != KafkaError.TOPIC_AUTHORIZATION_FAILED:
                raise
            allowed = set()
        asked += 1
        if missing := [operation for operation in operations if operation not in allowed]:
            refused = True
            yield fail(
                "permissions",
                f"{name}: no {', '.join(missing)}",
                _grant(Acl("topic", name, tuple(missing)), settings),
            )
    about = group.described(admin, settings)
    if about is not None:
        asked += 1
        if "READ" not in {operation.name for operation in about.authorized_operations or ()}:
            refused = True
            app = settings.worker.app_id
            grant = _grant(Acl("group", app, ("READ",)), settings)
            yield fail("permissions", f"group {app}: no READ", grant)
    if asked and not refused:
        yield ok(
            "permissions",
            f"all that a worker needs, on {asked} {'resource' if asked == 1 else 'resources'};"
            f" not asked: WRITE on its transactional ids {settings.worker.app_id}-*",
        )
    elif not asked:
        yield warn(
            "permissions", "there is nothing to ask about yet", "`streamguard topics create`, then ask again"
        )


def _grant(right: Acl, settings: Settings) -> str:
    return f"`{right.command('User:NAME', settings.kafka.bootstrap_servers)}`"


def _clock(admin: Any, settings: Settings, cluster: Any) -> Iterator[Finding]:
    """The latest record against this machine's clock. One that is behind may just be old."""
    from confluent_kafka.admin import OffsetSpec

    from streamguard.kafka import topics

    newest: dict[str, float] = {}
    names = topics.names(settings)
    for role in ("events", "alerts", "models", "changelog"):
        found = group.listed(admin, cluster, names[role], OffsetSpec.max_timestamp())
        now = time.time()
        if stamps := [info.timestamp / 1000 - now for info in found.values() if info.timestamp > 0]:
            newest[names[role]] = max(stamps)
    if not newest:
        yield ok("clock", "no record yet to tell the clocks by")
        return
    topic, ahead = max(newest.items(), key=lambda item: item[1])
    if ahead > SKEW_SECONDS:
        yield warn(
            "clock",
            f"the newest record of {topic} is {ahead:,.1f} s ahead of this machine's clock",
            "keep the clocks of this machine, of brokers and of producers in step (NTP)",
        )
    else:
        yield ok(
            "clock",
            f"no record is ahead of this machine's clock; the newest is {max(0.0, -ahead):,.1f} s old",
        )
