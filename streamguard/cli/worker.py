"""`streamguard worker`: score events from Kafka and publish incidents."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from streamguard.cli.chosen import chosen


@click.command()
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help="Settings file (TOML).")
@click.option("--bootstrap-servers", help="Kafka brokers, host:port[,host:port].")
@click.option("--data-dir", help="Where this worker keeps its state; each worker needs its own.")
@click.option(
    "--metrics-port", type=click.IntRange(0, 65535), help="Port of /metrics, /healthz and /readyz; 0: any."
)
@click.option("--registry", help="Directory of the model registry.")
@click.option("--log-format", type=click.Choice(["text", "json"]), default="json", show_default=True)
def command(
    config: Path | None,
    bootstrap_servers: str | None,
    data_dir: str | None,
    metrics_port: int | None,
    registry: str | None,
    log_format: str,
) -> None:
    """Score events from Kafka and publish incidents, until SIGTERM.

    Ends with 0 after SIGTERM (everything saved), 69 if no broker answers, 70 on an unexpected error, 75 if
    another worker has taken over, 78 if settings, topics and stored state do not fit together.
    """
    from agents import logs, worker

    settings = chosen(
        config,
        kafka={"bootstrap_servers": bootstrap_servers},
        worker={"data_dir": data_dir, "metrics_port": metrics_port},
        models={"registry": registry},
    )
    logs.configure(log_format)
    sys.exit(worker.run(settings))
