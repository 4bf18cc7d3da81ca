"""`streamguard campaigns`: publishes one record for each attack instead of each incident."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from streamguard.cli import options
from streamguard.errors import StreamGuardError


@click.command()
@options.config
@options.bootstrap_servers
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    help="Port of /metrics, /healthz and /readyz; 0 selects any free port.",
)
@options.log_format
def command(
    config: Path | None, bootstrap_servers: str | None, metrics_port: int | None, log_format: str
) -> None:
    """Put the incidents of one attack into one campaign, and publish it, until SIGTERM or Ctrl-C.

    The process reads the alerts topic from its beginning and needs no disk. One process for each worker.app_id is
    enough: a second one takes over, and the first one ends with 75.

    \b
    Examples:
      streamguard campaigns
      streamguard campaigns --config streamguard.toml --metrics-port 0 --log-format text
      streamguard topics acls campaigns User:campaigns

    Exit codes: 0 after SIGTERM or Ctrl-C, 69 if no broker answers, 70 on an unexpected error, 75 if another process has
    taken over or the metrics port is in use, 78 if settings and topics contradict each other. The last line of the log
    has the reason and the code.
    """
    from streamguard import logs

    try:
        settings = options.read_settings(
            config,
            kafka={"bootstrap_servers": bootstrap_servers},
            campaigns={"metrics_port": metrics_port},
        )
    except StreamGuardError as error:
        logs.last_line(error, log_format)
        sys.exit(error.exit_code)
    logs.configure(log_format)
    from streamguard.agents.campaigns import process

    sys.exit(process.run(settings))
