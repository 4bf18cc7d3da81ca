"""The 34 behavioural features of an event, each declared beside its formula, in the order that all models share.

All values are finite float32; heavy-tailed ones are transformed monotonically. Change the list only if the results of
`evaluate` justify it, and add at its end.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict

import numpy as np

from streamguard.compute.arithmetic import log2
from streamguard.events import indicators as flag
from streamguard.fold import components as component
from streamguard.fold import crowd
from streamguard.fold import dimensions as field
from streamguard.fold.components import NOISE
from streamguard.fold.declaration import Declarations, Feature, Formula, text_of
from streamguard.fold.dimensions import HOURS, SLOTS
from streamguard.fold.moments import (
    INTERVAL,
    INTERVAL_FLOOR,
    THREAT,
    THREAT_FLOOR,
    VOLUME,
    VOLUME_FLOOR,
    deviation,
)
from streamguard.fold.observation import Observation

MINUTES, HOUR, DAY, MONTH = range(len(field.HALF_LIVES))
"""Places of the half-lives in the counters of a profile."""
SMOOTHING = 0.05
"""Failures that are added to those of a user, with one event: no user fails always or never."""

DECLARED = Declarations[Feature]()
LEVELS: set[str] = set()
"""Features that describe the user or the hour, not the event: all events of a quiet hour share them. The forest is not
trained on them, because on logs with actions its splits were spent on them: without them, its AUC rose from 0.67 to
0.86 on Windows events."""

_RATES = "rates over several horizons: UEBA practice"
_SURPRISAL = "Shannon 1948: information of an outcome"
(_SOURCE, _LOCATION, _HOST, _AGENT, _RESOURCE, _TRANSITION, _ACTION, _COMMAND, _FAILURE, _OUTCOME, _HOUR) = map(
    component.COMPONENTS.index,
    (
        "source", "location", "host", "agent", "resource", "transition", "action", "command", "failure", "outcome",
        "hour",
    ),
)  # fmt: skip


def feature(group: str, *, unit: str, source: str, level: bool = False) -> Callable[[Formula], Formula]:
    """Declare a feature: its name is that of the formula, and the docstring is the formula for people.

    Parameters
    ----------
    level
        Whether it describes the user or the hour, see `LEVELS`.
    """

    def declare(formula: Formula) -> Formula:
        name = formula.__name__
        DECLARED.add(Feature(name, group, unit, text_of(formula), source), formula)
        if level:
            LEVELS.add(name)
        return formula

    return declare


@feature("user behaviour", unit="log2(1 + events/h)", source=_RATES)
def event_rate_5m(e: Observation) -> float:
    """log2(1 + 12 count[5 min])"""
    return log2(1.0 + 12.0 * e.profile.count[MINUTES])


@feature("user behaviour", unit="log2(1 + events/h)", source=_RATES)
def event_rate_1h(e: Observation) -> float:
    """log2(1 + count[1 h])"""
    return log2(1.0 + e.profile.count[HOUR])


@feature("user behaviour", unit="log2(1 + events/h)", source=_RATES, level=True)
def event_rate_1d(e: Observation) -> float:
    """log2(1 + count[1 d] / 24)"""
    return log2(1.0 + e.profile.count[DAY] / 24.0)


@feature("user behaviour", unit="log2(1 + events/h)", source=_RATES, level=True)
def event_rate_30d(e: Observation) -> float:
    """log2(1 + count[30 d] / 720)"""
    return log2(1.0 + e.profile.count[MONTH] / 720.0)


@feature("user behaviour", unit="bits", source=_SURPRISAL)
def host_bits(e: Observation) -> float:
    """-log2 p(host | user)"""
    return e.bits[_HOST]


@feature("user behaviour", unit="bits", source=_SURPRISAL)
def agent_bits(e: Observation) -> float:
    """-log2 p(agent | user)"""
    return e.bits[_AGENT]


@feature("user behaviour", unit="bits", source=_SURPRISAL)
def resource_bits(e: Observation) -> float:
    """-log2 p(resource | user)"""
    return e.bits[_RESOURCE]


@feature("user behaviour", unit="deviations", source="standard score")
def volume_z(e: Observation) -> float:
    """(log2(1 + bytes) - mean) / sd, shrunk"""
    return (
        deviation(e.profile, VOLUME, log2(e.volume + 1.0), VOLUME_FLOOR) if e.flags & flag.HAS_VOLUME else 0.0
    )


@feature("temporal", unit="bits", source=_SURPRISAL)
def hour_bits(e: Observation) -> float:
    """-log2 p(hour of week | user)"""
    return e.bits[_HOUR]


@feature("temporal", unit="0 to 1", source="UEBA practice", level=True)
def off_hours_share(e: Observation) -> float:
    """share of the crowd's hours busier than this one"""
    busier = 0.0
    hours = e.population.hours
    for k in range(HOURS):
        if hours[k] > hours[e.hour]:
            busier += 1.0
    return busier / HOURS


@feature("temporal", unit="log2(1 + days)", source="dormant accounts: T1078")
def dormancy(e: Observation) -> float:
    """log2(1 + days since the last event)"""
    return log2(1.0 + e.gap / 86_400.0)


@feature("temporal", unit="log2(1 + days)", source="how well the user is known", level=True)
def active_days(e: Observation) -> float:
    """log2(1 + days with events)"""
    return log2(1.0 + e.profile.active_days)


@feature("temporal", unit="deviations", source="standard score")
def interval_z(e: Observation) -> float:
    """(log2 seconds since the last event - mean) / sd, shrunk"""
    return deviation(e.profile, INTERVAL, log2(e.gap + NOISE), INTERVAL_FLOOR)


@feature("temporal", unit="log2 ratio", source=_RATES)
def burst(e: Observation) -> float:
    """log2((12 count[5 min] + 1) / (count[1 d] / 24 + 1))"""
    return log2((12.0 * e.profile.count[MINUTES] + 1.0) / (e.profile.count[DAY] / 24.0 + 1.0))


@feature("IP and location", unit="bits", source=_SURPRISAL)
def source_bits(e: Observation) -> float:
    """-log2 p(source address | user)"""
    return e.bits[_SOURCE]


@feature("IP and location", unit="bits", source=_SURPRISAL)
def network_bits(e: Observation) -> float:
    """-log2 p(source network | user)"""
    s, slot = e.profile, e.slot[field.NETWORK]
    near = s.sketch_weight[field.NETWORK, slot] if slot >= 0 else 0.0
    return -log2((near + 0.5) / (s.sketch_total[field.NETWORK] + 1.0))


@feature("IP and location", unit="bits", source=_SURPRISAL)
def location_bits(e: Observation) -> float:
    """-log2 p(location | user)"""
    return e.bits[_LOCATION]


@feature("IP and location", unit="log2 addresses", source="Simpson 1949", level=True)
def source_diversity(e: Observation) -> float:
    """log2 of the inverse Simpson index of the user's addresses"""
    s = e.profile
    squares = 0.0
    for q in range(SLOTS):
        w = np.float64(s.sketch_weight[field.SOURCE, q])
        squares += w * w
    total = s.sketch_total[field.SOURCE]
    return log2(max(total * total / squares, 1.0)) if squares > 0.0 else 0.0


@feature("IP and location", unit="bits", source="Poisson tail")
def crowd_new_sources(e: Observation) -> float:
    """-log2 P(so many new addresses in 5 min), for events of that class"""
    return e.bits[component.FIRST_CROWD + crowd.NEW_SOURCE]


@feature("sequence", unit="bits", source="Markov chain of types")
def transition_bits(e: Observation) -> float:
    """-log2 p(type after the type before | user)"""
    return e.bits[_TRANSITION]


@feature("sequence", unit="log2(1 + hours)", source="recurrence")
def repeat_interval(e: Observation) -> float:
    """log2(1 + hours since this source was last seen)"""
    slot = e.slot[field.SOURCE]
    return log2(1.0 + max(e.ts - e.profile.suspicion_ts[slot], 0) / 3.6e6) if slot >= 0 else 0.0


@feature("sequence", unit="log2(1 + events)", source="brute force: T1110")
def failure_streak(e: Observation) -> float:
    """log2(1 + failures in a row)"""
    return log2(1.0 + e.profile.streak)


@feature("sequence", unit="log2(1 + events)", source="T1110, then T1078")
def success_after_failures(e: Observation) -> float:
    """log2(1 + streak) if this event succeeded"""
    return log2(1.0 + e.profile.streak) if e.flags & flag.SUCCEEDED else 0.0


@feature("threat", unit="score", source="upstream")
def threat_score(e: Observation) -> float:
    """as sent"""
    return e.threat


@feature("threat", unit="deviations", source="standard score")
def threat_z(e: Observation) -> float:
    """(score - mean) / sd, shrunk"""
    return deviation(e.profile, THREAT, e.threat, THREAT_FLOOR) if e.flags & flag.HAS_THREAT else 0.0


@feature("threat", unit="score", source="upstream", level=True)
def threat_mean(e: Observation) -> float:
    """exponentially weighted mean"""
    return e.profile.mean[THREAT]


@feature("threat", unit="0 to 1", source=_RATES)
def failure_rate_1h(e: Observation) -> float:
    """(failures[1 h] + 0.05) / (count[1 h] + 1)"""
    return (e.profile.failures[HOUR] + SMOOTHING) / (e.profile.count[HOUR] + 1.0)


@feature("threat", unit="0 to 1", source=_RATES)
def failure_rate_1d(e: Observation) -> float:
    """(failures[1 d] + 0.05) / (count[1 d] + 1)"""
    return (e.profile.failures[DAY] + SMOOTHING) / (e.profile.count[DAY] + 1.0)


@feature("action", unit="bits", source=_SURPRISAL)
def action_bits(e: Observation) -> float:
    """-log2 p(action | user)"""
    return e.bits[_ACTION]


@feature("action", unit="bits", source=_SURPRISAL)
def command_bits(e: Observation) -> float:
    """-log2 p(command | user)"""
    return e.bits[_COMMAND]


@feature("action", unit="bits", source=_SURPRISAL)
def outcome_bits(e: Observation) -> float:
    """-log2 p(type, status, reason | everybody)"""
    return e.bits[_OUTCOME]


@feature("action", unit="bits", source=_SURPRISAL)
def failure_bits(e: Observation) -> float:
    """-log2 p(failure | user) if this event failed"""
    return e.bits[_FAILURE]


@feature("temporal", unit="log2 ratio", source=_RATES)
def surge_1h(e: Observation) -> float:
    """log2((count[1 h] + 1) / (count[30 d] / 720 + 1))"""
    return log2((e.profile.count[HOUR] + 1.0) / (e.profile.count[MONTH] / 720.0 + 1.0))


@feature("temporal", unit="log2 ratio", source=_RATES)
def surge_1d(e: Observation) -> float:
    """log2((count[1 d] + 1) / (count[30 d] / 30 + 1))"""
    return log2((e.profile.count[DAY] + 1.0) / (e.profile.count[MONTH] / 30.0 + 1.0))


FEATURES = tuple(DECLARED.all)
NAMES = DECLARED.names

TRAINED = tuple(name for name in NAMES if name not in LEVELS)
"""Features on which a forest is trained; a row contains the others for people, for peer groups and for drift."""

DIGEST = hashlib.sha256(json.dumps([asdict(one) for one in FEATURES], sort_keys=True).encode()).hexdigest()
"""Digest of all features, which changes with any of them: a batch job continues no history with another one."""


def as_markdown() -> str:
    """Return the table of features for docs/features.md."""
    rows = ["| # | feature | group | unit | formula | source |", "|---|---|---|---|---|---|"]
    for i, f in enumerate(FEATURES):
        formula = f.formula.replace("|", r"\|")
        rows.append(f"| {i} | `{f.name}` | {f.group} | {f.unit} | {formula} | {f.source} |")
    return "\n".join(rows) + "\n"
