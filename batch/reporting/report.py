"""Builds the report of a run, which is written as `anomaly_report.json` and rendered as `report.html`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from streamguard import __version__
from streamguard.alerts.incident import Incident, rfc3339
from streamguard.batch.detection.assessment import Assessment
from streamguard.batch.detection.clusters import Group, PeerGroups
from streamguard.batch.detection.users import RankedUser, UserFindings
from streamguard.batch.folding.fold_result import IncidentRisks
from streamguard.batch.source.offset_range import Counts
from streamguard.events.refusals import merged
from streamguard.events.subject import shown
from streamguard.fold.features import NAMES
from streamguard.history import understood
from streamguard.models.sampling import Selection
from streamguard.runs.report import (
    FORMAT,
    Distribution,
    Drift,
    Model,
    PeerGroup,
    Range,
    Refused,
    Report,
    ReportedIncident,
    Totals,
    Trait,
    User,
)
from streamguard.settings.schema import Settings

if TYPE_CHECKING:
    from streamguard.batch.detection.detect import DetectionResult
    from streamguard.batch.folded_history import FoldedHistory

MAX_REFUSED = 20
TRAITS = 4
"""Number of features reported for a group: those in which it differs most from the median user."""

MAX_BARS = 60


def build(
    run_id: str,
    history: FoldedHistory,
    detected: DetectionResult,
    users: UserFindings,
    *,
    settings: Settings,
    algorithm: str,
    started: float,
    finished: float,
    model: Model | None,
    drift: Mapping[str, float] | None,
    seconds: Mapping[str, float],
) -> Report:
    """Build the report of a run.

    Parameters
    ----------
    run_id
        Id of the run.
    history, detected, users
        The folded history, the results of the detectors, and what was found of users.
    settings, algorithm
        Parameters of the run; the reported sections of the settings contain no secrets.
    started, finished
        Epoch seconds.
    model
        The forest and the verdict of the gate.
    drift
        Population stability index of each feature, compared with the last run.
    seconds
        Duration of each step.
    """
    result, assessment, peers = history.result, detected.assessment, detected.peers
    used = msgspec.to_builtins(settings)
    return Report(
        format=FORMAT,
        run_id=run_id,
        continues=history.continues,
        started=rfc3339(int(started * 1000)),
        finished=rfc3339(int(finished * 1000)),
        streamguard=__version__,
        source=history.about.source,
        parameters={"algorithm": algorithm}
        | {name: used[name] for name in ("batch", "detection", "sampling", "training", "clusters", "gate")},
        ranges=[_range(counts) for counts in result.counts],
        totals=_totals(result.counts, assessment, detected.selection, users),
        refused_first=[Refused(c.partition, *first) for c in result.counts for first in c.refused_first][
            :MAX_REFUSED
        ],
        model=model,
        drift=None if drift is None else [Drift(feature, float(psi)) for feature, psi in drift.items()],
        silhouette=None if peers is None else peers.silhouette,
        groups=[] if peers is None else _groups(peers, users),
        incidents=[_incident(incident, users) for incident in result.incidents],
        users=[
            _user(user, peers, result.incident_risks.get((user.partition, user.user))) for user in users.worst
        ],
        distribution=_distribution(assessment, settings.detection.alert_bits),
        seconds=dict(seconds),
    )


def _range(counts: Counts) -> Range:
    return Range(
        counts.partition,
        counts.start,
        counts.end,
        counts.records,
        counts.events,
        counts.refused,
        counts.alerted,
        counts.missing,
        None if counts.first_ms is None else rfc3339(counts.first_ms),
        None if counts.last_ms is None else rfc3339(counts.last_ms),
        counts.opened,
    )


def _totals(
    counts: Sequence[Counts], assessment: Assessment, selection: Selection, users: UserFindings
) -> Totals:
    refusals = merged(c.refusals for c in counts)
    repairs = sum((Counter(c.repairs) for c in counts), Counter[str]())
    found = assessment.totals
    return Totals(
        records=sum(c.records for c in counts),
        events=found.events,
        refused=sum(c.refused for c in counts),
        refused_by_reason={reason: entry.number for reason, entry in refusals.items()},
        alerted=found.alerted,
        alert_rate=found.alert_rate,
        sampled=found.sampled,
        sampled_alerts=found.sampled_alerted,
        forest_ranked=found.forest_ranked,
        training_rows=len(selection.rows),
        trimmed_share=selection.trimmed,
        users=users.users,
        users_at_risk=users.at_risk,
        refusals=refusals,
        repaired=sum(c.repaired for c in counts),
        repairs=dict(repairs.most_common()),
        understood=understood.merged(c.understood for c in counts),
    )


def _groups(peers: PeerGroups, users: UserFindings) -> list[PeerGroup]:
    return [
        PeerGroup(
            k,
            int(users.group_sizes[k]),
            int(users.group_at_risk[k]),
            group.small,
            group.spread,
            _traits(group),
        )
        for k, group in enumerate(peers.groups)
    ]


def _traits(group: Group) -> list[Trait]:
    largest = np.argsort(-np.abs(group.apart), kind="stable")[:TRAITS]
    return [Trait(NAMES[k], float(group.centre[k]), float(group.apart[k])) for k in largest if group.apart[k]]


def _incident(incident: Incident, users: UserFindings) -> ReportedIncident:
    key = incident.origin.partition, incident.entity.value
    group = users.group_of.get(key) if incident.entity.kind == "user" else None
    return ReportedIncident(**msgspec.structs.asdict(incident), peer_group=group)


def _user(user: RankedUser, peers: PeerGroups | None, incidents: IncidentRisks | None) -> User:
    summary = user.summary
    return User(
        user=shown(user.user),
        partition=user.partition,
        risk=user.risk,
        evidence_bits=round(user.evidence, 2),
        at_risk=user.at_risk,
        why=user.why,
        incidents=0 if incidents is None else incidents.number,
        worst_incident_risk=None if incidents is None else incidents.worst,
        peer_group=user.group,
        small_group=None if peers is None or user.group is None else peers.groups[user.group].small,
        peer_bits=round(user.peer_bits, 2),
        total_events=int(summary["total_events"]),
        unique_ips=int(summary["unique_ips"]),
        unique_locations=int(summary["unique_locations"]),
        failed_auth_rate=float(summary["failed_auth_rate"]),
        first_seen=rfc3339(int(summary["first_seen"])),
        last_seen=rfc3339(int(summary["last_seen"])),
    )


def _distribution(assessment: Assessment, alert_bits: float) -> Distribution:
    bits = assessment.evidence[assessment.sampled]
    reach = max(float(bits.max(initial=0.0)), 1.25 * alert_bits, 1.0)
    width = float(np.ceil(2.0 * reach / MAX_BARS) / 2.0)
    bars = int(reach // width) + 1
    events = np.bincount((bits // width).astype(int), minlength=bars)
    return Distribution(width, events.tolist(), alert_bits)
