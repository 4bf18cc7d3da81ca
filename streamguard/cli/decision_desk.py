"""What `streamguard decide` works with: the incidents to choose from, the preview, and the signed record."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec

from streamguard.alerts.incident import Incident, decode
from streamguard.cli import options
from streamguard.decisions.choice import Chosen, chosen_of, decision_about
from streamguard.decisions.preview import preview
from streamguard.decisions.signing import HEADER, Binding
from streamguard.decisions.values import canonical
from streamguard.errors import ConfigurationError, DataError
from streamguard.events.decision import Decision
from streamguard.history.partitioner import partition_of
from streamguard.kafka import control
from streamguard.kafka.connection import Brokers
from streamguard.kafka.topics import names
from streamguard.models.key import key_of
from streamguard.settings.schema import Settings

_NO_KEY = (
    "decisions are signed, but there is no signing key: create one with `openssl rand -out FILE 32`, set "
    "models.key_file to it here, for every worker and for retrain, sign the models with it too (docs/security.md), and "
    "restart the workers"
)


class Desk:
    """Settings, events topic and key of one command, and the incidents, which are read once if they are needed.

    Raises
    ------
    ConfigurationError
        If there is no signing key.
    UnavailableError, TopicsMismatchError
        If Kafka does not answer, or has no such topic.
    """

    def __init__(self, config: Path | None, bootstrap_servers: str | None) -> None:
        self.settings: Settings = options.read_settings(
            config, kafka={"bootstrap_servers": bootstrap_servers}
        )
        self._brokers = Brokers.of(self.settings)
        self._topic = names(self.settings)["events"]
        key = key_of(self.settings.models)
        if key is None:
            raise ConfigurationError(_NO_KEY)
        topic_id, self._partitions = control.described(self._brokers, self._topic)
        self._binding = Binding(self._topic, topic_id, key)
        self._read: list[Incident] | None = None

    def _incidents(self) -> list[Incident]:
        if self._read is None:
            self._read = list(_readable(control.values(self._brokers, self.settings.kafka.alerts_topic)))
        return self._read

    def chosen(
        self,
        incident: str | None,
        user: str | None,
        field: str | None,
        value: str | None,
        partition: int | None,
    ) -> Chosen:
        """What the decision is about."""
        if (incident is None) == (user is None):
            raise click.UsageError("give either the id of an incident, or --user, --field and --value")
        if incident is not None:
            return self._of_incident(incident, field, value, partition)
        if not (user and field and value):
            raise click.UsageError("give --user, --field and --value; none of them is empty")
        at = partition if partition is not None else partition_of(user.encode(), self._partitions)
        now = int(datetime.now(UTC).timestamp() * 1000)
        return Chosen(user, field, canonical(field, value), at, now, "")

    def _of_incident(self, name: str, field: str | None, value: str | None, partition: int | None) -> Chosen:
        found = [one for one in self._incidents() if one.id == name]
        if not found:
            raise DataError(
                f"{self.settings.kafka.alerts_topic} has no incident {name[:100]!r}: copy the `id` of an incident, or "
                "give --user, --field and --value if it has expired"
            )
        latest = found[-1]
        chosen = chosen_of(latest, field, value)
        return chosen if partition is None else msgspec.structs.replace(chosen, partition=partition)

    def decide(self, found: Chosen, kind: str, until: int, reason: str, yes: bool) -> None:
        """Show what the decision would have changed, ask, and write it."""
        if not found.value:
            raise DataError(f"the value is not a {found.field}: write it as an incident shows it")
        if not 0 <= found.partition < self._partitions:
            raise DataError(
                f"{self._topic} has no partition {found.partition}, only 0 to {self._partitions - 1}"
            )
        made = decision_about(found, kind, until, reason, person())
        if not yes:
            end = f" until {datetime.fromtimestamp(until / 1000, UTC):%Y-%m-%d %H:%M} UTC" if until else ""
            seen = preview(self._incidents(), found.user, found.field, found.value)
            click.echo(f"{found.field} {found.value} of {found.user}: {kind}{end}")
            click.echo(seen.message(kind, found.user, found.field, found.value))
        self.confirm(f"the partition {found.partition} of {self._topic} gets the decision", yes)
        self.write(made)

    def confirm(self, what: str, yes: bool) -> None:
        """Ask unless --yes is given; without an answer the command ends with 1."""
        if not yes:
            click.confirm(f"{what}; write it?", abort=True)

    def write(self, made: Decision) -> None:
        """Sign and write a decision, and print its id and its place."""
        body, partition = made.encoded(), made.partition
        if partition >= self._partitions:
            raise DataError(f"{self._topic} has no partition {partition}, only 0 to {self._partitions - 1}")
        header = (HEADER, self._binding.header(made, partition, body))
        key = made.user.encode() if made.user else None
        offset = control.write(self._brokers, self._topic, partition, key, body, header)
        click.echo(f"{made.id} is written to partition {partition} of {self._topic} at offset {offset}")
        if made.user:
            click.echo(f"to end it: streamguard decide revoke {made.id}")


def _readable(records: Iterator[bytes]) -> Iterator[Incident]:
    for record in records:
        try:
            yield decode(record)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue  # not an incident of this version


def person() -> str:
    """Name of the user of this machine who decides, for other people."""
    try:
        return getpass.getuser()[:256]
    except (OSError, KeyError):  # a container may have no name for its user
        return ""
