"""Checks the answer of a language model against the facts: what they do not contain, the answer may not contain."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Literal, get_args

import msgspec

from streamguard.analyst.language.placeholders import NAMES, Line, Placeholders
from streamguard.analyst.language.reply import Reply, decode
from streamguard.errors import StreamGuardError

Rejection = Literal[
    "unfinished", "form", "reference", "placeholder", "technique", "number", "address", "name", "markup", "url",
    "characters",
    "timeout", "connection", "status", "redirect", "too_large", "protocol", "key",
    "calls_per_hour", "tokens_per_day", "breaker",
]  # fmt: skip
"""Why the answer of a language model is not used. The first eleven are those of `checked`, seven are those of the
client, and the last three are limits by which no model was asked."""
REJECTIONS: tuple[Rejection, ...] = get_args(Rejection)

_SENTENCE = re.compile(r"[.!?:]\s+")
_TOKEN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.,:/@-]*[A-Za-z0-9])?")
_TECHNIQUE = re.compile(r"T[0-9]{3,5}(?:\.[0-9]+)?")
_LETTERS = "|".join(letters for letters, _ in NAMES.values())
_PLACEHOLDER = re.compile(f"(?:{_LETTERS})[0-9]+")
_ADDRESS = re.compile(r"(?:[0-9]+\.){2,}[0-9]+(?:[:/][0-9]+)?|[0-9a-fA-F]*:[0-9a-fA-F:]*:[0-9a-fA-F.:]*")
_MARKUP = re.compile(r"[`*#<>\[\]{}|~\\^_=]")
_URL = re.compile(r"://|\bwww\.|\bmailto:", re.IGNORECASE)
_CHARACTERS = re.compile(r"[ -~]*")
_OPENINGS = frozenset(
    {
        "a", "account", "activity", "after", "all", "although", "an", "and", "any", "as", "at",
        "attempts", "because", "before", "both", "but", "by", "during", "each", "evidence", "failed",
        "failures", "few", "for", "from", "given", "however", "i", "if", "in", "it", "its", "login",
        "logins", "many", "most", "multiple", "no", "none", "nor", "nothing", "of", "on", "one", "only",
        "our", "other", "overall", "several", "since", "so", "some", "still", "that", "the", "their",
        "then", "there", "these", "they", "this", "those", "though", "to", "together", "two", "unusual",
        "we", "what", "when", "where", "whether", "which", "while", "with", "within",
    }
)  # fmt: skip
"""Words that a sentence may begin with, besides words of the facts; any other word in capitals may be a name."""


class RejectedError(StreamGuardError):
    """A language model's answer is not used. The text is one of `REJECTIONS`, and never a part of the answer."""

    def __init__(self, reason: Rejection) -> None:
        super().__init__(reason)
        self.reason: Rejection = reason


def checked(text: str, finish_reason: str, placeholders: Placeholders) -> Reply:
    """The answer, if everything in it is in the facts.

    Parameters
    ----------
    text, finish_reason
        As the server sent them.

    Raises
    ------
    RejectedError
        If the answer is not complete, has another form, cites other ids, or states what its facts do not.
    """
    if finish_reason != "stop":
        raise RejectedError("unfinished")
    try:
        reply = decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        raise RejectedError("form") from None
    lines = {line.id: line for line in placeholders.lines}
    _check(reply.summary, lines.values(), lines)
    for claim in reply.claims:
        if not lines.keys() >= set(claim.refs):
            raise RejectedError("reference")
        _check(claim.text, [lines[ref] for ref in claim.refs], lines)
    return reply


def _check(prose: str, lines: Iterable[Line], ids: Iterable[str]) -> None:
    if _CHARACTERS.fullmatch(prose) is None:
        raise RejectedError("characters")
    if _URL.search(prose):
        raise RejectedError("url")
    if _MARKUP.search(prose):
        raise RejectedError("markup")
    given = list(lines)
    tokens = {token for line in given for token in _TOKEN.findall(line.text)} | set(ids)
    words = {word.lower() for word in tokens}
    for token, opens in _tokens(prose):
        if token in tokens:
            continue
        if any(c.isdigit() for c in token):
            raise RejectedError(_kind(token))
        if not token.replace("-", "").isalpha():
            raise RejectedError("name")
        proper = token[0].isupper() and not (opens and token.lower() in _OPENINGS)
        if (proper or token[1:] != token[1:].lower()) and token.lower() not in words:
            raise RejectedError("name")


def _kind(token: str) -> Rejection:
    if _TECHNIQUE.fullmatch(token):
        return "technique"
    if _ADDRESS.fullmatch(token):
        return "address"
    if _PLACEHOLDER.fullmatch(token):
        return "placeholder"
    return "number" if token.replace(",", "").replace(".", "").isdigit() else "name"


def _tokens(prose: str) -> Iterator[tuple[str, bool]]:
    """The tokens of a text, and whether each opens a sentence."""
    for sentence in _SENTENCE.split(prose):
        for k, token in enumerate(_TOKEN.findall(sentence)):
            yield token, k == 0
