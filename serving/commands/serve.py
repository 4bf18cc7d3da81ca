"""`streamguard serve`: the API and the page over incidents, profiles and batch results."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from streamguard.cli import options
from streamguard.errors import ConfigurationError, StreamGuardError


@click.command()
@options.config
@options.bootstrap_servers
@click.option("--host", help="Address of the API and the page.")
@click.option(
    "--port", type=click.IntRange(0, 65535), help="Port of the API and the page; 0 selects any free port."
)
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    help="Port of /metrics, /healthz and /readyz; 0 selects any free port.",
)
@click.option("--data-dir", help="Directory of the projection, which is disposable.")
@click.option(
    "--partitions", help="Partitions whose profiles are held here, such as 0-31; the default is all."
)
@options.log_format
def command(
    config: Path | None,
    bootstrap_servers: str | None,
    host: str | None,
    port: int | None,
    metrics_port: int | None,
    data_dir: str | None,
    partitions: str | None,
    log_format: str,
) -> None:
    """Serve the API and the page until SIGTERM or Ctrl-C.

    The server follows the topics of incidents and campaigns and needs Kafka only: any number of servers run on any
    machine. Without serve.keys_file it prints an address with a key, which is valid for a day.

    \b
    Examples:
      streamguard serve
      streamguard serve --port 0 --metrics-port 0 --log-format text
      streamguard serve --partitions 0-31
      streamguard topics acls serve User:serve

    Exit codes: 0 after SIGTERM or Ctrl-C, 70 on an unexpected error, 75 if a port or the data directory is in use, 78
    if the settings contradict each other, or the extra `serve` is not installed. The last line of the log has the
    reason and the code.
    """
    from streamguard import logs

    try:
        settings = options.read_settings(
            config,
            kafka={"bootstrap_servers": bootstrap_servers},
            serve={
                "host": host,
                "port": port,
                "metrics_port": metrics_port,
                "data_dir": data_dir,
                "partitions": partitions,
            },
        )
    except StreamGuardError as error:
        logs.last_line(error, log_format)
        sys.exit(error.exit_code)
    logs.configure(log_format)
    try:
        from streamguard.serving import process
    except ImportError as error:
        missing = ConfigurationError(
            f"`streamguard serve` needs packages that are not installed ({error.name}): install streamguard[serve]"
        )
        logs.last_line(missing, log_format)
        sys.exit(missing.exit_code)
    try:
        sys.exit(process.run(settings))
    except StreamGuardError as error:
        logs.last_line(error, log_format)
        sys.exit(error.exit_code)
