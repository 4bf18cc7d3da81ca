"""`streamguard forget`: deletes what the workers have learned about a user."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from streamguard.cli.chosen import Ended, chosen
from streamguard.exit_codes import MISFIT, UNAVAILABLE


@click.command()
@click.argument("user")
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help="Settings file (TOML).")
@click.option("--bootstrap-servers", help="Kafka brokers, host:port[,host:port].")
def command(user: str, config: Path | None, bootstrap_servers: str | None) -> None:
    """Delete the profile of USER from the changelog and, from there, from every worker.

    Workers may run: the one that has the profile ends with 75 when it saves next, has to be started again, and goes
    on without it. An event of that user that comes later begins a new profile. Ends with 0 also if nobody of that
    name has a profile, 69 if Kafka is not to be had, 78 if settings and topics do not fit.
    """
    from aiokafka.errors import KafkaError

    from agents import topics
    from agents.exits import WorkerError
    from agents.forget import forget

    if not user:
        raise click.BadParameter("it is empty", param_hint="USER")
    try:
        user.encode()
    except UnicodeEncodeError:
        raise click.BadParameter("the name is not UTF-8", param_hint="USER") from None
    settings = chosen(config, kafka={"bootstrap_servers": bootstrap_servers})
    try:
        if problems := topics.check(settings):
            raise Ended("; ".join(problems), MISFIT)
        found = asyncio.run(forget(settings, user))
    except topics.TopicsError as error:
        raise Ended(str(error), UNAVAILABLE) from None
    except WorkerError as error:
        raise Ended(str(error), error.code) from None
    except KafkaError as error:
        refusal = f"Kafka refuses: {error}; this command needs a worker's rights, see `streamguard topics acls worker`"
        raise Ended(refusal, UNAVAILABLE) from None
    if not found:
        click.echo("nobody of that name has a profile")
        return
    where = ", ".join(map(str, found))
    click.echo(
        f"the profile is deleted from the changelog, partition {where}; a worker that has it in memory ends with 75 "
        "when it saves next\n"
        "events, incidents and dead letters stay for as long as their topics keep them, runs and archives until they "
        "are deleted: see docs/security.md"
    )
