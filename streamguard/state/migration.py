"""Reads stored profiles, populations and pages of this layout and of those before: an upgrade forgets nothing.

A field that the former layout does not have keeps the value that a new profile or population has, or is derived from
what is stored. Profiles are converted when they are read, and stored in the new layout when they change: each one
states its version. Pages state none, so all that can differ are written with the first checkpoint.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamguard.fold import population as population_layout
from streamguard.fold import profile as profile_layout
from streamguard.fold.dimensions import SLOTS, VERSION
from streamguard.state.codec import StateError, other_layout, unpack
from streamguard.state.former_layouts import POPULATIONS, PROFILES, SOURCE_RECORDS

READABLE = frozenset({*PROFILES, VERSION})
"""Versions of layouts that can be read."""
_FORMER_OUTCOME = 7
"""Place of the outcome among the fields of a former population; today it follows all sketches."""


def profile(value: bytes, what: str) -> Any:
    """Decode a stored profile of this layout or a former one.

    Parameters
    ----------
    value
        Result of `streamguard.state.codec.pack`.
    what
        Name of the value for errors.

    Raises
    ------
    StateError
        If the value has another layout or is damaged.
    """
    size = int.from_bytes(value[:4], "little")
    former = {dtype.itemsize: (version, dtype) for version, dtype in PROFILES.items()}.get(size)
    stored: Any = unpack(value, former[1] if former else profile_layout.PROFILE, what)
    version = int(stored["version"][0])
    if former is not None and version == former[0]:
        return _profile(stored)[0]
    if version != VERSION:
        found = f"{what} has layout {version}"
        raise StateError(other_layout(f"{found}, this program has layout {VERSION}"))
    return unpack(value, profile_layout.PROFILE, what)[0]


def _profile(stored: Any) -> NDArray[Any]:
    """The present layout of a former profile: what it holds has been seen, and counts as proven."""
    new = _copied(stored, np.atleast_1d(profile_layout.blank()))
    new["aged_events"] = stored["events"]
    sketches = stored["sketch_total"].shape[1]
    new["seen"][:, :sketches] = stored["sketch_total"]
    held = (stored["sketch_hash"] != 0) << np.arange(SLOTS, dtype=np.uint32)
    new["sketch_proven"][:, :sketches] = held.sum(axis=2, dtype=np.uint32)
    return new


def population(value: bytes, version: int, what: str) -> NDArray[Any]:
    """Decode a stored population, shape (1,), of a state with this version; see `profile`."""
    if version not in POPULATIONS:
        return unpack(value, population_layout.POPULATION, what)
    stored: Any = unpack(value, POPULATIONS[version], what)
    new = _copied(stored, population_layout.blank())
    new["aged_events"] = stored["events"]
    for name in ("field_total", "novel", "novel_total"):
        new[name][:, _FORMER_OUTCOME] = 0.0
        new[name][:, population_layout.FIELDS - 1] = stored[name][:, _FORMER_OUTCOME]
    return new


def page(value: bytes, dtype: np.dtype[Any], version: int, what: str) -> NDArray[Any]:
    """Decode a stored page of counters or of sources of a state with this version; see `profile`."""
    if version not in SOURCE_RECORDS or dtype != population_layout.SOURCE_RECORD:
        return unpack(value, dtype, what)
    stored = unpack(value, SOURCE_RECORDS[version], what)
    return _copied(stored, np.zeros(len(stored), dtype))


def _copied(stored: NDArray[Any], new: NDArray[Any]) -> NDArray[Any]:
    """Copy the fields that both layouts have into new records; a longer array keeps its further elements."""
    for name in set(stored.dtype.names or ()) & set(new.dtype.names or ()) - {"version"}:
        target = new[name]
        target[tuple(slice(n) for n in stored[name].shape)] = stored[name]
    return new
