"""The minimal Kafka access rights of each part of StreamGuard."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Literal

from streamguard.kafka.topics import names
from streamguard.settings.schema import Settings
from streamguard.settings.sources import of_sources

Part = Literal[
    "setup",
    "producer",
    "worker",
    "sources",
    "campaigns",
    "serve",
    "retrain",
    "analyst",
    "decide",
    "forget",
    "audit",
]


@dataclass(frozen=True, slots=True)
class Acl:
    """Allowed operations on one resource, or on all resources whose names have a prefix.

    Parameters
    ----------
    kind
        Kind of the resource, as `kafka-acls.sh` names it.
    name
        Name of the resource, or prefix of the names.
    operations
        Names from Kafka's protocol, such as READ and DESCRIBE_CONFIGS. READ, WRITE and DELETE include DESCRIBE.
    prefixed
        Whether `name` is a prefix.
    """

    kind: Literal["topic", "group", "transactional-id"]
    name: str
    operations: tuple[str, ...]
    prefixed: bool = False

    def command(self, user: str, servers: str) -> str:
        """Command that grants the operations to a user.

        Examples
        --------
        >>> Acl("group", "guard", ("READ",)).command("User:me", "kafka:9092")
        'kafka-acls.sh --bootstrap-server kafka:9092 --add --allow-principal User:me --operation Read --group guard'
        """
        flags = [f"--operation {operation.title().replace('_', '')}" for operation in self.operations]
        pattern = ["--resource-pattern-type prefixed"] if self.prefixed else []
        return " ".join(
            [
                f"kafka-acls.sh --bootstrap-server {shlex.quote(servers)} --add",
                f"--allow-principal {shlex.quote(user)}",
                *flags,
                f"--{self.kind} {shlex.quote(self.name)}",
                *pattern,
            ]
        )


def acls_of(settings: Settings) -> dict[Part, list[Acl]]:
    """Access rights that each part needs; `sources` has none if nothing is forwarded.

    All workers use the same Kafka user, because any worker may own any partition.

    Examples
    --------
    >>> acls_of(Settings())["producer"]
    [Acl(kind='topic', name='security-events', operations=('WRITE',), prefixed=False)]
    """
    topics, app = names(settings), settings.worker.app_id
    events, models = topics["events"], topics["models"]
    return {
        "setup": [
            Acl("topic", topic, ("CREATE", "DESCRIBE", "DESCRIBE_CONFIGS", "ALTER_CONFIGS"))
            for topic in topics.values()
        ],
        "producer": [Acl("topic", events, ("WRITE",))],
        "worker": _of_worker(settings),
        "sources": _of_worker(of_sources(settings)) if settings.kafka.forwards else [],
        "campaigns": [
            Acl("topic", topics["alerts"], ("READ", "DESCRIBE_CONFIGS")),
            Acl("topic", topics["campaigns"], ("READ", "WRITE", "DESCRIBE_CONFIGS")),
            Acl("topic", topics["decisions"], ("READ",)),  # which users are forgotten
            Acl("transactional-id", f"{app}-campaigns-0", ("WRITE", "DESCRIBE")),
        ],
        "serve": [
            *(Acl("topic", topics[role], ("READ",)) for role in ("campaigns", "changelog", "dead_letter")),
            Acl("topic", topics["alerts"], ("READ", "DESCRIBE_CONFIGS")),
            Acl("topic", topics["decisions"], ("READ", "WRITE", "DESCRIBE_CONFIGS")),
            Acl("topic", topics["audit"], ("READ", "WRITE", "DESCRIBE_CONFIGS")),
            Acl("topic", events, ("READ", "WRITE")),  # WRITE for decisions that change detection
            Acl(
                "group", "streamguard-serve", ("DESCRIBE",)
            ),  # the client looks it up, although it commits no offset
            # a decision that changes detection is written together with its note
            Acl("transactional-id", f"{app}-serve-", ("WRITE", "DESCRIBE"), prefixed=True),
        ],
        "retrain": [
            Acl("topic", events, ("READ",)),
            Acl("topic", topics["changelog"], ("READ",)),  # the key of the hashes
            Acl("topic", models, ("WRITE",)),
        ],
        "analyst": [Acl("topic", topics[role], ("READ",)) for role in ("alerts", "campaigns")],
        "audit": [
            Acl("topic", topics["audit"], ("READ",)),
            Acl("group", "streamguard-serve", ("DESCRIBE",)),
        ],
        "decide": [
            Acl("topic", events, ("WRITE",)),
            Acl("topic", topics["alerts"], ("READ",)),
            Acl("group", "streamguard-decide", ("DESCRIBE",)),
        ],
        "forget": [  # besides those of a worker, and of sources if there is one
            Acl("topic", topics["alerts"], ("READ",)),
            Acl("topic", topics["decisions"], ("READ", "WRITE")),
            Acl("group", "streamguard-decide", ("DESCRIBE",)),
        ],
    }


def _of_worker(settings: Settings) -> list[Acl]:
    topics, app = names(settings), settings.worker.app_id
    write = ("WRITE", "DESCRIBE_CONFIGS")
    return [
        Acl("topic", topics["events"], ("READ", "DESCRIBE_CONFIGS")),
        *([Acl("topic", topics["sources"], write)] if settings.kafka.forwards else []),
        Acl("topic", topics["alerts"], write),
        Acl("topic", topics["dead_letter"], write),
        Acl("topic", topics["models"], ("READ", "WRITE", "DESCRIBE_CONFIGS")),
        Acl("topic", topics["changelog"], ("READ", "WRITE", "DESCRIBE_CONFIGS")),
        Acl("group", app, ("READ",)),
        Acl("transactional-id", f"{app}-", ("WRITE", "DESCRIBE"), prefixed=True),
    ]
