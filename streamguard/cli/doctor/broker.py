"""Checks of Kafka without a write: brokers, topics, permissions, the consumer group, its offsets, state and clocks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any

from streamguard.cli.doctor import group
from streamguard.cli.doctor.finding import Finding, fail, ok, warn
from streamguard.kafka.connection import Brokers, ClientErrors, metadata
from streamguard.kafka.reach import UnreachableError, unreached
from streamguard.settings.schema import Settings
from streamguard.settings.sources import of_sources
from streamguard.text import counted

if TYPE_CHECKING:
    from streamguard.kafka.acls import Acl

STATE = "streamguard.agents.commands.examine_state"
"""The check of the stored state, which uses the functions of a worker; imported by name, as the worker's command is."""
ANSWER_SECONDS = 4.0
"""Timeout of a request to the cluster."""
SKEW_SECONDS = 2.0
"""A record that is more than this ahead of this machine's clock has the timestamp of a wrong clock."""
_RETRY_SECONDS = 1.0
"""Delay before the one retry of a failed check: a new topic may have no leader yet, or a broker may be busy."""


def kafka(settings: Settings) -> Iterator[Finding]:
    """Findings of all checks, or one failure if no broker answers."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    brokers = Brokers.of(settings)
    errors = ClientErrors()
    admin = AdminClient(brokers.librdkafka(error_cb=errors))
    try:
        cluster = metadata(brokers, admin, errors, ANSWER_SECONDS)
    except KafkaException as error:
        reason, remedy = errors.reason(
            error.args[0], "start one with `streamguard broker`, or set kafka.bootstrap_servers"
        )
        yield fail(
            "broker",
            f"no Kafka answers at {brokers} ({reason});"
            " topics, permissions, workers, offsets, transactions, state and clocks were not checked",
            remedy,
        )
        return
    except UnreachableError as error:
        yield fail(
            "broker",
            f"{error.found}; topics, permissions, workers, offsets, transactions, state and clocks were not checked",
            error.remedy,
        )
        return
    checks: dict[str, Callable[[], Iterator[Finding]]] = {
        "broker": lambda: _brokers(brokers, cluster),
        "topics": lambda: _topics(settings),
        "permissions": lambda: _permissions(admin, settings),
        "workers": lambda: group.workers(admin, settings, cluster),
        "sources": lambda: _sources(admin, settings, cluster),
        "offsets": lambda: group.offsets(admin, settings, cluster),
        "transactions": lambda: group.transactions(admin, settings, cluster),
        "state": lambda: import_module(STATE).state(
            settings, cluster, group.committed_offsets(admin, settings, cluster)
        ),
        "clock": lambda: _clock(admin, settings, cluster),
    }
    for name, check in checks.items():
        for delay in (_RETRY_SECONDS, 0.0):
            try:
                found = list(check())
                break
            except (KafkaException, TimeoutError) as error:
                reason = error.args[0].str() if isinstance(error, KafkaException) else "no answer in time"
                found = [
                    fail(
                        name,
                        f"Kafka rejected the request: {reason}",
                        "if the client is not authorized, see `permissions`; otherwise read the brokers' logs",
                    )
                ]
                time.sleep(delay)
        yield from found


def _brokers(asked: Brokers, cluster: Any) -> Iterator[Finding]:
    failures = [failure for _, failure in unreached(cluster) if failure]
    if failures:
        error = UnreachableError(cluster, failures)
        yield fail("broker", error.found, error.remedy)
    else:
        yield ok("broker", f"{asked}: {counted(len(cluster.brokers), 'broker')}")
    if asked.exposed:
        exposed, _, remedy = asked.exposed.partition(": ")
        yield warn("broker", exposed, remedy)


def _topics(settings: Settings) -> Iterator[Finding]:
    from streamguard.kafka import topics

    own = topics.names(settings)
    try:
        # A client that may not read a topic does not see it, and a worker may not read those of the server.
        serving = [
            role
            for role in topics.SERVING_ROLES
            if role not in topics.WORKER_ROLES and topics.exists(settings, own[role])
        ]
        deviations = topics.check(settings, topics.WORKER_ROLES)
        of_server = topics.check(settings, serving) if serving else []
    except topics.TopicsError as error:
        yield fail("topics", str(error), "if the client is not authorized, see `permissions`")
        return
    for deviation in deviations:
        yield (fail if deviation.required else warn)("topics", deviation.found, deviation.remedy)
    for deviation in of_server:
        yield warn("topics", f"{deviation.found}; `serve` needs it, a worker does not", deviation.remedy)
    if not deviations and not of_server:
        asked = [own[role] for role in (*topics.WORKER_ROLES, *serving) if role in own]
        yield ok("topics", f"{', '.join(asked)} are as required")


def _sources(admin: Any, settings: Settings, cluster: Any) -> Iterator[Finding]:
    """The processes of the second fold, if events are forwarded to it."""
    if settings.kafka.forwards:
        yield from group.workers(admin, of_sources(settings), cluster)


def _permissions(admin: Any, settings: Settings) -> Iterator[Finding]:
    """Operations that the brokers allow this client. Kafka reports them for all resources but transactional ids."""
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
            allowed = {operation.name for operation in answers[name].result().authorized_operations or ()}
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
                f"topic {name}: no permission for {', '.join(missing)}",
                _grant(Acl("topic", name, tuple(missing)), settings),
            )
    about = group.described(admin, settings)
    if about is not None:
        asked += 1
        if "READ" not in {operation.name for operation in about.authorized_operations or ()}:
            refused = True
            app = settings.worker.app_id
            grant = _grant(Acl("group", app, ("READ",)), settings)
            yield fail("permissions", f"group {app}: no permission for READ", grant)
    if asked and not refused:
        yield ok(
            "permissions",
            f"a worker has all permissions on {counted(asked, 'resource')};"
            f" not checked: WRITE on its transactional ids {settings.worker.app_id}-*",
        )
    elif not asked:
        yield warn(
            "permissions",
            "not checked: no topic exists yet",
            "run `streamguard topics create`, then `streamguard doctor` again",
        )


def _grant(right: Acl, settings: Settings) -> str:
    return f"`{right.command('User:NAME', settings.kafka.bootstrap_servers)}`"


def _clock(admin: Any, settings: Settings, cluster: Any) -> Iterator[Finding]:
    """Compare the newest timestamp with this machine's clock. A timestamp in the past proves nothing: it may be old."""
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
        yield ok("clock", "not checked: no topic has a record yet")
        return
    topic, ahead = max(newest.items(), key=lambda item: item[1])
    if ahead > SKEW_SECONDS:
        yield warn(
            "clock",
            f"the newest record of {topic} is {ahead:,.1f} s ahead of this machine's clock",
            "synchronize the clocks of this machine, the brokers and the producers (NTP)",
        )
    else:
        yield ok(
            "clock",
            f"no record is ahead of this machine's clock; the newest one is {max(0.0, -ahead):,.1f} s old",
        )
