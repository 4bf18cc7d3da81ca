"""`streamguard worker`: scores events from Kafka and publishes incidents."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from streamguard.cli import options
from streamguard.errors import StreamGuardError


@click.command()
@options.config
@options.bootstrap_servers
@click.option("--data-dir", help="Directory of this worker's state; each worker needs its own.")
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    help="Port of /metrics, /healthz and /readyz; 0 selects any free port.",
)
@click.option("--registry", help="Directory of the model registry.")
@options.log_format
def command(
    config: Path | None, bootstrap_servers: str | None, data_dir: str | None, metrics_port: int | None,
    registry: str | None, log_format: str,
) -> None:  # fmt: skip
    """Score events from Kafka and publish incidents, until SIGTERM or Ctrl-C.

    Exit codes: 0 after SIGTERM or Ctrl-C (all folded events are in a checkpoint), 69 if no broker answers, 70 on an
    unexpected error, 73 if the state cannot be written to disk, 75 if another process has taken over a partition, 78 if
    settings, topics and stored state contradict each other. The last line of the log has the reason and the code.
    """
    from streamguard import logs

    try:
        settings = options.read_settings(
            config,
            kafka={"bootstrap_servers": bootstrap_servers},
            worker={"data_dir": data_dir, "metrics_port": metrics_port},
            models={"registry": registry},
        )
    except StreamGuardError as error:
        logs.last_line(error, log_format)
        sys.exit(error.exit_code)
    logs.configure(log_format)
    from streamguard.agents.process import worker

    sys.exit(worker.run(settings))
