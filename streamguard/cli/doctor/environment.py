"""Which environment variables speak for which settings. Values are never told: one may be a secret."""

from __future__ import annotations

import os
from collections.abc import Iterator

from streamguard.cli.doctor.finding import Finding, ok, warn
from streamguard.settings.load import is_service_link
from streamguard.settings.schema import Settings
from streamguard.testing import failpoints

_PREFIX = "STREAMGUARD_"
_OTHERS = {"STREAMGUARD_TAG"}
"""Of docker-compose.yml."""


def variables() -> Iterator[Finding]:
    """Name those that count, those that end a worker on purpose, and those that look as if they counted."""
    names = sorted(name for name in os.environ if name.startswith(_PREFIX))
    speaking = {name: setting for name in names if (setting := _setting(name))}
    if speaking:
        told = ", ".join(f"{name} ({setting})" for name, setting in speaking.items())
        yield ok("environment", f"set in place of the settings file: {told}")
    else:
        yield ok("environment", "no variable overrides a setting")
    if failpoints.VARIABLE in names:
        yield warn("environment", f"{failpoints.VARIABLE} makes a worker crash on purpose", "unset it")
    ignored = [
        name
        for name in names
        if name not in {*speaking, *_OTHERS, failpoints.VARIABLE}
        and not is_service_link(name, os.environ[name])
    ]
    if ignored:
        yield warn(
            "environment",
            f"{', '.join(ignored)}: no such setting, ignored",
            "name it STREAMGUARD_<SECTION>_<NAME> after a setting, or unset it",
        )


def _setting(variable: str) -> str | None:
    """The setting that a variable stands for.

    Examples
    --------
    >>> _setting("STREAMGUARD_WORKER_DATA_DIR")
    'worker.data_dir'
    >>> _setting("STREAMGUARD_WROKER_DATA_DIR")
    """
    section, _, name = variable.removeprefix(_PREFIX).lower().partition("_")
    known = getattr(Settings(), section, None)
    return f"{section}.{name}" if known is not None and name in known.__struct_fields__ else None
