"""`streamguard retrain`: replays history through the fold, trains a forest, reports, and promotes the model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from streamguard.batch.commands.running import disk_errors, require_packages, run
from streamguard.cli import options
from streamguard.errors import ExitCode
from streamguard.settings.schema import Settings

if TYPE_CHECKING:
    from streamguard.batch.job import RetrainOutcome


@click.command()
@options.config
@options.bootstrap_servers
@click.option(
    "--input",
    metavar="FILE|DIR",
    help="An archive, or files of events (JSON lines, CSV, Parquet; `-`: JSON lines from standard input), instead "
    "of Kafka.",
)
@click.option(
    "--since",
    type=options.Limit(),
    help="First record to read: RFC 3339, or PARTITION:OFFSET,...; starts a new history. Times are those of the "
    "record in Kafka, and those of the event in an archive and in files.",
)
@click.option("--until", type=options.Limit(), help="First record to leave out, in the same form.")
@click.option(
    "--max-events", type=click.IntRange(1), help="Maximum number of records; the next run reads the rest."
)
@click.option(
    "--fresh", is_flag=True, help="Start a new history instead of continuing the newest run that fits."
)
@click.option(
    "--algorithm",
    type=click.Choice(["isolation_forest", "kmeans", "both"]),
    default="both",
    show_default=True,
    help="What to train.",
)
@click.option(
    "--engine",
    type=click.Choice(["spark", "local"]),
    help="spark, or local: processes of this machine without Java, with the same results.  [default: spark]",
)
@click.option("--master", help="Spark master.  [default: local[*]]")
@click.option("--output", type=options.Directory(), help="Directory of runs.  [default: streamguard-runs]")
@click.option(
    "--registry", help="Directory of the model registry.  [default: `registry` in the output directory]"
)
@click.option(
    "--every",
    type=options.Duration(1.0, 30 * 86_400.0),
    help="Repeat until stopped, such as every 1h.  [default: batch.every_seconds]",
)
@options.as_json
def command(
    config: Path | None, bootstrap_servers: str | None, input: str | None, since: Any, until: Any,
    max_events: int | None, fresh: bool, algorithm: Any, engine: str | None, master: str | None,
    output: Path | None, registry: str | None,
    every: float | None, as_json: bool,
) -> None:  # fmt: skip
    """Replay history through the fold, train, report, and promote the model if it passes the gate.

    A run continues the newest run over the same topic. Exit codes: 0 if the new model is current, equals the current
    one, or none was requested; 3 if no model was promoted, 65 if the input is missing or differs from the plan, 69 if
    Kafka or Spark is unavailable, 73 if the output or the registry cannot be written, 75 if another retrain is running
    or a damaged batch of the topic has no known end, 78 if settings or registry contradict each other, the topic does
    not exist or a package is missing, 130 after Ctrl-C, 143 after SIGTERM. A series (--every) ends with 0 after either
    signal.
    """
    require_packages("pyarrow", "sklearn", "threadpoolctl", "jinja2")
    from streamguard.batch.job import retrain
    from streamguard.batch.metrics import RetrainMetrics
    from streamguard.batch.planning import Request

    settings = options.read_settings(
        config,
        kafka={"bootstrap_servers": bootstrap_servers},
        batch={"engine": engine, "output": None if output is None else str(output)},
        spark={"master": master},
        models={"registry": registry},
    )
    options.check_master(master, settings.batch.engine)
    if settings.batch.engine == "spark":
        require_packages("pyspark")
    request = Request(input, since, until, max_events, fresh or since is not None, algorithm)
    period = every or settings.batch.every_seconds
    exported = RetrainMetrics(settings, period, lambda text: click.echo(text, err=True))

    def once() -> int:
        with disk_errors(), exported.run() as report:
            outcome = retrain(settings, request, lambda text: click.echo(text, err=as_json))
            report(outcome)
        if request.input is None and outcome.current and outcome.version != outcome.previous:
            _announce(settings, outcome)
        click.echo(msgspec.json.encode(outcome).decode() if as_json else outcome.message)
        return ExitCode.OK if outcome.current or algorithm == "kmeans" else ExitCode.NOT_PROMOTED

    run(once, period, settings.batch.jitter_seconds)


def _announce(settings: Settings, outcome: RetrainOutcome) -> None:
    """Announce the model; if that fails, workers find it when they next check the registry."""
    from streamguard.kafka.announcements import AnnounceError, announce

    assert outcome.version is not None
    try:
        announce(settings, outcome.version, outcome.previous)
    except AnnounceError as error:
        click.echo(str(error), err=True)
