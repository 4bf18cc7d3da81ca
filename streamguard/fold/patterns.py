"""Attack patterns: exact rules, each with its ATT&CK technique."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from streamguard.compute.arithmetic import LN2, exp2, log2
from streamguard.compute.compiler import inline
from streamguard.events import indicators as flag
from streamguard.fold import profile as layout
from streamguard.fold import surprisal


@dataclass(frozen=True, slots=True)
class Pattern:
    """A named attack pattern.

    Attributes
    ----------
    name
        Name in incidents and metrics.
    technique
        ATT&CK identifier.
    bits
        Bits that the pattern adds to the evidence.
    description
        Description for the reader of an incident.
    """

    name: str
    technique: str
    bits: float
    description: str


PATTERNS = (
    Pattern("brute_force", "T1110.001", 10.0, "many failed logins in a row within minutes"),
    Pattern("success_after_failures", "T1110", 10.0, "a login that succeeds right after a row of failures"),
    Pattern("password_spray", "T1110.003", 10.0, "one source fails for many users"),
    Pattern(
        "distributed_guessing", "T1110.004", 6.0, "a wave of failures from new addresses over many users"
    ),
    Pattern("impossible_travel", "T1078", 10.0, "another country sooner than a person can travel"),
    Pattern("dormant_account", "T1078", 10.0, "an account is used again after weeks without an event"),
    Pattern("mass_download", "T1039", 10.0, "far more files read in minutes than this user ever does"),
    Pattern("exfiltration", "T1048", 10.0, "far more bytes moved in an hour than this user moves in days"),
    Pattern("ransomware", "T1486", 12.0, "files changed or encrypted in bulk"),
    Pattern("encoded_command", "T1059.001", 10.0, "a command line that hides what it does"),
    Pattern("credential_dumping", "T1003", 13.0, "a command that copies stored credentials"),
    Pattern("dns_tunnel", "T1071.004", 10.0, "data carried in DNS names"),
    Pattern("generated_names", "T1568.002", 10.0, "DNS names made by an algorithm, most of them unknown"),
)
"""All patterns, in the order of their bit positions in a set of patterns."""

(BRUTE_FORCE, SUCCESS_AFTER_FAILURES, SPRAY, DISTRIBUTED, TRAVEL, DORMANT, DOWNLOAD, EXFILTRATION, RANSOMWARE,
 ENCODED, DUMP, TUNNEL, GENERATED) = range(len(PATTERNS))  # fmt: skip

BITS = tuple(pattern.bits for pattern in PATTERNS)
COUNT = len(PATTERNS)
HABIT_DAYS = 3.0
"""A pattern that was seen on this many days of the last month is a habit of the user and adds no evidence."""

RUSH = 30.0
"""Multiple of the long-run rate, which includes nights and weekends, that a normal working day does not reach."""

MEGABYTE = 1e6
TRAVEL_MS = 2 * 3_600_000
DORMANT_SECONDS = 30 * 86_400.0


@inline
def lived(rest):  # type: ignore[no-untyped-def]
    """Seconds that a counter with a half-life of 30 days stands for, plus one hour for users with few events.

    Parameters
    ----------
    rest
        Share that is left after decay of a value as old as the profile.
    """
    return layout.MONTH / LN2 * (1.0 - rest) + 3600.0


@inline
def usual(s, month):  # type: ignore[no-untyped-def]
    """Value of a 5-minute counter at `RUSH` times the user's long-run rate.

    Parameters
    ----------
    month
        Value of the same counter with a half-life of 30 days.
    """
    age = np.float64(s.active_ms - s.first_active_ms) * 1e-3
    return RUSH * month / lived(exp2(-age / layout.MONTH)) * (300.0 / LN2)


@inline
def match(s, bits, slot, flags, ts, gap, area, volume, spread):  # type: ignore[no-untyped-def]
    """Return the patterns that this event completes as a bit set, including habits of the user.

    Parameters
    ----------
    s
        Profile, decayed to now, before it learns the event.
    bits
        Discounted components; see `streamguard.fold.surprisal.discounted`.
    slot
        Slots of the event's values in the user's sketches; -1 for a value that a sketch does not hold.
    spread
        Number of distinct users for whom the source failed.
    """
    out = np.uint64(0)
    one = np.uint64(1)
    login = flags & flag.AUTHENTICATION
    if login and flags & flag.FAILED and s.streak >= 7 and s.failures[0] >= 6.0:
        out |= one << np.uint64(BRUTE_FORCE)
    if (
        login
        and flags & flag.SUCCEEDED
        and s.streak >= 5
        and s.failures[1] >= 3.0
        and ts - s.last_failure_ts < 900_000
    ):
        out |= one << np.uint64(SUCCESS_AFTER_FAILURES)
    if spread >= 8.0 and bits[surprisal.SPREAD] >= 12.0:
        out |= one << np.uint64(SPRAY)
    if (
        login
        and flags & flag.FAILED
        and bits[surprisal.CROWD_NEW_SOURCE_FAILURE] >= 20.0
        and bits[surprisal.SOURCE] >= 6.0
    ):
        out |= one << np.uint64(DISTRIBUTED)
    known = s.events >= surprisal.KNOWN_EVENTS
    if (
        known
        and area != 0
        and s.last_area != 0
        and area != s.last_area
        and abs(ts - s.last_area_ts) < TRAVEL_MS
        and slot[surprisal.LOCATION] < 0
        and slot[surprisal.SOURCE] < 0
    ):
        out |= one << np.uint64(TRAVEL)
    if known and gap >= DORMANT_SECONDS and log2(gap) > s.mean[0] + 3.0 * math.sqrt(s.variance[0] + 1.0):
        out |= one << np.uint64(DORMANT)
    if flags & flag.FILE_READ and s.reads[0] >= 60.0 and s.reads[0] > usual(s, s.reads[1]):
        out |= one << np.uint64(DOWNLOAD)
    moved = s.volume[1] + volume
    if (
        known
        and volume > 0.0
        and moved > 200.0 * MEGABYTE
        and moved > 0.5 * s.volume[3]
        and bits[surprisal.VOLUME] >= 4.0
    ):
        out |= one << np.uint64(EXFILTRATION)
    if flags & flag.FILE_CHANGE and (
        s.encrypted >= 15.0 or (s.changes[0] >= 60.0 and s.changes[0] > usual(s, s.changes[1]))
    ):
        out |= one << np.uint64(RANSOMWARE)
    if flags & flag.ENCODED_COMMAND:
        out |= one << np.uint64(ENCODED)
    if flags & flag.CREDENTIAL_DUMP:
        out |= one << np.uint64(DUMP)
    if flags & flag.TUNNEL_QUERY and s.queries >= 8.0:
        out |= one << np.uint64(TUNNEL)
    if flags & flag.GENERATED_NAME and s.queries >= 8.0:
        out |= one << np.uint64(GENERATED)
    return out


@inline
def evidence(s, patterns):  # type: ignore[no-untyped-def]
    """Evidence that a set of patterns adds, in bits: that of the strongest one that is not a habit of this user."""
    strongest = 0.0
    for k in range(COUNT):
        if (patterns >> np.uint64(k)) & np.uint64(1) and s.pattern_days[k] < HABIT_DAYS:
            strongest = max(strongest, BITS[k])
    return strongest
