"""The part of the application that the consumer uses, as a Protocol: no module has to import the application."""

from __future__ import annotations

from typing import Any, Protocol

from streamguard.agents.consumer.progress import Progress
from streamguard.agents.output.publisher import Publisher
from streamguard.settings.schema import Settings
from streamguard.state.store import StoreMemory


class WorkerContext(Protocol):
    """Objects that all partitions of a worker share.

    Attributes
    ----------
    consumer_generation_id, assignor
        The attributes of Faust's application with these names.
    """

    settings: Settings
    publisher: Publisher
    memory: StoreMemory
    progress: Progress
    consumer_generation_id: int
    assignor: Any
