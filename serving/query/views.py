"""The views of a list: what is shown of the incidents before a person filters them."""

from __future__ import annotations

from typing import Literal

import msgspec

from streamguard.serving.query.filters import OPEN, IncidentFilter

View = Literal["raised", "open", "all"]


def viewed(wanted: IncidentFilter, view: View) -> IncidentFilter:
    """The filter of a view: raised rows, all open incidents, or everything, muted ones included.

    Examples
    --------
    >>> viewed(IncidentFilter(text="ann"), "raised").raised, viewed(IncidentFilter(text="ann"), "all").raised
    (True, None)
    >>> viewed(IncidentFilter(status=("closed",)), "open").status
    ('closed',)
    """
    if view == "all":
        return wanted
    opened = msgspec.structs.replace(wanted, status=wanted.status or OPEN, muted=False)
    return msgspec.structs.replace(opened, raised=True, grouped=True) if view == "raised" else opened
