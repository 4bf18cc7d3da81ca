"""`streamguard incidents mute`: hides an incident and others like it, after it has shown how many that are."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from streamguard.alerts.incident import rfc3339
from streamguard.cli import options
from streamguard.events.event_time import epoch_ms
from streamguard.serving.commands.acting import acted, acting, bounded, desk_of, each
from streamguard.serving.commands.source import ids_named
from streamguard.serving.commands.terminal import moment, terminal_width, wrapped
from streamguard.serving.decisions.mute import MARGIN_BITS
from streamguard.serving.decisions.record import MAX_TEXT
from streamguard.serving.query.answers import IncidentAnswer
from streamguard.serving.query.mutes import MutePreview
from streamguard.serving.query.requests import ActionRequest

MAX_MUTE_SECONDS = 366 * 86_400.0


@click.command()
@acting
@click.option("--until", type=options.Time(), help="Event time at which the mute ends, such as 2026-12-31.")
@click.option(
    "--for",
    "seconds",
    type=options.Duration(60.0, MAX_MUTE_SECONDS),
    help="How long it lasts from now, or from the latest alert if that is later, such as 7d.",
)
@click.option("--reason", required=True, help="Why, for other people.")
@click.option("--yes", is_flag=True, help="Mute without asking.")
@click.argument("id")
def mute(
    config: Path | None, bootstrap_servers: str | None, server: str | None, key_file: Path | None, as_json: bool,
    until: int | None, seconds: float | None, reason: str, yes: bool, id: str,
) -> None:  # fmt: skip
    """Hide the incident ID, and others of the same entity that are like it, for a time.

    The command shows how many incidents of the last 30 days the mute hides, and asks. Stronger evidence, another strong
    reason or another pattern makes an incident visible again. A mute does not change detection.

    \b
    Examples:
      streamguard incidents mute 3-48120-18c2f0a1b40 --for 7d --reason "backup job, ticket 812"
      streamguard incidents mute 3-48120-18c2f0a1b40 --until 2026-12-31 --reason "audit" --yes
    """
    if (until is None) == (seconds is None):
        raise click.UsageError("give the end of the mute: either --until or --for")
    bounded("--reason", reason, MAX_TEXT)
    if not yes and not _interactive():
        raise click.UsageError(
            "mute asks before it hides incidents, and standard input is not a terminal: give --yes"
        )
    with desk_of(config, bootstrap_servers, server, key_file) as (source, desk):
        with ids_named():
            found = source.questions.incident(id)
        latest = epoch_ms(found.row.last_seen) or 0
        end = max(latest, round(time.time() * 1000)) + round(seconds * 1000) if seconds else until or 0
        if end <= latest:
            raise click.UsageError(
                f"the latest alert of the incident was at {moment(found.row.last_seen)} UTC: give a later end"
            )
        preview = desk.preview_mute(id, rfc3339(end))
        for line in preview_lines(found, preview, terminal_width()):
            click.echo(line, err=True)
        if not yes:
            click.confirm("Mute it?", abort=True, err=True)
        wanted = ActionRequest(
            kind="mute",
            until=preview.until,
            reason=reason,
            seen=found.row.alerts,
            expected=found.case.last_action,
        )
        each((id,), lambda id: acted(desk, id, wanted), as_json)


def preview_lines(found: IncidentAnswer, preview: MutePreview, width: int) -> list[str]:
    """What a mute hides, for a person who is about to confirm it."""
    name = f"{found.row.entity.kind} {found.row.entity.value}"
    others = [id for id in preview.incidents if id != found.row.id]
    lines = [
        *wrapped(f"{found.row.id}  {name}", width, ""),
        *wrapped(f"A mute until {moment(preview.until)} UTC {preview.message}.", width),
    ]
    if others:
        more = preview.hidden - 1 - len(others)
        lines += wrapped(
            f"Also hidden: {', '.join(others)}{f' and {more:,} more' if more > 0 else ''}", width
        )
    lines += wrapped(
        f"More than {MARGIN_BITS:g} bits above its {found.row.evidence_bits:.1f}, another strong reason or another "
        "pattern makes an incident visible again.",
        width,
    )
    return lines


def _interactive() -> bool:
    return sys.stdin.isatty()
