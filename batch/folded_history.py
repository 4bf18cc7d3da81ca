"""A history folded by an engine, checked against its plan, and loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from streamguard.batch.engines import local
from streamguard.batch.folding.fold_file import load
from streamguard.batch.folding.fold_result import FoldResult
from streamguard.batch.folding.resume import HistoryMetadata, write_about
from streamguard.batch.planning import RetrainPlan
from streamguard.batch.source.offset_range import OffsetRange, partition_file
from streamguard.batch.source.plan import check_read
from streamguard.settings.schema import Settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass(frozen=True, slots=True)
class FoldedHistory:
    """A folded history.

    Attributes
    ----------
    about
        What it is of.
    result
        What it comes to.
    continues
        The run that it went on from; None if it was begun anew.
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
    """Fold every offset_range into its file, with what the files are of beside them.

    Parameters
    ----------
    directory
        Of the files.
    spark
        The session, if `batch.engine` is "spark".
    say
        Hears of each partition that is done.

    Raises
    ------
    PlanError
        If something planned was not read.
    """
    _fold(plan, settings, directory, spark, say)
    about = write_about(directory, plan.source, settings, plan.ranges, plan.earlier)
    result = load([partition_file(directory, s.partition) for s in plan.ranges], settings.sampling.rows)
    check_read(plan.source, result.counts)
    return FoldedHistory(about, result, plan.earlier.run if plan.earlier else None)


def _fold(
    plan: RetrainPlan,
    settings: Settings,
    directory: Path,
    spark: SparkSession | None,
    say: Callable[[str], None],
) -> None:
    def on_folded(offset_range: OffsetRange) -> None:
        say(
            f"      partition {offset_range.partition}: offsets {offset_range.start:,} to {offset_range.end:,} folded"
        )

    if settings.batch.engine == "local":
        local.fold(plan.source, plan.ranges, settings, directory, on_folded)
    else:
        from streamguard.batch.engines import spark as engine

        assert spark is not None
        engine.fold(plan.source, plan.ranges, settings, directory, on_folded, spark)
