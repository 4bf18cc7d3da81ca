"""What each part of StreamGuard has to be allowed to do in Kafka, and nothing more."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Literal

from streamguard.kafka.topics import names
from streamguard.settings.schema import Settings

Part = Literal["setup", "producer", "worker", "retrain", "analyst"]


@dataclass(frozen=True, slots=True)
class Acl:
    """Operations on one resource, or on all whose names begin so.

    Parameters
    ----------
    kind
        Of the resource, as `kafka-acls.sh` calls it.
    name
        Of the resource, or what its name begins with.
    operations
        As the protocol names them: READ, DESCRIBE_CONFIGS. READ, WRITE and DELETE allow DESCRIBE as well.
    """

    kind: Literal["topic", "group", "transactional-id"]
    name: str
    operations: tuple[str, ...]
    prefixed: bool = False

    def command(self, user: str, servers: str) -> str:
        """The command that gives it.

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
    """By part, all that it needs.

    The workers share one user: any of them may own any partition.

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
        "worker": [
            Acl("topic", events, ("READ", "DESCRIBE_CONFIGS")),
            Acl("topic", topics["alerts"], ("WRITE", "DESCRIBE_CONFIGS")),
            Acl("topic", topics["dead_letter"], ("WRITE", "DESCRIBE_CONFIGS")),
            Acl("topic", models, ("READ", "WRITE", "DESCRIBE_CONFIGS")),
            Acl("topic", topics["changelog"], ("READ", "WRITE", "DESCRIBE_CONFIGS")),
            Acl("group", app, ("READ",)),
            Acl("transactional-id", f"{app}-", ("WRITE", "DESCRIBE"), prefixed=True),
        ],
        "retrain": [Acl("topic", events, ("READ",)), Acl("topic", models, ("WRITE",))],
        "analyst": [Acl("topic", topics["alerts"], ("READ",))],
    }
