"""Loads settings from a TOML file and from `STREAMGUARD_<SECTION>_<NAME>` variables, and explains invalid ones."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from streamguard.settings.schema import Settings, SettingsError

NO_SETTINGS = frozenset({"STREAMGUARD_SERVE_KEY"})
"""Variables of the environment that look like a setting and are none: the access key with which `streamguard incidents`
asks a server is a secret, and settings contain no secrets."""


def load(path: str | Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Settings from a TOML file, overridden by the environment.

    Parameters
    ----------
    path
        Path of a TOML file with the sections of `Settings`; None means defaults.
    environ
        Environment with variables named `STREAMGUARD_<SECTION>_<NAME>`; None means the environment of the process.

    Raises
    ------
    SettingsError
        If a section, a name or a value is not valid; the message contains it and its place.

    Examples
    --------
    >>> load(environ={"STREAMGUARD_WORKER_CHUNK_EVENTS": "500"}).worker.chunk_events
    500
    """
    tree: dict[str, Any] = {}
    if path is not None:
        try:
            tree = msgspec.toml.decode(Path(path).read_bytes())
        except OSError as error:
            raise SettingsError(
                f"cannot read the settings file {path}: {error.strerror}; give the path of a TOML file "
                "that this user can read"
            ) from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise SettingsError(f"{path} is not valid TOML: {error}") from None
        except RecursionError:
            raise SettingsError(f"{path} is nested too deeply: settings are sections with values") from None
        _convert(tree, str(path), strict=True)
    prefix = "STREAMGUARD_"
    for name, value in (os.environ if environ is None else environ).items():
        if not name.startswith(prefix):
            continue
        section, _, field = name.removeprefix(prefix).lower().partition("_")
        if name in NO_SETTINGS or is_service_link(name, value):
            continue
        if section not in Settings.__struct_fields__:
            if near := _near(section, Settings.__struct_fields__):
                raise SettingsError(f"the environment variable {name}: there is no section {section!r}{near}")
            continue
        tree.setdefault(section, {})[field] = value
        _convert({section: {field: value}}, f"the environment variable {name}", strict=False)
    return _convert(tree, "settings", strict=False)


def override(settings: Settings, **sections: Mapping[str, Any]) -> Settings:
    """Settings with the values of the command line, by section. None means that the option was not given.

    Raises
    ------
    SettingsError
        If a value is not valid.

    Examples
    --------
    >>> override(Settings(), worker={"chunk_events": 500, "data_dir": None}).worker.chunk_events
    500
    """
    tree: dict[str, Any] = msgspec.to_builtins(settings)
    for section, given in sections.items():
        tree[section] |= {name: value for name, value in given.items() if value is not None}
    return _convert(tree, "the command line", strict=False)


_SERVICE_LINK = re.compile(
    r"(_SERVICE_HOST|_SERVICE_PORT(_\w+)?|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)\Z"
)


def is_service_link(name: str, value: str) -> bool:
    """Whether Kubernetes set this variable for a service, such as one named `streamguard-worker`.

    Such a variable must not stop a worker.

    Examples
    --------
    >>> is_service_link("STREAMGUARD_WORKER_METRICS_PORT", "tcp://10.0.0.7:9464")
    True
    >>> is_service_link("STREAMGUARD_WORKER_METRICS_PORT", "9464")
    False
    """
    address = name.endswith("_PORT") and value.startswith(("tcp://", "udp://", "sctp://"))
    return address or _SERVICE_LINK.search(name) is not None


def _convert(tree: dict[str, Any], source: str, *, strict: bool) -> Settings:
    try:
        settings = msgspec.convert(tree, Settings, strict=strict)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{source}: {_plain(str(error))}") from None
    if settings.kafka.folds_sources:
        raise SettingsError(
            f"{source}: kafka.sources_topic is the events topic {settings.kafka.events_topic!r}: give it another name, "
            "or set it to an empty text, which forwards nothing"
        )
    return settings


RENAMED = {
    "gate.most_trimmed": "gate.max_trimmed",
    "gate.least_rows": "gate.min_rows",
    "gate.most_alert_ratio": "gate.max_alert_ratio",
    "gate.least_overlap": "gate.min_overlap",
    "gate.most_drift": "gate.max_drift",
    "gate.least_injected_auc": "gate.min_injected_auc",
    "clusters.most_groups": "clusters.max_groups",
    "sampling.flagged": "sampling.alerts",
}
"""Old name -> new name of a setting. The error for an old name contains the new one."""

REMOVED = {"clusters.engine": "scikit-learn always finds the peer groups"}
"""Removed settings, each with the reason."""

_UNKNOWN = re.compile(
    r"Object contains unknown field `(?P<name>.*?)`(?: - at `\$\.(?P<section>\w+)`)?", re.DOTALL
)


SCALES = {"detection.alert_risk": "a risk of 80 is one event in ten thousand, of 85.7 one in a million"}
"""Settings on a scale of their own; the error for a wrong value explains it."""

_WRONG_TYPE = re.compile(
    r"Expected `(?P<kind>\w+)`(?P<bound> [<>]=? [\d.]+)?(, got `\w+`)? - at `\$\.(?P<name>[\w.]+)`"
)
_CHECKED = re.compile(r"(?P<text>(?P<section>\w+)\.\w+: .*) - at `\$\.(?P=section)`", re.DOTALL)
"""A value that its section has checked; the text names the setting."""
_KINDS = {
    "int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text in quotation marks",
    "object": "a section",
}  # fmt: skip


def _plain(message: str) -> str:
    """An error message of msgspec, in plain words if a name or the type of a value is wrong."""
    if (value := _WRONG_TYPE.fullmatch(message)) and value["kind"] in _KINDS:
        scale = f": {SCALES[value['name']]}" if value["name"] in SCALES else ""
        return f"{value['name']} must be {_KINDS[value['kind']]}{value['bound'] or ''}{scale}"
    if (checked := _CHECKED.fullmatch(message)) is not None:
        return checked["text"]
    found = _UNKNOWN.fullmatch(message)
    if found is None:
        return message
    name, section = found["name"][:100], found["section"]
    if section is None:
        for known in Settings.__struct_fields__:
            if name in type(getattr(Settings(), known)).__struct_fields__:
                return f"{name!r} is a setting and not a section: write it under [{known}]"
        return f"there is no section {name!r}{_near(name, Settings.__struct_fields__)}"
    setting = f"{section}.{name}"
    if setting in RENAMED:
        return f"{setting} was renamed to {RENAMED[setting]}: use the new name"
    if setting in REMOVED:
        return f"{setting} was removed ({REMOVED[setting]}): delete it"
    known = type(getattr(Settings(), section)).__struct_fields__
    return f"there is no setting {setting}{_near(name, known)}"


def _near(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, 1, 0.7)
    return f"; did you mean {near[0]}?" if near else ""
