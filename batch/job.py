"""A retrain in its five steps: read, features, vectors, detect, export; then the gate, and the registry."""

from __future__ import annotations

import importlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from batch import challenger, export, findings, html, local, report, schema
from batch.clusters import Peers, peer_groups
from batch.folded import file_of, load
from batch.plan import Earlier, check_read, of_topic, write_about
from batch.request import Request, going_on_from, models, opened_source, planned
from batch.runs import REPORT, Runs
from batch.sources import Source
from batch.staged import Counts
from batch.stretch import Stretch
from streamguard.models.registry import Registry
from streamguard.settings import Settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Say = Callable[[str], None]


class Outcome(msgspec.Struct, frozen=True):
    """What a retrain came to; `--json` prints it."""

    run_id: str
    directory: str
    records: int
    events: int
    refused: int
    alerted: int
    users: int
    users_flagged: int
    version: str | None
    """Of the forest; None if none was trained."""
    current: bool
    """Whether it is the registry's current one now."""
    previous: str | None
    """The current one before."""
    says: str
    """Why, in a sentence."""
    seconds: dict[str, float]


@dataclass(slots=True)
class _Steps:
    """Prints what is done and remembers how long it took."""

    say: Say
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def done(self) -> dict[str, float]:
        """Seconds of the steps that are over."""
        return {name: seconds for name, seconds in self.seconds.items() if seconds}

    @contextmanager
    def step(self, name: str) -> Iterator[Say]:
        began = time.perf_counter()
        label = f"[{len(self.seconds) + 1}/5] {name:8} "
        self.seconds[name] = 0.0
        yield lambda text: self.say(f"{label}{text} ({time.perf_counter() - began:.1f} s)")
        self.seconds[name] = round(time.perf_counter() - began, 3)


def retrain(settings: Settings, request: Request, say: Say) -> Outcome:
    """Run once.

    Raises
    ------
    PlanError
        If what should be read is not there, or was not read as planned.
    UnavailableError, SparkError
        If there is no broker, or no Spark.
    BusyError
        If another retrain writes to the same output.
    RunsError
        If the output cannot be written.
    SettingsError
        If the master of Spark is none.
    ArtifactError
        If the registry cannot be used. What is found wrong with it only after the run is published takes nothing
        from the run.
    """
    started = time.time()
    steps = _Steps(say)
    runs = Runs(settings.batch.output)
    registry = Registry.of(models(settings))
    with ExitStack() as stack:
        run = stack.enter_context(runs.begin())
        if request.algorithm != "kmeans":
            registry.probe()
        scratch, history = run.directory / "scratch", run.directory / "history"
        scratch.mkdir()
        history.mkdir()
        # Loading it takes a second, in which this process waits for the JVM or for those that fold.
        threading.Thread(target=importlib.import_module, args=("sklearn.ensemble",), name="import").start()
        spark = stack.enter_context(_session(settings, scratch))
        with steps.step("read") as told:
            latest = runs.latest()
            source = opened_source(settings, request, scratch)
            before = going_on_from(runs, source, settings, request)
            went_on = before if isinstance(before, Earlier) else None
            stretches = planned(source, went_on, request)
            told(_planned(stretches, before))
        with steps.step("features") as told:
            _fold(source, stretches, settings, history, spark, say)
            about = write_about(history, source, settings, stretches, went_on)
            staged = load([file_of(history, s.partition) for s in stretches], settings.sampling.rows)
            check_read(source, staged.counts)
            told(_folded(staged.counts, len(staged.users)))
        with steps.step("vectors") as told:
            rows = challenger.choose(staged.sample, settings)
            told(
                f"{len(staged.sample):,} events sampled, {len(rows.rows):,} quiet ones to train on; "
                f"{rows.trimmed:.2%} left out as possible attacks"
            )
        with steps.step("detect") as told:
            trial = peers = None
            with ThreadPoolExecutor(1, "peers") as beside:
                if request.algorithm != "isolation_forest":
                    grouping = beside.submit(
                        peer_groups,
                        staged.users.usual,
                        settings.clusters,
                        seed=settings.training.seed,
                        spark=spark,
                    )
                if request.algorithm != "kmeans":
                    trial = challenger.train(staged.sample, rows, about, settings)
                if request.algorithm != "isolation_forest":
                    peers = grouping.result()
            found = findings.find(
                staged,
                trial.forest if trial else None,
                peers,
                alert_bits=settings.detection.alert_bits,
            )
            told(_found(found.totals, trial, peers))
        with steps.step("export") as told:
            drift = challenger.drift_since(latest, trial, registry)
            decision = challenger.decide(trial, staged.sample, registry, settings)
            export.training_data(found, rows.mask, run.directory / "training_data")
            export.features(staged.users, found, peers, run.directory / "features")
            body = report.build(
                run_id=run.id,
                continues=went_on.directory.parent.name if went_on else None,
                started=started,
                finished=time.time(),
                source=about.source,
                settings=settings,
                algorithm=request.algorithm,
                staged=staged,
                findings=found,
                peers=peers,
                training_rows=len(rows.rows),
                trimmed_share=rows.trimmed,
                model=decision.model if decision else None,
                drift=drift,
                seconds=steps.done,
            )
            (run.directory / REPORT).write_bytes(schema.encode(body))
            (run.directory / "report.html").write_text(html.render(body), encoding="utf-8")
            shutil.rmtree(scratch)
            directory = runs.publish(run)
            newest_first = reversed(runs.published())
            needed = next(
                (id for id in newest_first if of_topic(runs.directory / id / "history")), directory.name
            )
            runs.prune(settings.batch.keep_runs, [needed])
            told(f"{directory}: {REPORT}, report.html, training_data, features, history")
        current, says = False, _no_forest(request, len(rows.rows), settings)
        if decision:
            current, says = decision.carry_out(registry)
            registry.prune(settings.models.keep_versions)
    return Outcome(
        run_id=run.id,
        directory=str(directory),
        records=body.totals.records,
        events=body.totals.events,
        refused=body.totals.refused,
        alerted=body.totals.alerted,
        users=body.totals.users,
        users_flagged=body.totals.users_flagged,
        version=decision.model.version if decision else None,
        current=current,
        previous=decision.model.previous if decision else None,
        says=says,
        seconds=steps.seconds,
    )


def _session(settings: Settings, scratch: Path) -> AbstractContextManager[SparkSession | None]:
    if settings.batch.engine == "local" and settings.clusters.engine == "sklearn":
        return nullcontext()
    from batch.session import opened

    return opened(settings.spark, scratch)


def _fold(
    source: Source,
    stretches: list[Stretch],
    settings: Settings,
    history: Path,
    spark: SparkSession | None,
    say: Say,
) -> None:
    def told(stretch: Stretch) -> None:
        say(f"      partition {stretch.partition}: offsets {stretch.start:,} to {stretch.end:,} folded")

    if settings.batch.engine == "local":
        local.fold(source, stretches, settings, history, told)
    else:
        from batch import spark as engine

        assert spark is not None
        engine.fold(source, stretches, settings, history, told, spark)


def _no_forest(request: Request, rows: int, settings: Settings) -> str:
    if request.algorithm == "kmeans":
        return "no forest was asked for"
    return f"no model: {rows:,} quiet events to train on, {settings.gate.least_rows:,} are needed"


def _planned(stretches: list[Stretch], before: Earlier | str) -> str:
    count = sum(s.end - s.start for s in stretches)
    how = f"anew: {before}" if isinstance(before, str) else f"going on from {before.directory.parent.name}"
    return f"{count:,} offsets of {len(stretches)} partitions planned, {how}"


def _folded(counts: list[Counts], users: int) -> str:
    refused = sum(sum(c.refused.values()) for c in counts)
    return (
        f"{sum(c.events for c in counts):,} events of {users:,} users folded, {refused:,} records refused, "
        f"{sum(c.alerted for c in counts):,} events alerted"
    )


def _found(totals: findings.Totals, trial: challenger.Challenger | None, peers: Peers | None) -> str:
    parts = [f"{totals.users_flagged:,} users flagged"]
    if trial is not None:
        parts.append(
            f"forest {trial.forest.version} adds {totals.forest_added:,} of {totals.sampled:,} sampled events"
        )
    if peers is not None:
        parts.append(f"{len(peers.groups)} peer groups")
    return ", ".join(parts)
