"""Attack patterns: exact rules, each declared with its ATT&CK technique, in the order of their bits in a set."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from streamguard.compute.arithmetic import LN2, exp2, log2
from streamguard.compute.compiler import inline
from streamguard.events import indicators as flag
from streamguard.fold import components as component
from streamguard.fold import crowd
from streamguard.fold import dimensions as field
from streamguard.fold.declaration import Declarations, Formula, Pattern, text_of
from streamguard.fold.observation import Observation
from streamguard.fold.sketch import has_succeeded

MINUTES, HOUR, DAY, MONTH = range(len(field.HALF_LIVES))
"""Places of the half-lives in the counters of a profile."""
SHORT, LONG = range(2)
"""Places of the two half-lives of files read and changed: 5 minutes and 30 days."""
GUESSES = 7
"""Failures in a row before this one from which guessing is brute force: people mistype a password a few times."""
RECENT_GUESSES = 6.0
"""Failures of the last minutes from which they are a row within minutes."""
FEW_GUESSES, FEW_RECENT_GUESSES = 5, 3.0
"""Failures in a row, and of the last hour, from which a success after them is a pattern."""
SOON_MS = 900_000
"""Milliseconds after the last failure within which a success belongs to it."""
FEW_FAILURES = 3.0
"""Failures of a source from which they can be a row of its own."""
SPRAYED_USERS, SPRAY_BITS = 8.0, 12.0
"""Users for whom a source fails, and bits of its spread, from which it is a spray."""
WAVE_BITS, WAVE_SOURCE_BITS = 20.0, 6.0
"""Bits of a wave of failures from new addresses, and of the address itself, from which guessing is distributed."""
TRAVEL_MS = 2 * field.HOUR_MS
"""Time within which a person cannot reach another country unseen."""
TRAVEL_SOURCE_BITS = 5.0
"""Bits of an address from which it is far from what is usual for its user."""
OWN_EVENTS = 3.0
"""Ordinary events with a host or an agent from which it is the user's own: suspicious events count a fiftieth."""
DORMANT_SECONDS = 30 * 86_400.0
"""Time without an event from which an account is dormant."""
DORMANT_DEVIATIONS = 3.0
"""Deviations by which this time has to exceed the user's intervals."""
RETURN_SECONDS = 14 * 86_400.0
"""Time without an event after which a user counts as one who comes back."""
OTHERS_THERE = 0.67
"""Share of the usual number of users a day that is present in the last week, below which silence is common."""
WEEK_DAYS, MONTH_DAYS = 7.0 / LN2, 30.0 / LN2
"""Days that the counters of users a day with half-lives of 7 and 30 days stand for."""
RUSH = 30.0
"""Multiple of the long-run rate, which includes nights and weekends, that a normal working day does not reach."""
MANY_FILES = 60.0
"""Files of the last minutes from which they are many for a person."""
ENCRYPTED_FILES = 15.0
"""Files with a name that encryption leaves, within minutes, from which they are an attack."""
MEGABYTE = 1e6
MUCH_VOLUME = 200.0 * MEGABYTE
"""Bytes of an hour from which they can be an exfiltration."""
VOLUME_SHARE = 0.5
"""Share of the bytes of a month that this hour has to exceed."""
VOLUME_BITS = 4.0
"""Bits of a volume from which it is unusual for its user."""
NAMES = 8
"""Different DNS names of one kind within minutes from which they are a pattern."""

DECLARED = Declarations[Pattern]()
_VOLUME = component.COMPONENTS.index("volume")


def pattern(technique: str, *, bits: float, guessing: bool = False) -> Callable[[Formula], Formula]:
    """Declare a pattern; its docstring is the description for the reader of an incident."""

    def declare(formula: Formula) -> Formula:
        DECLARED.add(Pattern(formula.__name__, technique, bits, text_of(formula), guessing), formula)
        return formula

    return declare


@inline
def is_login(e, outcome):  # type: ignore[no-untyped-def]
    """Whether the event is an authentication with an outcome, `FAILED` or `SUCCEEDED`."""
    return e.flags & flag.AUTHENTICATION != 0 and e.flags & outcome != 0


@inline
def is_known(e):  # type: ignore[no-untyped-def]
    """Whether the user has enough events to know what is usual."""
    return e.profile.events >= crowd.KNOWN_EVENTS


@inline
def is_own_device(e):  # type: ignore[no-untyped-def]
    """Whether the user has used both the host and the agent several times: such a device travels by VPN or relay."""
    return is_own(e, field.HOST) and is_own(e, field.AGENT)


@inline
def is_own(e, c):  # type: ignore[no-untyped-def]
    """Whether the user has succeeded with a value, with at least the weight of `OWN_EVENTS`."""
    slot = e.slot[c]
    return has_succeeded(e.profile, c, slot) and e.profile.sketch_weight[c, slot] >= OWN_EVENTS


@inline
def lived(rest):  # type: ignore[no-untyped-def]
    """Seconds that a counter with a half-life of 30 days stands for, plus one hour for users with few events.

    Parameters
    ----------
    rest
        Share that is left after decay of a value as old as the profile.
    """
    return field.MONTH / LN2 * (1.0 - rest) + 3600.0


@inline
def usual(s, month):  # type: ignore[no-untyped-def]
    """Value of a 5-minute counter at `RUSH` times the user's long-run rate.

    Parameters
    ----------
    month
        Value of the same counter with a half-life of 30 days.
    """
    age = np.float64(s.active_ms - s.first_active_ms) * 1e-3
    return RUSH * month / lived(exp2(-age / field.MONTH)) * (300.0 / LN2)


@inline
def others_there(p):  # type: ignore[no-untyped-def]
    """Whether about as many known users a day are present in the last week as in the last month."""
    days = max(p.age / 86_400.0, 1.0)
    week, month = min(days, WEEK_DAYS), min(days, MONTH_DAYS)
    return p.active_week / week >= OTHERS_THERE * p.active_month / month


@pattern("T1110.001", bits=10.0, guessing=True)
def brute_force(e: Observation) -> bool:
    """many failed logins in a row within minutes"""
    return (
        is_login(e, flag.FAILED)
        and e.profile.streak >= GUESSES
        and e.profile.failures[MINUTES] >= RECENT_GUESSES
    )


@pattern("T1110", bits=10.0, guessing=True)
def success_after_failures(e: Observation) -> bool:
    """a login that succeeds right after a row of failures"""
    s = e.profile
    return (
        is_login(e, flag.SUCCEEDED)
        and s.streak >= FEW_GUESSES
        and s.failures[HOUR] >= FEW_RECENT_GUESSES
        and e.ts - s.last_failure_ts < SOON_MS
        and (e.slot[field.SOURCE] < 0 or (e.same_source and not e.common))
    )


@pattern("T1110.003", bits=10.0)
def password_spray(e: Observation) -> bool:
    """one source fails for many users"""
    return e.spread >= SPRAYED_USERS and e.less[component.SPREAD] >= SPRAY_BITS


@pattern("T1110.004", bits=6.0)
def distributed_guessing(e: Observation) -> bool:
    """a wave of failures from new addresses over many users"""
    return (
        is_login(e, flag.FAILED)
        and e.less[component.CROWD_NEW_SOURCE_FAILURE] >= WAVE_BITS
        and e.less[component.SOURCE] >= WAVE_SOURCE_BITS
    )


@pattern("T1078", bits=10.0)
def impossible_travel(e: Observation) -> bool:
    """another country sooner than a person can travel"""
    s = e.profile
    return (
        is_known(e)
        and e.area != 0
        and s.last_area != 0
        and e.area != s.last_area
        and abs(e.ts - s.last_area_ts) < TRAVEL_MS
        and e.slot[field.LOCATION] < 0
        and e.slot[field.SOURCE] < 0
        and e.less[component.SOURCE] >= TRAVEL_SOURCE_BITS
        and not is_own_device(e)
    )


@pattern("T1078", bits=10.0)
def dormant_account(e: Observation) -> bool:
    """an account is used again after weeks without an event"""
    s, p = e.profile, e.population
    return (
        is_known(e)
        and e.away >= DORMANT_SECONDS
        and log2(e.gap) > s.mean[0] + DORMANT_DEVIATIONS * math.sqrt(s.variance[0] + 1.0)
        and p.returns < crowd.MANY_USERS
        and others_there(p)
    )


@pattern("T1039", bits=10.0)
def mass_download(e: Observation) -> bool:
    """far more files read in minutes than this user ever does"""
    s = e.profile
    return (
        e.flags & flag.FILE_READ != 0
        and s.reads[SHORT] >= MANY_FILES
        and s.reads[SHORT] > usual(s, s.reads[LONG])
    )


@pattern("T1048", bits=10.0)
def exfiltration(e: Observation) -> bool:
    """far more bytes moved in an hour than this user moves in days"""
    s = e.profile
    moved = s.volume[HOUR] + e.volume
    return (
        is_known(e)
        and e.volume > 0.0
        and moved > MUCH_VOLUME
        and moved > VOLUME_SHARE * s.volume[MONTH]
        and e.less[_VOLUME] >= VOLUME_BITS
    )


@pattern("T1486", bits=12.0)
def ransomware(e: Observation) -> bool:
    """files changed or encrypted in bulk"""
    s = e.profile
    many = s.changes[SHORT] >= MANY_FILES and s.changes[SHORT] > usual(s, s.changes[LONG])
    return e.flags & flag.FILE_CHANGE != 0 and (s.encrypted >= ENCRYPTED_FILES or many)


@pattern("T1059.001", bits=10.0)
def encoded_command(e: Observation) -> bool:
    """a command line that hides what it does"""
    return e.flags & flag.ENCODED_COMMAND != 0


@pattern("T1003", bits=13.0)
def credential_dumping(e: Observation) -> bool:
    """a command that copies stored credentials"""
    return e.flags & flag.CREDENTIAL_DUMP != 0


@pattern("T1071.004", bits=10.0)
def dns_tunnel(e: Observation) -> bool:
    """data carried in DNS names"""
    return e.flags & flag.TUNNEL_QUERY != 0 and e.names >= NAMES


@pattern("T1568.002", bits=10.0)
def generated_names(e: Observation) -> bool:
    """DNS names made by an algorithm, most of them unknown"""
    return e.flags & flag.GENERATED_NAME != 0 and e.names >= NAMES


@pattern("T1070.001", bits=10.0)
def log_clearing(e: Observation) -> bool:
    """logs are cleared or deleted"""
    return e.flags & flag.LOG_CLEARING != 0


@pattern("T1562", bits=8.0)
def audit_tampering(e: Observation) -> bool:
    """logging, monitoring or protection is switched off or changed"""
    return e.flags & flag.AUDIT_TAMPERING != 0


@pattern("T1218", bits=8.0)
def living_off_the_land(e: Observation) -> bool:
    """a program of the system that fetches or runs foreign code"""
    return e.flags & flag.LIVING_OFF_THE_LAND != 0


@pattern("T1021", bits=6.0)
def remote_execution(e: Observation) -> bool:
    """a program that runs commands on another host"""
    return e.flags & flag.REMOTE_EXECUTION != 0


@pattern("T1490", bits=12.0)
def recovery_inhibited(e: Observation) -> bool:
    """backups or shadow copies are deleted"""
    return e.flags & flag.RECOVERY_INHIBITED != 0


@pattern("T1078", bits=10.0)
def confirmed_before(_: Observation) -> bool:
    """a value that a person has marked as part of an attack"""
    return False  # a decision completes it, see `streamguard.fold.decisions`


PATTERNS = tuple(DECLARED.all)
"""All patterns, in the order of their bit positions in a set of patterns. Add at the end: stored states have it."""
TRAVEL = DECLARED.names.index("impossible_travel")
CONFIRMED = DECLARED.names.index("confirmed_before")

COUNT = len(PATTERNS)

if COUNT > field.PATTERN_SLOTS:
    raise ImportError(f"a profile has room for {field.PATTERN_SLOTS} patterns, {COUNT} are declared")
