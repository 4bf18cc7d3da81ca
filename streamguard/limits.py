"""The sizes up to which events are read and kept."""

from __future__ import annotations

MAX_EVENT_BYTES = 4 * 1024 * 1024
"""Size of the largest event, and of the largest batch of records that the events topic accepts."""

MAX_DOCUMENT_BYTES = 100_000
"""Size of an event inside an incident: a message that is too large for the broker would stop the worker."""
