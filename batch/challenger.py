"""The forest of a run: what it is trained on, whether it passes the gate, and its way into the registry."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from batch import report
from batch.plan import About
from batch.runs import REPORT
from batch.staged import Rows
from streamguard.alerts import rfc3339
from streamguard.calibration import RISK_PER_BIT
from streamguard.forest import Forest
from streamguard.models import gate, sampling
from streamguard.models.manifest import ArtifactError, Origin
from streamguard.models.registry import Registry
from streamguard.models.train import train as train_forest
from streamguard.settings import Settings

_NEWEST = 0.999
"""The share of sampled events behind which a wrong clock may be suspected: a model's date is not theirs."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which events of a sample train.

    Attributes
    ----------
    order
        int64 (rows,): indices of the sample's rows, in the order in which they are handed to training.
    calibration
        int64 (m,): indices of the rows whose scores are what is usual.
    trimmed
        Share of the sample that is left out as possible attacks.
    """

    order: NDArray[np.int64]
    calibration: NDArray[np.int64]
    trimmed: float

    def mask(self, rows: int) -> NDArray[np.bool_]:
        """bool (rows,): which rows of the sample train."""
        chosen = np.zeros(rows, bool)
        chosen[self.order] = True
        return chosen


@dataclass(frozen=True, slots=True)
class Challenger:
    """A trained forest that is not judged yet.

    Attributes
    ----------
    rows
        float32 (m, 28), what it was trained on.
    distribution
        Of them, see `streamguard.models.gate.distribution`.
    """

    forest: Forest
    origin: Origin
    rows: NDArray[np.float32]
    distribution: gate.Distribution


def choose(sample: Rows, settings: Settings) -> Chosen:
    """The quiet events of a sample, so many of each user at the most, in the order of their priority."""
    quiet = sampling.quiet(sample.tail, sample.patterns, sample.alerted)
    keys = np.concatenate([np.empty(0, np.uint64), *_priorities(sample)])
    names = np.array(
        [f"{p}:{user}" for p, user in zip(sample.partition.tolist(), sample.user, strict=True)], str
    )
    settled = sampling.settled(sample.features)
    most = settings.sampling.rows_per_user
    return Chosen(
        sampling.training_rows(keys, names, quiet, settled, per_user=most),
        sampling.calibration_rows(keys, names, sample.patterns, sample.alerted, per_user=most),
        float(1.0 - quiet.mean()) if len(sample) else 0.0,
    )


def _priorities(sample: Rows) -> list[NDArray[np.uint64]]:
    """Of rows that are sorted by partition."""
    return [
        sampling.priority(int(p), sample.offset[sample.partition == p]) for p in np.unique(sample.partition)
    ]


def train(sample: Rows, chosen: Chosen, about: About, settings: Settings) -> Challenger | None:
    """Grow the forest; None if there are fewer rows than the gate asks for.

    The same history and settings give the same artifact to the bit: its date is that of the newest events.
    """
    rows = np.ascontiguousarray(sample.features[chosen.order])
    if len(rows) < settings.gate.least_rows:
        return None
    used = settings.training
    forest = train_forest(
        rows,
        calibration=np.ascontiguousarray(sample.features[chosen.calibration]),
        seed=used.seed,
        trees=used.trees,
        samples=used.samples,
        background=used.background,
    )
    newest = np.quantile(sample.timestamp, _NEWEST, method="lower")
    origin = Origin(
        rows=len(rows),
        parameters=msgspec.to_builtins(used) | {"sampling": msgspec.to_builtins(settings.sampling)},
        offsets={str(p): [about.starts[p], about.ends[p]] for p in sorted(about.ends)},
        created=rfc3339(int(newest)),
    )
    return Challenger(forest, origin, rows, gate.distribution(rows))


def decide(
    challenger: Challenger | None, sample: Rows, registry: Registry, settings: Settings
) -> report.Model | None:
    """Publish the challenger, and make it current if it passes the gate.

    Raises
    ------
    ArtifactError
        If the registry cannot be written, or the version is there already and is damaged.
    """
    if challenger is None:
        return None
    version = challenger.forest.version
    previous, champion = _champion(registry)
    quiet = sampling.quiet(sample.tail, sample.patterns, sample.alerted)
    judgement = gate.judge(
        challenger.forest,
        champion,
        gate.Sample(sample.features, sample.strength, quiet),
        rows=challenger.rows,
        before=None if champion is None else _distribution(registry, champion.version),
        rows_before=0 if champion is None else registry.manifest(champion.version).origin.rows,
        alert_bits=settings.detection.alert_risk / RISK_PER_BIT,
        limits=settings.gate,
    )
    metrics = {gate.DISTRIBUTION: challenger.distribution, gate.JUDGEMENT: msgspec.to_builtins(judgement)}
    registry.publish(challenger.forest, origin=challenger.origin, metrics=metrics)
    if previous == version:
        says = f"model {version} is current already: the same events, the same forest"
    elif judgement.passed:
        registry.promote(version)
        says = f"model {version} {judgement.says} and is current now; before: {previous or 'none'}"
    else:
        says = (
            f"model {version} was not promoted, {previous or 'none'} stays: {judgement.says}; "
            f"to make it current all the same: streamguard models promote {version}"
        )
    checks = [report.Check(check.name, check.passed, check.says) for check in judgement.checks]
    return report.Model(version, previous == version or judgement.passed, previous, says, checks)


def drift_since(
    latest: Path | None, challenger: Challenger | None, registry: Registry
) -> dict[str, float] | None:
    """How each feature's distribution among training rows has moved since the last run's; None without one."""
    if latest is None or challenger is None:
        return None
    try:
        model = report.decode((latest / REPORT).read_bytes()).model
    except (OSError, msgspec.DecodeError):
        return None
    before = None if model is None else _distribution(registry, model.version)
    return None if before is None else gate.drift(before, challenger.distribution)


def _champion(registry: Registry) -> tuple[str | None, Forest | None]:
    """The current version, and its forest if that can be trusted: a damaged one has to be replaced."""
    version = registry.current()
    try:
        return version, None if version is None else registry.load(version)
    except ArtifactError:
        return version, None


def _distribution(registry: Registry, version: str) -> gate.Distribution | None:
    try:
        return registry.metrics(version).get(gate.DISTRIBUTION)
    except ArtifactError:
        return None
