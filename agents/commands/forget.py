"""`streamguard forget`: deletes what the workers have learned, and what was decided, about a user, and incidents."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import click

from streamguard.cli import options
from streamguard.errors import UnavailableError
from streamguard.text import counted

if TYPE_CHECKING:
    from streamguard.agents.task.erase import Erased
    from streamguard.agents.task.forget_incidents import ForgottenIncidents


@click.command()
@click.argument("user")
@options.config
@options.bootstrap_servers
def command(user: str, config: Path | None, bootstrap_servers: str | None) -> None:
    """Delete the profile of USER, decisions about USER, and the incidents of USER from what servers show.

    The profile is deleted from the changelog and so from every worker. Incidents stay in the alerts topic until its
    retention ends, but every server drops those that were published so far, and does not read them again.

    The state of `streamguard sources` is searched, too, if there is one. Workers and sources processes may run during
    the deletion. The one that holds the profile exits with 75 at its next checkpoint; after a restart it continues
    without the profile. A later event of the user creates a new profile.

    Exit codes: 0 if the user is deleted or unknown, 69 if Kafka is unavailable, 78 if settings and
    topics contradict each other.
    """
    from aiokafka.errors import KafkaError

    from streamguard.agents.errors import translated
    from streamguard.agents.task.erase import erase
    from streamguard.agents.task.forget_incidents import forget_incidents
    from streamguard.kafka import topics
    from streamguard.settings.sources import of_sources

    if not user:
        raise click.BadParameter(
            "the name is empty: give the user name that the events carry", param_hint="USER"
        )
    try:
        user.encode()
    except UnicodeEncodeError:
        raise click.BadParameter("the name is not UTF-8", param_hint="USER") from None
    settings = options.read_settings(config, kafka={"bootstrap_servers": bootstrap_servers})
    topics.require(settings, topics.WORKER_ROLES)
    folds = {"": settings}
    if settings.kafka.forwards and topics.exists(settings, topics.names(settings)["sources_changelog"]):
        folds[" of the sources process"] = of_sources(settings)
    erased = {}
    for whose, fold in folds.items():
        try:
            erased[whose] = asyncio.run(erase(fold, user))
        except KafkaError as error:
            part = "sources" if fold.kafka.folds_sources else "worker"
            raise translated(error) or UnavailableError(
                f"Kafka rejected a request: {error}; check that the brokers answer and that this user has the access "
                f"rights that `streamguard topics acls {part}` prints"
            ) from None
    click.echo(_of_state(erased))
    # What was done so far is said before anything else can fail; the command may be repeated.
    dropped = forget_incidents(settings, user)
    click.echo(_of_incidents(dropped))
    if any(erased.values()):
        click.echo(
            "the worker that holds the partition in memory exits with 75 at its next checkpoint: start that worker "
            "again"
        )
    if any(erased.values()) or any(dropped or ()):
        click.echo(
            "events, forwarded events, incidents, dead letters and the records of decisions in the events "
            "topic remain until the retention of their topics ends, runs and archives until you delete them: see "
            "docs/security.md"
        )


def _of_state(erased: dict[str, list[Erased]]) -> str:
    """What was deleted from each state."""
    lines = []
    for whose, found in erased.items():
        for what, partitions in (
            ("the profile is", [one.partition for one in found if one.profile]),
            ("decisions about the user are", [one.partition for one in found if one.decisions]),
        ):
            if partitions:
                noun = "partition" if len(partitions) == 1 else "partitions"
                numbers = ", ".join(map(str, partitions))
                lines.append(f"{what} deleted from the changelog{whose}, {noun} {numbers}")
    return "\n".join(lines) or "no profile found for this user"


def _of_incidents(dropped: ForgottenIncidents | None) -> str:
    """What servers do not show any more."""
    if dropped is None:
        return (
            "the topic of decisions does not exist: without it no server shows incidents, and `streamguard campaigns` "
            "does not know whom to leave out. If that runs, run `streamguard topics create`, then this command again"
        )
    if not any(dropped):
        return "no incident of this user is shown by servers"
    text = (
        f"{counted(dropped.incidents, 'incident')} of the user dropped from every server, "
        f"{counted(dropped.deleted, 'record')} of decisions deleted"
    )
    if not dropped.kept:
        return text
    return f"{text}; {counted(dropped.kept, 'record')} about other incidents, too, kept for these"
