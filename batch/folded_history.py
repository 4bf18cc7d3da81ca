"""Folds a history with the configured engine, checks it against its plan, and loads the result."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from streamguard.batch.engines import local
from streamguard.batch.folding.fold_result import FoldResult
from streamguard.batch.folding.loading import load
from streamguard.batch.folding.resume import HistoryMetadata, write_about
from streamguard.batch.planning import RetrainPlan
from streamguard.batch.source.offset_plan import check_read
from streamguard.batch.source.offset_range import OffsetRange, partition_file
from streamguard.settings.schema import Settings
from streamguard.text import counted

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

MAX_SAMPLED_USERS = 100_000
"""Maximum number of users, a random sample of all, from which peer groups are made."""


@dataclass(frozen=True, slots=True)
class FoldedHistory:
    """A folded history.

    Attributes
    ----------
    about
        Source, settings and offsets of the history.
    result
        The folded events, users and incidents.
    continues
        Id of the run that this history continues; None for a new history.
    """

    about: HistoryMetadata
    result: FoldResult
    continues: str | None


def fold_history(
    plan: RetrainPlan,
    settings: Settings,
    directory: Path,
    spark: SparkSession | None,
    say: Callable[[str], None],
) -> FoldedHistory:
    """Fold every offset range into its file, and write the metadata of the history beside the files.

    Parameters
    ----------
    directory
        Directory of the files.
    spark
        The session, if `batch.engine` is "spark".
    say
        Called with a message for each folded partition.

    Raises
    ------
    PlanError
        If planned records were not read.
    """
    _fold(plan, settings, directory, spark, say)
    about = write_about(directory, plan.source, settings, plan.ranges, plan.earlier)
    files = [partition_file(directory, s.partition) for s in plan.ranges]
    result = load(files, settings.sampling.rows, MAX_SAMPLED_USERS)
    check_read(plan.source, result.counts)
    return FoldedHistory(about, result, plan.earlier.run if plan.earlier else None)


class _Progress:
    """Reports each folded partition, the speed so far, and an estimate of the remaining time."""

    def __init__(
        self,
        ranges: list[OffsetRange],
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say = say
        self._clock = clock
        self._began = clock()
        self._partitions = len(ranges)
        self._offsets = sum(s.end - s.start for s in ranges)
        self._folded = self._done = 0

    def __call__(self, offset_range: OffsetRange) -> None:
        self._folded += 1
        self._done += offset_range.end - offset_range.start
        speed = self._done / max(self._clock() - self._began, 1e-3)
        left = (self._offsets - self._done) / speed if speed else 0.0
        self._say(
            f"      partition {offset_range.partition}: offsets {offset_range.start:,} to {offset_range.end:,} folded "
            f"({self._folded:,} of {self._partitions:,}, {counted(round(speed), 'offset')} a second, about "
            f"{left:.0f} s left)"
        )


def _fold(
    plan: RetrainPlan,
    settings: Settings,
    directory: Path,
    spark: SparkSession | None,
    say: Callable[[str], None],
) -> None:
    on_folded = _Progress(plan.ranges, say)

    if settings.batch.engine == "local":
        local.fold(plan.source, plan.ranges, settings, directory, on_folded)
    else:
        from streamguard.batch.engines import spark as engine

        assert spark is not None
        engine.fold(plan.source, plan.ranges, settings, directory, on_folded, spark)
