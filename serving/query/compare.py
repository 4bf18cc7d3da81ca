"""Speed against batch in total: asks the replica, the latest run and the projection, each with its position and age."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from streamguard.alerts.incident import rfc3339
from streamguard.serving.log.freshness import AsOf
from streamguard.serving.query.totals import Totals
from streamguard.serving.replica.replica import Replica
from streamguard.serving.replica.totals import PartitionTotals
from streamguard.serving.results.answers import Unavailable
from streamguard.serving.results.batch import BatchResults
from streamguard.serving.results.totals import LiveTotals, TotalComparison


class TotalsAnswer(msgspec.Struct, frozen=True):
    """Speed against batch for everything, partition by partition."""

    comparison: TotalComparison
    as_of: tuple[AsOf, ...]


class CompareQueries:
    """Compares both layers; every method may be called from any thread.

    Parameters
    ----------
    totals
        Answers about incidents.
    replica
        Profiles of the live state.
    batch
        Runs of the batch layer.
    has_model
        Whether workers have a model.
    forget_ms
        Active time after which profiles age out.
    """

    def __init__(
        self,
        totals: Totals,
        replica: Replica,
        batch: BatchResults,
        has_model: Callable[[], bool],
        forget_ms: int,
    ) -> None:
        self._totals = totals
        self._replica = replica
        self._batch = batch
        self._has_model = has_model
        self._forget_ms = forget_ms

    def totals(self) -> TotalsAnswer | Unavailable:
        """Compare everything that both layers have counted.

        Raises
        ------
        ReplicaNotReadyError
            If a partition of the replica is not ready.
        """
        live = self._replica.as_of()
        counted = [self._live(one) for one in self._replica.totals()]
        found = self._batch.compare_totals(counted, self._totals.opened, model=self._has_model())
        if isinstance(found, Unavailable):
            return found
        return TotalsAnswer(found.comparison, (live, found.as_of, *self._totals.as_of()))

    def _live(self, one: PartitionTotals) -> LiveTotals:
        return LiveTotals(
            one.partition,
            one.offset,
            one.topic_id or "",
            one.users,
            one.events,
            one.active_ms > self._forget_ms,
            rfc3339(one.event_time),
        )
