"""`streamguard models`: lists, shows, verifies and compares the registry's versions, and moves its pointer."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import msgspec

from streamguard.cli import options
from streamguard.cli.suggestions import SuggestingGroup
from streamguard.errors import ExitCode
from streamguard.models import gate
from streamguard.models.gate import Judgement
from streamguard.models.listing import ListedVersion, listed, moment
from streamguard.models.manifest import ArtifactError, Manifest, events_until
from streamguard.models.pointer import VERSION
from streamguard.models.registry import Registry
from streamguard.settings.schema import Settings
from streamguard.text import printable

MAX_DRIFTS = 10
"""Maximum number of features in the table of `diff`; --json prints all features."""


@click.group(cls=SuggestingGroup)
def command() -> None:
    """List, verify, compare and promote the models of a registry."""


def _of_registry(function: Callable[..., None]) -> Callable[..., None]:
    for option in (
        options.as_json,
        options.config,
        click.option(
            "--registry",
            type=click.Path(file_okay=False),
            help="Directory of the model registry.  [default: models.registry of the settings]",
        ),
    ):
        function = option(function)
    return function


_announced = click.option(
    "--announce", is_flag=True, help="Notify workers through Kafka, so that they load the version at once."
)


def _open(registry: str | None, config: Path | None) -> tuple[Registry, Settings]:
    settings = options.read_settings(config, models={"registry": registry or None})
    if not settings.models.registry:
        raise click.UsageError("no registry is set: give --registry, or set models.registry in the settings")
    if not Path(settings.models.registry).is_dir():
        raise ArtifactError(
            f"no registry at {settings.models.registry}: check the path, or run `streamguard retrain` to create it"
        )
    return Registry.of(settings.models), settings


def _print(value: object, text: str, as_json: bool) -> None:
    click.echo(msgspec.json.encode(value).decode() if as_json else printable(text, keep="\n"))


@command.command("list")
@_of_registry
def list_(registry: str | None, config: Path | None, as_json: bool) -> None:
    """List all versions, the latest first."""
    versions, _ = _open(registry, config)
    current = versions.current()
    found = [_summary(one, current) for one in listed(versions)]
    lines = [f"  {'VERSION':12}  {'PUBLISHED':20}  {'EVENTS UNTIL':20}  {'ROWS':>9}  {'TREES':>5}  GATE"]
    for one in found:
        mark = "*" if one["current"] else " "
        rows = "-" if one["rows"] is None else f"{one['rows']:,}"
        trees = "-" if one["trees"] is None else f"{one['trees']}"
        state = f"damaged: {one['damaged']}" if one["damaged"] else _passed(one["gate"])
        times = f"{one['published']:20}  {one['events_until'] or '-':20}"
        lines.append(f"{mark} {one['version']:12}  {times}  {rows:>9}  {trees:>5}  {state}")
    lines.append("" if current else "no version is current: run `streamguard models promote VERSION`")
    _print(found, "\n".join(lines).rstrip() if found else "no versions", as_json)


def _summary(one: ListedVersion, current: str | None) -> dict[str, Any]:
    return {
        "events_until": one.events_until,
        "rows": one.rows,
        "trees": one.trees,
        "gate": None if one.judgement is None else one.judgement.passed,
        "damaged": one.damaged,
        "version": one.version,
        "current": one.version == current,
        "published": "-" if one.published is None else moment(one.published),
    }


def _until(about: Manifest) -> str | None:
    at = events_until(about)
    return None if at is None else moment(at)


def _passed(verdict: bool | None) -> str:
    return "-" if verdict is None else "passed" if verdict else "refused"


@command.command()
@click.argument("version", required=False)
@_of_registry
def show(version: str | None, registry: str | None, config: Path | None, as_json: bool) -> None:
    """Show how VERSION was trained and measured.

    The command prints training data, parameters, metrics and the checks of the gate. Without VERSION it shows the
    current version.
    """
    versions, _ = _open(registry, config)
    current = versions.current()
    version = version or current
    if version is None:
        raise ArtifactError("no version is current: give a VERSION; `streamguard models list` lists them")
    about, metrics = versions.manifest(version), versions.metrics(version)
    judgement, published = versions.judgement(version), versions.published(version)
    withdrawn = version in versions.withdrawn()
    state = " (current)" if version == current else " (withdrawn by a rollback)" if withdrawn else ""
    lines = [
        f"version     {version}{state}",
        f"published   {moment(published)}",
        f"events      until {_until(about) or '-'}",
        f"rows        {about.origin.rows:,}",
        f"parameters  {_flat(about.origin.parameters)}",
        f"offsets     {_flat(about.origin.offsets)}",
        f"signed      {'yes' if about.hmac else 'no'}",
    ]
    lines += [f"file        {name}, {file.size:,} bytes, {file.sha256}" for name, file in about.files.items()]
    if judgement is not None:
        against = f"compared with {judgement.champion}" if judgement.champion else "without a champion"
        lines.append(f"gate        {_passed(judgement.passed)}, {against}")
        lines += [
            f"            {'ok     ' if check.passed else 'refused'}  {check.message}"
            for check in judgement.checks
        ]
        if judgement.uncompared:
            lines.append(f"            not compared: {judgement.uncompared}")
    rest = {k: v for k, v in metrics.items() if k != gate.DISTRIBUTION}
    lines += [f"metric      {name}: {msgspec.json.encode(value).decode()}" for name, value in rest.items()]
    found = {"manifest": about, "metrics": metrics, "judgement": judgement, "current": version == current}
    found["withdrawn"] = withdrawn
    _print(found, "\n".join(lines), as_json)


def _flat(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{k} {msgspec.json.encode(v).decode()}" for k, v in sorted(values.items())) or "-"


@command.command()
@click.argument("version")
@_announced
@_of_registry
def promote(version: str, announce: bool, registry: str | None, config: Path | None, as_json: bool) -> None:
    """Make VERSION current after a complete check of its files.

    The command ignores the verdict of the gate. It also repairs a damaged pointer.
    """
    versions, settings = _open(registry, config)
    before = versions.promote(version)
    _moved(before, version, settings, announce, as_json)


@command.command()
@_announced
@_of_registry
def rollback(announce: bool, registry: str | None, config: Path | None, as_json: bool) -> None:
    """Restore the previously current version.

    Repeat the command to go further back. Retrains never promote a withdrawn version again; use `promote` for
    that.
    """
    versions, settings = _open(registry, config)
    before, version = versions.rollback()
    _moved(before, version, settings, announce, as_json)


def _moved(before: str | None, version: str, settings: Settings, announce: bool, as_json: bool) -> None:
    if before == version:
        text = f"{version} is current already"
    elif before is None or VERSION.fullmatch(before):
        text = f"current: {before or 'none'} -> {version}"
    else:
        text = f"current: {before[:80]!r} (not the name of a version) -> {version}"
        before = None
    _print({"current": version, "before": before}, text, as_json)
    if announce:
        from streamguard.kafka.announcements import announce as announce_promotion

        announce_promotion(settings, version, before)


@command.command()
@click.argument("version", required=False)
@_of_registry
def verify(version: str | None, registry: str | None, config: Path | None, as_json: bool) -> None:
    """Check VERSION as workers, retrains and other commands check it.

    Without VERSION the command checks the pointer and all versions. It exits with 78 if a version fails.
    """
    versions, _ = _open(registry, config)
    wrong: dict[str, str | None] = {}
    current = None if version else versions.current()
    for one in [version] if version else sorted({*versions.versions(), *filter(None, [current])}):
        try:
            versions.load(one)
            _check(versions, one)
            wrong[one] = None
        except ArtifactError as error:
            wrong[one] = str(error)
    lines = [f"{one}  {reason or 'ok'}" for one, reason in wrong.items()]
    found = [{"version": one, "ok": reason is None, "reason": reason} for one, reason in wrong.items()]
    _print(found, "\n".join(lines) or "no versions", as_json)
    if any(wrong.values()):
        sys.exit(ExitCode.CONFIGURATION)


def _check(versions: Registry, version: str) -> None:
    """Check what a retrain and these commands need and loading does not check."""
    about, metrics = versions.manifest(version), versions.metrics(version)
    if about.origin.events_until is not None and events_until(about) is None:
        raise ArtifactError(f"manifest.json: events_until {about.origin.events_until[:80]!r} is not RFC 3339")
    if gate.DISTRIBUTION in metrics and gate.distribution_in(metrics) is None:
        raise ArtifactError(
            f"metrics.json: {gate.DISTRIBUTION} does not have {gate.LEVELS} numbers for each feature, so "
            "challengers are not compared with it"
        )
    versions.judgement(version)


@command.command()
@click.argument("first")
@click.argument("second")
@_of_registry
def diff(first: str, second: str, registry: str | None, config: Path | None, as_json: bool) -> None:
    """Show differences between FIRST and SECOND.

    The command compares parameters, offsets, files, metrics and the verdict of the gate, and measures the drift of
    the training data.
    """
    versions, _ = _open(registry, config)
    sides = [
        (versions.manifest(version), versions.metrics(version), versions.judgement(version))
        for version in (first, second)
    ]
    changed = {}
    described = [
        {"rows": about.origin.rows}
        | {f"parameters.{name}": value for name, value in about.origin.parameters.items()}
        | {f"offsets.{name}": value for name, value in about.origin.offsets.items()}
        | {f"files.{name}": file.sha256[:12] for name, file in about.files.items()}
        | {f"metrics.{name}": value for name, value in metrics.items() if name != gate.DISTRIBUTION}
        | _judged(judgement)
        for about, metrics, judgement in sides
    ]
    for name in sorted(described[0].keys() | described[1].keys()):
        values = [side.get(name) for side in described]
        if values[0] != values[1]:
            changed[name] = values
    before, now = (gate.distribution_in(metrics) for _, metrics, _ in sides)
    moved = gate.drift(before, now) if before and now else None
    lines = [f"{name}: {_short(a)} -> {_short(b)}" for name, (a, b) in changed.items()] or ["no difference"]
    if moved is None:
        lines.append("drift: unknown, because a version has no distribution of its training rows")
    else:
        worst = sorted(moved.items(), key=lambda item: -item[1])[:MAX_DRIFTS]
        lines.append("drift of the training rows (population stability index, PSI):")
        lines += [f"  {name:24} {index:8.3f}" for name, index in worst]
    _print({"first": first, "second": second, "changed": changed, "drift": moved}, "\n".join(lines), as_json)


def _judged(judgement: Judgement | None) -> dict[str, Any]:
    if judgement is None:
        return {}
    return {"gate.passed": judgement.passed} | {
        f"gate.{check.name}": round(check.value, 4) for check in judgement.checks
    }


def _short(value: object) -> str:
    return "-" if value is None else msgspec.json.encode(value).decode()
