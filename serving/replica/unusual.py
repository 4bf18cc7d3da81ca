"""What is unusual about a user at the partition's clock, in sentences with numbers that the profile itself holds."""

from __future__ import annotations

from collections.abc import Iterator

from streamguard.alerts.usual import AN_OLDER_VALUE, amount, failure_share, held_values, span
from streamguard.fold import patterns
from streamguard.fold.dimensions import HALF_LIVES, HOUR_MS, SOURCE
from streamguard.fold.suspicion import UNREMARKABLE
from streamguard.serving.replica.lookup import StoredUser
from streamguard.serving.replica.profile import OpenIncident
from streamguard.serving.replica.rates import MONTH, usual_counter
from streamguard.text import counted

LEAST_EVENTS = 20.0
"""Events of a window from which they can be unusually many: users with few events have small usual numbers."""
RECENT_MS = HOUR_MS
"""Time since the last failure within which a row of failures counts as going on."""
_WINDOWS = ("5 minutes", "an hour", "a day")


def unusual_now(found: StoredUser, incident: OpenIncident | None) -> tuple[str, ...]:
    """Sentences about what is unusual now; the thresholds are those of the attack patterns."""
    return (*_incident(incident), *_failures(found), *_rates(found), *_files(found), *_suspicion(found))


def _incident(incident: OpenIncident | None) -> Iterator[str]:
    if incident is not None:
        yield (
            f"Incident {incident.id} is open, with {counted(incident.count, 'alert')} and "
            f"{incident.evidence_bits:.1f} bits of evidence."
        )


def _failures(found: StoredUser) -> Iterator[str]:
    profile = found.profile
    streak = int(profile["streak"])
    ago_ms = int(found.population["clock"]) - int(profile["last_failure_ts"])
    share = f"{failure_share(profile):.1%} of the user's events fail"
    if streak >= patterns.FEW_GUESSES and ago_ms <= RECENT_MS:
        yield (
            f"{counted(streak, 'event')} failed in a row, the last one {span(max(ago_ms, 0) / 1000)} before "
            f"the partition's clock; usually {share}."
        )
    failures = float(profile["failures"][0])
    usual = usual_counter(profile, float(profile["failures"][MONTH]), HALF_LIVES[0])
    if failures >= patterns.RECENT_GUESSES and failures > patterns.RUSH * usual:
        yield f"About {_many(failures, 'failure')} in 5 minutes; {usual:.2g} are usual."


def _rates(found: StoredUser) -> Iterator[str]:
    profile = found.profile
    for j, window in enumerate(_WINDOWS):
        events = float(profile["count"][j])
        usual = usual_counter(profile, float(profile["count"][MONTH]), HALF_LIVES[j])
        if events >= LEAST_EVENTS and events > patterns.RUSH * usual:
            yield f"About {_many(events, 'event')} in {window}; {usual:.2g} are usual."
    moved, month = float(profile["volume"][1]), float(profile["volume"][MONTH])
    if moved >= patterns.MUCH_VOLUME and moved > patterns.VOLUME_SHARE * month:
        yield f"{amount(moved)} moved in an hour, of {amount(month)} in a month."


def _files(found: StoredUser) -> Iterator[str]:
    profile = found.profile
    for name, verb in (("reads", "read"), ("changes", "changed")):
        now, month = (float(count) for count in profile[name])
        usual = usual_counter(profile, month, HALF_LIVES[0])
        if now >= patterns.MANY_FILES and now > patterns.RUSH * usual:
            yield f"About {_many(now, 'file')} {verb} in 5 minutes; {usual:.2g} are usual."
    encrypted = float(profile["encrypted"])
    if encrypted >= patterns.ENCRYPTED_FILES:
        yield f"About {_many(encrypted, 'file')} written in 5 minutes with names that encryption leaves."


def _suspicion(found: StoredUser) -> Iterator[str]:
    profile = found.profile
    for held in held_values(profile, SOURCE, found.text_of):
        bits = float(profile["suspicion"][held.slot])
        if bits >= UNREMARKABLE:
            named = f"Source {held.text}" if held.text != AN_OLDER_VALUE else "A source that is hardly known"
            yield f"{named} is under suspicion: {bits:.1f} bits from its last events."
    bits = float(profile["unheard"])
    if bits >= UNREMARKABLE:
        yield f"The user did things that no user had done before: {bits:.1f} bits in the last minutes."


def _many(number: float, noun: str) -> str:
    return counted(round(number), noun)
