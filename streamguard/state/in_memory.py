"""A partition whose checkpoints are written to a dictionary, for histories and tests."""

from __future__ import annotations

from streamguard.events.hashing import FILES_KEY
from streamguard.settings.schema import Detection
from streamguard.state.expiry import PROFILE_KINDS, last_active
from streamguard.state.partition import PartitionState

SWEEP_MS = 10 * 86_400_000
"""Active time for which profiles that have aged out may stay before a pass over all profiles deletes them: a pass costs
some microseconds for each, and memory then holds the users of `forget_after_days` and ten days."""


class InMemoryPartition:
    """The state of a partition, and its last checkpoint.

    Parameters
    ----------
    partition
        Number of the partition.
    resident, detection, hash_key
        See `streamguard.state.partition.PartitionState`.
    saved
        An earlier checkpoint to continue; it is changed.

    Attributes
    ----------
    state : PartitionState
        The state, which reads from `saved`.
    saved : dict
        The checkpoint: the keys and values of a worker's changelog.
    """

    def __init__(
        self,
        partition: int,
        *,
        resident: int,
        detection: Detection,
        hash_key: bytes = FILES_KEY,
        saved: dict[bytes, bytes] | None = None,
    ) -> None:
        self.saved = {} if saved is None else saved
        self._oldest = 0
        """No stored profile has an earlier last event, in active time."""
        self.state = PartitionState(
            partition,
            lambda keys: [self.saved.get(key) for key in keys],
            resident=resident,
            detection=detection,
            hash_key=hash_key,
        )

    def save(self) -> bool:
        """Write a checkpoint without the profiles that have aged out, and return whether any was deleted."""
        return self._save(0)

    def save_if_full(self) -> bool:
        """Write a checkpoint if the next chunk needs room for its profiles, and return whether any was deleted."""
        return self.state.full and self._save(SWEEP_MS)

    def _save(self, may_stay_ms: int) -> bool:
        self.saved.update(self.state.changes())
        self.state.clean()
        limit = self.state.expired_before
        if limit <= self._oldest + (may_stay_ms if self._oldest else 0):
            return False
        expired, oldest = [], self.state.active_ms
        for key, value in self.saved.items():
            if key[:1] in PROFILE_KINDS:
                last = last_active(value)
                if last < limit:
                    expired.append(key)
                else:
                    oldest = min(oldest, last)
        for key in expired:
            del self.saved[key]
        self.state.drop(expired)
        self._oldest = oldest
        return bool(expired)
