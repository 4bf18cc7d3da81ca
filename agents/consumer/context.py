"""What the consumer needs of the application; as a Protocol, so that no module imports the application itself."""

from __future__ import annotations

from typing import Any, Protocol

from streamguard.agents.consumer.progress import Progress
from streamguard.agents.output.publisher import Publisher
from streamguard.agents.task.store import StoreMemory
from streamguard.settings.schema import Settings


class WorkerContext(Protocol):
    """What all partitions of a worker share.

    Attributes
    ----------
    consumer_generation_id, assignor
        Of Faust's application.
    """

    settings: Settings
    publisher: Publisher
    memory: StoreMemory
    progress: Progress
    consumer_generation_id: int
    assignor: Any
