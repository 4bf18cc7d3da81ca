"""`streamguard sources`: judges each source address over all partitions of the events topic."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from streamguard.cli import options
from streamguard.errors import StreamGuardError


@click.command()
@options.config
@options.bootstrap_servers
@click.option("--data-dir", help="Directory of this process's state; it uses its subdirectory `sources`.")
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    help="Port of /metrics, /healthz and /readyz; 0 selects any free port.",
)
@options.log_format
def command(
    config: Path | None, bootstrap_servers: str | None, data_dir: str | None, metrics_port: int | None,
    log_format: str,
) -> None:  # fmt: skip
    """Judge each source address over all partitions, and publish its incidents, until SIGTERM or Ctrl-C.

    Events are keyed by user, so the failures of one address, such as a password spray, are spread over the partitions.
    Workers forward failures and logins to the sources topic, keyed by address. This process is a worker that folds that
    topic and publishes the incidents of sources. Several processes share its partitions, as workers do.

    \b
    Examples:
      streamguard sources
      streamguard sources --config streamguard.toml --metrics-port 0 --log-format text
      streamguard topics acls sources User:sources

    Exit codes: those of `streamguard worker`, and 78 if kafka.sources_topic is empty or there is one partition.
    """
    from streamguard import logs
    from streamguard.settings.schema import SettingsError
    from streamguard.settings.sources import of_sources

    try:
        settings = options.read_settings(
            config,
            kafka={"bootstrap_servers": bootstrap_servers},
            worker={"data_dir": data_dir},
            sources={"metrics_port": metrics_port},
        )
        if not settings.kafka.forwards:
            raise SettingsError(
                "nothing is forwarded to a sources topic, because kafka.sources_topic is empty or kafka.partitions is "
                "1: with one partition the workers see every event of a source, and this process is not needed"
            )
    except StreamGuardError as error:
        logs.last_line(error, log_format)
        sys.exit(error.exit_code)
    logs.configure(log_format)
    from streamguard.agents import errors
    from streamguard.agents.process import worker

    errors.Ending.program, errors.Ending.part = "sources process", "sources"
    errors.Ending.kept = "nothing is lost: it folds everything after its last checkpoint again"
    errors.Ending.rivals = "another sources process or `streamguard forget` has taken a partition over"
    sys.exit(worker.run(of_sources(settings)))
