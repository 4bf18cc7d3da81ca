"""Folds the events of one partition, in offset order, into profiles and population; returns evidence and incidents.

The same compiled function runs in the worker, in the Spark job and in `streamguard replay`. It reads no clock, draws
no random numbers and has no state besides its arguments, so its results do not depend on the chunk size.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from streamguard.compute.arithmetic import exp2, mix, popcount
from streamguard.compute.compiler import inline, kernel
from streamguard.events import indicators as flag
from streamguard.events.columns import TEXTS
from streamguard.fold import (
    ageing,
    bitmap,
    calibration,
    components,
    crowd,
    decisions,
    evidence,
    features,
    grouping,
    learning,
    patterns,
    population,
    sketch,
    suspicion,
)
from streamguard.fold import sources as failing
from streamguard.fold.adoption import adopt
from streamguard.fold.declaration import filler, matcher
from streamguard.fold.dimensions import (
    ACTION,
    COMMAND,
    DAY_MS,
    HOUR_MS,
    LOCATION,
    NETWORK,
    RESOURCE,
    SKETCHES,
    SOURCE,
    TRANSITION,
)
from streamguard.fold.discount import discounted
from streamguard.fold.dns_names import count_name
from streamguard.fold.frequencies import FIELD_OUTCOME
from streamguard.fold.observation import Observation

TYPE_TEXT, REASON_TEXT, ACTION_TEXT, COMMAND_TEXT, NAME_TEXT = map(
    TEXTS.index, ("type", "reason", "action", "command", "name")
)
"""Columns of the texts."""
N_FEATURES = len(features.NAMES)
N_SKETCHES = len(SKETCHES)
N_COMPONENTS = len(components.COMPONENTS)
N_CLASSES = len(population.CLASSES)
AWAY_LEEWAY = 3600.0
"""Seconds by which the active time of a profile may be behind its last event."""
SHARED_BITS, HALVING_BITS = 6.0, 3.0
"""Bits of an attack on many up to which a score is recorded in full; further bits that halve its weight."""

measure = filler(components.DECLARED.formulas)
describe = filler(features.DECLARED.formulas)
match = matcher(patterns.DECLARED.formulas)


@kernel
def fold(state, chunk, verdicts):  # type: ignore[no-untyped-def]
    """Fold one chunk of n events in offset order.

    Parameters
    ----------
    state
        `streamguard.fold.arguments.State`; updated.
    chunk
        `streamguard.fold.arguments.Chunk`.
    verdicts
        `streamguard.fold.arguments.Verdicts`; filled.

    Returns
    -------
    published, interned
        Number of filled rows of `snapshots` and `context`, and of `requests`.
    """
    p = state.population[0]
    bits = np.zeros(N_COMPONENTS)
    less = np.zeros(N_COMPONENTS)
    slot = np.zeros(N_SKETCHES, np.int64)
    values = np.zeros(population.FIELDS, np.uint64)
    published = interned = applied = 0
    no_mask = np.uint64(0)
    travels = (np.uint64(1) << np.uint64(SOURCE)) | (np.uint64(1) << np.uint64(LOCATION))
    for i in range(chunk.row.shape[0]):
        while applied < chunk.controls.shape[0] and chunk.controls[applied].events <= i:
            apply_control(state, chunk, verdicts, applied)
            applied += 1
        verdicts.expired[i] = False
        s = state.profiles[chunk.row[i]]
        if chunk.offset[i] <= s.last_offset:
            skip(verdicts, i)
            continue
        t, user, flags = chunk.ts[i], chunk.user[i], chunk.flags[i]
        seconds, active = ageing.advance(p, t, user, chunk.append[i])
        if ageing.age_population(p, state.table, seconds, active):
            state.table_dirty[:] = 1
        if ageing.has_expired(s, p, state.forget_ms):
            state.profiles[chunk.row[i]] = state.blank[0]
            verdicts.expired[i] = True
        gap = ageing.since_last_event(s, p, t)
        away = gap
        if s.active_ms > 0:
            away = min(gap, np.float64(p.active_ms - s.active_ms) * 1e-3 + AWAY_LEEWAY)
        ageing.age_profile(s, p, gap)
        day = t // DAY_MS
        # What all users share waits until the clock follows; the event has its own time.
        settled = min(t, p.clock)
        last_type = take_values(s, chunk, i, values, slot)
        source, repeated = failing_source(state, values[SOURCE], user, flags, settled)
        names: Any = np.int64(0)
        if flags & (flag.TUNNEL_QUERY | flag.GENERATED_NAME):
            counted = count_name(s, flags, values[RESOURCE], chunk.hashes[i, NAME_TEXT], t)
            if counted >= 0:
                names = np.int64(popcount(s.dns_names[counted]))
        spread, same_source, guesses = 0.0, values[SOURCE] == 0, np.float64(s.streak)
        if source >= 0:
            spread = bitmap.distinct(state.sources[source].users)
            failures = state.sources[source].failures
            tried = bitmap.marked(state.sources[source].users, user)
            same_source = tried and failures >= patterns.FEW_FAILURES
            guesses = min(guesses, failures)
        e = Observation(
            s, p, state.table, state.sources, state.adopted, values, slot, bits, less, user, flags, t, gap, away,
            ageing.hour_of_week(t // HOUR_MS), chunk.area[i], chunk.threat[i], chunk.volume[i], source, spread,
            same_source, crowd.many_fail(p), sketch.is_move(values, slot), names,
        )  # fmt: skip
        measure(e, bits)
        accepted, denied = decisions.judged(state.decided, state.decided_count[0], user, values, p.clock)
        if accepted != no_mask:
            decisions.accept(s, accepted, bits)
        total = discounted(e)
        tail_bits = calibration.tail_bits(p, total)
        own_total = total - less[components.CARRIED]
        if sketch.is_usual_source(s, slot[SOURCE]):  # suspicion needs evidence of its own
            own_total -= less[components.SPREAD]
            for k in range(N_CLASSES):
                own_total -= less[components.FIRST_CROWD + k]
        own_bits = calibration.tail_bits(p, own_total)
        more = evidence.guess_bits(guesses)
        hit = match(e)
        if accepted & travels != no_mask:
            hit &= ~(np.uint64(1) << np.uint64(patterns.TRAVEL))
        if denied != no_mask:
            hit |= np.uint64(1) << np.uint64(patterns.CONFIRMED)
        describe(e, verdicts.features[i])
        for c in range(N_COMPONENTS):
            verdicts.raw[i, c] = bits[c]
            verdicts.excess[i, c] = less[c]
        proven = evidence.evidence(s, hit, more)
        proof = tail_bits + proven
        verdicts.score[i] = total
        verdicts.tail[i] = tail_bits
        verdicts.patterns[i] = hit
        verdicts.evidence[i] = proof
        verdicts.kind[i] = grouping.NO_ENTITY
        if proof >= state.alert_bits:
            verdicts.snapshots[published] = s
            publish, source = alert(state, chunk, verdicts, i, e, proof, hit, settled)
            if publish:
                around = verdicts.context[published]
                grouping.write_context(e, source, around)
                around.guess_bits = more
                around.denied = denied
                published += 1
        weight = learning.weight_of(tail_bits) if denied == no_mask else 0.0
        shared = less[components.CARRIED] + less[components.SPREAD] + proven
        for k in range(N_CLASSES):
            shared += less[components.FIRST_CROWD + k]
        usual = min(exp2(-(shared - SHARED_BITS) / HALVING_BITS), 1.0) if denied == no_mask else 0.0
        calibration.record(p, total, tail_bits, usual)
        fresh = values[SOURCE] != 0 and slot[SOURCE] < 0
        learned, events = s.learned, s.events
        known = not crowd.is_stranger(learned, events)
        if known and s.last_day < day:
            learning.learn_return(p, away)
        if not flags & flag.FAILED and weight > 0.0:
            if source >= 0:
                state.sources[source].successes += 1.0
                bitmap.mark(state.sources[source].welcome, user)
            if known and e.moves:
                for c in range(RESOURCE):
                    if values[c] != 0:
                        adopt(state.adopted, state.adopted_dirty, c, values[c], user, settled, slot[c] < 0)
        if suspicion.is_unheard(state.table, slot, values):
            suspicion.extend_run(s, less[components.ACTION], t)
        learning.learn_profile(e, own_bits, day, hit, weight)
        s.last_type = last_type
        s.last_offset = chunk.offset[i]
        learning.learn_population(e, state.table_dirty, fresh, repeated, learned, events, weight)
        interned = intern(state.interned, verdicts.requests, interned, i, s, values, slot)
    for k in range(applied, chunk.controls.shape[0]):
        apply_control(state, chunk, verdicts, k)
    return published, interned


@inline
def apply_control(state, chunk, verdicts, k):  # type: ignore[no-untyped-def]
    """Apply a control record."""
    verdicts.outcomes[k] = decisions.apply(
        state.decided, state.decided_count, chunk.controls[k], state.profiles, state.population[0].clock
    )


@inline
def skip(verdicts, i):  # type: ignore[no-untyped-def]
    """Fill the verdict on an event that was folded before: its score is -1."""
    verdicts.features[i] = 0.0
    verdicts.raw[i] = 0.0
    verdicts.excess[i] = 0.0
    verdicts.score[i] = -1.0
    verdicts.tail[i] = 0.0
    verdicts.evidence[i] = 0.0
    verdicts.patterns[i] = np.uint64(0)
    verdicts.kind[i] = grouping.NO_ENTITY


@inline
def take_values(s, chunk, i, values, slot):  # type: ignore[no-untyped-def]
    """Fill the values of an event and their slots in the user's sketches; return the type for the next transition."""
    outcome = np.uint64(chunk.flags[i] & (flag.FAILED | flag.SUCCEEDED))
    for c in range(TRANSITION):
        values[c] = chunk.hashes[i, c]
    kind = mix(chunk.hashes[i, TYPE_TEXT] + outcome)
    values[TRANSITION] = mix(s.last_type ^ (kind << np.uint64(1)))
    values[NETWORK] = chunk.network[i]
    values[ACTION] = chunk.hashes[i, ACTION_TEXT]
    values[COMMAND] = chunk.hashes[i, COMMAND_TEXT]
    values[FIELD_OUTCOME] = mix(kind + chunk.hashes[i, REASON_TEXT])
    for c in range(N_SKETCHES):
        slot[c] = sketch.slot_of(s.sketch_hash[c], values[c]) if values[c] != 0 else -1
    return kind


@inline
def failing_source(state, address, user, flags, settled):  # type: ignore[no-untyped-def]
    """Return the position of the event's source among the failing ones, or -1, and whether it failed for this user.

    A failure enters the source.
    """
    if address == 0:
        return -1, False
    at = failing.source_entry(state.sources, address)
    if flags & flag.FAILED:
        repeated = at >= 0 and bitmap.marked(state.sources[at].users, user)
        return failing.track_source(state.sources, state.sources_dirty, address, user, settled), repeated
    if at >= 0:
        failing.age_source(state.sources[at], settled)
        state.sources_dirty[at // population.SOURCES_PER_PAGE] = 1
    return at, False


@inline
def alert(state, chunk, verdicts, i, e, proof, hit, settled):  # type: ignore[no-untyped-def]
    """Add an alert to the incident of its entity; return whether to publish the incident, and the event's source.

    A source that is the entity is entered among the failing ones.
    """
    whose = grouping.entity_of(e)
    offset, out, at = chunk.offset[i], verdicts.incident[i], e.source
    if whose == grouping.SOURCE_ENTITY:
        if at < 0:
            at = failing.track_source(state.sources, state.sources_dirty, e.values[SOURCE], e.user, settled)
        publish = grouping.update(state.sources[at], offset, e.ts, proof, hit, grouping.CAMPAIGN_GAP_MS)
        state.sources_dirty[at // population.SOURCES_PER_PAGE] = 1
        grouping.write_incident(state.sources[at], out)
    elif whose == grouping.CROWD_ENTITY:
        publish = grouping.update(e.population, offset, e.ts, proof, hit, grouping.CAMPAIGN_GAP_MS)
        grouping.write_incident(e.population, out)
    else:
        publish = grouping.update(e.profile, offset, e.ts, proof, hit, state.gap_ms)
        grouping.write_incident(e.profile, out)
    entered = e.flags & flag.SUCCEEDED and e.flags & flag.AUTHENTICATION
    if grouping.is_first(e.profile, out.first_offset, whose, e.user, entered):
        publish = True
    verdicts.kind[i] = whose if publish else -whose
    return publish, at


@inline
def intern(interned_hashes, requests, count, i, s, values, slot):  # type: ignore[no-untyped-def]
    """Request the texts of values that the dictionary should store; return the number of requests."""
    mask = np.uint64(interned_hashes.shape[0] - 1)
    for c in range(N_SKETCHES):
        value = values[c]
        if c in (TRANSITION, NETWORK) or value == 0 or slot[c] < 0:
            continue
        if sketch.should_intern(s, c, slot[c]):
            a = np.int64(value & mask)
            b = np.int64((value >> np.uint64(32)) & mask)
            if interned_hashes[a] != value and interned_hashes[b] != value:
                place = a if interned_hashes[a] == 0 or interned_hashes[b] != 0 else b
                interned_hashes[place] = value
                requests[count, 0], requests[count, 1], requests[count, 2] = i, c, place
                count += 1
    return count
