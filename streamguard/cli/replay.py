"""`streamguard replay`: scores a file of events and prints the incidents."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import msgspec

from streamguard.alerts.incident import encode
from streamguard.campaigns.budget import Decision, decide
from streamguard.campaigns.campaign import Campaign, campaigns
from streamguard.cli import options, source
from streamguard.cli.campaign_text import table as campaign_table
from streamguard.cli.incident_text import table
from streamguard.errors import ExitCode
from streamguard.events import refusals
from streamguard.files.disk import cannot_write
from streamguard.fold import features
from streamguard.history.replay import Replay
from streamguard.models import artifact
from streamguard.models.forest import Forest
from streamguard.models.key import key_of
from streamguard.models.registry import Registry
from streamguard.risk import SEVERITIES
from streamguard.settings.schema import Models
from streamguard.text import counted


@click.command()
@source.source_options
@click.option("--json", "as_json", is_flag=True, help="Print all incidents as JSON lines.")
@click.option(
    "--top",
    type=click.IntRange(0),
    default=20,
    show_default=True,
    help="Maximum number of rows in the table; 0 prints all.",
)
@click.option(
    "--campaigns",
    "by_campaign",
    is_flag=True,
    help="Print one row for each campaign: the incidents of one attack, who was tried, and who was entered.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write instead of standard output; .json and .jsonl imply --json.",
)
@click.option(
    "--fail-on",
    type=click.Choice(SEVERITIES),
    help="Exit with 1 if an incident has this severity or a higher one.",
)
@click.option("--model", type=click.Path(file_okay=False), help="Directory of the forest to score with.")
@click.option(
    "--registry",
    type=click.Path(file_okay=False),
    help="Directory of a registry; its current forest scores the events.",
)
def command(
    file: str, format: str | None, mapped: tuple[tuple[str, str], ...], partitions: int, config: Path | None,
    as_json: bool, top: int, by_campaign: bool, output: Path | None, fail_on: str | None,
    model: str | None, registry: str | None,
) -> None:  # fmt: skip
    """Score the events of FILE as a worker scores a topic, and print the incidents, worst first.

    FILE is JSON lines (.jsonl), CSV with a line of column names, or Parquet; - reads standard input. Events are
    read in the order of the file. Rows that are not valid events are counted on standard error, and the first of
    them are printed there.

    Exit codes: 1 if --fail-on finds an incident, 65 if the input cannot be read, 73 if the output cannot be
    written, 78 if the settings or the model cannot be used.
    """
    if model and registry:
        raise click.UsageError("--model and --registry both select a forest: give only one of them")
    settings = options.read_settings(config)
    forest = _forest(model, registry, settings.models)
    replay = Replay(partitions, detection=settings.detection, forest=forest)
    rows = source.Source(file, format, mapped)
    for batch in rows:
        replay.feed(batch)
    incidents = replay.incidents()
    as_json = as_json or (output is not None and output.suffix in (".json", ".jsonl"))
    found = None
    if by_campaign:
        found = campaigns(incidents)
        decisions = decide(found)
        text = (
            "".join(_line(one, decisions[one.id]) for one in found)
            if as_json
            else campaign_table(found[: top or None], decisions, len(found))
        )
    elif as_json:
        text = "".join(encode(incident).decode() + "\n" for incident in incidents)
    else:
        text = table(incidents[: top or None], len(incidents))
    if output is None:
        click.echo(text, nl=False)
    else:
        try:
            output.write_text(text, encoding="utf-8")
        except OSError as error:
            raise cannot_write(output, error, "choose another --output") from None
    in_campaigns = "" if found is None else f" in {counted(len(found), 'campaign')}"
    click.echo(
        f"{counted(replay.events, 'event')}, {counted(len(incidents), 'incident')}{in_campaigns}, {rows.refused()}",
        err=True,
    )
    for line in refusals.lines(replay.refusals):
        click.echo(line, err=True)
    if replay.events:
        click.echo(replay.understood.message(), err=True)
    if fail_on and any(SEVERITIES.index(one.severity) >= SEVERITIES.index(fail_on) for one in incidents):
        sys.exit(ExitCode.FOUND)


def _line(campaign: Campaign, decision: Decision) -> str:
    """A campaign with its decision, as a JSON line."""
    document = msgspec.to_builtins(campaign) | {"decision": msgspec.to_builtins(decision)}
    return msgspec.json.encode(document).decode() + "\n"


def _forest(model: str | None, registry: str | None, models: Models) -> Forest | None:
    if model:
        return artifact.load(model, feature_names=features.NAMES, key=key_of(models))
    if registry:
        versions = Registry.of(msgspec.structs.replace(models, registry=registry))
        current = versions.current()
        if current is None:
            raise artifact.ArtifactError(
                f"{registry}: the registry has no current version; promote one with `streamguard models promote`,"
                " or train one with `streamguard retrain`"
            )
        return versions.load(current)
    return None
