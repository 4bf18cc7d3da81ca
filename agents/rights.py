"""What each part of StreamGuard has to be allowed to do in Kafka, and nothing more."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Literal

from agents.topics import names
from streamguard.settings import Settings

Part = Literal["setup", "producer", "worker", "retrain", "analyst"]


@dataclass(frozen=True, slots=True)
class Right:
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
        >>> Right("group", "guard", ("READ",)).command("User:me", "kafka:9092")
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


def rights(settings: Settings) -> dict[Part, list[Right]]:
    """By part, all that it needs.

    The workers share one user: any of them may own any partition.

    Examples
    --------
    >>> rights(Settings())["producer"]
    [Right(kind='topic', name='security-events', operations=('WRITE',), prefixed=False)]
    """
    topics, app = names(settings), settings.worker.app_id
    events, models = topics["events"], topics["models"]
    return {
        "setup": [
            Right("topic", topic, ("CREATE", "DESCRIBE", "DESCRIBE_CONFIGS", "ALTER_CONFIGS"))
            for topic in topics.values()
        ],
        "producer": [Right("topic", events, ("WRITE",))],
        "worker": [
            Right("topic", events, ("READ", "DESCRIBE_CONFIGS")),
            Right("topic", topics["alerts"], ("WRITE", "DESCRIBE_CONFIGS")),
            Right("topic", topics["dead_letter"], ("WRITE", "DESCRIBE_CONFIGS")),
            Right("topic", models, ("READ", "WRITE", "DESCRIBE_CONFIGS")),
            Right("topic", topics["changelog"], ("READ", "WRITE", "DESCRIBE_CONFIGS")),
            Right("group", app, ("READ",)),
            Right("transactional-id", f"{app}-", ("WRITE", "DESCRIBE"), prefixed=True),
        ],
        "retrain": [Right("topic", events, ("READ",)), Right("topic", models, ("WRITE",))],
        "analyst": [Right("topic", topics["alerts"], ("READ",))],
    }
