"""The components of a score: each is a surprisal in bits, declared beside its formula, in the order of all states."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from streamguard.compute.arithmetic import LN2, log2, poisson_bits, student_bits
from streamguard.compute.compiler import inline
from streamguard.events import indicators as flag
from streamguard.fold import crowd, population
from streamguard.fold import dimensions as field
from streamguard.fold.adoption import adoption
from streamguard.fold.bitmap import distinct
from streamguard.fold.declaration import Component, Declarations, Formula, text_of
from streamguard.fold.dimensions import HOURS, SKETCHES
from streamguard.fold.frequencies import FIELD_OUTCOME, frequency, popularity
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
from streamguard.fold.sketch import has_succeeded
from streamguard.fold.sources import HALF_LIFE
from streamguard.fold.suspicion import is_unheard, run, suspicion

ESCAPE = 1.0
"""Events that stand for values which a user has not had yet, besides those that were new when they arrived."""
NEAR_SHARE = 0.125
"""Part of the share of a network that an unknown address in it gets."""
ADOPTED_SHARE = 0.5
"""Part of the share of the users who have taken a value up that counts for a user who may have moved."""
USUAL_FAILURES_WEIGHT = 4.0
"""Events whose failures are as usual for all users: they are added to those of the user."""
HOUR_WEIGHT = 8.0
"""Hours of all users that are added to those of the user."""
ONE_MORE = 0.5
"""Events that are added to those counted, so that what never happened is possible."""
FAILURES_PRIOR, OUTCOMES_PRIOR = 10.0, 5.0
"""Events that are added to all events: the first failure and the first outcome of a log are no certain news."""
THIS_HOUR, NEXT_HOUR = 0.5, 0.25
"""Weights of an hour of the week and of each of its neighbours: people are not on time."""
LITTLE_KNOWN, SOURCES_PRIOR = 0.1, 1000.0
"""Events that are added to those of a source and to those of all sources: an unknown one has one in ten thousand."""
NOISE = 1e-3
"""Seconds that are added to an interval: clocks have milliseconds."""
SPREAD_PRIOR = 10.0
"""Successes that are added to those of a source, so that a few users' typing errors are no spread."""
PER_USER = 20.0
"""Successes of one user at a source that count against its failures; more of them are one program's."""
LEAST_SPREAD = 0.5
"""Least number of failures of a source that are usual within hours."""
MOST_SPREAD = 30.0
"""Bits of a spread at most: more of them would say no more."""
RUN_SHARE = 0.5
"""Share of the bits of a user's earlier actions that were new to all users, that counts for the next such action."""
CARRY = 0.8
"""Share of the suspicion of a source that its next event carries."""

DECLARED = Declarations[Component]()
_NOVELTY = "Witten and Bell 1991: escape to the population; Shannon 1948"
_RATE = "Poisson tail"


def component(
    about: Literal["user", "crowd", "source", "carried"], *, source: str, name: str = "", habit: bool = True
) -> Callable[[Formula], Formula]:
    """Declare a component: its docstring is the description; its name is that of the formula unless one is given."""

    def declare(formula: Formula) -> Formula:
        DECLARED.add(Component(name or formula.__name__, about, habit, text_of(formula), source), formula)
        return formula

    return declare


@inline
def novelty(e, c):  # type: ignore[no-untyped-def]
    """-log2 of the share of a sketch's value: the user's own share, backed off to that of all users."""
    s, value = e.profile, e.values[c]
    if value == 0:
        return 0.0
    everybody = popularity(e.population, e.table, c, value)
    slot = e.slot[c]
    if c == field.SOURCE:
        everybody = max(everybody, NEAR_SHARE * nearness(e))
    weight = s.sketch_weight[c, slot] if slot >= 0 else 0.0
    escape = ESCAPE + s.novel[c]
    share = (weight + escape * everybody) / (s.seen[c] + escape)
    if c < field.RESOURCE and e.moves:
        share = max(share, ADOPTED_SHARE * adoption(e.population, e.adopted, c, value, e.user, e.ts))
    return max(-log2(share), 0.0)


@inline
def nearness(e):  # type: ignore[no-untyped-def]
    """Share of the event's network among the user's."""
    s, slot = e.profile, e.slot[field.NETWORK]
    if e.values[field.NETWORK] == 0 or slot < 0:
        return 0.0
    return s.sketch_weight[field.NETWORK, slot] / (
        s.sketch_total[field.NETWORK] + 1.0 + s.novel[field.NETWORK]
    )


@inline
def usual_failures(e):  # type: ignore[no-untyped-def]
    """Share of failures among all events of all users."""
    return (e.population.failures + ONE_MORE) / (e.population.learned + FAILURES_PRIOR)


def _novelty_of(c: int) -> Formula:
    """The formula of a sketch's component."""

    def formula(e: Observation) -> float:
        return novelty(e, c)

    formula.__doc__ = f"-log2 p({SKETCHES[c]} | user), backed off to all users"
    return formula


component("user", source=_NOVELTY, name="source", habit=False)(_novelty_of(field.SOURCE))
for _c in (field.LOCATION, field.HOST, field.AGENT, field.RESOURCE, field.TRANSITION):
    component("user", source=_NOVELTY, name=SKETCHES[_c])(_novelty_of(_c))


@component("user", source="Beta prior of all users' failures", habit=False)
def failure(e: Observation) -> float:
    """-log2 p(failure | user), of an event that failed"""
    s = e.profile
    if not e.flags & flag.FAILED:
        return 0.0
    return -log2(
        (s.learned_failures + USUAL_FAILURES_WEIGHT * usual_failures(e)) / (s.learned + USUAL_FAILURES_WEIGHT)
    )


@component("user", source="Shannon 1948")
def outcome(e: Observation) -> float:
    """-log2 p(type, status and reason | all users)"""
    seen = frequency(e.table, FIELD_OUTCOME, e.values[FIELD_OUTCOME])
    return -log2((seen + ONE_MORE) / (e.population.field_total[FIELD_OUTCOME] + OUTCOMES_PRIOR))


@component("user", source="Shannon 1948; neighbouring hours count half")
def hour(e: Observation) -> float:
    """-log2 p(hour of the week | user), backed off to all users"""
    s, p = e.profile, e.population
    before, after = (e.hour + HOURS - 1) % HOURS, (e.hour + 1) % HOURS
    everybody = (p.hours[e.hour] + 1.0) / (p.hours_total + HOURS)
    weight = THIS_HOUR * s.hours[e.hour] + NEXT_HOUR * (s.hours[before] + s.hours[after])
    return max(-log2((weight + HOUR_WEIGHT * everybody) / (s.hours_total + HOUR_WEIGHT)), 0.0)


@component("user", source="Student's t with 5 degrees of freedom")
def interval(e: Observation) -> float:
    """surprisal of the logarithm of the time since the user's last event, if it is short"""
    z = deviation(e.profile, INTERVAL, log2(e.gap * crowd.surge(e.population) + NOISE), INTERVAL_FLOOR)
    return student_bits(z) if z < 0.0 else 0.0


@component("user", source="Student's t with 5 degrees of freedom")
def volume(e: Observation) -> float:
    """surprisal of the logarithm of the bytes, if they are many"""
    z = deviation(e.profile, VOLUME, log2(e.volume + 1.0), VOLUME_FLOOR)
    return student_bits(z) if z > 0.0 and e.flags & flag.HAS_VOLUME else 0.0


@component("user", source="Student's t with 5 degrees of freedom")
def threat(e: Observation) -> float:
    """surprisal of the threat score as sent, if it is high"""
    z = deviation(e.profile, THREAT, e.threat, THREAT_FLOOR)
    return student_bits(z) if z > 0.0 and e.flags & flag.HAS_THREAT else 0.0


@component("crowd", source=_RATE)
def crowd_new_source(e: Observation) -> float:
    """-log2 P(so many addresses that are new to their users within minutes), as far as failures come with them"""
    bits = crowd.crowd_bits(e, crowd.NEW_SOURCE)
    if bits > 0.0:
        usual = crowd.usual_count(e.population, crowd.NEW_SOURCE_FAILURE, e.hour)
        bits = min(bits, poisson_bits(e.population.fast[crowd.NEW_SOURCE_FAILURE] + 1.0, usual))
    return bits


@component("crowd", source=_RATE)
def crowd_failure(e: Observation) -> float:
    """-log2 P(so many failures within minutes), of an event that failed"""
    return crowd.crowd_bits(e, crowd.FAILED)


@component("crowd", source=_RATE)
def crowd_new_user(e: Observation) -> float:
    """-log2 P(so many failures of users who are hardly known within minutes), of such a failure"""
    return crowd.crowd_bits(e, crowd.NEW_USER)


@component("crowd", source=_RATE)
def crowd_new_source_failure(e: Observation) -> float:
    """-log2 P(so many failures from addresses that are new to their users within minutes), of such a failure"""
    return crowd.crowd_bits(e, crowd.NEW_SOURCE_FAILURE)


@component("source", source=_RATE)
def source_spread(e: Observation) -> float:
    """-log2 P(so many users for whom this source fails)"""
    if e.source < 0:
        return 0.0
    if not e.flags & flag.FAILED and has_succeeded(e.profile, field.SOURCE, e.slot[field.SOURCE]):
        return 0.0
    if e.spread <= crowd.MANY_USERS - 0.5:
        return 0.0
    p, one = e.population, e.sources[e.source]
    known = frequency(e.table, field.SOURCE, e.values[field.SOURCE])
    share = (known + LITTLE_KNOWN) / (p.field_total[field.SOURCE] + SOURCES_PRIOR)
    usual = (p.slow[crowd.FAILED] + crowd.RATE_PRIOR) / (p.age + crowd.AGE_PRIOR) * (HALF_LIFE / LN2) * share
    good = min(one.successes, PER_USER * distinct(one.welcome))
    usual = max(usual, usual_failures(e) * crowd.LEEWAY * (good + SPREAD_PRIOR))
    return min(poisson_bits(min(one.failures, e.spread) + 1.0, max(usual, LEAST_SPREAD)), MOST_SPREAD)


@component("carried", source="exponential decay of the bits of earlier events")
def carried(e: Observation) -> float:
    """suspicion that earlier events of this source have left with the user"""
    return CARRY * suspicion(e.profile, e.slot[field.SOURCE], e.ts)


for _c in (field.ACTION, field.COMMAND):
    component("user", source=_NOVELTY, name=SKETCHES[_c])(_novelty_of(_c))


@component("user", source="a run of actions that are new to all users", habit=False)
def unheard_actions(e: Observation) -> float:
    """bits of the earlier actions of these minutes that were new to all users, of a further one"""
    return RUN_SHARE * run(e.profile, e.ts) if is_unheard(e.table, e.slot, e.values) else 0.0


COMPONENTS = DECLARED.names
"""Names of all components; a score is their sum. Add at the end: a stored state has this order."""

OF_SKETCH = tuple(COMPONENTS.index(name) if name in COMPONENTS else -1 for name in SKETCHES)
"""The component of each sketch; -1 for one without."""
SKETCH_OF = tuple(SKETCHES.index(name) if name in SKETCHES else -1 for name in COMPONENTS)
"""The sketch of each component; -1 for one without."""

SOURCE = COMPONENTS.index("source")
FAILURE = COMPONENTS.index("failure")
FIRST_CROWD = COMPONENTS.index("crowd_new_source")
CROWD_NEW_SOURCE_FAILURE = FIRST_CROWD + crowd.NEW_SOURCE_FAILURE
SPREAD = COMPONENTS.index("source_spread")
CARRIED = COMPONENTS.index("carried")
ACTION = COMPONENTS.index("action")
UNHEARD = COMPONENTS.index("unheard_actions")
"""Places of the components that other parts of the fold name."""

IS_OWN, IS_CROWD = (tuple(one.about == about for one in DECLARED.all) for about in ("user", "crowd"))
IS_HABIT = tuple(one.habit for one in DECLARED.all)

if [one.name for one in DECLARED.all if one.about == "crowd"] != [f"crowd_{n}" for n in population.CLASSES]:
    raise ImportError("the components of the crowd are those of `population.CLASSES`, in this order")


def as_markdown() -> str:
    """Return the table of components for docs/features.md."""
    rows = ["| component | about | usual bits subtracted | bits | source |", "|---|---|---|---|---|"]
    for one in DECLARED.all:
        formula = one.formula.replace("|", r"\|")
        usual = "yes" if one.habit and one.about == "user" else "no"
        rows.append(f"| `{one.name}` | {one.about} | {usual} | {formula} | {one.source} |")
    return "\n".join(rows) + "\n"
