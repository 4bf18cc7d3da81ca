"""`streamguard retrain`: history through the same fold, a forest, a report, and a model that passes the gate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from streamguard.cli.batch_options import Directory, Limit, Period, check_master, failures, run
from streamguard.cli.chosen import Ended, chosen
from streamguard.exit_codes import MISFIT
from streamguard.settings import Settings, SettingsError

if TYPE_CHECKING:
    from batch.job import Outcome

NOT_PROMOTED = 3


@click.command()
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help="Settings file (TOML).")
@click.option("--bootstrap-servers", help="Kafka brokers, host:port[,host:port].")
@click.option(
    "--input",
    metavar="FILE|DIR",
    help="An archive, or files of events (JSON lines, CSV, Parquet; `-`: JSON lines from standard input), instead "
    "of Kafka.",
)
@click.option(
    "--since",
    type=Limit(),
    help="First record: RFC 3339, or PARTITION:OFFSET,...; begins anew. "
    "Times are a record's own on Kafka, the event's in an archive and files.",
)
@click.option("--until", type=Limit(), help="First record left out, likewise.")
@click.option("--max-events", type=click.IntRange(1), help="Records at the most; the rest is the next run's.")
@click.option("--fresh", is_flag=True, help="Begin anew instead of going on from the newest run that fits.")
@click.option(
    "--algorithm",
    type=click.Choice(["isolation_forest", "kmeans", "both"]),
    default="both",
    show_default=True,
)
@click.option("--engine", type=click.Choice(["spark", "local"]), help="[default: spark]")
@click.option("--master", help="Of Spark.  [default: local[*]]")
@click.option("--output", type=Directory(), help="Directory of runs.  [default: streamguard-runs]")
@click.option("--registry", help="Directory of the model registry.  [default: `registry` in the output]")
@click.option(
    "--every",
    type=Period(),
    help="Again and again, such as every 1h, until stopped.  [default: batch.every_seconds]",
)
@click.option("--json", "as_json", is_flag=True, help="What it came to as a JSON object on standard output.")
def command(
    config: Path | None, bootstrap_servers: str | None, input: str | None, since: Any, until: Any,
    max_events: int | None, fresh: bool, algorithm: Any, engine: str | None, master: str | None,
    output: Path | None, registry: str | None,
    every: float | None, as_json: bool,
) -> None:  # fmt: skip
    """Replay history through the fold, train, report, and promote the model if it passes the gate.

    Goes on from where the newest run over the same topic ended. Ends with 0 if the new model is current now or the
    current one is the same, or none was asked for; 3 if none was promoted, 65 if what should be read is not there,
    69 if Kafka or Spark is not to be had, 73 if the output cannot be written, 75 if another retrain is at work, 78
    if settings or registry do not fit.
    """
    from batch.job import retrain
    from batch.metrics import Exported
    from batch.request import Request

    settings = chosen(
        config,
        kafka={"bootstrap_servers": bootstrap_servers},
        batch={"engine": engine, "output": None if output is None else str(output)},
        spark={"master": master},
        models={"registry": registry},
    )
    if settings.clusters.engine == "sklearn":
        check_master(master, settings.batch.engine)
    request = Request(input, since, until, max_events, fresh or since is not None, algorithm)

    period = every or settings.batch.every_seconds
    try:
        exported = Exported(settings, period, lambda text: click.echo(text, err=True))
    except SettingsError as error:
        raise Ended(str(error), MISFIT) from None

    def once() -> int:
        with failures(), exported.run() as told:
            outcome = retrain(settings, request, lambda text: click.echo(text, err=as_json))
            told(outcome)
        if request.input is None and outcome.current and outcome.version != outcome.previous:
            _announce(settings, outcome)
        click.echo(msgspec.json.encode(outcome).decode() if as_json else outcome.says)
        return 0 if outcome.current or algorithm == "kmeans" else NOT_PROMOTED

    run(once, period, settings.batch.jitter_seconds)


def _announce(settings: Settings, outcome: Outcome) -> None:
    """Tell workers at once; where that fails, they see it a little later."""
    from batch.announce import AnnounceError, announce

    assert outcome.version is not None
    try:
        announce(settings, outcome.version, outcome.previous)
    except AnnounceError as error:
        click.echo(str(error), err=True)
