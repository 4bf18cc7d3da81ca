"""The weight of a forest in a verdict: it follows how well the forest separates, measured without labels."""

from __future__ import annotations

import msgspec

SEPARATION = "separation"
"""Key under which the metrics of an artifact store the `Separation` of its forest."""

POOR_AUC = 0.7
"""AUC up to which the weight is 0; below it, discrimination is poor (Hosmer and Lemeshow 2000, section 5.2.4)."""

OUTSTANDING_AUC = 0.9
"""AUC from which the weight is 1; from there, discrimination is outstanding (the same source)."""

PRIOR_EVENTS = 5.0
"""The AUC of n strange events is drawn to 0.5 by n / (n + 5): a few events are weak evidence."""


class Separation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was measured of a forest, without labels: two AUC, and the number of events behind the second one."""

    injected: float
    """Mean AUC with which the forest separates quiet rows with an injected attack from quiet rows; 0.5 is chance."""
    agreement: float
    """AUC with which a forest of earlier events ranks later events that statistics or patterns call strange above quiet
    ones."""
    strange: int
    """Number of these strange events."""

    @property
    def weight(self) -> float:
        """The smaller of the weights of both measures."""
        certainty = self.strange / (self.strange + PRIOR_EVENTS)
        return min(weight_of(self.injected), weight_of(0.5 + certainty * (self.agreement - 0.5)))

    @property
    def message(self) -> str:
        """The weight and its reasons in words."""
        return (
            f"the forest counts with weight {self.weight:.2f}: AUC {self.injected:.3f} for simulated attacks, "
            f"{self.agreement:.3f} for {self.strange:,} strange events that were held out"
        )


def weight_of(auc: float) -> float:
    """Weight of a forest with this AUC: it rises linearly between `POOR_AUC` and `OUTSTANDING_AUC`.

    Examples
    --------
    >>> [round(weight_of(auc), 3) for auc in (0.2, 0.5, 0.7, 0.85, 0.9, 1.0)]
    [0.0, 0.0, 0.0, 0.75, 1.0, 1.0]
    """
    return round(min(max((auc - POOR_AUC) / (OUTSTANDING_AUC - POOR_AUC), 0.0), 1.0), 4)
