"""All checks in order; one that breaks is a finding too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from streamguard.cli import options
from streamguard.cli.doctor import broker, environment, machine, places, ports, registry
from streamguard.cli.doctor.finding import Finding, fail, ok
from streamguard.settings.schema import Settings, SettingsError

Check = Callable[[], Iterator[Finding]]


def examine(config: Path | None, **sections: dict[str, Any]) -> Iterator[Finding]:
    """Every finding, as soon as it is known; parameters as for `options.read_settings`.

    Without valid settings, only what does not depend on them is looked at.
    """
    settings: Settings | None = None
    try:
        settings = options.read_settings(config, **sections)
        yield ok("settings", f"{config} is valid" if config else "no settings file: defaults")
    except SettingsError as error:
        yield fail("settings", str(error), "correct it; until then only the machine is looked at")
    yield from _guarded("environment", environment.variables)
    for name, check in (
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
        ("ports", ports.ports),
        ("broker", broker.kafka),
    ):
        yield from _guarded(name, lambda of=of: of(settings))  # type: ignore[misc]


def _guarded(name: str, check: Check) -> Iterator[Finding]:
    try:
        yield from check()
    except Exception as error:  # noqa: BLE001 - the other checks are worth having
        yield fail(
            name,
            f"could not be looked at: {type(error).__name__}: {error}",
            "this is a gap in streamguard doctor: please report it with this line",
        )
