"""`streamguard forget`: deletes what the workers have learned about a user."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from streamguard.cli import options
from streamguard.errors import UnavailableError


@click.command()
@click.argument("user")
@options.config
@options.bootstrap_servers
def command(user: str, config: Path | None, bootstrap_servers: str | None) -> None:
    """Delete the profile of USER from the changelog and, through it, from every worker.

    Workers may run during the deletion. The worker that holds the profile exits with 75 at its next checkpoint;
    after a restart it continues without the profile. A later event of the user creates a new profile.

    Exit codes: 0 if the profile is deleted or the user has none, 69 if Kafka is unavailable, 78 if settings and
    topics contradict each other.
    """
    from aiokafka.errors import KafkaError

    from streamguard.agents.errors import translated
    from streamguard.agents.task.erase import erase
    from streamguard.kafka import topics

    if not user:
        raise click.BadParameter(
            "the name is empty: give the user name that the events carry", param_hint="USER"
        )
    try:
        user.encode()
    except UnicodeEncodeError:
        raise click.BadParameter("the name is not UTF-8", param_hint="USER") from None
    settings = options.read_settings(config, kafka={"bootstrap_servers": bootstrap_servers})
    topics.require(settings)
    try:
        found = asyncio.run(erase(settings, user))
    except KafkaError as error:
        raise translated(error) or UnavailableError(
            f"Kafka rejected a request: {error}; check that the brokers answer and that this user has the access "
            "rights of a worker, which `streamguard topics acls worker` prints"
        ) from None
    if not found:
        click.echo("no profile found for this user")
        return
    where = ", ".join(map(str, found))
    click.echo(
        f"the profile is deleted from the changelog, {'partition' if len(found) == 1 else 'partitions'} {where}; the "
        "worker that holds it in memory exits with 75 at its next checkpoint: start that worker again\n"
        "events, incidents and dead letters remain until the retention of their topics ends, runs and archives until "
        "you delete them: see docs/security.md"
    )
