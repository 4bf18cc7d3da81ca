"""The sizes up to which events are read and kept."""

from __future__ import annotations

MAX_EVENT_BYTES = 4 * 1024 * 1024
"""Size of the largest event, and of the largest batch of records that the events topic accepts."""

MAX_DOCUMENT_BYTES = 100_000
"""Size of an event inside an incident: a message that is too large for the broker would stop the worker."""

MAX_INCIDENT_BYTES = 1_048_588
"""Size of a record that the alerts topic must accept, Kafka's default: an incident contains its event."""
