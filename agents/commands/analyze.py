"""`streamguard analyze`: says of an incident what happened, how sure that is, and what to do next."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from streamguard.cli import options


@click.command()
@options.config
@options.bootstrap_servers
@click.option(
    "--incident", metavar="ID", help="Analyse this incident, from the alerts topic unless --file is given."
)
@click.option(
    "--file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Analyse the incidents of a file that `streamguard replay --json` has written.",
)
@options.as_json
def command(
    config: Path | None, bootstrap_servers: str | None, incident: str | None, file: Path | None, as_json: bool
) -> None:
    """Analyse one incident of the alerts topic, or the incidents of a file, by rules.

    Each sentence names the facts it rests on. Nothing is changed or published. Similar incidents are searched among the
    earlier incidents of a file; an incident of the topic is analysed without them. With --json each analysis is one
    line of JSON.

    \b
    Examples:
      streamguard analyze --incident 3-48120-18c2f0a1b40
      streamguard replay events.jsonl --json > incidents.jsonl
      streamguard analyze --file incidents.jsonl --json

    Exit codes: 65 if the file or the topic does not have the incident, 69 if no broker answers, 75 if Kafka has deleted
    records while they were read, 78 if the settings cannot be used, or if the topic is missing.
    """
    if incident is None and file is None:
        raise click.UsageError("give --incident, --file, or both")
    from streamguard.agents.analyses import incident_topic, incidents_file, words
    from streamguard.analyst.analysis import encode

    if file is not None:
        history = incidents_file.read(file, incident)
    else:
        assert incident is not None
        settings = options.read_settings(config, kafka={"bootstrap_servers": bootstrap_servers})
        history = asyncio.run(incident_topic.read(settings, incident))
    for number, analysis in enumerate(history.analyses(incident)):
        if as_json:
            click.echo(encode(analysis))
            continue
        if number:
            click.echo()
        for line in words.lines(analysis):
            click.echo(line)
