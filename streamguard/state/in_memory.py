"""A partition whose checkpoints are written to a dictionary, for histories and tests."""

from __future__ import annotations

from streamguard.events.hashing import FILES_KEY
from streamguard.settings.schema import Detection
from streamguard.state.partition import PartitionState


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
        self.state = PartitionState(
            partition,
            lambda keys: [self.saved.get(key) for key in keys],
            resident=resident,
            detection=detection,
            hash_key=hash_key,
        )

    def save(self) -> None:
        """Write a checkpoint."""
        self.saved.update(self.state.changes())
        self.state.clean()

    def save_if_full(self) -> None:
        """Write a checkpoint if the next chunk needs room for its profiles."""
        if self.state.full:
            self.save()
