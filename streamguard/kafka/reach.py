"""Whether this machine reaches the addresses that the brokers of a cluster advertise to their clients."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

from streamguard.errors import UnavailableError
from streamguard.text import counted

MAX_BROKERS = 16
"""Maximum number of brokers whose addresses are tried."""
_CONNECT_SECONDS = 1.0


class UnreachableError(UnavailableError):
    """A bootstrap server answers, but the addresses of the brokers that it names cannot be reached from here.

    Attributes
    ----------
    found, remedy
        The two halves of the message.
    """

    remedy = (
        "set advertised.listeners of the brokers to addresses that clients can reach, or let this machine resolve and "
        "reach these (DNS, /etc/hosts, firewall)"
    )

    def __init__(self, cluster: Any, unreached: list[str]) -> None:
        asked = str(cluster.orig_broker_name).rpartition("/")[0] or "the bootstrap server"
        self.found = (
            f"Kafka answers at {asked}, but {counted(len(unreached), 'broker')} that it advertises cannot be reached "
            f"from here: {', '.join(unreached)}"
        )
        super().__init__(f"{self.found}: {self.remedy}")


def unreached(cluster: Any) -> Iterator[tuple[int, str]]:
    """Try the address of every broker in the metadata of a cluster.

    Yields
    ------
    (int, str)
        Id of the broker, and why it cannot be reached with its address; the text is empty if it can.
    """
    brokers = sorted(cluster.brokers.values(), key=lambda broker: broker.id)
    for broker in brokers[:MAX_BROKERS]:
        try:
            socket.create_connection((broker.host, broker.port), _CONNECT_SECONDS).close()
        except OSError as error:
            yield broker.id, f"{broker.id} at {broker.host}:{broker.port} ({error.strerror or error})"
        except UnicodeError:  # a label of the name is empty or too long
            yield broker.id, f"{broker.id} at {broker.host}:{broker.port} (not the name of a host)"
        else:
            yield broker.id, ""


def require_one(cluster: Any) -> None:
    """Check that at least one broker can be reached.

    The others may be down for a moment, and Kafka's clients go on without them.

    Raises
    ------
    UnreachableError
        If no broker can be reached; otherwise every request would end with a time-out only.
    """
    failures = []
    for _, failure in unreached(cluster):
        if not failure:
            return
        failures.append(failure)
    if failures:
        raise UnreachableError(cluster, failures)
