"""`streamguard incidents assign|comment|snooze`: who has an incident, what people say of it, and when it rests."""

from __future__ import annotations

import time
from pathlib import Path

import click

from streamguard.alerts.incident import rfc3339
from streamguard.cli import options
from streamguard.events.ending import MAX_SECONDS, MIN_SECONDS
from streamguard.serving.commands.acting import ME, acted, acting, bounded, desk_of, each
from streamguard.serving.commands.terminal import moment
from streamguard.serving.decisions.record import MAX_NAME, MAX_TEXT
from streamguard.serving.query.requests import ActionRequest


@click.command()
@acting
@click.option("--remove", is_flag=True, help="Remove the assignee, instead of naming one.")
@click.argument("id")
@click.argument("person", required=False, default="")
def assign(
    config: Path | None, bootstrap_servers: str | None, server: str | None, key_file: Path | None, as_json: bool,
    remove: bool, id: str, person: str,
) -> None:  # fmt: skip
    """Assign the incident ID to PERSON; `me` is you, as actions name you.

    \b
    Examples:
      streamguard incidents assign 3-48120-18c2f0a1b40 me
      streamguard incidents assign 3-48120-18c2f0a1b40 ben
      streamguard incidents assign 3-48120-18c2f0a1b40 --remove

    Exit codes: those of `streamguard incidents`, and 2 if neither PERSON nor --remove is given, or both.
    """
    if remove == bool(person.strip()):
        raise click.UsageError("give either the PERSON who has the incident from now on, or --remove")
    bounded("PERSON", person, MAX_NAME)
    with desk_of(config, bootstrap_servers, server, key_file) as (_, desk):
        wanted = ActionRequest(kind="assign", assignee=desk.me() if person == ME else person)
        each((id,), lambda id: acted(desk, id, wanted), as_json, "without an assignee" if remove else "")


@click.command()
@acting
@click.argument("id")
@click.argument("text")
def comment(
    config: Path | None, bootstrap_servers: str | None, server: str | None, key_file: Path | None, as_json: bool,
    id: str, text: str,
) -> None:  # fmt: skip
    """Add TEXT below the incident ID, for other people.

    \b
    Examples:
      streamguard incidents comment 3-48120-18c2f0a1b40 "asked the team, ticket 812"
      streamguard incidents comment 3-48120-18c2f0a1b40 "not ours" --server https://guard.example.com --key-file key

    Exit codes: those of `streamguard incidents`, and 2 if TEXT is empty or too long.
    """
    if not text.strip():
        raise click.UsageError("TEXT is empty: write what other people should know")
    bounded("TEXT", text, MAX_TEXT)
    with desk_of(config, bootstrap_servers, server, key_file) as (_, desk):
        wanted = ActionRequest(kind="comment", text=text)
        each((id,), lambda id: acted(desk, id, wanted), as_json, "comment added")


@click.command()
@acting
@click.option("--until", type=options.Time(), help="Time at which notifications begin again.")
@click.option(
    "--for",
    "seconds",
    type=options.Duration(MIN_SECONDS, MAX_SECONDS),
    help="How long it lasts from now, such as 12h.",
)
@click.option("--reason", default="", help="Why, for other people.")
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
def snooze(
    config: Path | None, bootstrap_servers: str | None, server: str | None, key_file: Path | None, as_json: bool,
    until: int | None, seconds: float | None, reason: str, ids: tuple[str, ...],
) -> None:  # fmt: skip
    """Stop notifications of the incidents ID... until a time. Lists show them all the same; `mute` hides one.

    \b
    Examples:
      streamguard incidents snooze 3-48120-18c2f0a1b40 --for 12h --reason "waiting for the owner"
      streamguard incidents snooze 3-48120-18c2f0a1b40 2-53355-1a224c57732 --until 2026-12-31

    Exit codes: those of `streamguard incidents`, and 2 if the end is missing, has passed, or is given twice.
    """
    if (until is None) == (seconds is None):
        raise click.UsageError("give the end of the snooze: either --until or --for")
    bounded("--reason", reason, MAX_TEXT)
    now = round(time.time() * 1000)
    end = now + round(seconds * 1000) if seconds else until or 0
    if end <= now:
        raise click.UsageError(f"--until {rfc3339(end)} has passed: give a later time, or --for")
    wanted = ActionRequest(kind="snooze", until=rfc3339(end), reason=reason)
    with desk_of(config, bootstrap_servers, server, key_file) as (_, desk):
        each(ids, lambda id: acted(desk, id, wanted), as_json, f"snoozed until {moment(wanted.until)} UTC")
