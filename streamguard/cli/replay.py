"""`streamguard replay`: scores a file of events and prints the incidents."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import msgspec

from streamguard.alerts.incident import encode
from streamguard.alerts.verdict import SEVERITIES
from streamguard.cli import options, source
from streamguard.cli.incident_text import table
from streamguard.errors import CannotWriteError, ExitCode
from streamguard.fold import features
from streamguard.history.replay import Replay
from streamguard.models import artifact
from streamguard.models.forest import Forest
from streamguard.models.key import key_of
from streamguard.models.registry import Registry
from streamguard.settings.schema import Models
from streamguard.text import counted


@click.command()
@source.source_options
@click.option("--json", "as_json", is_flag=True, help="An incident a line, as JSON, all of them.")
@click.option(
    "--top", type=click.IntRange(0), default=20, show_default=True, help="Incidents in the table; 0: all."
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file instead of standard output; .jsonl means --json.",
)
@click.option(
    "--fail-on", type=click.Choice(SEVERITIES), help="Exit code 1 if an incident is as severe or worse."
)
@click.option("--model", type=click.Path(file_okay=False), help="Directory of one forest.")
@click.option(
    "--registry",
    type=click.Path(file_okay=False),
    help="Directory of a registry, whose current forest is used.",
)
def command(
    file: str, format: str | None, mapped: tuple[tuple[str, str], ...], partitions: int, config: Path | None,
    as_json: bool, top: int, output: Path | None, fail_on: str | None,
    model: str | None, registry: str | None,
) -> None:  # fmt: skip
    """Score the events of FILE as a topic's, and print the incidents, worst first.

    FILE is JSON lines (.jsonl), CSV with a line of column names, or Parquet; - is standard input. Events are
    taken in the file's order. Rows that are no events are counted, and the first named, on standard error.

    Exit codes: 1 with --fail-on if there is such an incident, 65 if the input cannot be read, 73 if the output cannot
    be written, 78 if settings or model cannot be used.
    """
    if model and registry:
        raise click.UsageError("--model and --registry both name a forest: give one of them")
    settings = options.read_settings(config)
    forest = _forest(model, registry, settings.models)
    replay = Replay(partitions, detection=settings.detection, forest=forest)
    rows = source.Source(file, format, mapped)
    for batch in rows:
        replay.feed(batch)
    incidents = replay.incidents()
    as_json = as_json or (output is not None and output.suffix in (".json", ".jsonl"))
    lines = (encode(incident).decode() + "\n" for incident in incidents)
    text = "".join(lines) if as_json else table(incidents[: top or None], len(incidents))
    if output is None:
        click.echo(text, nl=False)
    else:
        try:
            output.write_text(text, encoding="utf-8")
        except OSError as error:
            raise CannotWriteError(f"cannot write {output}: {error.strerror}") from None
    click.echo(f"{counted(replay.events, 'event')}, {counted(len(incidents), 'incident')}, {rows.refused()}", err=True)
    if fail_on and any(SEVERITIES.index(one.severity) >= SEVERITIES.index(fail_on) for one in incidents):
        sys.exit(ExitCode.FOUND)


def _forest(model: str | None, registry: str | None, models: Models) -> Forest | None:
    if model:
        return artifact.load(model, feature_names=features.NAMES, key=key_of(models))
    if registry:
        versions = Registry.of(msgspec.structs.replace(models, registry=registry))
        current = versions.current()
        if current is None:
            raise artifact.ArtifactError(f"{registry}: no forest is current there: train and promote one")
        return versions.load(current)
    return None
