"""Decisions that change detection, made by a running `streamguard serve`: previewed, signed and written by it."""

from __future__ import annotations

from urllib.parse import quote, urlencode

import click

from streamguard.serving.commands.from_server import Server, incident_path
from streamguard.serving.commands.source import ids_named
from streamguard.serving.commands.terminal import moment, terminal_width, wrapped
from streamguard.serving.decisions.record import new_id
from streamguard.serving.query.detection import DetectionAnswer, DetectionPreview, DetectionRequest
from streamguard.text import printable


class ServerDecisions:
    """Decides with the key of a server, about values of its incidents.

    Parameters
    ----------
    address, key
        See `Connection`.
    """

    def __init__(self, address: str, key: str) -> None:
        self._server = Server(address, key)

    def decide(self, incident: str, wanted: DetectionRequest, yes: bool) -> None:
        """Show what the decision would have changed, ask, and let the server write it.

        Raises
        ------
        StreamGuardError
            If the server refuses it, or has no signing key.
        """
        path = f"{incident_path(incident)}/detection"
        if not yes:
            asked = {"decision": wanted.decision, "value": wanted.value}
            if wanted.field is not None:
                asked["field"] = wanted.field
            with ids_named():
                seen = self._server.ask(f"{path}?{urlencode(asked)}", DetectionPreview)
            end = wanted.until or (f"{moment(seen.until)} UTC" if seen.until else "")
            about = (
                f"{seen.field} {seen.value} of {seen.user}: {seen.decision}{f' until {end}' if end else ''}"
            )
            for line in (*wrapped(about, terminal_width(), ""), *wrapped(seen.message, terminal_width(), "")):
                click.echo(line)
            click.confirm(f"{printable(self._server.address)} gets the decision; write it?", abort=True)
        with ids_named():
            made = self._server.written(path, DetectionAnswer, wanted, new_id(), incident)
        self._print(made)
        server = printable(self._server.address)
        click.echo(f"to end it: streamguard decide revoke {printable(made.id)} --server {server}")

    def revoke(self, decision: str, reason: str, yes: bool) -> None:
        """Ask, and let the server end a decision."""
        if not yes:
            click.confirm(f"the decision {printable(decision[:100])} ends; write it?", abort=True)
        asked = f"?{urlencode({'reason': reason})}" if reason else ""
        path = f"/v1/detection/{quote(decision, safe='')}/revoke{asked}"
        self._print(self._server.ask(path, DetectionAnswer, {}, new_id()))

    def _print(self, made: DetectionAnswer) -> None:
        place = f"partition {made.partition} of {made.topic} at offset {made.offset}"
        click.echo(printable(f"{made.id} is written to {place}"))
