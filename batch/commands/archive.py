"""`streamguard archive`: saves a topic's records as decoded Parquet by day and partition, before Kafka deletes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from streamguard.batch.commands.running import disk_errors, require_packages, run
from streamguard.cli import options
from streamguard.errors import ExitCode


@click.command()
@click.option("--output", type=options.Directory(), required=True, help="Directory of the archive.")
@options.config
@options.bootstrap_servers
@click.option(
    "--until",
    type=options.Limit(),
    help="First record to leave out: RFC 3339 (the record's time), or PARTITION:OFFSET,...",
)
@click.option(
    "--max-events", type=click.IntRange(1), help="Maximum number of records; the next run reads the rest."
)
@click.option(
    "--engine",
    type=click.Choice(["spark", "local"]),
    help="spark, or local: processes of this machine without Java, with the same results.  [default: spark]",
)
@click.option("--master", help="Spark master.  [default: local[*]]")
@click.option(
    "--every",
    type=options.Duration(1.0, 30 * 86_400.0),
    help="Repeat until stopped, such as every 1h. This option has no setting.",
)
@options.as_json
def command(
    output: Path, config: Path | None, bootstrap_servers: str | None, until: Any, max_events: int | None,
    engine: str | None, master: str | None, every: float | None, as_json: bool,
) -> None:  # fmt: skip
    """Append the topic's new records to an archive, each once; `retrain --input DIR` reads it like the topic.

    An archive keeps the fields that are scored and the event's id; of refused records it keeps the bytes, and of a
    batch that cannot be read its offsets and its first bytes. Exit codes: 0 if the archive is up to date, 65 if the
    topic does not continue where the archive ends, 69 if Kafka or Spark is unavailable, 73 if the archive cannot be
    written, 75 if another run writes to it or a damaged batch of the topic has no known end, 78 if settings contradict
    each other, the topic does not exist or a package is missing, 130 after Ctrl-C, 143 after SIGTERM. A series
    (--every) ends with 0 after either signal.
    """
    require_packages("pyarrow")
    from streamguard.batch.archive import archive

    settings = options.read_settings(
        config,
        kafka={"bootstrap_servers": bootstrap_servers},
        batch={"engine": engine},
        spark={"master": master},
    )
    options.check_master(master, settings.batch.engine)
    if settings.batch.engine == "spark":
        require_packages("pyspark")

    def once() -> int:
        with disk_errors():
            outcome = archive(
                settings,
                output,
                lambda text: click.echo(text, err=as_json),
                until=until,
                max_records=max_events,
            )
        click.echo(msgspec.json.encode(outcome).decode() if as_json else outcome.message)
        return ExitCode.OK

    run(once, every or 0.0, settings.batch.jitter_seconds)
