"""The 28 behavioural features: name, group, unit, formula and source, in the order that all models share."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Feature:
    """One column of a feature row.

    Attributes
    ----------
    name, group, unit
        As they appear in reports.
    formula
        In terms of the fields of `streamguard.fold.profile`; computed before the event is learned.
    source
        Practice, publication or ATT&CK technique on which the feature is based.
    """

    name: str
    group: str
    unit: str
    formula: str
    source: str


_RATES = "rates over several horizons: UEBA practice"
_SURPRISAL = "Shannon 1948: information of an outcome"

FEATURES = (
    Feature("event_rate_5m", "user behaviour", "log2(1 + events/h)", "log2(1 + 12 count[5 min])", _RATES),
    Feature("event_rate_1h", "user behaviour", "log2(1 + events/h)", "log2(1 + count[1 h])", _RATES),
    Feature("event_rate_1d", "user behaviour", "log2(1 + events/h)", "log2(1 + count[1 d] / 24)", _RATES),
    Feature("event_rate_30d", "user behaviour", "log2(1 + events/h)", "log2(1 + count[30 d] / 720)", _RATES),
    Feature("host_bits", "user behaviour", "bits", "-log2 p(host | user)", _SURPRISAL),
    Feature("agent_bits", "user behaviour", "bits", "-log2 p(agent | user)", _SURPRISAL),
    Feature("resource_bits", "user behaviour", "bits", "-log2 p(resource | user)", _SURPRISAL),
    Feature(
        "volume_z", "user behaviour", "deviations", "(log2(1 + bytes) - mean) / sd, shrunk", "standard score"
    ),
    Feature("hour_bits", "temporal", "bits", "-log2 p(hour of week | user)", _SURPRISAL),
    Feature(
        "off_hours_share",
        "temporal",
        "0 to 1",
        "share of the crowd's hours busier than this one",
        "UEBA practice",
    ),
    Feature(
        "dormancy",
        "temporal",
        "log2(1 + days)",
        "log2(1 + days since the last event)",
        "dormant accounts: T1078",
    ),
    Feature(
        "active_days",
        "temporal",
        "log2(1 + days)",
        "log2(1 + days with events)",
        "how well the user is known",
    ),
    Feature(
        "interval_z",
        "temporal",
        "deviations",
        "(log2 seconds since the last event - mean) / sd, shrunk",
        "standard score",
    ),
    Feature("burst", "temporal", "log2 ratio", "log2((12 count[5 min] + 1) / (count[1 d] / 24 + 1))", _RATES),
    Feature("source_bits", "IP and location", "bits", "-log2 p(source address | user)", _SURPRISAL),
    Feature("network_bits", "IP and location", "bits", "-log2 p(source network | user)", _SURPRISAL),
    Feature("location_bits", "IP and location", "bits", "-log2 p(location | user)", _SURPRISAL),
    Feature(
        "source_diversity",
        "IP and location",
        "log2 addresses",
        "log2 of the inverse Simpson index of the user's addresses",
        "Simpson 1949",
    ),
    Feature(
        "crowd_new_sources",
        "IP and location",
        "bits",
        "-log2 P(so many new addresses in 5 min), for events of that class",
        "Poisson tail",
    ),
    Feature(
        "transition_bits",
        "sequence",
        "bits",
        "-log2 p(type after the type before | user)",
        "Markov chain of types",
    ),
    Feature(
        "repeat_interval",
        "sequence",
        "log2(1 + hours)",
        "log2(1 + hours since this source was last seen)",
        "recurrence",
    ),
    Feature(
        "failure_streak", "sequence", "log2(1 + events)", "log2(1 + failures in a row)", "brute force: T1110"
    ),
    Feature(
        "success_after_failures",
        "sequence",
        "log2(1 + events)",
        "log2(1 + streak) if this event succeeded",
        "T1110, then T1078",
    ),
    Feature("threat_score", "threat", "score", "as sent", "upstream"),
    Feature("threat_z", "threat", "deviations", "(score - mean) / sd, shrunk", "standard score"),
    Feature("threat_mean", "threat", "score", "exponentially weighted mean", "upstream"),
    Feature("failure_rate_1h", "threat", "0 to 1", "(failures[1 h] + 0.05) / (count[1 h] + 1)", _RATES),
    Feature("failure_rate_1d", "threat", "0 to 1", "(failures[1 d] + 0.05) / (count[1 d] + 1)", _RATES),
)
"""All values are finite float32; heavy-tailed ones are transformed monotonically. Change the list only if the results
of `evaluate` justify it."""

NAMES = tuple(feature.name for feature in FEATURES)

(EVENT_RATE_5M, EVENT_RATE_1H, EVENT_RATE_1D, EVENT_RATE_30D, HOST_BITS, AGENT_BITS, RESOURCE_BITS, VOLUME_Z,
 HOUR_BITS, OFF_HOURS_SHARE, DORMANCY, ACTIVE_DAYS, INTERVAL_Z, BURST,
 SOURCE_BITS, NETWORK_BITS, LOCATION_BITS, SOURCE_DIVERSITY, CROWD_NEW_SOURCES,
 TRANSITION_BITS, REPEAT_INTERVAL, FAILURE_STREAK, SUCCESS_AFTER_FAILURES,
 THREAT_SCORE, THREAT_Z, THREAT_MEAN, FAILURE_RATE_1H, FAILURE_RATE_1D) = range(len(FEATURES))  # fmt: skip

DIGEST = hashlib.sha256(
    json.dumps([asdict(feature) for feature in FEATURES], sort_keys=True).encode()
).hexdigest()
"""Digest of all features, which changes with any of them: a model with a different digest is refused."""


def as_markdown() -> str:
    """Return the table of docs/features.md."""
    rows = ["| # | feature | group | unit | formula | source |", "|---|---|---|---|---|---|"]
    for i, f in enumerate(FEATURES):
        formula = f.formula.replace("|", r"\|")
        rows.append(f"| {i} | `{f.name}` | {f.group} | {f.unit} | {formula} | {f.source} |")
    return "\n".join(rows) + "\n"
