"""The page of the demo: the campaigns process and the server beside the worker, and where to click."""

from __future__ import annotations

import importlib.util
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click

from streamguard.cli.demo.surroundings import environment, variables
from streamguard.errors import StreamGuardError
from streamguard.polling import poll_until
from streamguard.settings.schema import Settings

PATIENCE = 60.0
"""Seconds to wait for the address of the page."""
WHERE = (
    ("/", "what is raised, one row an attack; press ? for the keys"),
    ("/ranking", "users and addresses by risk; a user's page shows what is usual"),
    ("/models", "the model of the retrain, and the users that it marks"),
    ("/v1/docs", "the API"),
)
"""What the closing table says of the page."""


@contextmanager
def page(settings: Settings, directory: Path) -> Iterator[str]:
    """Run the campaigns process and the server; yields the address of the page, empty without the extra `serve`."""
    if importlib.util.find_spec("litestar") is None:
        click.echo("no page: it needs the extra `serve` of StreamGuard")
        yield ""
        return
    environ = environment(settings)
    with ExitStack() as stack:
        common = ["--metrics-port", "0"]
        stack.enter_context(_running("campaigns", common, directory, environ))
        serve = [*common, "--port", "0", "--data-dir", str(directory / "serve")]
        process, out = stack.enter_context(_running("serve", serve, directory, environ))

        def address() -> str:
            if process.poll() is not None:
                raise StreamGuardError(
                    f"the server ended with {process.returncode}:\n{_tail(directory / 'serve.log')}"
                )
            found = re.search(r"^open (\S+)$", out.read_text(), re.MULTILINE)
            return found[1] if found else ""

        yield poll_until(address, PATIENCE, 0.1)


def in_a_terminal(settings: Settings, address: str) -> None:
    """Print the commands that ask and act on the demo from another terminal."""
    click.echo("\n  in another terminal")
    for name, value in variables(settings).items():
        click.echo(f"    export {name}={shlex.quote(value)}")
    server, _, key = address.partition("/sign-in?key=")
    if key:
        click.echo(f"    export STREAMGUARD_SERVE_KEY={shlex.quote(key)}")
        click.echo(f"    streamguard incidents list --server {server}")


@contextmanager
def _running(
    verb: str, arguments: list[str], directory: Path, environ: dict[str, str]
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A process of a command, and the file of its standard output; ended at the end of the demo."""
    out = directory / f"{verb}.out"
    with out.open("wb") as standard, (directory / f"{verb}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "streamguard.cli", verb, *arguments],
            stdout=standard,
            stderr=log,
            env=environ,
        )
    try:
        yield process, out
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-10:])
