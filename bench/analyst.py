"""Verdicts of the deterministic analyst on simulated attacks and as many false incidents, its claims, and its speed."""

from __future__ import annotations

import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.figures import Figure
from streamguard.alerts.incident import Incident
from streamguard.analyst.analysis import Analysis
from streamguard.analyst.rules import analyse
from streamguard.analyst.similar import DIMENSIONS, Similarity, vector
from streamguard.analyst.verdict import score
from streamguard.events.event import parse
from streamguard.history.files import Batch
from streamguard.history.replay import Replay
from streamguard.simulate import SCENARIOS, SITUATIONS, Simulation

SEEDS = (11, 12, 13, 14, 15)
"""Seeds of the table. The rules were written on seeds 1 to 3, and tried on 4 to 6."""
USERS, EVENTS_PER_DAY, DAYS = 60, 40.0, 28
"""The company, as in `bench.situations`."""
PARTITIONS = 4
SHORT = tuple(name for name, one in SITUATIONS.items() if one.days + 7 <= DAYS)
"""Benign situations that fit into the run: where most false incidents come from."""
AT_ONCE = 4
"""Runs over which the situations are spread, so that they do not cover each other."""
INDEXED = 100_000
"""Incidents of the index whose search is timed."""
DAY_MS = 86_400_000


class Case(NamedTuple):
    """An incident of a simulated run, and the attacks that its alerts belong to."""

    seed: int
    incident: Incident
    updates: tuple[Incident, ...]
    attacks: frozenset[str]


class Judged(NamedTuple):
    """A case with its analysis, and the milliseconds that it took."""

    case: Case
    analysis: Analysis
    ms: float

    @property
    def score(self) -> float:
        """The verdict as a number."""
        return score(self.analysis.verdict, self.analysis.confidence)


def replayed(seed: int, scenarios: Sequence[str], situations: Sequence[str], users: int) -> Iterator[Case]:
    """The incidents of one simulated run."""
    simulation = Simulation(
        users,
        seed,
        duration_ms=DAYS * DAY_MS,
        events_per_day=EVENTS_PER_DAY,
        scenarios=scenarios,
        situations=situations,
    )
    replay, attacks = Replay(PARTITIONS), defaultdict[int, set[str]](set)
    stream = iter(simulation)
    while events := list(islice(stream, 1000)):
        values: list[bytes | None] = [event.value for event in events]
        scored = replay.feed(Batch(0, [], values, *parse(values), {}))
        for event, number in zip(events, scored.incident.tolist(), strict=True):
            if event.scenario is not None:
                attacks[number].add(event.scenario)
    updates = defaultdict[str, list[Incident]](list)
    for update in replay.updates():
        updates[update.id].append(update)
    for number, incident in replay.numbered().items():
        yield Case(seed, incident, tuple(updates[incident.id]), frozenset(attacks[number]))


def cases(seed: int, *, users: int = USERS) -> Iterator[Case]:
    """The incidents of a company with all attacks, of the same without any, and with all benign situations."""
    yield from replayed(seed, tuple(SCENARIOS), (), users)
    yield from replayed(seed, (), (), users)
    for k in range(AT_ONCE):
        yield from replayed(seed, (), SHORT[k::AT_ONCE], users)


def judged(found: Sequence[Case]) -> list[Judged]:
    """Analyse all cases."""
    out = []
    for case in found:
        begun = time.perf_counter()
        analysis = analyse(case.incident, case.updates)
        out.append(Judged(case, analysis, (time.perf_counter() - begun) * 1000))
    return out


def auc(true: Sequence[float], false: Sequence[float]) -> float:
    """Chance that an incident of an attack has a higher score than a false one; equal ones count a half."""
    a, b = np.array(true)[:, None], np.array(false)[None, :]
    return float((a > b).mean() + 0.5 * (a == b).mean())


def strongest(found: Sequence[Judged]) -> list[Judged]:
    """Of each attack of each seed, the incident with the most evidence."""
    best: dict[tuple[int, str], Judged] = {}
    for one in found:
        for name in one.case.attacks:
            key = one.case.seed, name
            if key not in best or one.case.incident.evidence_bits > best[key].case.incident.evidence_bits:
                best[key] = one
    return list(best.values())


def grounded(analysis: Analysis) -> tuple[int, int]:
    """Number of claims that rest on facts which exist, and of all claims."""
    ids = {fact.id for fact in analysis.facts}
    return sum(bool(claim.refs) and ids.issuperset(claim.refs) for claim in analysis.claims), len(
        analysis.claims
    )


def same_first(found: Sequence[Case]) -> float:
    """Share of the attacks' incidents whose most alike incident of other seeds belongs to the same attack."""
    attacks = [case for case in found if case.attacks]
    right = []
    for seed in sorted({case.seed for case in attacks}):
        index, of = Similarity(len(attacks)), dict[str, frozenset[str]]()
        for case in attacks:
            if case.seed != seed:
                id = f"{case.seed}/{case.incident.id}"
                index.add(id, case.incident)
                of[id] = case.attacks
        for case in attacks:
            if case.seed == seed and of:
                (first,) = index.nearest(case.incident, 1, least=0.0)
                right.append(bool(of[first.incident_id] & case.attacks))
    return float(np.mean(right)) if right else 0.0


def search_ms(found: Sequence[Case], count: int) -> NDArray[np.float64]:
    """Milliseconds of searches in an index of so many incidents, which are those of a run with some noise."""
    draw, index = np.random.default_rng(1), Similarity(count)
    made = [vector(case.incident) for case in found]
    for k in range(count):
        noisy = made[k % len(made)] + draw.random(DIMENSIONS, np.float32) * np.float32(0.05)
        index.add_vector(str(k), noisy / np.linalg.norm(noisy))
    taken = []
    for case in found[:: max(len(found) // 200, 1)]:
        begun = time.perf_counter()
        index.nearest(case.incident)
        taken.append((time.perf_counter() - begun) * 1000)
    return np.array(taken)


def measure(*, quick: bool) -> list[Figure]:
    """Figures of the deterministic analyst."""
    found = [
        case for seed in SEEDS[: 2 if quick else None] for case in cases(seed, users=20 if quick else USERS)
    ]
    all_of_them = judged(found)
    true = [one for one in all_of_them if one.case.attacks]
    false = [one for one in all_of_them if not one.case.attacks]
    attacks = strongest(true)
    drawn = random.Random(1).sample(false, min(len(attacks), len(false)))
    worst = sorted(false, key=lambda one: -one.case.incident.evidence_bits)[: len(attacks)]
    scores = [one.score for one in attacks]
    print(by_rule(all_of_them), flush=True)
    claims = np.array([grounded(one.analysis) for one in all_of_them]).sum(axis=0)
    taken, searched = np.array([one.ms for one in all_of_them]), search_ms(found, INDEXED)
    kinds = Counter(one.analysis.verdict for one in attacks)
    others = Counter(one.analysis.verdict for one in false)
    return [
        Figure("incidents of attacks", len(true)),
        Figure("false incidents", len(false)),
        Figure("AUC, all incidents", auc([one.score for one in true], [one.score for one in false]), "", ">= 0.85"),
        Figure(f"AUC, {len(attacks)} attacks and as many false incidents", auc(scores, [one.score for one in drawn]),
               "", ">= 0.85"),
        Figure("AUC, the same with the strongest false incidents", auc(scores, [one.score for one in worst]), "",
               ">= 0.85"),
        Figure("attacks: true positive", 100 * kinds["true_positive"] / len(attacks), "%"),
        Figure("attacks: suspicious", 100 * kinds["suspicious"] / len(attacks), "%"),
        Figure("attacks: benign", 100 * kinds["benign"] / len(attacks), "%"),
        Figure("false incidents: benign", 100 * others["benign"] / len(false), "%"),
        Figure("false incidents: suspicious", 100 * others["suspicious"] / len(false), "%"),
        Figure("false incidents: true positive", 100 * others["true_positive"] / len(false), "%"),
        Figure("claims that rest on facts", 100 * float(claims[0] / claims[1]), "%", ">= 100"),
        Figure("analysis, median", float(np.median(taken)), "ms", "<= 2"),
        Figure("analysis, 99th percentile", float(np.percentile(taken, 99)), "ms"),
        Figure("similar: same attack first, other seeds", same_first(found), "", ">= 0.85"),
        Figure(f"similar: search in {INDEXED:,}, median", float(np.median(searched)), "ms", "<= 5"),
    ]  # fmt: skip


def by_rule(found: Sequence[Judged]) -> str:
    """A table of the rules that decided: how often, for attacks and for false incidents."""
    counts = Counter((one.analysis.rule, one.analysis.verdict, bool(one.case.attacks)) for one in found)
    rules = sorted(
        {key[:2] for key in counts}, key=lambda key: -sum(counts[*key, hit] for hit in (False, True))
    )
    lines = [f"{'rule':32}  {'verdict':18}  {'attacks':>7}  {'false':>7}"]
    lines += [
        f"{rule:32}  {verdict:18}  {counts[rule, verdict, True]:7,}  {counts[rule, verdict, False]:7,}"
        for rule, verdict in rules
    ]
    return "\n".join(lines)
