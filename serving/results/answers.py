"""What a question about stored results is answered with if the results cannot be read."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

Why = Literal["not_configured", "none", "gone", "unreadable", "busy"]


class Unavailable(msgspec.Struct, frozen=True):
    """Results that cannot be read now, and why; the server goes on."""

    why: Annotated[
        Why,
        msgspec.Meta(
            description="`not_configured`: no directory is set; `none`: nothing was written yet; `gone`: it was "
            "deleted meanwhile; `unreadable`: it is damaged or incomplete; `busy`: the answer would need too much time "
            "or memory"
        ),
    ]
    message: Annotated[str, msgspec.Meta(description="What is wrong, where, and what to do")]
