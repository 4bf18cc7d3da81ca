"""The Kafka topics that StreamGuard needs: their names, their creation, and the check of existing topics."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from streamguard.errors import ConfigurationError, UnavailableError
from streamguard.kafka.connection import Brokers, ClientErrors, metadata
from streamguard.limits import MAX_EVENT_BYTES, MAX_INCIDENT_BYTES
from streamguard.polling import poll_until
from streamguard.settings import sources
from streamguard.settings.schema import Settings
from streamguard.text import counted

DEAD_LETTER_BYTES = 1 << 30
"""Size up to which Kafka keeps dead letters."""

DELETION_MS = 7 * 86_400_000
"""How long a compacted topic keeps a deletion, of a user, a campaign or a decision, for readers that are stopped."""
_TIMEOUT = 30.0
"""Seconds within which the cluster must answer."""

SOURCES_DAYS = 3.0
"""Days for which the sources topic keeps what workers forward: an outage of `streamguard sources` over a weekend. The
events themselves stay in the events topic."""

WORKER_ROLES = ("events", "sources", "alerts", "dead_letter", "models", "changelog")
"""Topics that a worker uses: it starts whether or not the others exist."""
CAMPAIGNS_ROLES = ("alerts", "campaigns")
"""Topics that the campaigns process uses."""
SERVING_ROLES = ("alerts", "decisions", "audit")
"""Topics without which a server has nothing to show and nowhere to write."""
AUDIT_DAYS = 365.0
"""Days for which the audit log is kept: an auditor asks about the last year."""


class TopicsError(UnavailableError):
    """Kafka did not answer or rejected a change; the message gives the place, the reason and a remedy."""


class TopicsMismatchError(ConfigurationError):
    """Topics differ from the settings; the message lists every deviation with its remedy."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Value of a topic's setting, and the rule for other values; -1 means unlimited.

    A worker refuses a topic that deviates from a required value. A deviation from a recommended value (`required` is
    false) is a warning: a deployment that worked before an upgrade still starts after it.
    """

    value: str
    rule: Literal["", "at least ", "at most "] = ""
    required: bool = True
    reason: str = ""

    def accepts(self, found: str) -> bool:
        """Whether the value `found` meets the requirement.

        Examples
        --------
        >>> Wanted("600000", "at most ").accepts("604800000") or Wanted("600000", "at most ").accepts("-1")
        False
        >>> Wanted("604800000", "at least ").accepts("-1")
        True
        """
        if not self.rule:
            return found == self.value
        if self.rule == "at least ":
            return float(found) < 0 or float(found) >= float(self.value)
        return 0 <= float(found) <= float(self.value)


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as it is required.

    `exact_partitions` is set if the stored state depends on the number of partitions.
    """

    name: str
    partitions: int
    exact_partitions: bool = False
    settings: dict[str, Wanted] = field(default_factory=dict)


def names(settings: Settings) -> dict[str, str]:
    """Name of each topic by its role: events, alerts, campaigns, decisions, audit, dead_letter, models, changelog.

    If workers forward events, also sources and sources_changelog.

    Examples
    --------
    >>> names(Settings())["changelog"], names(Settings())["sources_changelog"]
    ('streamguard-state-changelog', 'streamguard-sources-state-changelog')
    """
    kafka = settings.kafka
    forwarded = {
        "sources": kafka.sources_topic,
        "sources_changelog": _changelog(sources.app_id(settings)),
    }
    return {
        "events": kafka.events_topic,
        **(forwarded if kafka.forwards else {}),
        "alerts": kafka.alerts_topic,
        "campaigns": kafka.campaigns_topic,
        "decisions": kafka.decisions_topic,
        "audit": kafka.audit_topic,
        "dead_letter": kafka.dead_letter_topic,
        "models": kafka.models_topic,
        "changelog": _changelog(settings.worker.app_id),
    }


def _changelog(app_id: str) -> str:
    return f"{app_id}-state-changelog"


class Deviation(NamedTuple):
    """One difference between a topic and what the settings require or recommend, and the remedy."""

    found: str
    remedy: str
    required: bool = True

    def __str__(self) -> str:
        return f"{self.found}: {self.remedy}"


def create(settings: Settings, *, alter: bool = False) -> list[str]:
    """Create the missing topics and wait until the brokers show them.

    Parameters
    ----------
    settings
        Names, partitions, replication and retention.
    alter
        Also correct the settings of existing topics that `check` reports; partitions are never changed.

    Returns
    -------
    list of str
        Names of the topics that were created.

    Raises
    ------
    TopicsError
        If Kafka cannot be reached or rejects a request.
    """
    admin, errors = _admin(settings)
    existing = _existing(admin, errors, settings)
    wanted = _wanted(settings, existing)
    missing = [topic for topic in wanted if topic.name not in existing]
    created = _create(admin, missing, settings.kafka.replication_factor)
    _await(
        lambda: {topic.name for topic in wanted} <= set(_existing(admin, errors, settings)),
        "Kafka has created the topics, but does not list them: check the broker's log",
    )
    if alter:
        old = [topic for topic in wanted if topic.name not in created]
        _alter(admin, old, required=True)
        _alter(admin, old, required=False)
    return created


def check(settings: Settings, roles: Collection[str] = ()) -> list[Deviation]:
    """Find every deviation of the topics from what the settings require or recommend.

    Parameters
    ----------
    roles
        Roles of the topics that are compared; by default all.

    Raises
    ------
    TopicsError
        If Kafka cannot be reached.
    """
    admin, errors = _admin(settings)
    existing = _existing(admin, errors, settings)
    compared = {name for role, name in names(settings).items() if not roles or role in roles}
    wanted = [topic for topic in _wanted(settings, existing) if topic.name in compared]
    deviations = []
    for topic in wanted:
        if topic.name not in existing:
            deviations.append(
                Deviation(
                    f"the topic {topic.name} does not exist at {settings.kafka.bootstrap_servers}",
                    "correct its name in [kafka], or run `streamguard topics create`",
                )
            )
            continue
        partitions, replicas = existing[topic.name]
        if topic.exact_partitions and partitions != topic.partitions:
            deviations.append(
                Deviation(
                    f"{topic.name} has {counted(partitions, 'partition')}, required {topic.partitions}",
                    "set kafka.partitions to the number of partitions of the events topic; if the changelog has a "
                    "different number, choose another worker.app_id, which starts with an empty state",
                )
            )
        if replicas < settings.kafka.replication_factor:
            deviations.append(
                Deviation(
                    f"{topic.name} has replication factor {replicas}, required at least "
                    f"{settings.kafka.replication_factor}",
                    "raise it with kafka-reassign-partitions, or set kafka.replication_factor to a lower value",
                )
            )
    present = [topic for topic in wanted if topic.name in existing]
    return deviations + [
        Deviation(
            f"{topic.name} has {setting}={found}, {'required' if rule.required else 'recommended'} "
            f"{rule.rule}{rule.value}{rule.reason and f' ({rule.reason})'}",
            "run `streamguard topics create --alter`",
            rule.required,
        )
        for topic, setting, found, rule in _deviations(admin, present)
    ]


def require(settings: Settings, roles: Collection[str] = ()) -> list[Deviation]:
    """Raise an error unless the topics are as the settings require.

    Parameters
    ----------
    roles
        Roles of the topics that are required; by default all.

    Returns
    -------
    list of Deviation
        Deviations from recommended values, with which a worker runs.

    Raises
    ------
    TopicsMismatchError
        If a topic is missing or differs.
    TopicsError
        If Kafka cannot be reached.
    """
    deviations = check(settings, roles)
    if refused := [deviation for deviation in deviations if deviation.required]:
        raise TopicsMismatchError("\n".join(map(str, refused)))
    return deviations


def exists(settings: Settings, topic: str) -> bool:
    """Whether there is a topic of this name.

    Raises
    ------
    TopicsError
        If Kafka cannot be reached.
    """
    return topic in _existing(*_admin(settings), settings)


def max_batch_bytes(settings: Settings, topic: str) -> int:
    """Size of the largest batch that a topic accepts now, in bytes.

    Raises
    ------
    TopicsError
        If Kafka does not state it.
    """
    admin, _ = _admin(settings)
    return int(_described(admin, [topic])[topic]["max.message.bytes"].value)


def _wanted(settings: Settings, existing: Mapping[str, tuple[int, int]]) -> list[Topic]:
    name = names(settings)
    kafka = settings.kafka
    retention_ms = round(kafka.events_retention_days * 24 * 3600 * 1000)
    deleted, compacted = Wanted("delete"), Wanted("compact")
    append_time = Wanted(
        "LogAppendTime",
        required=False,
        reason="record times set by senders decide when Kafka deletes records, and do not bound forged event times",
    )

    def durable(topic: str) -> dict[str, Wanted]:
        """No acknowledged record is lost with one broker. With fewer than three replicas, two would stop the writes."""
        _, replicas = existing.get(topic, (0, kafka.replication_factor))
        return {
            "min.insync.replicas": Wanted("2" if replicas >= 3 else "1", "at least ", required=False),
            "unclean.leader.election.enable": Wanted("false", required=False),
        }

    def latest_values(topic: str) -> Topic:
        """One partition has one order. A deletion is kept so long that every reader sees it."""
        return Topic(
            topic,
            1,
            settings={
                "cleanup.policy": compacted,
                "segment.ms": Wanted("86400000", "at most "),
                "delete.retention.ms": Wanted(str(DELETION_MS), "at least "),
                "max.message.bytes": Wanted(str(MAX_INCIDENT_BYTES), "at least "),
                **durable(topic),
            },
        )

    def changelog(topic: str) -> Topic:
        return Topic(
            topic,
            kafka.partitions,
            exact_partitions=True,
            settings={
                "cleanup.policy": compacted,
                # Only closed segments are compacted; a restore has to read the other segments completely.
                "segment.ms": Wanted("600000", "at most "),
                "segment.bytes": Wanted(str(64 * 1024 * 1024), "at most "),
                "min.cleanable.dirty.ratio": Wanted("0.2", "at most "),
                "delete.retention.ms": Wanted(str(DELETION_MS), "at least "),
                "max.message.bytes": Wanted(str(2 * 1024 * 1024), "at least "),
                **durable(topic),
            },
        )

    events = Topic(
        name["events"],
        kafka.partitions,
        exact_partitions=True,
        settings={
            "cleanup.policy": deleted,
            # Kafka deletes records by their own timestamp. The broker sets it (below), so a back-fill stays; the
            # event itself contains the time at which it happened.
            "retention.ms": Wanted(str(retention_ms), "at least "),
            "retention.bytes": Wanted("-1"),
            "max.message.bytes": Wanted(str(MAX_EVENT_BYTES), "at most "),
            "message.timestamp.type": append_time,
            **durable(name["events"]),
        },
    )
    forwarded = Topic(
        kafka.sources_topic,
        kafka.partitions,
        exact_partitions=True,
        settings={
            "cleanup.policy": deleted,
            # Records of a backlog are as old as their events: with the broker's time, none expires unread.
            "retention.ms": Wanted(str(min(retention_ms, round(SOURCES_DAYS * 86_400_000))), "at least "),
            "retention.bytes": Wanted("-1"),
            "max.message.bytes": Wanted(str(MAX_EVENT_BYTES + 65_536), "at least ", required=False),
            "message.timestamp.type": append_time,
            **durable(kafka.sources_topic),
        },
    )
    return [
        *([forwarded] if kafka.folds_sources else [events]),
        *([forwarded, changelog(name["sources_changelog"])] if kafka.forwards else []),
        Topic(
            name["alerts"],
            kafka.partitions,
            settings={
                "cleanup.policy": deleted,
                "max.message.bytes": Wanted(str(MAX_INCIDENT_BYTES), "at least "),
                "retention.ms": Wanted(
                    str(round(kafka.alerts_retention_days * 86_400_000)),
                    "at least ",
                    required=False,
                    reason="a server that rebuilds its store does not find older incidents",
                ),
                **durable(name["alerts"]),
            },
        ),
        latest_values(name["campaigns"]),  # a reader of committed records sees whole rounds
        latest_values(name["decisions"]),  # the order of the log settles conflicts
        Topic(
            name["audit"],
            1,
            settings={
                "cleanup.policy": deleted,
                "retention.ms": Wanted(str(round(AUDIT_DAYS * 86_400_000)), "at least "),
                "retention.bytes": Wanted("-1"),
                # The time of a broker, so that no server decides when its own records are deleted.
                "message.timestamp.type": append_time,
                **durable(name["audit"]),
            },
        ),
        Topic(
            name["dead_letter"],
            1,
            settings={
                "cleanup.policy": deleted,
                "max.message.bytes": Wanted(str(MAX_EVENT_BYTES + 65_536), "at least "),
                # Senders decide how much is refused, so its size is bounded; no refused event outlives the others.
                "retention.bytes": Wanted(str(DEAD_LETTER_BYTES), "at most ", required=False),
                "retention.ms": Wanted(str(retention_ms), "at most ", required=False),
                **durable(name["dead_letter"]),
            },
        ),
        Topic(
            name["models"],
            1,
            # Each worker repeats its reports, so a worker that starts later does not need old messages.
            settings={
                "cleanup.policy": deleted,
                "retention.ms": Wanted("3600000", "at most "),
                "segment.ms": Wanted("3600000", "at most "),
            },
        ),
        changelog(name["changelog"]),
    ]


def _admin(settings: Settings) -> tuple[Any, ClientErrors]:
    from confluent_kafka.admin import AdminClient

    errors = ClientErrors()
    return AdminClient(Brokers.of(settings).librdkafka(error_cb=errors)), errors


def _existing(admin: Any, errors: ClientErrors, settings: Settings) -> dict[str, tuple[int, int]]:
    """Topic name -> (number of partitions, replicas of its least replicated partition)."""
    from confluent_kafka import KafkaException

    try:
        topics = metadata(Brokers.of(settings), admin, errors, _TIMEOUT).topics
    except KafkaException as error:
        reason, remedy = errors.reason(
            error.args[0], "start one with `streamguard broker`, or set kafka.bootstrap_servers"
        )
        raise TopicsError(
            f"no Kafka answers at {settings.kafka.bootstrap_servers} ({reason}): {remedy}"
        ) from None
    return {
        name: (len(topic.partitions), min(len(partition.replicas) for partition in topic.partitions.values()))
        for name, topic in topics.items()
        if topic.partitions
    }


def _deviations(admin: Any, topics: list[Topic]) -> list[tuple[Topic, str, str, Wanted]]:
    """(topic, setting, found, wanted) of each setting with a value that is not accepted."""
    found = _described(admin, [topic.name for topic in topics])
    return [
        (topic, setting, found[topic.name][setting].value, wanted)
        for topic in topics
        for setting, wanted in topic.settings.items()
        # A broker that does not know a setting does not report it.
        if setting in found[topic.name] and not wanted.accepts(found[topic.name][setting].value)
    ]


def _described(admin: Any, topics: list[str]) -> dict[str, dict[str, Any]]:
    """The settings of each topic, by name."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import ConfigResource, ResourceType

    if not topics:
        return {}
    answers = admin.describe_configs([ConfigResource(ResourceType.TOPIC, topic) for topic in topics])
    found = {}
    for resource, answer in answers.items():
        try:
            found[resource.name] = answer.result(_TIMEOUT)
        except KafkaException as error:
            raise TopicsError(
                f"Kafka did not return the settings of the topic {resource.name}: {error.args[0].str()}; if the right "
                "is missing, `streamguard topics acls` prints the commands that grant it"
            ) from None
    return found


def _create(
    admin: Any, topics: list[Topic], replication_factor: int, *, recommended: bool = True
) -> list[str]:
    """Names of the topics that were created, by this call and not by another process at the same time."""
    from confluent_kafka import KafkaError, KafkaException
    from confluent_kafka.admin import NewTopic

    if not topics:
        return []
    requests = admin.create_topics(
        [
            NewTopic(
                topic.name,
                topic.partitions,
                replication_factor,
                config={
                    name: setting.value
                    for name, setting in topic.settings.items()
                    if setting.required or recommended
                },
            )
            for topic in topics
        ]
    )
    created, refused = [], []
    for topic in topics:
        try:
            requests[topic.name].result(_TIMEOUT)
            created.append(topic.name)
        except KafkaException as error:
            code = error.args[0].code()
            # Some hosted clusters set the recommended values themselves and let nobody set them.
            if recommended and code in (KafkaError.INVALID_CONFIG, KafkaError.POLICY_VIOLATION):
                refused.append(topic)
            elif code != KafkaError.TOPIC_ALREADY_EXISTS:
                raise TopicsError(
                    f"Kafka did not create the topic {topic.name}: {error.args[0].str()}; check "
                    "kafka.replication_factor, kafka.partitions and the access rights (`streamguard topics acls setup` "
                    "prints the commands)"
                ) from None
    return created + _create(admin, refused, replication_factor, recommended=False)


def _alter(admin: Any, topics: list[Topic], *, required: bool) -> None:
    """Correct the required settings, or the recommended ones. A broker refuses all changes of one request or none."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

    changes: dict[str, list[Any]] = {}

    def wrong() -> list[tuple[Topic, str, str, Wanted]]:
        return [one for one in _deviations(admin, topics) if one[3].required == required]

    for topic, setting, _, wanted in wrong():
        entry = ConfigEntry(setting, wanted.value, incremental_operation=AlterConfigOpType.SET)
        changes.setdefault(topic.name, []).append(entry)
    if not changes:
        return
    answers = admin.incremental_alter_configs(
        [
            ConfigResource(ResourceType.TOPIC, name, incremental_configs=entries)
            for name, entries in changes.items()
        ]
    )
    for resource, answer in answers.items():
        try:
            answer.result(_TIMEOUT)
        except KafkaException as error:
            raise TopicsError(
                f"Kafka did not change the settings of the topic {resource.name}: {error.args[0].str()}; check the "
                "access rights (`streamguard topics acls setup` prints the commands)"
            ) from None
    _await(
        lambda: not wrong(),
        f"Kafka has changed the settings of {', '.join(sorted(changes))}, but does not show the new values: check the "
        "broker's log",
    )


def _await(shown: Callable[[], bool], otherwise: str) -> None:
    """Wait until the brokers show what the controller has confirmed."""
    try:
        poll_until(shown, _TIMEOUT)
    except TimeoutError:
        raise TopicsError(otherwise) from None
