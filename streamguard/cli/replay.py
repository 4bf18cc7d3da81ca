"""`streamguard replay`: scores a file of events and prints the incidents."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from streamguard.alerts.verdict import SEVERITIES
from streamguard.cli import options, source
from streamguard.errors import CannotWriteError, ExitCode
from streamguard.fold import features
from streamguard.history.replay import Replay
from streamguard.models import artifact
from streamguard.models.forest import Forest
from streamguard.models.key import key_of
from streamguard.models.registry import Registry
from streamguard.settings.schema import Models
from streamguard.text import printable

MAX_CHARACTERS_SHOWN = 100
"""Characters of a value in the table; --json has all."""


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
    text = _lines(incidents) if as_json else table(incidents[: top or None], len(incidents))
    if output is None:
        click.echo(text, nl=False)
    else:
        try:
            output.write_text(text, encoding="utf-8")
        except OSError as error:
            raise CannotWriteError(f"cannot write {output}: {error.strerror}") from None
    click.echo(f"{replay.events:,} events, {len(incidents):,} incidents, {rows.refused()}", err=True)
    if fail_on and any(SEVERITIES.index(i["severity"]) >= SEVERITIES.index(fail_on) for i in incidents):
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


def _lines(incidents: Sequence[dict[str, Any]]) -> str:
    return "".join(msgspec.json.encode(incident).decode() + "\n" for incident in incidents)


def table(incidents: Sequence[dict[str, Any]], total: int) -> str:
    """Incidents for a reader: a line each, with patterns and reasons beneath."""
    if not total:
        return "no incidents\n"
    who = [f"{i['entity']['kind']} {i['entity']['value']}" for i in incidents]
    width = max(len("WHO"), *(min(len(name), 40) for name in who))
    lines = [
        f"{'RISK':>5}  {'SEVERITY':8}  {'EVENTS':>6}  {'FIRST SEEN':19}  {'LAST SEEN':19}  "
        f"{'WHO':{width}}  TECHNIQUE"
    ]
    for incident, name in zip(incidents, who, strict=True):
        seen = [incident[key][:19].replace("T", " ") for key in ("first_seen", "last_seen")]
        lines.append(
            f"{incident['risk']:5.1f}  {incident['severity']:8}  {incident['count']:6,}  "
            f"{seen[0]}  {seen[1]}  {name:{width}}  {incident['technique'] or '-'}"
        )
        lines += [
            f"         {pattern['name'].replace('_', ' ')}: {pattern['description']}"
            for pattern in incident["patterns"]
        ]
        lines += [
            f"         {reason['feature'].replace('_', ' ')}: {_cut(reason['actual'])}; "
            f"usual: {_cut(reason['typical'])} ({reason['bits']:.0f} bits, {reason['share']:.0%})"
            for reason in incident["reasons"]
        ]
    if total > len(incidents):
        lines.append(f"... and {total - len(incidents):,} more: --top 0 shows all, --json too")
    return "".join(printable(line) + "\n" for line in lines)


def _cut(text: str) -> str:
    return (
        text
        if len(text) <= MAX_CHARACTERS_SHOWN
        else text[: MAX_CHARACTERS_SHOWN - 1] + "\N{HORIZONTAL ELLIPSIS}"
    )
