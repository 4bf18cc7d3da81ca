"""The closed form of a language model's answer, and its JSON Schema."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from streamguard.analyst.analysis import Verdict

MAX_SENTENCES = 8
"""Claims of an answer."""
MAX_PROSE = 400
"""Characters of a claim."""
MAX_OVERVIEW = 800
"""Characters of a summary."""


class Sentence(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One sentence, with the ids of the facts that it rests on."""

    text: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_PROSE)]
    refs: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=8)]


class Reply(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a language model answers."""

    verdict: Verdict
    summary: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_OVERVIEW)]
    claims: Annotated[tuple[Sentence, ...], msgspec.Meta(min_length=1, max_length=MAX_SENTENCES)]


_decoder = msgspec.json.Decoder(Reply, strict=True)


def decode(text: str) -> Reply:
    """An answer from JSON.

    Raises
    ------
    msgspec.DecodeError
        If it does not have the form.
    """
    return _decoder.decode(text)


def json_schema(ids: Sequence[str] = ()) -> dict[str, Any]:
    """JSON Schema of `Reply` with an object as its root, as some servers accept no `$ref` there.

    Parameters
    ----------
    ids
        Ids that claims may cite; empty: any text.

    Examples
    --------
    >>> json_schema()["type"], json_schema(["R1"])["$defs"]["Sentence"]["properties"]["refs"]["items"]
    ('object', {'type': 'string', 'enum': ['R1']})
    """
    schema = msgspec.json.schema(Reply)
    definitions = dict(schema["$defs"])
    root = definitions.pop("Reply")
    if ids:
        definitions["Sentence"]["properties"]["refs"]["items"]["enum"] = list(ids)
    return {**root, "$defs": definitions}
