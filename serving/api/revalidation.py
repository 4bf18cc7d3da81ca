"""Lists that a caller has already: an unchanged one is answered with 304, without reading any row."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from typing import Annotated, Any, TypeVar, cast

from litestar import Request, Response
from litestar.params import HeaderParameter

from streamguard.serving.query.service import QueryService

T = TypeVar("T")

HEADERS = {"Cache-Control": "private, no-cache", "Vary": "Authorization, Cookie"}
"""A program, or the cache of one browser, may keep a list, and asks before it uses it again."""
_SERVER = secrets.token_hex(8)
"""Part of every tag: sequence numbers begin again with each start, and other servers have others."""

Known = Annotated[
    str,
    HeaderParameter(
        name="If-None-Match", max_length=1000, description="`ETag` of the answer that the caller has"
    ),
]


def unless_known(
    request: Request[Any, Any, Any], service: QueryService, known: str, ask: Callable[[], T]
) -> Response[T]:
    """The answer to a question about the projection, or 304 if the caller has it.

    The tag stands for the state of the projection, the question, and who asks. It is weak: of two answers with one tag
    the rows are equal, and only how old they may be differs.

    Parameters
    ----------
    known
        Tags of the answers that the caller has, as in `If-None-Match`.
    ask
        Returns the answer.
    """
    own = tag(service.sequence, request.url.path, request.scope["query_string"], request.user)
    headers = HEADERS | {"ETag": own}
    if known.strip() == "*" or own in (one.strip() for one in known.split(",")):
        return Response(cast("T", None), status_code=304, headers=headers)
    return Response(ask(), headers=headers)


def tag(sequence: int, path: str, query: bytes, caller: Any) -> str:
    """The tag of an answer.

    Parameters
    ----------
    sequence
        Number of changes of the projection, taken before the answer is read: what changes meanwhile changes the tag.
    caller
        Who asks: answers depend on the rights.
    """
    parts = (_SERVER, str(sequence), path, query.decode("latin-1"), caller.name, caller.role)
    return f'W/"{hashlib.sha256(repr(parts).encode()).hexdigest()[:32]}"'
