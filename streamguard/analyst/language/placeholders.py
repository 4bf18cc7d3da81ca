"""Replaces every text of an incident by a typed placeholder before a language model sees it, and restores it after."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from streamguard.analyst.facts import Kind, Statement, Text
from streamguard.analyst.knowledge import TECHNIQUES
from streamguard.text import printable, shortened

MAX_RAW = 200
"""Characters of a raw command line in a prompt, where settings allow it."""
MARK = "^"
"""Stands for every space of a raw command line, so that its words are not read as sentences (datamarking)."""

NAMES: dict[Kind, tuple[str, str]] = {
    "user": ("USER", "a user"),
    "address": ("IP", "a network address"),
    "place": ("PLACE", "a place"),
    "host": ("HOST", "the name of a host"),
    "agent": ("AGENT", "a client program"),
    "target": ("TARGET", "what was used or reached"),
    "path": ("PATH", "a file"),
    "command": ("COMMAND", "a program or a command line"),
    "name": ("DNS", "a DNS name"),
    "type": ("TYPE", "a type or an outcome of events"),
    "reason": ("REASON", "why something failed, as the source states it"),
    "rule": ("RULE", "the name of a rule"),
    "words": ("VALUE", "a value in words"),
}
"""Kind of a text -> the letters of its placeholders, and their meaning."""

_TYPES = frozenset({"login", "logout", "success", "failure", "failed"})
"""Types and outcomes that are shown as they are, because they are words of this list."""
_WORDS = frozenset(
    {
        "a", "about", "alert", "alerts", "an", "and", "at", "bits", "bytes", "day", "days", "different",
        "event", "events", "every", "failed", "failure", "failures", "first", "for", "from", "hour",
        "hours", "in", "known", "last", "login", "logins", "minute", "minutes", "month", "more", "most",
        "never", "no", "not", "nothing", "of", "on", "one", "or", "per", "second", "seconds", "stated",
        "than", "the", "times", "to", "typical", "usual", "usually", "user", "users", "utc", "value",
        "values", "week", "weekends", "within", "yet", "mon", "tue", "wed", "thu", "fri", "sat", "sun",
        "kb", "mb", "gb",
    }
)  # fmt: skip
"""Words that a value of StreamGuard may consist of, besides numbers, to be shown as it is."""
_PIECES = re.compile(r"[a-z]+|[0-9]+|[ .,:;%()+-]", re.IGNORECASE)
_TEMPLATES = {
    "T": re.compile(r"[A-Za-z ]+ [0-9-]{10} [0-9:]{8} UTC(?:, [0-9., a-z]{1,40} after the first one)?\."),
    "V": re.compile(
        r"The risk is [0-9.]+ of 100 \((?:low|medium|high|critical)\), from [0-9.]+ bits of evidence\."
    ),
}
"""First letter of a fact -> the form of its sentence, where the sentence itself holds values of the record."""
_TECHNIQUE_WORDS = frozenset(TECHNIQUES) | {technique.name for technique in TECHNIQUES.values()}
_PLACEHOLDER = re.compile(r"\b[A-Z]{2,8}[0-9]{1,3}\b")
_MARKUP = str.maketrans("<>[]{}`*|", "()()()''/")


class Line(NamedTuple):
    """A fact as a language model sees it: its id, its sentence with placeholders, and which ones it contains."""

    id: str
    text: str
    placeholders: tuple[str, ...]


class Placeholders:
    """The facts of one incident with placeholders, and the texts that these stand for.

    Parameters
    ----------
    statements
        Facts with their texts kept apart.
    raw_command_lines
        Whether the prompt explains a command line by its own, marked text.

    Examples
    --------
    >>> made = Placeholders([Statement("E1", "The incident is about the user {}.", (Text("user", "ann"),))])
    >>> made.lines[0].text, made.restored("USER1 is new.")
    ('The incident is about the user USER1.', 'ann is new.')
    """

    def __init__(self, statements: Iterable[Statement], *, raw_command_lines: bool = False) -> None:
        self.texts: dict[str, str] = {}
        """Placeholder -> text of the incident."""
        self.glosses: dict[str, str] = {}
        """Placeholder -> what it is, in words of StreamGuard."""
        self._names: dict[Text, str] = {}
        self._raw = raw_command_lines
        lines = []
        for statement in statements:
            form = _TEMPLATES.get(statement.id[:1])
            if form is not None and form.fullmatch(statement.template) is None:
                continue
            shown = [self._shown(text) for text in statement.texts]
            used = tuple(dict.fromkeys(name for name in shown if name in self.texts))
            lines.append(Line(statement.id, statement.template.format(*shown), used))
        self.lines = tuple(lines)

    def restored(self, prose: str) -> str:
        """Prose with the texts in place of placeholders; the texts can neither print control codes nor be markup."""
        return _PLACEHOLDER.sub(lambda found: harmless(self.texts.get(found[0], found[0])), prose)

    def _shown(self, text: Text) -> str:
        if _is_ours(text):
            return text.text
        if (name := self._names.get(text)) is None:
            letters, gloss = NAMES[text.kind]
            number = 1 + sum(1 for other in self.texts if other.rstrip("0123456789") == letters)
            name = self._names[text] = f"{letters}{number}"
            self.texts[name] = text.text
            self.glosses[name] = (
                f"{gloss}: {marked(text.text)}" if self._raw and text.kind == "command" else gloss
            )
        return name


def harmless(text: str) -> str:
    r"""A text of the log as prose shows it: printable, and without characters of HTML, Markdown and addresses.

    Examples
    --------
    >>> harmless("<b>[x](http://a)\x1b")
    '(b)(x)(http: //a)�'
    """
    return printable(text).translate(_MARKUP).replace("://", ": //")


def marked(text: str) -> str:
    """A raw command line for a prompt: ASCII on one line, with a mark instead of every space, of bounded length.

    Examples
    --------
    >>> marked('net  user "x y"')
    '^net^user^"x^y"^'
    """
    plain = text.encode("ascii", "replace").decode("ascii")
    return MARK + MARK.join(shortened(printable(plain), MAX_RAW).replace("…", "").split()) + MARK


def _is_ours(text: Text) -> bool:
    if text.kind == "type":
        return text.text in _TYPES
    if text.kind != "words":
        return False
    if text.text in _TECHNIQUE_WORDS:
        return True
    pieces = _PIECES.findall(text.text)
    return "".join(pieces) == text.text and all(not p.isalpha() or p.lower() in _WORDS for p in pieces)
