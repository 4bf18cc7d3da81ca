"""Says on standard error what a command waits for, if it takes longer than a person expects."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import click

from streamguard.text import printable

QUIET_SECONDS = 2.0
"""How long a command waits before it says so."""


@contextmanager
def slow(what: str, seconds: float = QUIET_SECONDS) -> Iterator[None]:
    """Print `what` once if the work within this context is not done after some seconds."""
    timer = threading.Timer(seconds, lambda: click.echo(f"waiting: {printable(what)}", err=True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
