"""A retrain in five steps (plan, fold, select, train, publish), followed by the promotion of the model."""

from __future__ import annotations

import importlib
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from streamguard.batch.detection import challenger
from streamguard.batch.detection.detect import DetectionResult, detect
from streamguard.batch.folded_history import fold_history
from streamguard.batch.folding.fold_result import FoldResult
from streamguard.batch.folding.resume import of_topic
from streamguard.batch.planning import Request, RetrainPlan, check_input, make_plan
from streamguard.batch.reporting import export, html, report
from streamguard.batch.reporting.users import export_users
from streamguard.batch.runs import Run, Runs
from streamguard.batch.source.partition_files import FileSource
from streamguard.events import refusals
from streamguard.events.event import UNREADABLE
from streamguard.events.refusals import Refusals
from streamguard.history import understood
from streamguard.history.understood import Understood
from streamguard.models.registry import Registry, registry_settings
from streamguard.models.sampling import Selection
from streamguard.runs import report as batch_report
from streamguard.runs.directory import FEATURES, REPORT, TRAINING
from streamguard.runs.report import Report
from streamguard.settings.schema import Settings
from streamguard.text import counted

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Say = Callable[[str], None]


class RetrainOutcome(msgspec.Struct, frozen=True):
    """Result of a retrain; `--json` prints it."""

    run_id: str
    directory: str
    records: int
    events: int
    refused: int
    refusals: dict[str, Refusals]
    """Refused records by reason, with the users and sources that most of them name."""
    repaired: int
    """Events that were repaired before they were scored."""
    repairs: dict[str, int]
    """Number of events by field and repair."""
    understood: Understood
    """How statuses, types, addresses and locations of the events were understood."""
    alerted: int
    users: int
    users_at_risk: int
    version: str | None
    """Version of the forest; None if no forest was trained."""
    current: bool
    """Whether this version is now the registry's current one."""
    previous: str | None
    """Version that was current before this run."""
    message: str
    """The result and its reason, in one sentence."""
    seconds: dict[str, float]

    @classmethod
    def of(
        cls, body: Report, directory: Path, *, current: bool, message: str, seconds: dict[str, float]
    ) -> RetrainOutcome:
        """Build the outcome of a run from its report and the directory in which it was published."""
        totals, model = body.totals, body.model
        return cls(
            run_id=body.run_id,
            directory=str(directory),
            records=totals.records,
            events=totals.events,
            refused=totals.refused,
            refusals=totals.refusals,
            repaired=totals.repaired,
            repairs=totals.repairs,
            understood=totals.understood,
            alerted=totals.alerted,
            users=totals.users,
            users_at_risk=totals.users_at_risk,
            version=model.version if model else None,
            current=current,
            previous=model.previous if model else None,
            message=message,
            seconds=seconds,
        )


@dataclass(slots=True)
class _Steps:
    """Prints the result of each step and measures its duration."""

    say: Say
    began: float = field(default_factory=time.time)
    """Epoch seconds."""
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def done(self) -> dict[str, float]:
        """Seconds of each completed step."""
        return {name: seconds for name, seconds in self.seconds.items() if seconds}

    @contextmanager
    def step(self, name: str) -> Iterator[Say]:
        began = time.perf_counter()
        label = f"[{len(self.seconds) + 1}/5] {name:8} "
        self.seconds[name] = 0.0
        yield lambda text: self.say(f"{label}{text} ({time.perf_counter() - began:.1f} s)")
        self.seconds[name] = round(time.perf_counter() - began, 3)


def retrain(settings: Settings, request: Request, say: Say) -> RetrainOutcome:
    """Run one retrain.

    Raises
    ------
    PlanError
        If records to read are missing, or were not read as planned.
    TopicsMismatchError
        If the topic does not exist.
    UnavailableError, SparkError
        If Kafka or Spark is unavailable.
    BusyError
        If another retrain writes to the same output.
    CannotWriteError
        If the output or the registry cannot be written.
    SettingsError
        If the Spark master is invalid.
    ArtifactError
        If the registry cannot be used. If this is detected only after the run was published, the run stays complete.
    """
    steps = _Steps(say)
    check_input(request)
    runs = Runs(settings.batch.output)
    registry = Registry.of(registry_settings(settings))
    with ExitStack() as stack:
        run = stack.enter_context(runs.begin())
        if request.algorithm != "kmeans":
            registry.probe()
        scratch, folded = run.directory / "scratch", run.directory / "history"
        scratch.mkdir()
        folded.mkdir()
        # The import takes a second, in which this process waits for the JVM or for the folding processes anyway. It is
        # a daemon, so that a stopped process ends without it.
        threading.Thread(
            target=importlib.import_module, args=("sklearn.ensemble",), name="import", daemon=True
        ).start()
        spark = stack.enter_context(_session(settings, scratch))
        with steps.step("plan") as print_result:
            latest = runs.latest()
            plan = make_plan(settings, request, runs, scratch)
            print_result(_plan_text(plan))
            if isinstance(plan.source, FileSource) and plan.source.warning:
                say(f"warning: {plan.source.warning}")
        with steps.step("fold") as print_result:
            history = fold_history(plan, settings, folded, spark, say)
            print_result(_fold_text(history.result))
            for line in _input_texts(history.result):
                say(f"      {line}")
        with steps.step("select") as print_result:
            selection = challenger.select(history.result.sample, settings)
            print_result(_selection_text(history.result, selection))
        with steps.step("train") as print_result:
            detected = detect(history, selection, request.algorithm, settings)
            print_result(_training_text(detected))
        with steps.step("publish") as print_result:
            drift = challenger.drift_since(latest, detected.challenger, registry, say)
            decision = challenger.decide(detected.challenger, history.result.sample, registry, settings)
            export.training_data(detected.assessment, selection.mask, run.directory / TRAINING)
            users = export_users(history.result, detected, run.directory / FEATURES)
            body = report.build(
                run.id,
                history,
                detected,
                users,
                settings=settings,
                algorithm=request.algorithm,
                started=steps.began,
                finished=time.time(),
                model=decision.model if decision else None,
                drift=drift,
                seconds=steps.done,
            )
            shutil.rmtree(scratch)
            directory = _publish(runs, run, body, settings.batch.keep_runs)
            print_result(
                f"{counted(users.at_risk, 'user')} at risk; {directory}: {REPORT}, report.html, training_data, "
                "features, history"
            )
        current, message = False, _no_forest_reason(request, len(selection.rows), settings)
        if decision:
            current, message = decision.carry_out(registry)
            registry.prune(settings.models.keep_versions)
    return RetrainOutcome.of(body, directory, current=current, message=message, seconds=steps.seconds)


def _session(settings: Settings, scratch: Path) -> AbstractContextManager[SparkSession | None]:
    if settings.batch.engine == "local":
        return nullcontext()
    from streamguard.batch.engines.session import opened

    return opened(settings.spark, scratch)


def _publish(runs: Runs, run: Run, body: Report, keep: int) -> Path:
    """Publish the run with its report, and return its directory.

    Old runs are removed. The newest run that a later run over a topic can continue is kept in any case.
    """
    (run.directory / REPORT).write_bytes(batch_report.encode(body))
    (run.directory / "report.html").write_text(html.render(body), encoding="utf-8")
    directory = runs.publish(run)
    newest_first = reversed(runs.published())
    needed = next((id for id in newest_first if of_topic(runs.directory / id / "history")), directory.name)
    runs.prune(keep, [needed])
    return directory


def _no_forest_reason(request: Request, rows: int, settings: Settings) -> str:
    if request.algorithm == "kmeans":
        return "no forest was requested"
    return f"no model: {counted(rows, 'quiet event')} to train on (minimum {settings.gate.min_rows:,})"


def _plan_text(plan: RetrainPlan) -> str:
    count = sum(s.end - s.start for s in plan.ranges)
    how = f"continues run {plan.earlier.run}" if plan.earlier else f"starts a new history: {plan.before}"
    return f"{counted(count, 'offset')} of {counted(len(plan.ranges), 'partition')} to read; {how}"


def _fold_text(result: FoldResult) -> str:
    refused = sum(c.refused for c in result.counts)
    repaired = sum(c.repaired for c in result.counts)
    text = (
        f"{counted(sum(c.events for c in result.counts), 'event')} folded, "
        f"{counted(sum(c.users for c in result.counts), 'user')} known, "
        f"{counted(refused, 'record')} refused, {counted(sum(c.alerted for c in result.counts), 'event')} alerted"
    )
    if not repaired:
        return text
    kinds = sum((Counter(c.repairs) for c in result.counts), Counter[str]())
    listed = ", ".join(f"{repair} {count:,}" for repair, count in kinds.most_common())
    return f"{text}, {counted(repaired, 'event')} repaired ({listed})"


def _input_texts(result: FoldResult) -> list[str]:
    """Lines on what was refused, and on how the other records were understood."""
    texts = refusals.lines(refusals.merged(c.refusals for c in result.counts))
    unreadable = sum(c.refusals[UNREADABLE].number for c in result.counts if UNREADABLE in c.refusals)
    if unreadable:
        texts.append(
            f"refused as {UNREADABLE}: {counted(unreadable, 'offset')} in batches that cannot be read; a worker "
            "refuses the same, and its dead letters name the offsets"
        )
    found = understood.merged(c.understood for c in result.counts)
    return [*texts, found.message()] if found.events else texts


def _selection_text(result: FoldResult, selection: Selection) -> str:
    return (
        f"{counted(len(result.sample), 'event')} sampled, {len(selection.rows):,} quiet events selected for training; "
        f"{selection.trimmed:.2%} left out as possible attacks"
    )


def _training_text(detected: DetectionResult) -> str:
    totals = detected.assessment.totals
    parts = []
    if detected.challenger is not None:
        version = detected.challenger.forest.version
        parts.append(
            f"forest {version} ranks {totals.forest_ranked:,} of {counted(totals.sampled, 'sampled event')}"
        )
    if detected.peers is not None:
        parts.append(counted(len(detected.peers.groups), "peer group"))
    return ", ".join(parts) or "no forest and no peer groups"
