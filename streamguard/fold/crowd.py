"""The crowd: how many events of a class are usual now, and who counts as hardly known."""

from __future__ import annotations

from streamguard.compute.arithmetic import LN2, poisson_bits
from streamguard.compute.compiler import inline
from streamguard.events import indicators as flag
from streamguard.fold import population
from streamguard.fold.dimensions import HOURS, SOURCE

NEW_SOURCE, FAILED, NEW_USER, NEW_SOURCE_FAILURE = range(len(population.CLASSES))

LEEWAY = 1.5
"""Tolerate 1.5 times the expected count: rates vary more than a Poisson distribution (over-dispersion)."""
PLAIN_PRIOR = 10.0
"""Plain events that are added to both sides of the ratio in `surge`, so that a few events do not make a surge."""
STRANGERS_FAIL = 0.1
"""Failures that are usual for each success of users who are hardly known: people mistype new passwords."""
MOVERS_FAIL = 0.05
"""Failures that are usual for each success from an address that is new to its user."""
RATE_PRIOR = 0.5
"""Events that are added to those of a class: a class without any has a rate, too."""
AGE_PRIOR = 3600.0
"""Seconds that are added to the age of a partition, so that its first minutes give no rate."""
LEAST_USUAL = 0.02
"""Least usual number of events of a class within minutes: a single event of a quiet log keeps few bits."""
MANY_USERS = 3.0
"""Users from whom on several users are many."""
COMMON_SHARE = 0.1
"""Share of the failures of these minutes that have to belong to changing users, so that many users fail."""
HARDLY_KNOWN = 3.0
KNOWN_EVENTS = 20.0
"""A user counts as known from this learned weight (`HARDLY_KNOWN`) or this number of events (`KNOWN_EVENTS`) on."""


@inline
def crowd_bits(e, k):  # type: ignore[no-untyped-def]
    """-log2 P(so many events of class k within minutes), or 0 for an event that does not belong to the class."""
    p, s = e.population, e.profile
    fresh = e.values[SOURCE] != 0 and e.slot[SOURCE] < 0
    if not belongs(k, fresh, e.flags & flag.FAILED != 0, s.learned, s.events):
        return 0.0
    return poisson_bits(p.fast[k] + 1.0, usual_count(p, k, e.hour))


@inline
def usual_count(p, k, hour):  # type: ignore[no-untyped-def]
    """Expected value of the fast counter for events of class k, from the long-run rate.

    The rate is scaled to how busy this hour of the week usually is, or to the current number of plain events, whichever
    is more: a new log source or a back-fill makes all events more frequent, but is not an attack.
    """
    mean_life = population.FAST_HALF_LIFE / LN2
    usual = (p.slow[k] + RATE_PRIOR) / (p.age + AGE_PRIOR) * mean_life
    busy = (p.hours[hour] + 1.0) * HOURS / (p.hours_total + HOURS)
    usual *= max(busy, surge(p)) * LEEWAY
    strangers = STRANGERS_FAIL * max(p.fast_stranger - p.fast[NEW_USER], 0.0)
    if k == NEW_USER:
        usual = max(usual, strangers)
    elif k == NEW_SOURCE_FAILURE:
        movers = MOVERS_FAIL * max(p.fast[NEW_SOURCE] - p.fast[NEW_SOURCE_FAILURE], 0.0)
        usual = max(usual, movers + strangers)
    return max(usual, LEAST_USUAL)


@inline
def surge(p):  # type: ignore[no-untyped-def]
    """Ratio of the plain events of the last minutes to their usual number; at least 1."""
    plain = p.slow_plain / (p.age + AGE_PRIOR) * (population.FAST_HALF_LIFE / LN2)
    return max((p.fast_plain + PLAIN_PRIOR) / (plain + PLAIN_PRIOR), 1.0)


@inline
def belongs(k, fresh, failed, learned, events):  # type: ignore[no-untyped-def]
    """Whether an event belongs to class k of the population.

    Parameters
    ----------
    fresh
        Whether its source is new to the user.
    failed
        Whether it failed.
    learned, events
        Of the user's profile.
    """
    if k == NEW_SOURCE:
        return fresh
    if k == FAILED:
        return failed
    if k == NEW_USER:
        return failed and is_stranger(learned, events)
    return fresh and failed


@inline
def is_stranger(learned, events):  # type: ignore[no-untyped-def]
    """Whether a user is hardly known."""
    return learned < HARDLY_KNOWN and events < KNOWN_EVENTS


@inline
def many_fail(p):  # type: ignore[no-untyped-def]
    """Whether many users fail at this time."""
    return p.failed_users >= MANY_USERS and p.failed_users >= COMMON_SHARE * p.fast[FAILED]
