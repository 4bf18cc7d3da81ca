"""The forest of a run: selects its training rows, trains it, judges it by the gate, publishes and promotes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamguard.alerts.incident import rfc3339
from streamguard.batch.folding.fold_result import EventTable
from streamguard.batch.folding.resume import HistoryMetadata
from streamguard.errors import CannotWriteError
from streamguard.models import gate, sampling
from streamguard.models.forest import Forest
from streamguard.models.manifest import ArtifactError, Origin
from streamguard.models.registry import Registry
from streamguard.models.sampling import Selection
from streamguard.models.weight import SEPARATION, Separation
from streamguard.models.weighted_training import train_weighted
from streamguard.runs import report as batch_report
from streamguard.runs.directory import REPORT
from streamguard.settings.schema import Settings

_NEWEST = 0.999
"""Quantile of event times that dates a model: the latest events of a sample may come from wrong clocks."""


@dataclass(frozen=True, slots=True)
class Challenger:
    """A trained forest before the gate's verdict.

    Attributes
    ----------
    rows
        float32 (m, 34): its training rows.
    distribution
        Distribution of these rows, see `streamguard.models.gate.distribution`.
    separation
        Why the forest has its weight.
    """

    forest: Forest
    origin: Origin
    rows: NDArray[np.float32]
    distribution: gate.Distribution
    separation: Separation


@dataclass(frozen=True, slots=True)
class Decision:
    """Verdict of the gate on a challenger, before any promotion.

    Attributes
    ----------
    model
        The model and its checks, for the report.
    trouble
        Error that prevented the publication; None if the challenger was published.
    """

    model: batch_report.Model
    trouble: ArtifactError | CannotWriteError | None = None

    def carry_out(self, registry: Registry) -> tuple[bool, str]:
        """Make the version current if it passed, unless the registry's current version has changed meanwhile.

        Returns
        -------
        current, message
            Whether the version is current now, and the reason in one sentence.

        Raises
        ------
        ArtifactError, CannotWriteError
            If the version could not be published, or the pointer cannot be moved.
        """
        if self.trouble is not None:
            raise self.trouble
        version, previous, message = self.model.version, self.model.previous, self.model.message
        if version == previous:
            if registry.named() == version:
                return True, f"model {version} is already current: the same events give the same forest"
            why = "it was the current version and was replaced during this run"
        elif not self.model.passed:
            why = message
        elif refusal := registry.promote_after(version, previous):
            why = f"it {message}, but {refusal}"
        else:
            return True, f"model {version} {message} and is current now; before: {previous or 'none'}"
        current = registry.named()
        kept = f"{current} remains current" if current else "no model is current"
        return False, (
            f"model {version} was not promoted, {kept}: {why}; to promote it anyway, run "
            f"streamguard models promote {version} --registry {registry.directory}"
        )


def select(sample: EventTable, settings: Settings) -> Selection:
    """Select the quiet events of a sample, at most `sampling.rows_per_user` of each user, ordered by priority."""
    numbers: dict[tuple[int, str], int] = {}
    users = zip(sample.partition.tolist(), sample.user, strict=True)
    return sampling.select(
        np.concatenate([np.empty(0, np.uint64), *_priorities(sample)]),
        np.array([numbers.setdefault(user, len(numbers)) for user in users], np.int64),
        sample.features,
        sample.tail,
        sample.patterns,
        sample.alerted,
        per_user=settings.sampling.rows_per_user,
    )


def _priorities(sample: EventTable) -> list[NDArray[np.uint64]]:
    """Priorities of the rows by partition; the rows are sorted by partition."""
    return [
        sampling.priority(int(p), sample.offset[sample.partition == p]) for p in np.unique(sample.partition)
    ]


def train(
    sample: EventTable, selection: Selection, about: HistoryMetadata, settings: Settings
) -> Challenger | None:
    """Train the forest; None if there are fewer rows than the gate requires.

    The same history and settings give the same artifact to the bit: it stores the time of its newest events, not the
    time of the training.
    """
    rows = sample.features[selection.rows]
    if len(rows) < settings.gate.min_rows:
        return None
    newest = np.quantile(sample.timestamp, _NEWEST, method="lower")
    origin = Origin(
        rows=len(rows),
        parameters=msgspec.to_builtins(settings.training)
        | {"sampling": msgspec.to_builtins(settings.sampling)},
        offsets={str(p): [about.starts[p], about.ends[p]] for p in sorted(about.ends)},
        events_until=rfc3339(int(newest)),
    )
    forest, separation = train_weighted(sample.features, selection, sample.timestamp, settings.training)
    return Challenger(forest, origin, rows, gate.distribution(rows), separation)


def decide(
    challenger: Challenger | None, sample: EventTable, registry: Registry, settings: Settings
) -> Decision | None:
    """Judge the challenger by the gate, and publish it; None without a challenger.

    The published artifact depends on the history and the settings alone. The verdict, which depends on the champion,
    too, is stored beside it. An error of the registry does not fail the run here: `Decision.carry_out` raises it.
    """
    if challenger is None:
        return None
    version, previous = challenger.forest.version, None
    trouble: ArtifactError | CannotWriteError | None = None
    try:
        previous = registry.named()
    except ArtifactError as error:
        trouble = error
    judgement = _judged(challenger, previous, sample, registry, settings)
    message = judgement.message
    try:
        metrics = {
            gate.DISTRIBUTION: challenger.distribution,
            SEPARATION: msgspec.to_builtins(challenger.separation),
        }
        registry.publish(challenger.forest, origin=challenger.origin, metrics=metrics)
        if version != previous or registry.judgement(version) is None:
            registry.judge(version, judgement)
    except (ArtifactError, CannotWriteError) as error:
        trouble, message = error, f"not published: {error}; verdict of the gate: {message}"
    checks = [batch_report.Check(check.name, check.passed, check.message) for check in judgement.checks]
    return Decision(batch_report.Model(version, judgement.passed, previous, message, checks), trouble)


def _judged(
    challenger: Challenger, previous: str | None, sample: EventTable, registry: Registry, settings: Settings
) -> gate.Judgement:
    """Verdict of the gate; a champion that cannot be read or trusted has to be replaced, so it is not compared."""
    champion, before, rows_before, uncompared = None, None, 0, ""
    if previous is not None:
        try:
            champion = registry.load(previous)
            before = gate.distribution_in(registry.metrics(previous))
            rows_before = registry.manifest(previous).origin.rows
        except ArtifactError as error:
            champion, uncompared = None, f"it could not be read: {error}"
    judgement = gate.judge(
        challenger.forest,
        champion,
        gate.Sample(sample.features, sampling.quiet(sample.tail, sample.patterns, sample.alerted)),
        rows=challenger.rows,
        before=before,
        rows_before=rows_before,
        alert_bits=settings.detection.alert_bits,
        limits=settings.gate,
        separation=challenger.separation,
    )
    return msgspec.structs.replace(judgement, champion=previous, uncompared=uncompared)


def drift_since(
    latest: Path | None, challenger: Challenger | None, registry: Registry, say: Callable[[str], None]
) -> dict[str, float] | None:
    """Drift of each feature between the training rows of the last run and of this one; None if either is missing.

    Parameters
    ----------
    say
        Called with the reason if the last run cannot be read.
    """
    if latest is None or challenger is None:
        return None
    try:
        model = batch_report.decode((latest / REPORT).read_bytes()).model
        before = None if model is None else gate.distribution_in(registry.metrics(model.version))
    except (OSError, msgspec.DecodeError, ArtifactError) as error:
        say(f"      no drift since run {latest.name}: its report or its model cannot be read ({error})")
        return None
    return None if before is None else gate.drift(before, challenger.distribution)
