"""Decisions that change detection: previewed, signed, and written into the events topic, where every fold sees them."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from streamguard.alerts.explain import MAX_CHARACTERS
from streamguard.alerts.incident import decode, rfc3339
from streamguard.decisions.choice import EXPECTED_DAYS, Chosen, choices, chosen_of, decision_about, revocation
from streamguard.decisions.preview import preview
from streamguard.decisions.signing import HEADER, Binding
from streamguard.errors import ConfigurationError, DataError, StreamGuardError
from streamguard.events.decision import Decision, DecisionError, Field, partition_of
from streamguard.events.event_time import DAY_MS
from streamguard.kafka import control
from streamguard.kafka.connection import Brokers
from streamguard.kafka.topics import names
from streamguard.models.key import key_of
from streamguard.serving.decisions.record import MAX_TEXT
from streamguard.serving.decisions.transaction import Record
from streamguard.serving.projection.reader import waiting
from streamguard.serving.query.cases import CaseDesk
from streamguard.serving.query.incidents import IncidentQueries
from streamguard.serving.query.requests import ConflictError, ends_at
from streamguard.settings.schema import Settings

Verdict = Literal["expected", "attack"]
NO_KEY = (
    "decisions are signed, and this server has no key: create one with `openssl rand -out models.key 32`, unless the "
    "workers have one, and set models.key_file to it in the settings of workers, retrains and this server"
)
"""What a server without a key lacks, and how to get it."""


def _described(text: str) -> msgspec.Meta:
    return msgspec.Meta(description=text)


class DetectionRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a person decides about a value of a user.

    Attributes
    ----------
    decision
        `expected`: the value adds no more bits than is typical of the user, and becomes a habit through use; `attack`:
        its events are alerted as confirmed before, and the profile learns nothing from them.
    field, value
        The value; without them the strongest reason of the incident that is a value.
    until
        For `expected`: event time at which it ends, or a duration such as `7d`; without it 30 days after the incident.
    reason
        Why, for other people.
    """

    decision: Verdict
    field: Field | None = None
    value: Annotated[str, msgspec.Meta(max_length=256)] = ""
    until: Annotated[str, msgspec.Meta(max_length=40)] = ""
    reason: Annotated[str, msgspec.Meta(max_length=1000)] = ""


class DetectionPreview(msgspec.Struct, frozen=True):
    """What a decision would have changed."""

    decision: Verdict
    user: str
    field: str
    value: str
    until: Annotated[str | None, _described("Event time at which an expectation ends")]
    affected: Annotated[int, _described("Incidents of the user that have the value as a reason")]
    total: Annotated[int, _described("Incidents of the user in the same days")]
    confirmed: Annotated[int, _described("Affected ones that were closed as a true positive")]
    message: str
    choices: Annotated[
        tuple[tuple[str, str], ...],
        _described("(field, value) of all that can be decided about the incident"),
    ]


class DetectionAnswer(msgspec.Struct, frozen=True):
    """A decision that is written."""

    id: Annotated[str, _described("Id of the decision, by which it is revoked")]
    topic: str
    partition: int
    offset: Annotated[int, _described("Every worker, retrain and replay folds it at this offset")]
    message: str


class DetectionDesk:
    """Decides about values of users; every method may be called from any thread.

    Parameters
    ----------
    settings
        Brokers, topics and the key file.
    incidents
        Answers about incidents.
    cases
        Notes the decision in the history of the incident.
    """

    def __init__(self, settings: Settings, incidents: IncidentQueries, cases: CaseDesk) -> None:
        self._settings = settings
        self._brokers = Brokers.of(settings)
        self._topic = names(settings)["events"]
        self._incidents = incidents
        self._cases = cases

    def preview(self, id: str, wanted: DetectionRequest) -> DetectionPreview:
        """What a decision about an incident would have changed in the last 30 days.

        Raises
        ------
        NotFoundError
            If there is no such incident.
        ConflictError
            If the incident has no such value.
        """
        found, until = self._chosen(id, wanted)
        values = self._incidents.publications(found.user)
        seen = preview((decode(value) for value, _ in values), found.user, found.field, found.value)
        shown = found.value[:MAX_CHARACTERS]  # as incidents show it
        confirmed = {
            incident.id
            for value, classification in values
            if classification == "true_positive"
            for incident in [decode(value)]
            if any(one.feature == found.field and one.actual == shown for one in incident.reasons)
        }
        closed = f"{len(confirmed) or 'none'} of them closed as a true positive"
        return DetectionPreview(
            decision=wanted.decision,
            user=found.user,
            field=found.field,
            value=found.value,
            until=rfc3339(until) if until else None,
            affected=seen.affected,
            total=seen.total,
            confirmed=len(confirmed),
            message=f"{seen.message(wanted.decision, found.user, found.field, found.value)}; {closed}",
            choices=choices(self._incidents.incident(id).incident),
        )

    def decide(self, id: str, wanted: DetectionRequest, by: str, request: str = "") -> DetectionAnswer:
        """Sign the decision and write it into the partition of the incident's events, with a note on the incident.

        Parameters
        ----------
        request
            Name of the request: of repeated requests with the same name only one has an effect. Empty: a new one.

        Raises
        ------
        ConfigurationError
            If this server has no signing key.
        """
        found, until = self._chosen(id, wanted)
        try:
            made = decision_about(found, wanted.decision, until, wanted.reason, by, request)
        except DecisionError as error:
            raise ConflictError(str(error)) from None
        message = f"{wanted.decision}: {found.field} {found.value} of {found.user}"
        note = f"{message}; decision {made.id}" + (f": {wanted.reason}" if wanted.reason else "")
        offset = self._cases.note(id, note[:MAX_TEXT], by, made.id, self._record(made))
        return DetectionAnswer(made.id, self._topic, made.partition, offset, message)

    def revoke(self, decision: str, reason: str, by: str) -> DetectionAnswer:
        """End a decision; what was learned meanwhile remains."""
        try:
            partition = partition_of(decision)
        except DataError as error:
            raise ConflictError(str(error)) from None
        return self._write(revocation(decision, partition, reason, by), f"{decision} is revoked")

    def missing_key(self) -> str:
        """What this server lacks to sign decisions, and how to get it; empty if it can sign them."""
        try:
            key = key_of(self._settings.models)
        except StreamGuardError as error:
            return str(error)
        return "" if key is not None else NO_KEY

    def _chosen(self, id: str, wanted: DetectionRequest) -> tuple[Chosen, int]:
        incident = self._incidents.incident(id).incident
        try:
            found = chosen_of(incident, wanted.field, wanted.value or None)
        except DataError as error:
            raise ConflictError(str(error)) from None
        if wanted.decision == "attack":
            return found, 0
        until = ends_at(wanted.until, found.at) if wanted.until else found.at + EXPECTED_DAYS * DAY_MS
        return found, until

    def _write(self, made: Decision, message: str) -> DetectionAnswer:
        one = self._record(made)
        offset = control.write(self._brokers, one.topic, one.partition, one.key, one.value, one.headers[0])
        return DetectionAnswer(made.id, self._topic, made.partition, offset, message)

    def _record(self, made: Decision) -> Record:
        """The signed record of a decision."""
        key = key_of(self._settings.models)
        if key is None:
            raise ConfigurationError(NO_KEY)
        with waiting():
            topic_id, partitions = control.described(self._brokers, self._topic)
        if made.partition >= partitions:
            raise ConflictError(f"{self._topic} has no partition {made.partition}")
        body = made.encoded()
        header = (HEADER, Binding(self._topic, topic_id, key).header(made, made.partition, body))
        user = made.user.encode() if made.user else None
        return Record(self._topic, made.partition, user, body, (header,))
