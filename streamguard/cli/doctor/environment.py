"""Check of environment variables: which one sets which setting. Values are not printed: one may be a secret."""

from __future__ import annotations

import os
from collections.abc import Iterator

from streamguard.cli.doctor.finding import Finding, ok, warn
from streamguard.settings.load import is_service_link
from streamguard.settings.schema import Settings
from streamguard.testing import failpoints

_PREFIX = "STREAMGUARD_"
_OTHERS = {"STREAMGUARD_TAG"}
"""Variables of docker-compose.yml that are not settings."""


def variables() -> Iterator[Finding]:
    """List variables that override settings, variables that crash a worker on purpose, and ignored variables."""
    names = sorted(name for name in os.environ if name.startswith(_PREFIX))
    overriding = {name: setting for name in names if (setting := _setting(name))}
    if overriding:
        pairs = ", ".join(f"{name} ({setting})" for name, setting in overriding.items())
        yield ok("environment", f"variables that override the settings file: {pairs}")
    else:
        yield ok("environment", "no variable overrides a setting")
    if failpoints.VARIABLE in names:
        yield warn("environment", f"{failpoints.VARIABLE} crashes a worker on purpose", "unset the variable")
    ignored = [
        name
        for name in names
        if name not in {*overriding, *_OTHERS, failpoints.VARIABLE}
        and not is_service_link(name, os.environ[name])
    ]
    if ignored:
        yield warn(
            "environment",
            f"{', '.join(ignored)}: ignored, because no setting has this name",
            "name the variable STREAMGUARD_<SECTION>_<NAME> after a setting, or unset it",
        )


def _setting(variable: str) -> str | None:
    """The setting that a variable overrides; None if there is no such setting.

    Examples
    --------
    >>> _setting("STREAMGUARD_WORKER_DATA_DIR")
    'worker.data_dir'
    >>> _setting("STREAMGUARD_WROKER_DATA_DIR")
    """
    section, _, name = variable.removeprefix(_PREFIX).lower().partition("_")
    known = getattr(Settings(), section, None)
    return f"{section}.{name}" if known is not None and name in known.__struct_fields__ else None
