"""Counts DNS names that may carry data, by registered domain, and names that an algorithm may have generated."""

from __future__ import annotations

import numpy as np

from streamguard.compute.compiler import inline
from streamguard.events import indicators as flag
from streamguard.fold.dimensions import DNS_SLOTS

NAMES_MS = 600_000
"""Milliseconds without a further DNS name of the same kind after which their count restarts."""


@inline
def count_name(s, flags, domain, name, ts):  # type: ignore[no-untyped-def]
    """Count a DNS name with an indicator; return the slot of its domain, or of generated names, or -1.

    Names that may carry data count by registered domain, and the same name once. Ten minutes without a further one end
    a count. If two domains share a slot, the names of one take away those of the other.
    """
    bit = np.uint64(1) << ((name if flags & flag.TUNNEL_QUERY else domain) & np.uint64(63))
    at = np.int64(DNS_SLOTS)
    if flags & flag.TUNNEL_QUERY:
        at = np.int64((domain >> np.uint64(8)) % np.uint64(DNS_SLOTS))
    if abs(ts - s.dns_ts[at]) > NAMES_MS:
        s.dns_names[at] = np.uint64(0)
    if flags & flag.TUNNEL_QUERY and s.dns_domain[at] != domain:
        if s.dns_names[at] & (s.dns_names[at] - np.uint64(1)) != np.uint64(0):
            s.dns_names[at] &= s.dns_names[at] - np.uint64(1)
            return -1
        s.dns_domain[at] = domain
        s.dns_names[at] = np.uint64(0)
    s.dns_names[at] |= bit
    s.dns_ts[at] = ts
    return at
