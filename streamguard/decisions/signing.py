"""Recognises control records by their header and verifies their signatures, before anything reads them as events."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from streamguard.events.decision import MAX_BODY_BYTES, Decision, DecisionError, decoded
from streamguard.events.event import BAD_DECISION, UNSIGNED_DECISION, Value, Withheld
from streamguard.records.record import Record

HEADER = "sg.decision"
"""Header of a control record: the id of the decision, a colon, and the signature in hexadecimal digits."""
MAX_HEADER_BYTES = 128
"""Bytes of the header: an id of 34 characters and a signature of 64."""
_PURPOSE = b"streamguard decision 1"
"""Begins everything that is signed, so that the signature of a model or of a pointer is never that of a decision."""


@dataclass(frozen=True, slots=True)
class Binding:
    """What a signature is valid for: one topic, of which Kafka's id is known.

    Attributes
    ----------
    topic, topic_id
        Name of the events topic, and Kafka's id of it.
    key
        Bytes of the signing key; None without one, so that no signature can be verified.
    """

    topic: str
    topic_id: str
    key: bytes | None

    def signature(self, decision_id: str, partition: int, body: bytes) -> str:
        """HMAC-SHA256 over id, topic, partition and body, in hexadecimal digits.

        Raises
        ------
        ValueError
            If there is no key.
        """
        if self.key is None:
            raise ValueError("a signature needs a key")
        parts = [
            _PURPOSE,
            decision_id.encode(),
            self.topic.encode(),
            self.topic_id.encode(),
            b"%d" % partition,
        ]
        return hmac.new(self.key, b"\0".join([*parts, body]), hashlib.sha256).hexdigest()

    def header(self, decision: Decision, partition: int, body: bytes) -> bytes:
        """The value of the header of a control record."""
        return f"{decision.id}:{self.signature(decision.id, partition, body)}".encode()

    def read(self, header: bytes, partition: int, offset: int, body: Value) -> Decision | Withheld:
        """The decision of a control record, or what stands for a record that is refused.

        Parameters
        ----------
        header
            Value of its header.
        partition, offset
            Where the record is.
        body
            Its value.
        """
        if isinstance(body, Withheld):
            return body
        if isinstance(body, Decision):
            return body
        content = body or b""
        named, _, signature = header[:MAX_HEADER_BYTES].decode("ascii", "replace").partition(":")
        if self.key is None:
            detail = (
                "this program has no key to verify it: set models.key_file to the file that signs decisions"
            )
            return _refused(UNSIGNED_DECISION, detail, content, offset)
        if len(content) > MAX_BODY_BYTES:
            detail = f"the decision has {len(content)} bytes, the maximum is {MAX_BODY_BYTES}"
            return _refused(BAD_DECISION, detail, content, offset)
        expected = self.signature(named, partition, content)
        if not hmac.compare_digest(signature.encode("utf-8", "replace"), expected.encode()):
            detail = f"the signature is not that of this key, of the topic {self.topic} and of partition {partition}"
            return _refused(UNSIGNED_DECISION, detail, content, offset)
        try:
            decision = decoded(content)
        except DecisionError as error:
            return _refused(BAD_DECISION, str(error), content, offset)
        if decision.id != named or decision.partition != partition:
            detail = f"the id {decision.id} in the body is not the signed id of partition {partition}"
            return _refused(BAD_DECISION, detail, content, offset)
        return decision


UNBOUND = Binding("", "", None)
"""Without a topic and a key: every control record is refused."""


def header_of(headers: Iterable[tuple[str, bytes | None]]) -> bytes | None:
    """The header that makes a record a control record, the first if there are several; None if it has none."""
    for name, value in headers:
        if name == HEADER:
            return value or b""
    return None


def has_header(headers: Iterable[tuple[str, bytes | None]]) -> bool:
    """Whether a record with these headers is a control record."""
    return header_of(headers) is not None


def values_of(records: Sequence[Record], binding: Binding) -> list[Value]:
    """The values of records; those of control records are verified decisions, or what stands for refused ones."""
    values: list[Value] = [record.value for record in records]
    for k, record in enumerate(records):
        if record.headers and (header := header_of(record.headers)) is not None:
            values[k] = binding.read(header, record.partition, record.offset, record.value)
    return values


def _refused(reason: str, detail: str, body: bytes, offset: int) -> Withheld:
    digest = hashlib.sha256(body).hexdigest()
    return Withheld(reason, detail, body[:MAX_BODY_BYTES], len(body), digest, offset, offset)
