"""`streamguard demo`: the main job on a real Kafka: habits, live traffic, attacks, and the incidents that name them."""

from __future__ import annotations

import sys

import click


@click.command()
@click.option("--seconds", type=click.IntRange(30, 3600), default=75, show_default=True, help="Live traffic.")
@click.option(
    "--rate", type=click.IntRange(100, 20_000), default=1000, show_default=True, help="Live events a second."
)
@click.option("--users", type=click.IntRange(100, 100_000), default=5000, show_default=True)
@click.option("--seed", type=int, default=7, show_default=True)
@click.option("--keep", is_flag=True, help="Leave broker, worker and traffic running until Ctrl-C.")
def command(seconds: int, rate: int, users: int, seed: int, keep: bool) -> None:
    """Start Kafka and a worker, teach it a month of habits, attack, and show what it says.

    Needs nothing installed but Python; Kafka and, if there is none, Java are fetched once. Everything runs on
    this machine's loopback and in a temporary directory, and ends with the command.
    """
    from streamguard.cli.demo.play import play

    try:
        sys.exit(play(seconds=seconds, rate=rate, users=users, seed=seed, keep=keep))
    except KeyboardInterrupt:
        click.echo("stopped")
