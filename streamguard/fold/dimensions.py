"""Sizes and half-lives of the stored state: with these, the layout changes (`streamguard.state.migration`)."""

from __future__ import annotations

VERSION = 3
"""Version of the layout of a partition's state. `streamguard.state.migration` converts the state of the version before;
any other is refused with an error that names both."""

MONTH = 2_592_000.0
"""Seconds of 30 days, the half-life of what a profile and a population have learned."""
HALF_LIVES = (300.0, 3600.0, 86_400.0, MONTH)
"""Seconds: 5 minutes, 1 hour, 1 day, 30 days."""

SKETCHES = (
    "source",
    "location",
    "host",
    "agent",
    "resource",
    "transition",
    "network",
    "action",
    "command",
)
"""Each sketch holds the 16 values of a user that have the greatest weight."""
SOURCE, LOCATION, HOST, AGENT, RESOURCE, TRANSITION, NETWORK, ACTION, COMMAND = range(len(SKETCHES))

WITH_TEXT = tuple(name for name in SKETCHES if name not in ("transition", "network"))
"""Sketches whose values are texts of the event."""
TEXT_CHARACTERS = 96
"""Characters of a text that a partition's dictionary stores."""

SLOTS = 16
"""Values of a sketch."""
PATTERN_SLOTS = 32
"""Patterns that a profile has room for."""
DNS_SLOTS = 8
"""Domains whose names are counted at the same time."""
HOURS = 168
"""Hours of the week."""

HOUR_MS = 3_600_000
DAY_MS = 86_400_000
MONTH_MS = 30 * DAY_MS
FAR_MS = DAY_MS
"""Milliseconds by which a stored time has to be ahead of the clock to count as set by a wrong clock."""
