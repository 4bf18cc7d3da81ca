"""Acts on incidents straight over Kafka: writes the same records as a server, in the name of this machine's user."""

from __future__ import annotations

from contextlib import ExitStack

from streamguard.cli.decision_desk import person
from streamguard.errors import ConfigurationError
from streamguard.kafka.connection import Brokers
from streamguard.serving.commands.progress import slow
from streamguard.serving.decisions.writer import ActionWriter
from streamguard.serving.query.answers import IncidentAnswer
from streamguard.serving.query.cases import CaseDesk
from streamguard.serving.query.mutes import MutePreview
from streamguard.serving.query.requests import ActionRequest
from streamguard.serving.query.service import QueryService


class TopicDesk:
    """Writes actions to the topic of decisions; it connects for the first one.

    Parameters
    ----------
    brokers, topic
        The topic of decisions.
    service
        Answers from the projection that follows the topic.
    used
        Closes the writer at the end.
    """

    def __init__(self, brokers: Brokers, topic: str, service: QueryService, used: ExitStack) -> None:
        self._brokers = brokers
        self._topic = topic
        self._service = service
        self._used = used
        self._desk: CaseDesk | None = None

    def me(self) -> str:
        """The name of the user of this machine.

        Raises
        ------
        ConfigurationError
            If the system knows no name.
        """
        name = person().strip()
        if not name:
            raise ConfigurationError(
                "an action needs the name of its author, and the user of this machine has none: set LOGNAME"
            )
        return name

    def preview_mute(self, id: str, until: str) -> MutePreview:
        """What a mute would hide."""
        return self._service.mutes.preview(id, until)

    def act(self, id: str, wanted: ActionRequest, action_id: str) -> IncidentAnswer:
        """Act on an incident.

        Raises
        ------
        ConflictError
            If somebody else has acted before.
        """
        by = self.me()
        if self._desk is None:
            writer = self._used.enter_context(ActionWriter(self._brokers, self._topic))
            service = self._service
            self._desk = CaseDesk(service.incidents, service.actions, writer, service.decided_offset)
        with slow(f"Kafka at {self._brokers}"):
            return self._desk.act(id, wanted, by, action_id)
