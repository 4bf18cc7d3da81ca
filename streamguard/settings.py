"""All settings, typed and with their defaults; read from a TOML file and `STREAMGUARD_SECTION_NAME` variables."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec

Count = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0.0, le=86_400.0)]


class SettingsError(ValueError):
    """A setting is unknown or has a value of the wrong kind; the message names it and its source."""


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class Kafka(_Section, frozen=True):
    """Where events come from and incidents go to."""

    bootstrap_servers: str = "127.0.0.1:9092"
    events_topic: str = "security-events"
    alerts_topic: str = "security-alerts"
    dead_letter_topic: str = "security-events-dead-letter"
    partitions: Count = 4
    replication_factor: Count = 1
    events_retention_days: float = 7.0
    """How long Kafka keeps events: the longest that a worker may be down, and what a back-test can reach."""


class Worker(_Section, frozen=True):
    """One worker process of the speed layer."""

    app_id: str = "streamguard"
    instance_id: str = ""
    """Static group membership: a restart within the session time-out moves no partition. Empty: dynamic."""
    data_dir: str = "streamguard-data"
    chunk_events: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1000
    checkpoint_seconds: Seconds = 1.0
    checkpoint_events: Count = 20_000
    resident_profiles: Count = 65_536
    """Profiles held in memory by this worker, shared among its partitions (3.6 KB each)."""
    block_cache_mb: int = 64
    """Memory for stored profiles read from disk, shared among partitions; unflushed writes take half as much again."""
    session_timeout_seconds: Seconds = 10.0
    metrics_host: str = "127.0.0.1"
    metrics_port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 9464
    registry: str = ""
    """Directory of the model registry. Empty: the statistical score stands alone."""


class Detection(_Section, frozen=True):
    """What is alerted. Everything else about the score is learned."""

    alert_risk: Annotated[float, msgspec.Meta(ge=0.0, le=100_000.0)] = 75.0
    """Risk from which an event is alerted: 75 is about one in a thousand, 100 one in ten thousand, 150 in a million."""
    incident_gap_seconds: Annotated[float, msgspec.Meta(gt=0.0, le=2_592_000.0)] = 3600.0
    """An entity's alert this long after its last one opens a new incident."""


class Settings(_Section, frozen=True):
    """Every section of the settings file."""

    kafka: Kafka = Kafka()
    worker: Worker = Worker()
    detection: Detection = Detection()


def load(path: str | Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Settings from a TOML file, overridden by the environment.

    Parameters
    ----------
    path
        A TOML file with the sections of `Settings`; None means defaults.
    environ
        Variables named `STREAMGUARD_<SECTION>_<NAME>`; None means the process's own.

    Raises
    ------
    SettingsError
        If a section, a name or a value does not fit; the message says which and where it stands.

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
            raise SettingsError(f"cannot read the settings file {path}: {error.strerror}") from None
        except msgspec.DecodeError as error:
            raise SettingsError(f"{path} is not valid TOML: {error}") from None
        _convert(tree, str(path), strict=True)
    prefix = "STREAMGUARD_"
    for name, value in (os.environ if environ is None else environ).items():
        if not name.startswith(prefix):
            continue
        section, _, field = name.removeprefix(prefix).lower().partition("_")
        if section not in Settings.__struct_fields__ or _SERVICE_LINK.search(name):
            continue
        tree.setdefault(section, {})[field] = value
        _convert({section: {field: value}}, f"the environment variable {name}", strict=False)
    return _convert(tree, "settings", strict=False)


_SERVICE_LINK = re.compile(r"_SERVICE_|(?<!METRICS)_PORT(_|$)")
"""Kubernetes sets such variables for every service: one named `streamguard-worker` must not stop a worker."""


def _convert(tree: dict[str, Any], source: str, *, strict: bool) -> Settings:
    try:
        return msgspec.convert(tree, Settings, strict=strict)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{source}: {error}") from None
