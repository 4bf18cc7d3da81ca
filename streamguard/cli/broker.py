"""`streamguard broker`: runs a one-node Apache Kafka until Ctrl-C."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import click

from streamguard.errors import CannotWriteError
from streamguard.testing.broker import KAFKA, LocalKafka


@click.command()
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=9092,
    show_default=True,
    help="Port of the broker; 0 chooses a free port.",
)
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory for the broker's data.  [default: a temporary directory]",
)
@click.option("--print-servers", is_flag=True, help="Print only the bootstrap servers.")
def command(port: int, data: Path | None, print_servers: bool) -> None:
    """Run a one-node Apache Kafka on this machine until Ctrl-C or SIGTERM."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if data is not None:
            data.mkdir(parents=True, exist_ok=True)
        if not KAFKA.directory.is_dir():
            click.echo(f"Downloading {KAFKA.title} (44 MB, only once) ...", err=True)
        with LocalKafka(data, port or None) as kafka:
            ready = f"{KAFKA.title} is ready at {kafka.bootstrap_servers}; Ctrl-C stops it."
            click.echo(kafka.bootstrap_servers if print_servers else ready)
            while True:
                kafka.check()
                time.sleep(0.5)
    except KeyboardInterrupt:
        return
    except OSError as error:
        raise CannotWriteError(
            f"cannot run a broker with its data in {data or 'a temporary directory'}: {error.strerror};"
            " choose another directory with --data"
        ) from None
