"""`streamguard replay`: scores a file of events and prints the ranked list of campaigns and incidents."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import msgspec

from streamguard.alerts.incident import Incident, encode
from streamguard.campaigns.budget import Decision, busy_days, decide
from streamguard.campaigns.campaign import Campaign, campaigns
from streamguard.cli import options, source
from streamguard.cli.campaign_text import table as campaign_table
from streamguard.cli.campaign_text import warning
from streamguard.cli.incident_text import table
from streamguard.errors import ExitCode
from streamguard.events import refusals
from streamguard.files.disk import cannot_write
from streamguard.fold import features
from streamguard.history.decisions import read as read_decisions
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
@click.option("--json", "as_json", is_flag=True, help="Print all rows as JSON lines, by default incidents.")
@click.option(
    "--top",
    type=click.IntRange(0),
    default=20,
    show_default=True,
    help="Maximum number of rows in the table; 0 prints all.",
)
@click.option(
    "--by",
    type=click.Choice(("campaign", "incident")),
    help="What a row is: a campaign, which is the incidents of one attack or a lone incident, with who was tried, who "
    "was entered and whether it is raised to a person; or each incident as a worker publishes it.  [default: campaign "
    "in the table, incident in JSON]",
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
@click.option(
    "--decisions",
    type=click.Path(dir_okay=False, path_type=Path),
    help="JSON lines with decisions and their places, to see what they would have changed: see docs/detection.md.",
)
def command(
    file: str, format: str | None, mapped: tuple[tuple[str, str], ...], partitions: int, config: Path | None,
    as_json: bool, top: int, by: str | None, output: Path | None, fail_on: str | None,
    model: str | None, registry: str | None, decisions: Path | None,
) -> None:  # fmt: skip
    """Score the events of FILE as a worker scores a topic, and print what was found, worst first.

    The table has one row for each campaign, and one for each incident that belongs to none.

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
    made = read_decisions(decisions) if decisions else []
    replay = Replay(partitions, detection=settings.detection, forest=forest, decisions=made)
    rows = source.Source(file, format, mapped)
    for batch in rows:
        replay.feed(batch)
    incidents = replay.incidents()
    as_json = as_json or (output is not None and output.suffix in (".json", ".jsonl"))
    found = campaigns(replay.updates())
    raised_or_not = decide(found, settings.detection.floor_bits)
    by = by or ("incident" if as_json else "campaign")
    if as_json:
        rows_of = {
            "campaign": (_line(one, raised_or_not[one.id]) for one in found),
            "incident": map(_text, incidents),
        }
        text = "".join(rows_of[by])
    elif by == "campaign":
        text = campaign_table(found[: top or None], raised_or_not, len(found))
    else:
        text = table(incidents[: top or None], len(incidents))
    if output is None:
        click.echo(text, nl=False)
    else:
        try:
            output.write_text(text, encoding="utf-8")
        except OSError as error:
            raise cannot_write(output, error, "choose another --output") from None
    raised = sum(decision.raised for decision in raised_or_not.values())
    click.echo(
        f"{counted(replay.events, 'event')}, {counted(len(incidents), 'incident')} in {counted(len(found), 'row')}, "
        f"{raised:,} raised, {rows.refused()}",
        err=True,
    )
    if made:
        click.echo(
            f"{counted(replay.plan.folded, 'decision')} folded, {replay.plan.waiting} not reached", err=True
        )
    days = busy_days(found, raised_or_not, settings.detection.incidents_per_day)
    if too_many := warning(days, settings.detection):
        click.echo(too_many, err=True)
    for line in refusals.lines(replay.refusals):
        click.echo(line, err=True)
    if replay.events:
        click.echo(replay.understood.message(), err=True)
    if fail_on and any(SEVERITIES.index(one.severity) >= SEVERITIES.index(fail_on) for one in incidents):
        sys.exit(ExitCode.FOUND)


def _text(incident: Incident) -> str:
    return encode(incident).decode() + "\n"


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
