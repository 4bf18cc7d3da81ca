"""`streamguard incidents ack|close|undo`, and all commands by which people act, on a server or straight on Kafka."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import click

from streamguard.errors import DataError
from streamguard.serving.commands.acting import ME, Done, acted, acting, bounded, desk_of, each
from streamguard.serving.commands.incident_mute import mute
from streamguard.serving.commands.incident_notes import assign, comment, snooze
from streamguard.serving.commands.source import ids_named
from streamguard.serving.commands.terminal import fitted, moment, terminal_width
from streamguard.serving.decisions.record import MAX_NAME, MAX_TEXT, Classification
from streamguard.serving.query.requests import ActionRequest


@click.command()
@acting
@click.option(
    "--assign",
    default="",
    metavar="me|NAME",
    help="Assign the incidents, too; `me`: to you, as actions name you.",
)
@click.option("--comment", default="", help="A text below the incidents.")
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
def ack(
    config: Path | None, bootstrap_servers: str | None, server: str | None, key_file: Path | None, as_json: bool,
    assign: str, comment: str, ids: tuple[str, ...],
) -> None:  # fmt: skip
    """Acknowledge the incidents ID...: you look at them, and other people see that.

    \b
    Examples:
      streamguard incidents ack 3-48120-18c2f0a1b40 --assign me
      streamguard incidents ack 3-48120-18c2f0a1b40 2-53355-1a224c57732 --comment "asked the team"
      streamguard incidents list --user ann --json | jq -r .id | xargs streamguard incidents ack
    """
    bounded("--assign", assign, MAX_NAME)
    bounded("--comment", comment, MAX_TEXT)
    with desk_of(config, bootstrap_servers, server, key_file) as (_, desk):
        assignee = desk.me() if assign == ME else assign

        def act(id: str) -> Done:
            done = acted(desk, id, ActionRequest(kind="acknowledge", assignee=assignee))
            if comment.strip():
                text = acted(desk, id, ActionRequest(kind="comment", text=comment))
                done = Done(done.action, text.token, text.incident)
            return done

        each(ids, act, as_json)


@click.command()
@acting
@click.option(
    "--as",
    "classification",
    type=click.Choice(get_args(Classification)),
    required=True,
    help="What the incidents were.",
)
@click.option("--reason", required=True, help="Why, for other people.")
@click.option("--duplicate-of", default="", metavar="ID", help="The incident that a duplicate repeats.")
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
def close(
    config: Path | None, bootstrap_servers: str | None, server: str | None, key_file: Path | None, as_json: bool,
    classification: Classification, reason: str, duplicate_of: str, ids: tuple[str, ...],
) -> None:  # fmt: skip
    """Close the incidents ID...: say what they were, and why. One that grows beyond what it was is new again.

    Closing does not change detection; `streamguard decide expected` does.

    \b
    Examples:
      streamguard incidents close 3-48120-18c2f0a1b40 --as false_positive --reason "new office"
      streamguard incidents close 3-48120-18c2f0a1b40 --as duplicate --duplicate-of 2-7-18c2f0a1b40 --reason same
    """
    if (classification == "duplicate") != bool(duplicate_of):
        raise click.UsageError(
            "--duplicate-of names the other incident of --as duplicate: give both or neither"
        )
    bounded("--reason", reason, MAX_TEXT)
    wanted = ActionRequest(
        kind="close", classification=classification, duplicate_of=duplicate_of, reason=reason
    )
    with desk_of(config, bootstrap_servers, server, key_file) as (_, desk):
        each(ids, lambda id: acted(desk, id, wanted), as_json)


@click.command()
@acting
@click.option("--action", default="", metavar="ACTION", help="Id of the action.  [default: the last one]")
@click.option("--reason", default="", help="Why, for other people.")
@click.argument("id")
def undo(
    config: Path | None, bootstrap_servers: str | None, server: str | None, key_file: Path | None, as_json: bool,
    action: str, reason: str, id: str,
) -> None:  # fmt: skip
    """Remove an action on the incident ID, as if it had not been done; it stays in the history.

    \b
    Examples:
      streamguard incidents undo 3-48120-18c2f0a1b40
      streamguard incidents undo 3-48120-18c2f0a1b40 --action 064491f71e2616a5f745e3b5 --reason "wrong incident"
    """
    bounded("--reason", reason, MAX_TEXT)
    with desk_of(config, bootstrap_servers, server, key_file) as (source, desk):
        with ids_named():
            found = source.questions.incident(id)
        done = [
            one
            for one in found.case.history
            if not one.rejected and not one.undone_by and one.kind != "undo" and action in ("", one.id)
        ]
        if not done:
            which = f"the action {action[:100]!r}" if action else "any action"
            raise DataError(
                f"the incident {id[:100]!r} does not have {which} that could be undone: `streamguard incidents show` "
                "lists what people did"
            )
        last = done[-1]
        click.echo(
            fitted(f"undoing {last.kind} of {last.by} at {moment(last.at)} UTC", terminal_width()), err=True
        )
        wanted = ActionRequest(
            kind="undo",
            undoes=last.id,
            reason=reason,
            seen=found.row.alerts,
            expected=found.case.last_action,
        )
        each((id,), lambda id: acted(desk, id, wanted), as_json)


VERBS = (ack, assign, comment, snooze, mute, close, undo)
