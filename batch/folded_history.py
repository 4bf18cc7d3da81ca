"""A history folded by an engine, checked against its plan, and loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from streamguard.batch.engines import local
from streamguard.batch.folding.fold_file import load
from streamguard.batch.folding.fold_result import Staged
from streamguard.batch.folding.resume import About, write_about
from streamguard.batch.planning import Planned
from streamguard.batch.source.offset_range import Stretch, file_of
from streamguard.batch.source.plan import check_read
from streamguard.settings.schema import Settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass(frozen=True, slots=True)
class History:
    """A folded history.

    Attributes
    ----------
    about
        What it is of.
    staged
        What it comes to.
    continues
        The run that it went on from; None if it was begun anew.
    """

    about: About
    staged: Staged
    continues: str | None


def fold_history(
    plan: Planned,
    settings: Settings,
    directory: Path,
    spark: SparkSession | None,
    say: Callable[[str], None],
) -> History:
    """Fold every stretch into its file, with what the files are of beside them.

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
    about = write_about(directory, plan.source, settings, plan.stretches, plan.earlier)
    staged = load([file_of(directory, s.partition) for s in plan.stretches], settings.sampling.rows)
    check_read(plan.source, staged.counts)
    return History(about, staged, plan.earlier.run if plan.earlier else None)


def _fold(
    plan: Planned,
    settings: Settings,
    directory: Path,
    spark: SparkSession | None,
    say: Callable[[str], None],
) -> None:
    def on_folded(stretch: Stretch) -> None:
        say(f"      partition {stretch.partition}: offsets {stretch.start:,} to {stretch.end:,} folded")

    if settings.batch.engine == "local":
        local.fold(plan.source, plan.stretches, settings, directory, on_folded)
    else:
        from streamguard.batch.engines import spark as engine

        assert spark is not None
        engine.fold(plan.source, plan.stretches, settings, directory, on_folded, spark)
