"""`streamguard models`: what is in the registry, what is current, and how that changes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from streamguard.models import gate
from streamguard.models.manifest import ArtifactError, Manifest
from streamguard.models.registry import Registry
from streamguard.settings import Settings, SettingsError, load

MOST_DRIFTS = 10
"""Features in the table of `diff`; --json has all."""


@click.group()
def command() -> None:
    """List, check, compare and promote the forests of a registry."""


def _of_registry(function: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--json", "as_json", is_flag=True, help="As JSON."),
        click.option(
            "--config", type=click.Path(dir_okay=False, path_type=Path), help="Settings file (TOML)."
        ),
        click.option(
            "--registry",
            type=click.Path(file_okay=False),
            help="Directory of the registry.  [default: models.registry of the settings]",
        ),
    ):
        function = option(function)
    return function


_announced = click.option(
    "--announce", is_flag=True, help="Also tell workers through Kafka, so that they look at once."
)


@contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except (ArtifactError, SettingsError) as error:
        raise click.ClickException(str(error)) from None


def _open(registry: str | None, config: Path | None) -> tuple[Registry, Settings]:
    settings = load(config)
    if registry:
        models = msgspec.structs.replace(settings.models, registry=registry)
        settings = msgspec.structs.replace(settings, models=models)
    if not settings.models.registry:
        raise click.UsageError("no registry: give --registry, or set models.registry in the settings")
    return Registry.of(settings.models), settings


def _tell(value: object, text: str, as_json: bool) -> None:
    click.echo(msgspec.json.encode(value).decode() if as_json else text)


@command.command("list")
@_of_registry
def list_(registry: str | None, config: Path | None, as_json: bool) -> None:
    """All versions, the latest first."""
    with _failures():
        versions, _ = _open(registry, config)
        current = versions.current()
        found = sorted(
            (_summary(versions, version, current) for version in versions.versions()),
            key=lambda one: one["created"],
            reverse=True,
        )
    lines = [f"  {'VERSION':12}  {'CREATED':20}  {'ROWS':>9}  {'TREES':>5}  GATE"]
    for one in found:
        mark = "*" if one["current"] else " "
        rows = "-" if one["rows"] is None else f"{one['rows']:,}"
        trees = "-" if one["trees"] is None else f"{one['trees']}"
        lines.append(
            f"{mark} {one['version']:12}  {one['created']:20}  {rows:>9}  {trees:>5}  "
            + (f"damaged: {one['damaged']}" if one["damaged"] else _passed(one["gate"]))
        )
    lines.append("" if current else "no version is current: `streamguard models promote VERSION`")
    _tell(found, "\n".join(lines).rstrip() if found else "no versions", as_json)


def _summary(versions: Registry, version: str, current: str | None) -> dict[str, Any]:
    one: dict[str, Any] = dict.fromkeys(("rows", "trees", "gate", "damaged"))
    one |= {"version": version, "current": version == current, "created": "-"}
    try:
        about, metrics = versions.manifest(version), versions.metrics(version)
    except ArtifactError as error:
        return one | {"damaged": str(error)}
    judgement = metrics.get(gate.JUDGEMENT)
    return one | {
        "created": _created(versions, about),
        "rows": about.origin.rows,
        "trees": about.origin.parameters.get("trees"),
        "gate": bool(judgement["passed"]) if isinstance(judgement, dict) and "passed" in judgement else None,
    }


def _created(versions: Registry, about: Manifest) -> str:
    if about.origin.created:
        return about.origin.created[:19] + "Z"
    return datetime.fromtimestamp(versions.published(about.version), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _passed(verdict: bool | None) -> str:
    return "-" if verdict is None else "passed" if verdict else "refused"


@command.command()
@click.argument("version", required=False)
@_of_registry
def show(version: str | None, registry: str | None, config: Path | None, as_json: bool) -> None:
    """What VERSION (the current one, if left out) was made of, and what was measured of it."""
    with _failures():
        versions, _ = _open(registry, config)
        current = versions.current()
        version = version or current
        if version is None:
            raise ArtifactError("no version is current: name one")
        about, metrics = versions.manifest(version), versions.metrics(version)
    lines = [
        f"version     {version}" + (" (current)" if version == current else ""),
        f"created     {_created(versions, about)}",
        f"rows        {about.origin.rows:,}",
        f"parameters  {_flat(about.origin.parameters)}",
        f"offsets     {_flat(about.origin.offsets)}",
        f"signed      {'yes' if about.hmac else 'no'}",
    ]
    lines += [f"file        {name}, {file.size:,} bytes, {file.sha256}" for name, file in about.files.items()]
    judgement = metrics.get(gate.JUDGEMENT)
    if isinstance(judgement, dict):
        lines.append(f"gate        {_passed(judgement.get('passed'))}")
        lines += [
            f"            {'ok     ' if check['passed'] else 'refused'}  {check['says']}"
            for check in judgement.get("checks", [])
        ]
    rest = {k: v for k, v in metrics.items() if k not in (gate.JUDGEMENT, gate.DISTRIBUTION)}
    lines += [f"metric      {name}: {msgspec.json.encode(value).decode()}" for name, value in rest.items()]
    _tell({"manifest": about, "metrics": metrics, "current": version == current}, "\n".join(lines), as_json)


def _flat(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{k} {msgspec.json.encode(v).decode()}" for k, v in sorted(values.items())) or "-"


@command.command()
@click.argument("version")
@_announced
@_of_registry
def promote(version: str, announce: bool, registry: str | None, config: Path | None, as_json: bool) -> None:
    """Make VERSION current, after every check of its files; what the gate said of it is not asked."""
    with _failures():
        versions, settings = _open(registry, config)
        before = versions.current()
        versions.promote(version)
    _moved(before, version, settings, announce, as_json)


@command.command()
@_announced
@_of_registry
def rollback(announce: bool, registry: str | None, config: Path | None, as_json: bool) -> None:
    """Make that version current again which was so before; once more goes further back."""
    with _failures():
        versions, settings = _open(registry, config)
        before = versions.current()
        version = versions.rollback()
    _moved(before, version, settings, announce, as_json)


def _moved(before: str | None, version: str, settings: Settings, announce: bool, as_json: bool) -> None:
    text = (
        f"{version} is current already" if before == version else f"current: {before or 'none'} -> {version}"
    )
    _tell({"current": version, "before": before}, text, as_json)
    if announce:
        from batch.announce import AnnounceError
        from batch.announce import announce as tell

        try:
            tell(settings, version, before)
        except AnnounceError as error:
            raise click.ClickException(str(error)) from None


@command.command()
@click.argument("version", required=False)
@_of_registry
def verify(version: str | None, registry: str | None, config: Path | None, as_json: bool) -> None:
    """Read VERSION, or all of them, with every check a worker makes; exit code 1 if one does not stand."""
    with _failures():
        versions, _ = _open(registry, config)
        wrong: dict[str, str | None] = {}
        for one in [version] if version else versions.versions():
            try:
                versions.load(one)
                wrong[one] = None
            except ArtifactError as error:
                wrong[one] = str(error)
    lines = [f"{one}  {reason or 'ok'}" for one, reason in wrong.items()]
    found = [{"version": one, "ok": reason is None, "reason": reason} for one, reason in wrong.items()]
    _tell(found, "\n".join(lines) or "no versions", as_json)
    if any(wrong.values()):
        sys.exit(1)


@command.command()
@click.argument("first")
@click.argument("second")
@_of_registry
def diff(first: str, second: str, registry: str | None, config: Path | None, as_json: bool) -> None:
    """What SECOND has otherwise than FIRST, and how its training rows moved."""
    with _failures():
        versions, _ = _open(registry, config)
        sides = [(versions.manifest(version), versions.metrics(version)) for version in (first, second)]
    changed = {}
    told = [
        {"rows": about.origin.rows}
        | {f"parameters.{name}": value for name, value in about.origin.parameters.items()}
        | {f"offsets.{name}": value for name, value in about.origin.offsets.items()}
        | {f"files.{name}": file.sha256[:12] for name, file in about.files.items()}
        | dict(_measures(metrics))
        for about, metrics in sides
    ]
    for name in sorted(told[0].keys() | told[1].keys()):
        values = [side.get(name) for side in told]
        if values[0] != values[1]:
            changed[name] = values
    before, now = (metrics.get(gate.DISTRIBUTION) for _, metrics in sides)
    moved = gate.drift(before, now) if before and now else None
    lines = [f"{name}: {_short(a)} -> {_short(b)}" for name, (a, b) in changed.items()] or ["no difference"]
    if moved is None:
        lines.append("drift: one of them has no distribution of its training rows")
    else:
        worst = sorted(moved.items(), key=lambda item: -item[1])[:MOST_DRIFTS]
        lines.append("drift of the training rows (population stability index):")
        lines += [f"  {name:24} {index:8.3f}" for name, index in worst]
    _tell({"first": first, "second": second, "changed": changed, "drift": moved}, "\n".join(lines), as_json)


def _measures(metrics: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in metrics.items():
        if name == gate.JUDGEMENT and isinstance(value, dict):
            yield "gate.passed", value.get("passed")
            for check in value.get("checks", []):
                yield f"gate.{check['name']}", round(check["value"], 4)
        elif name != gate.DISTRIBUTION:
            yield f"metrics.{name}", value


def _short(value: object) -> str:
    return "-" if value is None else msgspec.json.encode(value).decode()
