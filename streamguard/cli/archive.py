"""`streamguard archive`: a topic's records as decoded Parquet by day and partition, before Kafka forgets them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from streamguard.cli.batch_options import Directory, Limit, Period, check_master, failures, run
from streamguard.cli.chosen import chosen


@click.command()
@click.option(
    "--output",
    type=Directory(),
    required=True,
    help="Directory of the archive.",
)
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help="Settings file (TOML).")
@click.option("--bootstrap-servers", help="Kafka brokers, host:port[,host:port].")
@click.option(
    "--until",
    type=Limit(),
    help="First record left out: RFC 3339 (the record's time), or PARTITION:OFFSET,...",
)
@click.option("--max-events", type=click.IntRange(1), help="Records at the most; the rest is the next run's.")
@click.option("--engine", type=click.Choice(["spark", "local"]), help="[default: spark]")
@click.option("--master", help="Of Spark.  [default: local[*]]")
@click.option(
    "--every", type=Period(), help="Again and again, such as every 1h, until stopped; not by settings."
)
@click.option("--json", "as_json", is_flag=True, help="What it came to as a JSON object on standard output.")
def command(
    output: Path, config: Path | None, bootstrap_servers: str | None, until: Any, max_events: int | None,
    engine: str | None, master: str | None, every: float | None, as_json: bool,
) -> None:  # fmt: skip
    """Append what Kafka has to an archive, each record once; `retrain --input DIR` reads it like the topic.

    Kept are the fields that are scored and the event's id; of records that are no events, their bytes. Ends with
    0 if the archive is up to date, 65 if the topic does not go on where the archive ended, 69 if Kafka or Spark is
    not to be had, 73 if the archive cannot be written, 75 if another run writes to it, 78 if settings do not fit.
    """
    from batch.archive import archive

    settings = chosen(
        config,
        kafka={"bootstrap_servers": bootstrap_servers},
        batch={"engine": engine},
        spark={"master": master},
    )
    check_master(master, settings.batch.engine)

    def once() -> int:
        with failures():
            outcome = archive(
                settings, output, lambda text: click.echo(text, err=as_json), until=until, most=max_events
            )
        click.echo(msgspec.json.encode(outcome).decode() if as_json else outcome.says)
        return 0

    run(once, every or 0.0, settings.batch.jitter_seconds)
