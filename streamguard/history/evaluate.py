"""Measures detection on a labelled history: replays it without the labels, then compares the result with them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamguard.alerts.incident import Incident
from streamguard.alerts.verdict import verdict
from streamguard.errors import DataError
from streamguard.events.refusals import Refusals, merged
from streamguard.history.event_measures import ranking
from streamguard.history.files import Batch
from streamguard.history.ranked import LabelledEntries, rank
from streamguard.history.replay import Replay, Scored
from streamguard.models.forest import Forest
from streamguard.models.sampling import priority, select, smallest
from streamguard.settings.schema import Settings
from streamguard.state.warmup import compile_fold
from streamguard.text import counted

DAY_MS = 86_400_000

Labels = Callable[[Batch], tuple[list[bool], list[str | None]]]
"""For each event of a batch: whether it is an attack, and the name of its campaign."""


class EvaluationError(DataError):
    """The history cannot be measured. The message contains the reason."""


@dataclass(slots=True)
class Judged:
    """A folded history with its labels; arrays have an entry for each of its n events, in file order.

    Attributes
    ----------
    scored
        Result of the replay.
    timestamp
        int64 (n,), epoch milliseconds.
    user
        int64 (n,), a number for each user.
    attack
        bool (n,), whether the event is labelled as an attack.
    campaign
        int64 (n,), a number for each campaign; -1 for an event without a campaign.
    refusals
        Rows that are not valid events, by reason.
    incidents, updates
        Incidents by number, and all their updates.
    truth
        Names of the campaigns, and whom they entered.
    """

    scored: Scored
    timestamp: NDArray[np.int64]
    user: NDArray[np.int64]
    attack: NDArray[np.bool_]
    campaign: NDArray[np.int64]
    refusals: Mapping[str, Refusals]
    understood: str
    incidents: Mapping[int, Incident]
    updates: Sequence[Incident]
    truth: LabelledEntries


def evaluate(
    batches: Iterable[Batch],
    labels: Labels,
    *,
    partitions: int = 1,
    train_share: float = 0.3,
    settings: Settings | None = None,
    techniques: Mapping[str, str] | None = None,
    with_sweep: bool = False,
) -> dict[str, Any]:
    """Replay a labelled history and measure the detection.

    Parameters
    ----------
    batches
        Batches of `streamguard.history.files.read`.
    labels
        Labels; they are read only after a batch has been folded.
    partitions
        Number of partitions of the replay.
    train_share
        Share of the events, from the beginning of the file, that is folded but not measured. The forest is trained
        on it.
    settings
        Settings, of which `detection`, `sampling`, `training` and `gate.min_rows` are used; None means defaults.
    techniques
        Technique of each campaign, as far as the labels state it.
    with_sweep
        Whether to measure the ranked list with other floors, too.

    Returns
    -------
    dict
        `scores`: the measures of `ranking` for `verdict`, `statistical` and `forest`. `forest` is None if no forest
        could be trained; `forest_missing` then contains the reason. The verdict includes the forest, with its weight.
        `forest_weight`: that weight, see `streamguard.models.weight`.
        `events`: number of folded events; `measured`, `attacks`: number of events and attacks after `train_share`.
        `refused`: number of rows that are not valid events; `refusals`: by reason their number, and the users and
        sources that most of them name; `understood`: a sentence about the other rows.
        `incidents`: number of incidents with an alert in the measured part. `incidents_per_benign_day`: incidents
        without any attack event, divided by the number of days (UTC) with a measured benign event.
        `campaigns`: see `campaigns`.
        `ranked`: `measures` of the ranked list, see `streamguard.campaigns.measures.Measures`; `busy_days`: days with
        more raised rows than `detection.incidents_per_day`; `points`: the sweep.
        `alerted_benign_share`: share of the measured benign events that are alerted.
        `cpu_seconds`: CPU time of reading and folding all events, without the compilation of the kernels.

    Raises
    ------
    EvaluationError
        If there is no event to measure.
    """
    if not 0.0 <= train_share < 1.0:
        raise EvaluationError(f"the train share must be at least 0 and below 1, not {train_share:g}")
    settings = settings or Settings()
    compile_fold()
    begun = time.process_time()
    judged = judge(batches, labels, Replay(partitions, detection=settings.detection))
    cpu_seconds = time.process_time() - begun
    n = len(judged.attack)
    first = math.ceil(train_share * n)
    if first == n:
        raise EvaluationError("no event is left to measure: give a smaller --train-share, or a longer file")
    scored, attack = judged.scored, judged.attack[first:]
    trained, missing = trained_forest(judged, first, settings)
    rows = scored.features[first:]
    evidence = scored.evidence[first:]
    alerted = scored.incident >= 0
    incidents = np.unique(scored.incident[first:][alerted[first:]])
    benign = np.setdiff1d(incidents, scored.incident[alerted & judged.attack])
    days = len(np.unique(judged.timestamp[first:][~attack] // DAY_MS))
    return {
        "scores": {
            "verdict": ranking(
                evidence if trained is None else verdict(evidence, trained.bits(rows)), attack
            ),
            "statistical": ranking(scored.score[first:], attack),
            "forest": None if trained is None else ranking(-trained.score_samples(rows), attack),
        },
        "forest_weight": None if trained is None else trained.weight,
        "forest_missing": missing,
        "events": n,
        "measured": n - first,
        "attacks": int(attack.sum()),
        "refused": sum(entry.number for entry in judged.refusals.values()),
        "refusals": msgspec.to_builtins(judged.refusals),
        "understood": judged.understood,
        "incidents": len(incidents),
        "incidents_per_benign_day": len(benign) / days if days else None,
        "campaigns": campaigns(judged, first),
        "ranked": msgspec.to_builtins(
            rank(
                judged.updates,
                judged.incidents,
                scored.incident,
                judged.attack,
                judged.campaign,
                first,
                judged.truth,
                techniques or {},
                len(np.unique(judged.timestamp[first:] // DAY_MS)),
                settings.detection,
                with_sweep=with_sweep,
            )
        ),
        "alerted_benign_share": float(alerted[first:][~attack].mean()) if days else None,
        "cpu_seconds": round(cpu_seconds, 3),
    }


def judge(batches: Iterable[Batch], labels: Labels, replay: Replay) -> Judged:
    """Fold all events, and join the results with the labels."""
    scored: list[Scored] = []
    stamps: list[int] = []
    users: dict[str, int] = {}
    user: list[int] = []
    attack: list[bool] = []
    entries = LabelledEntries()
    campaign: list[int] = []
    for batch in batches:
        scored.append(replay.feed(batch))
        stamps += [int(event.timestamp) for event in batch.events]
        user += [users.setdefault(event.user or "", len(users)) for event in batch.events]
        truth, of = labels(batch)
        attack += truth
        campaign += [
            entries.number(name, event) if name and hit else -1
            for event, hit, name in zip(batch.events, truth, of, strict=True)
        ]
    if not stamps:
        raise EvaluationError("there is no event to measure")
    together = {
        field.name: np.concatenate([getattr(part, field.name) for part in scored]) for field in fields(Scored)
    }
    return Judged(
        Scored(**together),
        np.array(stamps, np.int64),
        np.array(user, np.int64),
        np.array(attack, np.bool_),
        np.array(campaign, np.int64),
        merged([replay.refusals]),
        replay.understood.message(),
        replay.numbered(),
        replay.updates(),
        entries,
    )


def trained_forest(judged: Judged, first: int, settings: Settings) -> tuple[Forest | None, str | None]:
    """Forest that is trained and weighted without labels on the first events, as a retrain does it.

    Returns
    -------
    forest
        None if no forest can be trained.
    missing
        The reason if no forest can be trained; otherwise None.
    """
    scored = judged.scored
    before = slice(first)
    key = np.empty(first, np.uint64)
    for partition in np.unique(scored.partition[before]).tolist():
        here = scored.partition[before] == partition
        key[here] = priority(partition, scored.offset[before][here])
    sample = smallest(key, settings.sampling.rows)
    features = scored.features[sample]
    chosen = select(
        key[sample],
        judged.user[sample],
        features,
        scored.tail[sample],
        scored.patterns[sample],
        scored.incident[sample] >= 0,
        per_user=settings.sampling.rows_per_user,
    )
    min_rows = settings.gate.min_rows
    if len(chosen.rows) < min_rows:
        return None, f"{counted(len(chosen.rows), 'quiet event')} to train on (minimum {min_rows})"
    try:
        import sklearn  # noqa: F401

        from streamguard.models.weighted_training import train_weighted
    except ImportError:
        return None, "scikit-learn is not installed: pip install '.[batch]' in StreamGuard's checkout"
    forest, _ = train_weighted(features, chosen, judged.timestamp[sample], settings.training)
    return forest, None


def campaigns(judged: Judged, first: int) -> dict[str, Any]:
    """Count the campaigns that begin in the measured part and those with an alert, and measure the delay.

    Returns
    -------
    dict
        `total`: number of campaigns. `caught`: number of campaigns with an alerted event. `median_delay_seconds`:
        median time from a campaign's first event to its first alerted event, by their timestamps; None if no
        campaign was caught.
    """
    campaign = judged.campaign
    alerted = judged.scored.incident >= 0
    begun_before = np.unique(campaign[:first])
    total, delays = 0, []
    for number in np.setdiff1d(np.unique(campaign[first:]), np.append(begun_before, -1)):
        total += 1
        own = campaign == number
        if alerted[own].any():
            delays.append((judged.timestamp[own & alerted].min() - judged.timestamp[own].min()) / 1000)
    return {
        "total": total,
        "caught": len(delays),
        "median_delay_seconds": float(np.median(delays)) if delays else None,
    }
