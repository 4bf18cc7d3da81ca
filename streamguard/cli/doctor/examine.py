"""Runs all checks in order; an exception in a check becomes a finding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from streamguard.cli import options
from streamguard.cli.doctor import broker, environment, machine, places, ports, registry, serving
from streamguard.cli.doctor.finding import Finding, fail, ok
from streamguard.settings.schema import Settings, SettingsError

Check = Callable[[], Iterator[Finding]]


def examine(config: Path | None, **sections: dict[str, Any]) -> Iterator[Finding]:
    """Yield every finding as soon as it is known; the parameters are those of `options.read_settings`.

    If the settings are not valid, only checks that do not depend on them run.
    """
    settings: Settings | None = None
    try:
        settings = options.read_settings(config, **sections)
        yield ok("settings", f"{config} is valid" if config else "no settings file: the defaults are used")
    except SettingsError as error:
        yield fail("settings", str(error), "correct the setting; until then only the machine is checked")
    yield from _guarded("environment", environment.variables)
    for name, check in (
        ("host", machine.host),
        ("files", lambda: machine.files(settings)),
        ("python", machine.python),
        ("packages", machine.packages),
        ("java", machine.java),
        ("kernels", machine.kernels),
        ("jars", lambda: machine.jars(settings)),
    ):
        yield from _guarded(name, check)
    if settings is None:
        return
    for name, of in (
        ("disk", places.places),
        ("registry", registry.registry),
        ("serve", serving.serving),
        ("ports", ports.ports),
        ("broker", broker.kafka),
    ):
        yield from _guarded(name, lambda of=of: of(settings))  # type: ignore[misc]


def _guarded(name: str, check: Check) -> Iterator[Finding]:
    try:
        yield from check()
    except Exception as error:  # noqa: BLE001 - the other checks still run
        yield fail(
            name,
            f"the check failed with {type(error).__name__}: {error}",
            "this is a bug in streamguard doctor: please report it with this line",
        )
