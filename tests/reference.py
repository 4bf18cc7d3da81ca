"""The fold in plain Python: dictionaries, lists and `math`, one event at a time, to verify the kernels.

It shares with the package the columns of a chunk (including hashes) and the constants, but no computation.
"""

from __future__ import annotations

import math
import struct
from collections import defaultdict, deque
from dataclasses import dataclass, field

from streamguard.events import indicators as flag
from streamguard.events.columns import Columns
from streamguard.fold import calibration, components, grouping, learning, moments, suspicion
from streamguard.fold import dimensions as layout
from streamguard.fold import population as crowd
from streamguard.fold.components import COMPONENTS
from streamguard.fold.crowd import LEEWAY, PLAIN_PRIOR
from streamguard.fold.evidence import HABIT_DAYS
from streamguard.fold.patterns import DORMANT_SECONDS, MEGABYTE, PATTERNS, RUSH, TRAVEL_MS
from streamguard.settings.schema import Detection

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
MONTH = 30 * 86_400.0
WORD = 2**64 - 1


def f32(x: float) -> float:
    """Value of a number as a float32."""
    kept: float = struct.unpack("<f", struct.pack("<f", x))[0]
    return kept


def decay(seconds: float, half_life: float) -> float:
    return 2.0 ** (-seconds / half_life)


def mix(x: int) -> int:
    """SplitMix64's finalizer."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & WORD
    return x ^ (x >> 31)


def poisson_bits(k: float, rate: float) -> float:
    """-log2 of the geometric bound of P(X >= k), with Stirling's ln k!."""
    if k < 1 or k <= rate:
        return 0.0
    ln_factorial = k * math.log(k) - k + 0.5 * math.log(2 * math.pi * k) + 1 / (12 * k)
    nats = rate - k * math.log(rate) + ln_factorial + math.log(1 - rate / (k + 1))
    return min(max(nats / math.log(2), 0.0), 60.0)


def student_bits(z: float) -> float:
    return 3 * math.log2(1 + z * z / 5)


@dataclass
class Incident:
    """Open incident of a user, a source or the crowd."""

    offset: int = -1
    first: int = 0
    last: int = 0
    count: int = 0
    bits: float = 0.0
    patterns: int = 0

    def join(self, offset: int, ts: int, bits: float, patterns: int, gap_ms: int) -> bool:
        """Add an alert; return whether the incident is published."""
        if self.offset < 0 or not -30 * DAY_MS <= ts - self.last <= gap_ms:
            self.offset, self.first, self.last, self.count = offset, ts, ts, 1
            self.bits, self.patterns = bits, patterns
            return True
        self.last = max(self.last, ts)
        self.count += 1
        published = bits >= self.bits + grouping.RISE_BITS or bool(patterns & ~self.patterns)
        published = published or (self.count >= 8 and math.log2(self.count).is_integer())
        self.bits = max(self.bits, bits)
        self.patterns |= patterns
        return published

    def report(self) -> tuple[float, ...]:
        return self.offset, self.first, self.count, self.patterns, self.bits + 0.5 * math.log2(self.count)


@dataclass
class Sketch:
    """The 16 values of one field with the largest weights, for one user."""

    hashes: list[int] = field(default_factory=lambda: [0] * 16)
    weights: list[float] = field(default_factory=lambda: [0.0] * 16)
    suspicion: list[float] = field(default_factory=lambda: [0.0] * 16)
    suspicion_ts: list[int] = field(default_factory=lambda: [0] * 16)
    proven: set[int] = field(default_factory=set)
    total: float = 0.0
    novel: float = 0.0
    seen: float = 0.0
    unheard_of: float = 0.0

    def find(self, value: int) -> int | None:
        return self.hashes.index(value) if value and value in self.hashes else None

    def weight(self, value: int) -> float:
        at = self.find(value)
        return 0.0 if at is None else self.weights[at]

    def learn(self, value: int, weight: float, failed: bool, unheard_of: bool) -> tuple[int, bool]:
        """Add a value, in place of the lightest one if it is new; return its index and whether it was new.

        Values that have only failed give way first.
        """
        at = self.find(value)
        fresh = at is None
        self.seen += weight
        if at is None:
            self.unheard_of += weight if unheard_of else 0.0
            at = min(range(16), key=lambda q: (q in self.proven, self.weights[q], q))
            self.proven.discard(at)
            self.total -= self.weights[at]
            self.novel += weight
            self.hashes[at] = value
            self.weights[at] = 0.0
        self.weights[at] += weight
        self.total += weight
        if not failed:
            self.proven.add(at)
        return at, fresh

    def drop(self, value: int) -> None:
        """Remove a value that has less than 5 % of the weight."""
        at = self.find(value)
        if at is not None and self.weights[at] < 0.05 * self.total:
            self.total -= self.weights[at]
            self.hashes[at], self.weights[at] = 0, 0.0
            self.suspicion[at], self.suspicion_ts[at] = 0.0, 0
            self.proven.discard(at)

    def age(self, g: float) -> None:
        self.total *= g
        self.novel *= g
        self.seen *= g
        self.unheard_of *= g
        self.weights = [w * g for w in self.weights]


@dataclass
class Moments:
    """Exponentially weighted mean and variance."""

    weight: float = 0.0
    mean: float = 0.0
    variance: float = 0.0

    def deviation(self, x: float, floor: float) -> float:
        return (x - self.mean) / math.sqrt(self.variance + floor) * self.weight / (self.weight + 5)

    def learn(self, x: float, weight: float) -> None:
        if not weight:
            return
        self.weight = min(self.weight + weight, moments.MEMORY)
        share, d = weight / self.weight, x - self.mean
        self.mean += share * d
        self.variance = (1 - share) * (self.variance + share * d * d)


def four() -> list[float]:
    return [0.0] * 4


@dataclass
class Profile:
    """One user."""

    events: float = 0.0
    first: int = 0
    last: int = 0
    active: int | None = None
    first_active: int = 0
    offset: int = -1
    streak: int = 0
    last_failure: int = 0
    last_day: int = -1
    active_days: float = 0.0
    last_hour: int = -1
    hour_weight: float = 0.0
    last_area: int = 0
    last_area_ts: int = 0
    last_type: int = 0
    count: list[float] = field(default_factory=four)
    failures: list[float] = field(default_factory=four)
    volume: list[float] = field(default_factory=four)
    reads: list[float] = field(default_factory=lambda: [0.0, 0.0])
    changes: list[float] = field(default_factory=lambda: [0.0, 0.0])
    encrypted: float = 0.0
    names: dict[int, tuple[int, set[int], int]] = field(default_factory=dict)
    """Slot -> (domain, places of the names in a bitmap, time) of DNS names with an indicator."""
    aged_events: float = 0.0
    unheard: float = 0.0
    unheard_ts: int = 0
    tried_incident: int = -1
    entered_incident: int = -1
    learned: float = 0.0
    learned_failures: float = 0.0
    interval: Moments = field(default_factory=Moments)
    bytes: Moments = field(default_factory=Moments)
    threat: Moments = field(default_factory=Moments)
    typical: list[float] = field(default_factory=lambda: [0.0] * len(COMPONENTS))
    pattern_days: list[float] = field(default_factory=lambda: [0.0] * len(PATTERNS))
    pattern_last_day: list[int] = field(default_factory=lambda: [0] * len(PATTERNS))
    hours: list[float] = field(default_factory=lambda: [0.0] * 168)
    hours_total: float = 0.0
    sketches: dict[str, Sketch] = field(default_factory=lambda: {name: Sketch() for name in layout.SKETCHES})
    incident: Incident = field(default_factory=Incident)

    def age(self, active: int, gap: float) -> None:
        """Age by `gap` seconds of event time, and up to the partition's active time."""
        if self.active is None:
            self.active, self.first_active = active, min(self.first, active)
        for j, half_life in enumerate(layout.HALF_LIVES[:3]):
            g = decay(gap, half_life)
            self.count[j] *= g
            self.failures[j] *= g
            self.volume[j] *= g
        minutes = decay(gap, layout.HALF_LIVES[0])
        self.reads[0] *= minutes
        self.changes[0] *= minutes
        self.encrypted *= minutes
        if active - self.active < HOUR_MS:
            return
        half_lives = (active - self.active) / 1000 / MONTH
        self.active = active
        for counter in (self.count, self.failures, self.volume, self.reads, self.changes):
            counter[-1] *= 2.0**-half_lives
        self.pattern_days = [d * 2.0**-half_lives for d in self.pattern_days]
        g = 2.0 ** -min(half_lives, (self.events - self.aged_events) / 50)
        self.aged_events = self.events
        self.learned *= g
        self.learned_failures *= g
        for sketch in self.sketches.values():
            sketch.age(g)
        self.hours_total *= g
        self.hours = [f32(w * g) for w in self.hours]

    def set_back(self, now: int) -> None:
        self.last = now
        self.first = min(self.first, now)
        self.last_failure = min(self.last_failure, now)
        self.last_area_ts = min(self.last_area_ts, now)
        self.last_day = min(self.last_day, now // DAY_MS)
        self.last_hour = min(self.last_hour, now // HOUR_MS)
        if self.incident.last > now:
            self.incident = Incident()
        self.pattern_last_day = [min(day, now // DAY_MS) for day in self.pattern_last_day]
        sources = self.sketches["source"]
        sources.suspicion_ts = [min(ts, now) for ts in sources.suspicion_ts]
        self.names = {slot: (domain, bits, min(ts, now)) for slot, (domain, bits, ts) in self.names.items()}
        self.unheard_ts = min(self.unheard_ts, now)

    def count_name(self, flags: int, domain: int, name: int, now: int) -> int:
        """Count a DNS name with an indicator; return how many different ones there are."""
        tunnel = bool(flags & flag.TUNNEL_QUERY)
        slot = (domain >> 8) % 8 if tunnel else 8
        owner, bits, ts = self.names.get(slot, (0, set[int](), 0))
        if abs(now - ts) > 600_000:
            bits = set()
        if tunnel and owner != domain:
            if len(bits) > 1:
                self.names[slot] = owner, bits - {min(bits)}, ts
                return 0
            owner, bits = domain, set()
        bits = bits | {(name if tunnel else domain) % 64}
        self.names[slot] = owner, bits, now
        return len(bits)

    def run(self, now: int) -> float:
        """Remaining bits of earlier actions that nobody had done before."""
        return self.unheard * decay(max(now - self.unheard_ts, 0) / 1000, 300)

    @property
    def stranger(self) -> bool:
        return self.learned < 3 and self.events < 20

    def usual_source(self, source: int) -> bool:
        sketch = self.sketches["source"]
        return sketch.weight(source) >= max(0.02 * sketch.total, 1.0)

    def suspicion(self, source: int, now: int) -> float:
        sketch = self.sketches["source"]
        at = sketch.find(source)
        if at is None:
            return 0.0
        rest = max(now - sketch.suspicion_ts[at], 0) / 1000
        return sketch.suspicion[at] * decay(rest, suspicion.CARRY_HALF_LIFE)

    def habit_bits(self, names: set[str], guesses: float) -> float:
        more = 2 * math.log2(max(guesses / 8, 1))
        return max(
            (
                p.bits + (more if p.name in ("brute_force", "success_after_failures") else 0.0)
                for k, p in enumerate(PATTERNS)
                if p.name in names and self.pattern_days[k] < HABIT_DAYS
            ),
            default=0.0,
        )


@dataclass
class Source:
    """An address with failures."""

    hash: int = 0
    last: int = 0
    failures: float = 0.0
    users: set[int] = field(default_factory=set)
    successes: float = 0.0
    welcome: set[int] = field(default_factory=set)
    incident: Incident = field(default_factory=Incident)

    @property
    def spread(self) -> float:
        """Number of users for whom it failed."""
        return linear_count(self.users)

    def age(self, now: int) -> None:
        g = decay(max(now - self.last, 0) / 1000, 3600)
        self.failures *= g
        self.successes *= g
        if self.failures < 0.25:
            self.users = set()
        if self.successes < 0.25:
            self.welcome = set()
        self.last = now if self.last > now + DAY_MS else max(self.last, now)


def linear_count(cells: set[int]) -> float:
    """Number of users by linear counting over 256 cells."""
    return -256 * math.log(1 - min(len(cells), 255) / 256)


@dataclass
class Adopted:
    """A value that was new to a known user, and who else has used it since."""

    name: int = 0
    last: int = 0
    users: set[int] = field(default_factory=set)


@dataclass
class Crowd:
    """A partition's population."""

    events: float = 0.0
    clock: int = 0
    active: int = 0
    position: int = 0
    """Active time that belongs to the clock; it is less than `active` when the clock was set back."""
    aged: int = 0
    days: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=crowd.MARKS))
    """(clock, position) at the ends of the last active days."""
    run: tuple[int, int, int] = (0, 0, 0)
    """User of the last event that was not late, number of such events in a row, and ms that they have added."""
    ahead: list[tuple[int, int]] = field(default_factory=list)
    behind: int = 0
    aged_events: float = 0.0
    strangers: float = 0.0
    active_users: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    """Known users that began a day, with half-lives of 1, 7 and 30 active days."""
    returns: float = 0.0
    strange: float = 0.0
    recent: float = 0.0
    adopted: dict[int, Adopted] = field(default_factory=dict)
    last_failed_user: int = 0
    failed_users: float = 0.0
    age_seconds: float = 0.0
    fast: dict[str, float] = field(default_factory=lambda: dict.fromkeys((*crowd.CLASSES, "plain"), 0.0))
    slow: dict[str, float] = field(default_factory=lambda: dict.fromkeys((*crowd.CLASSES, "plain"), 0.0))
    failures: float = 0.0
    learned: float = 0.0
    table: defaultdict[tuple[int, int], float] = field(default_factory=lambda: defaultdict(float))
    total: list[float] = field(default_factory=lambda: [0.0] * crowd.FIELDS)
    novel: list[float] = field(default_factory=lambda: [0.0] * crowd.FIELDS)
    novel_total: list[float] = field(default_factory=lambda: [0.0] * crowd.FIELDS)
    hours: list[float] = field(default_factory=lambda: [0.0] * 168)
    hours_total: float = 0.0
    scores: list[float] = field(default_factory=lambda: [0.0] * crowd.BINS)
    scores_total: float = 0.0
    sources: dict[int, list[Source]] = field(default_factory=dict)
    incident: Incident = field(default_factory=Incident)

    def advance(self, ts: int, user: int, append: int) -> None:
        if self.events == 0:
            self.clock = self.aged = self.active = self.position = ts
            self.days.append((ts, ts))
        if append and self.clock > append + 10 * 60_000:
            self.set_clock_back(append)
        live = bool(append) and append - ts < 6 * HOUR_MS
        target = ts
        if ts > self.clock + DAY_MS and not live:
            self.ahead.append((ts, user))
            target = min(ts for ts, _ in self.ahead)
            agreed = len({user for _, user in self.ahead}) > 1
            needed = 2 if agreed or target <= self.clock + 30 * DAY_MS else 100
            if len(self.ahead) < needed:
                return
        elif ts < self.clock - 6 * HOUR_MS:
            self.ahead = []
            self.behind += 1
            if self.behind == 300:
                self.set_clock_back(ts)
            return
        else:
            self.behind = max(self.behind - 1, 0)
        self.ahead = []
        leader, count, added = self.run
        if live or leader != user:
            count = added = 0
        count += 1
        self.run = user, count, added
        if target <= self.clock:
            return
        step, before = target - self.clock, self.active
        self.clock = target
        new_days = min(1 + count // 100 - added / DAY_MS, 1)
        self.position += min(step, max(self.active - self.position, round(new_days * DAY_MS)))
        self.active = max(self.active, self.position)
        self.run = user, count, added + self.active - before
        if self.position - self.days[-1][1] >= DAY_MS:
            self.days.append((self.clock, self.position))
        self._age(step / 1000, (self.active - before) / 1000)

    def set_clock_back(self, ts: int) -> None:
        self.clock, self.behind, self.ahead = ts, 0, []
        limit = self.position
        while len(self.days) > 1 and self.days[-1][0] > ts:
            limit = self.days.pop()[1]
        clock, position = self.days[-1]
        self.position = min(position + max(ts - clock, 0), limit)

    def _age(self, seconds: float, active: float) -> None:
        for name in self.fast:
            self.fast[name] *= decay(seconds, crowd.FAST_HALF_LIFE)
            self.slow[name] *= decay(active, MONTH)
        self.failed_users *= decay(seconds, crowd.FAST_HALF_LIFE)
        self.strangers *= decay(seconds, crowd.FAST_HALF_LIFE)
        self.active_users = [
            n * decay(active, days * 86_400) for n, days in zip(self.active_users, (1, 7, 30), strict=True)
        ]
        self.returns *= decay(active, 86_400)
        self.strange *= decay(active, 86_400)
        self.recent *= decay(active, 86_400)
        self.age_seconds = self.age_seconds * decay(active, MONTH) + active
        if self.active - self.aged < DAY_MS:
            return
        g = 2.0 ** -min((self.active - self.aged) / 1000 / MONTH, (self.events - self.aged_events) / 500)
        self.aged, self.aged_events = self.active, self.events
        for numbers in (self.total, self.novel, self.novel_total, self.hours, self.scores):
            numbers[:] = [x * g for x in numbers]
        for cell in self.table:
            self.table[cell] *= g
        self.hours_total *= g
        self.scores_total *= g
        self.learned *= g
        self.failures *= g

    def cells(self, column: int, value: int) -> tuple[tuple[int, int], tuple[int, int]]:
        h = mix((value + crowd.FIELD_SALTS[column]) & WORD)
        return (0, h % crowd.WIDTH), (1, (h >> 32) % crowd.WIDTH)

    def frequency(self, column: int, value: int) -> float:
        a, b = self.cells(column, value)
        return min(self.table[a], self.table[b])

    def popularity(self, column: int, value: int) -> float:
        fresh = (self.novel[column] + 1) / (self.novel_total[column] + 20)
        seen = self.frequency(column, value)
        return (
            (1 - fresh) * seen / (self.total[column] + 1) if seen > 0 else 1 / (self.novel_total[column] + 20)
        )

    def adoption(self, column: int, value: int, user: int, now: int) -> float:
        """Share of the known users of these days that has taken up a value, without the first of them."""
        name = self.adopted_name(column, value)
        one = self.adopted.get(name % 512, Adopted())
        if one.name != name or now - one.last > 7 * DAY_MS:
            return 0.0
        others = linear_count(one.users) - (user >> 56 in one.users)
        return min(max(others - 1, 0.0) / (self.active_users[0] + 3), 1.0)

    @staticmethod
    def adopted_name(column: int, value: int) -> int:
        return mix(value ^ ((column + 1) << 60 & WORD))

    def adopt(self, column: int, value: int, user: int, now: int, new: bool) -> None:
        name = self.adopted_name(column, value)
        one = self.adopted.get(name % 512, Adopted())
        if one.name != name or now - one.last > 7 * DAY_MS:
            held = one.name != name and now - one.last < DAY_MS and linear_count(one.users) > 2.5
            if not new or held:
                return
            one = self.adopted[name % 512] = Adopted(name, now)
        one.last = max(now, one.last)
        one.users.add(user >> 56)

    @property
    def others_there(self) -> bool:
        days = max(self.age_seconds / 86_400, 1.0)
        week, month = (
            n / min(days, length / math.log(2))
            for n, length in zip(self.active_users[1:], (7, 30), strict=True)
        )
        return week >= 0.67 * month

    @property
    def surge(self) -> float:
        """Present number of plain events divided by the usual number."""
        plain = self._usual_rate("plain", 0.0)
        return max((self.fast["plain"] + PLAIN_PRIOR) / (plain + PLAIN_PRIOR), 1.0)

    def _usual_rate(self, name: str, prior: float) -> float:
        return (self.slow[name] + prior) / (self.age_seconds + 3600) * crowd.FAST_HALF_LIFE / math.log(2)

    def usual(self, name: str, hour: int) -> float:
        """Events of a class that the fast counter holds at the long-run rate."""
        busy = (self.hours[hour] + 1) * 168 / (self.hours_total + 168)
        usual = self._usual_rate(name, 0.5) * max(busy, self.surge) * LEEWAY
        strangers = 0.1 * max(self.strangers - self.fast["new_user"], 0.0)
        if name == "new_user":
            usual = max(usual, strangers)
        if name == "new_source_failure":
            movers = 0.05 * max(self.fast["new_source"] - self.fast["new_source_failure"], 0.0)
            usual = max(usual, movers + strangers)
        return max(usual, 0.02)

    def source(self, value: int) -> Source | None:
        return next((e for e in self._ways(value) if e.hash == value), None) if value else None

    def _ways(self, value: int) -> list[Source]:
        base = mix(value) % (crowd.SOURCES // crowd.WAYS)
        return self.sources.setdefault(base, [Source() for _ in range(crowd.WAYS)])

    def failed_at(self, value: int, user: int, ts: int) -> Source:
        entry = self.source(value)
        if entry is None:
            ways = self._ways(value)
            at = min(range(crowd.WAYS), key=lambda w: ways[w].last)
            entry = ways[at] = Source(hash=value, last=ts)
        entry.age(ts)
        entry.failures += 1
        entry.users.add(user >> 56)
        return entry

    def level(self, tail: float) -> float:
        """Score that the given share of events exceeds."""
        left = self.scores_total * tail
        for b in reversed(range(crowd.BINS)):
            if self.scores[b] > left:
                return (b + 1 - left / self.scores[b]) / crowd.BINS_PER_BIT
            left -= self.scores[b]
        return 0.0

    def tail_bits(self, score: float) -> float:
        total = self.scores_total
        if total <= 0:
            return 0.0
        position = score * crowd.BINS_PER_BIT
        b = min(int(position), crowd.BINS - 1)
        above = (total - sum(self.scores[:b]) - self.scores[b] * min(position - b, 1.0)) / total
        rare = 1e-3 if total >= calibration.EVENTS_FOR_TAIL else 1e-2
        if above > rare:
            seen = -math.log2(min(above, 1.0))
        else:
            edge = self.level(rare)
            slope = max((edge - self.level(10 * rare)) / math.log2(10), 0.5)
            seen = -math.log2(rare) + max(score - edge, 0.0) / slope
        prior = max(score - calibration.PRIOR_START, 0.0) / calibration.PRIOR_SLOPE
        trust = total / (total + calibration.PRIOR_EVENTS)
        # log2 of the mixture trust * 2**-seen + (1 - trust) * 2**-prior, without underflow
        low = min(seen, prior)
        bits = low - math.log2(trust * 2.0 ** (low - seen) + (1 - trust) * 2.0 ** (low - prior))
        return max(bits, 0.0) * self.events / (self.events + calibration.YOUNG_EVENTS)

    def record(self, score: float, tail: float, weight: float) -> None:
        if tail >= 7:
            weight = min(weight, max(self.recent / 64 + 3 - self.strange, 0.0))
            self.strange += weight
        self.recent += weight
        self.scores[min(int(score * crowd.BINS_PER_BIT), crowd.BINS - 1)] += weight
        self.scores_total += weight


@dataclass(frozen=True)
class Decided:
    """A decision about a value of a user; the hashes are those of the columns."""

    id: str
    kind: str
    user: int = 0
    field: str = ""
    value: int = 0
    until: int = 0


@dataclass
class Outcome:
    """Result of one event; fields as in `streamguard.state.partition.Folded`."""

    features: list[float]
    raw: list[float]
    excess: list[float]
    score: float
    tail: float
    patterns: int
    strength: float
    kind: int
    incident: tuple[float, ...] | None


class Reference:
    """Fold of a partition."""

    def __init__(self, detection: Detection) -> None:
        self.profiles: dict[str, Profile] = {}
        self.crowd = Crowd()
        self.decisions: dict[str, Decided] = {}
        self._alert_bits = math.log2(10) * detection.alert_risk / (100 - detection.alert_risk)
        self._gap_ms = int(detection.incident_gap_seconds * 1000)
        self.life_ms = detection.forget_after_days * DAY_MS

    def fold(
        self, columns: Columns, user_hashes: list[int], offsets: list[int], append: list[int]
    ) -> list[Outcome | None]:
        """Fold a chunk; the outcome is None for an event that was folded before."""
        events = zip(range(len(columns.users)), user_hashes, offsets, append, strict=True)
        return [self._event(columns, *event) for event in events]

    def decide(self, one: Decided, subject: str) -> None:
        """Apply a decision; a revocation has the id that it removes."""
        if one.kind == "revoke":
            self.decisions.pop(one.id, None)
            return
        if one.id in self.decisions:
            return
        if len(self.decisions) == 4096:
            self.decisions = {
                name: held
                for name, held in self.decisions.items()
                if held.kind == "attack" or self.crowd.clock < held.until // 1000 * 1000
            }
        if len(self.decisions) == 4096:
            return
        self.decisions[one.id] = one
        if one.kind == "attack" and subject in self.profiles:
            self.profiles[subject].sketches[one.field].drop(one.value)

    def _judged(self, user: int, values: dict[str, int]) -> tuple[set[str], set[str]]:
        """Fields whose value is expected, and those whose value is denied."""
        mine = [d for d in self.decisions.values() if user and d.user == user and values[d.field] == d.value]
        denied = {d.field for d in mine if d.kind == "attack"}
        now = self.crowd.clock
        expected = {d.field for d in mine if d.kind == "expected" and now < d.until // 1000 * 1000}
        return expected - denied, denied

    def _event(self, columns: Columns, i: int, user_hash: int, offset: int, append: int) -> Outcome | None:
        s = self.profiles.setdefault(columns.subjects[i], Profile())
        p = self.crowd
        if offset <= s.offset:
            return None
        now, flags = int(columns.timestamp[i]), int(columns.flags[i])
        if append:
            now = min(now, append + 10 * 60_000)
        threat, volume = float(columns.threat[i]), float(columns.volume[i])
        failed = bool(flags & flag.FAILED)
        p.advance(now, user_hash, append)
        if self.forgets(s):
            s = self.profiles[columns.subjects[i]] = Profile()
        gap = 0.0
        if s.events == 0:
            s.first = s.last = now
        elif s.last - DAY_MS > p.clock and s.last - DAY_MS > now:
            s.set_back(now)
            gap = 2.0**s.interval.mean
        else:
            gap = max(now - s.last, 0) / 1000
        away = gap if s.active is None else min(gap, (p.active - s.active) / 1000 + 3600)
        s.age(p.active, gap)
        hour, day = (now // HOUR_MS + 72) % 168, now // DAY_MS

        hashes = [int(h) for h in columns.hashes[i]]
        state = mix((hashes[5] + (flags & (flag.FAILED | flag.SUCCEEDED))) & WORD)
        values = dict(zip(layout.SKETCHES[:5], hashes[:5], strict=True))
        values["transition"] = mix(s.last_type ^ (state << 1 & WORD))
        values["network"] = int(columns.network[i])
        outcome = mix((state + hashes[6]) & WORD)
        values["action"], values["command"] = hashes[7], hashes[8]
        address, settled = values["source"], min(now, p.clock)
        source = p.source(address)
        repeated = failed and source is not None and user_hash >> 56 in source.users
        if address and failed:
            source = p.failed_at(address, user_hash, settled)
        elif source:
            source.age(settled)
        dns_names = 0
        if flags & (flag.TUNNEL_QUERY | flag.GENERATED_NAME):
            dns_names = s.count_name(flags, values["resource"], hashes[9], now)

        raw = self._components(s, values, outcome, source, user_hash, flags, now, gap, hour, threat, volume)
        expected, denied = self._judged(user_hash, values)
        for name in expected | ({"unheard_actions"} if "action" in expected else set()):
            raw[name] = min(raw[name], s.typical[COMPONENTS.index(name)])
        less = self._excess(s, values, raw, flags)
        excess = list(less.values())
        score = sum(excess)
        tail = p.tail_bits(score)
        of_crowd = sum(less[f"crowd_{name}"] for name in crowd.CLASSES)
        elsewhere = of_crowd + less["source_spread"] if s.usual_source(address) else 0.0
        own_tail = p.tail_bits(score - less["carried"] - elsewhere)
        spread = source.spread if source else 0.0
        common = p.failed_users >= max(3, 0.1 * p.fast["failure"])
        same_source, guesses = not address, float(s.streak)
        if source:
            same_source = source.failures >= 3 and user_hash >> 56 in source.users
            guesses = min(guesses, source.failures)
        found = self._patterns(s, values, less, flags, now, gap, away, int(columns.area[i]), volume, spread,
                               same_source, common, dns_names)  # fmt: skip
        if expected & {"source", "location"}:
            found &= ~(1 << [p.name for p in PATTERNS].index("impossible_travel"))
        if denied:
            found |= 1 << [p.name for p in PATTERNS].index("confirmed_before")
        names = {PATTERNS[k].name for k in range(len(PATTERNS)) if found >> k & 1}
        features = self._features(s, values, raw, flags, now, gap, hour, volume, threat)
        strength = tail + s.habit_bits(names, guesses)

        kind, published_incident = grouping.NO_ENTITY, None
        if strength >= self._alert_bits:
            kind = self._owner(s, source, spread, address, less, user_hash, failed)
            gap_ms = self._gap_ms if kind == grouping.USER_ENTITY else grouping.CAMPAIGN_GAP_MS
            if kind == grouping.SOURCE_ENTITY:
                source = source or p.failed_at(address, user_hash, min(now, p.clock))
                entity = source.incident
            else:
                entity = s.incident if kind == grouping.USER_ENTITY else p.incident
            published = entity.join(offset, now, strength, found, gap_ms)
            if kind != grouping.USER_ENTITY and user_hash and s.tried_incident != entity.offset:
                s.tried_incident, published = entity.offset, True
            login = flags & flag.SUCCEEDED and flags & flag.AUTHENTICATION
            if login and s.entered_incident != entity.offset:
                s.entered_incident, published = entity.offset, True
            published_incident = entity.report()
            kind = kind if published else -kind

        weight = min(
            max(2.0 ** (-(tail - learning.QUIET_BITS) / learning.LEARN_BITS), learning.MIN_WEIGHT), 1.0
        )
        if denied:
            weight = 0.0
        shared = less["carried"] + less["source_spread"] + s.habit_bits(names, guesses) + of_crowd
        p.record(score, tail, 0.0 if denied else min(2.0 ** (-(shared - 6) / 3), 1.0))
        fresh = bool(address) and s.sketches["source"].find(address) is None
        classes = self._classes(s, fresh, failed)
        stranger = s.stranger
        if not stranger and day > s.last_day:
            p.active_users = [n + 1 for n in p.active_users]
            p.returns += away >= 14 * 86_400
        if not failed and not denied:
            if source:
                source.successes += 1
                source.welcome.add(user_hash >> 56)
            if not stranger and self._moves(s, values):
                for c, name in enumerate(layout.SKETCHES[:4]):
                    if values[name]:
                        new = s.sketches[name].find(values[name]) is None
                        p.adopt(c, values[name], user_hash, settled, new)
        if self._unheard(s, values):
            s.unheard = 0.9 * s.run(now) + max(less["action"] - 3, 0.0)
            s.unheard_ts = max(now, s.unheard_ts)
        self._learn_profile(s, raw, own_tail, values, flags, now, gap, day, int(columns.area[i]), volume,
                            threat, found, weight)  # fmt: skip
        s.last_type, s.offset = state, offset
        self._learn_crowd(classes, values, outcome, (user_hash or address) if failed else None, repeated, stranger,
                          hour, weight)  # fmt: skip
        return Outcome(features, [raw[n] for n in COMPONENTS], excess, score, tail, found, strength, kind,
                       published_incident)  # fmt: skip

    def forgets(self, s: Profile) -> bool:
        """Whether a user has had no event for so long that the profile no longer counts."""
        return s.active is not None and self.crowd.active - s.active > self.life_ms

    def _classes(self, s: Profile, fresh: bool, failed: bool) -> set[str]:
        member = {
            "new_source": fresh,
            "failure": failed,
            "new_user": failed and s.stranger,
            "new_source_failure": fresh and failed,
        }
        return {name for name, belongs in member.items() if belongs}

    def _moves(self, s: Profile, values: dict[str, int]) -> bool:
        """Whether an event is the user's own in half of source, location, host and agent."""
        present = [name for name in layout.SKETCHES[:4] if values[name]]
        new = [name for name in present if s.sketches[name].find(values[name]) is None]
        return len(present) < 3 or 2 * len(new) <= len(present)

    def _unheard_of(self, s: Profile, name: str, values: dict[str, int]) -> bool:
        value, column = values[name], layout.SKETCHES.index(name)
        return (
            bool(value) and s.sketches[name].find(value) is None and self.crowd.frequency(column, value) == 0
        )

    def _unheard(self, s: Profile, values: dict[str, int]) -> bool:
        return self._unheard_of(s, "action", values)

    def _excess(
        self, s: Profile, values: dict[str, int], raw: dict[str, float], flags: int
    ) -> dict[str, float]:
        """The components less what is usual for this user, in their order."""
        known = 1.0
        if s.stranger:
            known = max(s.learned / (s.learned + 3), 0.6 if flags & flag.FAILED else 0.0)
        less = dict(raw)
        shared = ("source_spread", "carried", *(f"crowd_{name}" for name in crowd.CLASSES))
        for c, name in enumerate(COMPONENTS):
            if name in shared or name == "failure":
                continue
            bits = raw[name]
            if name != "source":
                if name in layout.SKETCHES and self._unheard_of(s, name, values):
                    sketch = s.sketches[name]
                    bits *= sketch.seen / (sketch.seen + 1 + sketch.unheard_of)
                elif name != "unheard_actions":
                    bits = max(bits - s.typical[c], 0.0)
            if flags & flag.READ_ONLY and name in ("action", "unheard_actions"):
                bits *= 0.5
            less[name] = bits * known
        if s.usual_source(values["source"]):
            own = sum(bits for name, bits in less.items() if name not in shared)
            less["carried"] = min(less["carried"], 3 * max(own - 3, 0.0))
        if raw["crowd_new_user"] > 0:
            weaker = "failure" if raw["crowd_new_user"] >= raw["crowd_failure"] else "new_user"
            less[f"crowd_{weaker}"] = 0.0
        return less

    def _components(
        self, s: Profile, values: dict[str, int], outcome: int, source: Source | None, user: int, flags: int,
        now: int, gap: float, hour: int, threat: float, volume: float,
    ) -> dict[str, float]:  # fmt: skip
        p = self.crowd
        failed = bool(flags & flag.FAILED)
        bits = dict.fromkeys(COMPONENTS, 0.0)
        moves = self._moves(s, values)
        for c, name in enumerate(layout.SKETCHES):
            if not values[name] or name == "network":
                continue
            sketch, everybody = s.sketches[name], p.popularity(c, values[name])
            if name == "source":
                network = s.sketches["network"]
                near = network.weight(values["network"]) / (network.total + 1 + network.novel)
                everybody = max(everybody, near / 8)
            escape = 1 + sketch.novel
            share = (sketch.weight(values[name]) + escape * everybody) / (sketch.seen + escape)
            if c < 4 and moves:
                share = max(share, p.adoption(c, values[name], user, now) / 2)
            bits[name] = max(-math.log2(share), 0.0)
        if flags & flag.FAILED:
            usual = (p.failures + 0.5) / (p.learned + 10)
            bits["failure"] = -math.log2((s.learned_failures + 4 * usual) / (s.learned + 4))
        bits["outcome"] = max(-math.log2((p.frequency(9, outcome) + 0.5) / (p.total[9] + 5)), 0.0)
        around = 0.5 * s.hours[hour] + 0.25 * (s.hours[hour - 1] + s.hours[(hour + 1) % 168])
        everybody = (p.hours[hour] + 1) / (p.hours_total + 168)
        bits["hour"] = max(-math.log2((around + 8 * everybody) / (s.hours_total + 8)), 0.0)
        z = s.interval.deviation(math.log2(gap * p.surge + 1e-3), 1.0)
        bits["interval"] = student_bits(min(z, 0.0))
        if flags & flag.HAS_VOLUME:
            bits["volume"] = student_bits(max(s.bytes.deviation(math.log2(volume + 1), 1.0), 0.0))
        if flags & flag.HAS_THREAT:
            bits["threat"] = student_bits(max(s.threat.deviation(threat, 0.0025), 0.0))
        fresh = bool(values["source"]) and s.sketches["source"].find(values["source"]) is None
        crowd_bits = {name: poisson_bits(p.fast[name] + 1, p.usual(name, hour)) for name in crowd.CLASSES}
        crowd_bits["new_source"] = min(crowd_bits["new_source"], crowd_bits["new_source_failure"])
        for name in self._classes(s, fresh, failed):
            bits[f"crowd_{name}"] = crowd_bits[name]
        sources = s.sketches["source"]
        foreign = sources.find(values["source"]) not in sources.proven
        if source and source.spread > 2.5 and (failed or foreign):
            good = min(source.successes, 20 * linear_count(source.welcome))
            floor = (p.failures + 0.5) / (p.learned + 10) * 1.5 * (good + 10)
            share = (p.frequency(0, values["source"]) + 0.1) / (p.total[0] + 1000)
            usual = (p.slow["failure"] + 0.5) / (p.age_seconds + 3600) * 3600 / math.log(2) * share
            tries = min(source.failures, source.spread)
            bits["source_spread"] = min(poisson_bits(tries + 1, max(usual, floor, 0.5)), 30.0)
        bits["unheard_actions"] = 0.5 * s.run(now) if self._unheard(s, values) else 0.0
        bits["carried"] = components.CARRY * s.suspicion(values["source"], now)
        return bits

    def _patterns(self, s: Profile, values: dict[str, int], less: dict[str, float], flags: int, now: int,
                  gap: float, away: float, area: int, volume: float, spread: float, same_source: bool,
                  common: bool, names: int) -> int:  # fmt: skip
        login = bool(flags & flag.AUTHENTICATION)
        failed_login = login and bool(flags & flag.FAILED)
        known = s.events >= 20
        age = ((s.active or 0) - s.first_active) / 1000
        lived = MONTH / math.log(2) * (1 - decay(age, MONTH)) + 3600

        def rushes(counter: list[float]) -> bool:
            return counter[0] >= 60 and counter[0] > RUSH * counter[1] / lived * 300 / math.log(2)

        moved = s.volume[1] + volume
        new_source = s.sketches["source"].find(values["source"]) is None
        unknown_place = s.sketches["location"].find(values["location"]) is None
        unknown_place = unknown_place and new_source and less["source"] >= 5
        own_device = all(
            s.sketches[name].find(values[name]) in s.sketches[name].proven
            and s.sketches[name].weight(values[name]) >= 3
            for name in ("host", "agent")
        )
        hits = {
            "brute_force": failed_login and s.streak >= 7 and s.failures[0] >= 6,
            "success_after_failures": login
            and bool(flags & flag.SUCCEEDED)
            and s.streak >= 5
            and s.failures[1] >= 3
            and now - s.last_failure < 900_000
            and (new_source or (same_source and not common)),
            "password_spray": spread >= 8 and less["source_spread"] >= 12,
            "distributed_guessing": failed_login
            and less["crowd_new_source_failure"] >= 20
            and less["source"] >= 6,
            "impossible_travel": known
            and bool(area and s.last_area)
            and area != s.last_area
            and abs(now - s.last_area_ts) < TRAVEL_MS
            and unknown_place
            and not own_device,
            "dormant_account": known
            and away >= DORMANT_SECONDS
            and self.crowd.returns < 3
            and self.crowd.others_there
            and math.log2(gap) > s.interval.mean + 3 * math.sqrt(s.interval.variance + 1),
            "mass_download": bool(flags & flag.FILE_READ) and rushes(s.reads),
            "exfiltration": known
            and volume > 0
            and moved > 200 * MEGABYTE
            and moved > 0.5 * s.volume[3]
            and less["volume"] >= 4,
            "ransomware": bool(flags & flag.FILE_CHANGE) and (s.encrypted >= 15 or rushes(s.changes)),
            "encoded_command": bool(flags & flag.ENCODED_COMMAND),
            "credential_dumping": bool(flags & flag.CREDENTIAL_DUMP),
            "dns_tunnel": bool(flags & flag.TUNNEL_QUERY) and names >= 8,
            "generated_names": bool(flags & flag.GENERATED_NAME) and names >= 8,
            "log_clearing": bool(flags & flag.LOG_CLEARING),
            "audit_tampering": bool(flags & flag.AUDIT_TAMPERING),
            "living_off_the_land": bool(flags & flag.LIVING_OFF_THE_LAND),
            "remote_execution": bool(flags & flag.REMOTE_EXECUTION),
            "recovery_inhibited": bool(flags & flag.RECOVERY_INHIBITED),
            "confirmed_before": False,
        }
        return sum(1 << k for k, pattern in enumerate(PATTERNS) if hits[pattern.name])

    def _features(self, s: Profile, values: dict[str, int], bits: dict[str, float], flags: int, now: int,
                  gap: float, hour: int, volume: float, threat: float) -> list[float]:  # fmt: skip
        sources, networks = s.sketches["source"], s.sketches["network"]
        squares = sum(w * w for w in sources.weights)
        at = sources.find(values["source"])
        streak = math.log2(1 + s.streak)
        return [
            math.log2(1 + 12 * s.count[0]),
            math.log2(1 + s.count[1]),
            math.log2(1 + s.count[2] / 24),
            math.log2(1 + s.count[3] / 720),
            bits["host"],
            bits["agent"],
            bits["resource"],
            s.bytes.deviation(math.log2(volume + 1), 1.0) if flags & flag.HAS_VOLUME else 0.0,
            bits["hour"],
            sum(busy > self.crowd.hours[hour] for busy in self.crowd.hours) / 168,
            math.log2(1 + gap / 86_400),
            math.log2(1 + s.active_days),
            s.interval.deviation(math.log2(gap + 1e-3), 1.0),
            math.log2((12 * s.count[0] + 1) / (s.count[2] / 24 + 1)),
            bits["source"],
            -math.log2((networks.weight(values["network"]) + 0.5) / (networks.total + 1)),
            bits["location"],
            math.log2(max(sources.total**2 / squares, 1.0)) if squares > 0 else 0.0,
            bits["crowd_new_source"],
            bits["transition"],
            0.0 if at is None else math.log2(1 + max(now - sources.suspicion_ts[at], 0) / HOUR_MS),
            streak,
            streak if flags & flag.SUCCEEDED else 0.0,
            threat,
            s.threat.deviation(threat, 0.0025) if flags & flag.HAS_THREAT else 0.0,
            s.threat.mean,
            (s.failures[1] + 0.05) / (s.count[1] + 1),
            (s.failures[2] + 0.05) / (s.count[2] + 1),
            bits["action"],
            bits["command"],
            bits["outcome"],
            bits["failure"],
            math.log2((s.count[1] + 1) / (s.count[3] / 720 + 1)),
            math.log2((s.count[2] + 1) / (s.count[3] / 30 + 1)),
        ]

    def _owner(self, s: Profile, source: Source | None, spread: float, address: int, less: dict[str, float],
               user_hash: int, failed: bool) -> int:  # fmt: skip
        p = self.crowd
        if not user_hash and address:
            return grouping.SOURCE_ENTITY
        if source and spread > 2.5 and less["source_spread"] >= 3:
            return grouping.SOURCE_ENTITY
        of_crowd = sum(bits for name, bits in less.items() if name.startswith("crowd_"))
        of_user = sum(less.values()) - of_crowd - less["carried"]
        many_users = p.failed_users >= max(3, 0.1 * p.fast["failure"])
        return (
            grouping.CROWD_ENTITY
            if failed and of_crowd > of_user and (many_users or s.learned < 3)
            else grouping.USER_ENTITY
        )

    def _learn_profile(self, s: Profile, raw: dict[str, float], own_tail: float, values: dict[str, int], flags: int,
                       now: int, gap: float, day: int, area: int, volume: float, threat: float, found: int,
                       weight: float) -> None:  # fmt: skip
        failed = bool(flags & flag.FAILED)
        for j in range(4):
            s.count[j] += 1
            s.failures[j] += failed
            s.volume[j] += volume
        for bit, counter in ((flag.FILE_READ, s.reads), (flag.FILE_CHANGE, s.changes)):
            if flags & bit:
                counter[0] += 1
                counter[1] += 1
        s.encrypted += bool(flags & flag.FILE_CHANGE and flags & flag.ENCRYPTED)
        left = s.suspicion(values["source"], now)
        for name, sketch in s.sketches.items():
            if not values[name]:
                continue
            tried = failed and name in ("source", "location", "host", "agent", "network")
            column = layout.SKETCHES.index(name)
            unheard_of = self.crowd.frequency(column, values[name]) == 0
            if not weight and sketch.find(values[name]) is None:
                continue
            unproven = failed or not weight
            at, fresh = sketch.learn(values[name], weight / 8 if tried else weight, unproven, unheard_of)
            if name == "source":
                sketch.suspicion[at] = f32(
                    left * suspicion.SUSPICION_KEPT + max(own_tail - suspicion.UNREMARKABLE, 0.0)
                )
                sketch.suspicion_ts[at] = now if fresh else max(now, sketch.suspicion_ts[at])
        if now // HOUR_MS != s.last_hour and weight:
            if s.last_hour >= 0:
                over = (s.last_hour + 72) % 168
                s.hours[over] = f32(s.hours[over] + s.hour_weight)
                s.hours_total += s.hour_weight
            s.last_hour, s.hour_weight = now // HOUR_MS, weight
        s.learned += weight
        s.learned_failures += weight * failed
        share = weight / min(s.learned, moments.MEMORY) if weight else 0.0
        s.typical = [
            usual + share * (min(raw[name], 20.0) - usual)
            for name, usual in zip(COMPONENTS, s.typical, strict=True)
        ]
        if s.events > 0 and now >= s.last:
            s.interval.learn(math.log2(gap + 1e-3), weight)
        if flags & flag.HAS_VOLUME:
            s.bytes.learn(math.log2(volume + 1), weight)
        s.threat.learn(threat, weight)
        for k in range(len(PATTERNS)):
            if found >> k & 1 and day > s.pattern_last_day[k] and weight:
                s.pattern_last_day[k] = day
                s.pattern_days[k] += 1
        if failed:
            s.streak += 1
            s.last_failure = max(now, s.last_failure)
        elif flags & flag.SUCCEEDED and flags & flag.AUTHENTICATION:
            s.streak = 0
        if day > s.last_day:
            s.last_day = day
            s.active_days += 1
        if area and now >= s.last_area_ts:
            s.last_area, s.last_area_ts = area, now
        s.last = max(s.last, now)
        s.events += 1

    def _learn_crowd(self, classes: set[str], values: dict[str, int], outcome: int, failed: int | None,
                     repeated: bool, stranger: bool, hour: int, weight: float) -> None:  # fmt: skip
        p = self.crowd
        p.strangers += stranger
        again = failed is not None and (failed == p.last_failed_user or repeated)
        for name in set() if again else classes or {"plain"}:
            p.fast[name] += 1
            p.slow[name] += 1
        for c, value in [*((c, values[name]) for c, name in enumerate(layout.SKETCHES)), (9, outcome)]:
            if not value or c == layout.SKETCHES.index("network"):
                continue
            a, b = p.cells(c, value)
            old = min(p.table[a], p.table[b])
            p.table[a], p.table[b] = max(p.table[a], old + 1), max(p.table[b], old + 1)
            p.novel_total[c] += weight
            p.novel[c] += weight if old == 0 else 0
            p.total[c] += 1
        p.hours[hour] += 1
        p.hours_total += 1
        p.learned += weight
        if failed is not None:
            p.failures += weight
            p.failed_users += failed != p.last_failed_user
            p.last_failed_user = failed
        p.events += 1
