"""Renders templates: every text is escaped, and texts of events are shown without control characters."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from litestar import Response
from markupsafe import Markup

from streamguard.alerts.incident import Entity
from streamguard.alerts.usual import span
from streamguard.serving.decisions.ledger import REJECTIONS
from streamguard.serving.decisions.mute import BREACHES
from streamguard.serving.masking.mask import HIDDEN
from streamguard.serving.masking.pseudonyms import is_pseudonym
from streamguard.serving.page import pictures
from streamguard.text import counted, printable, shortened

MAX_SHOWN = 200
"""Characters of a text of an event in a table."""


def shown(text: str) -> str:
    """A text of an event, as a table shows it: bounded, without control characters and changes of direction.

    Examples
    --------
    >>> shown("ann\\u202egnp.exe\\x1b[31m")
    'ann�gnp.exe�[31m'
    """
    return shortened(printable(str(text)), MAX_SHOWN)


def words(name: str) -> str:
    """The name of a pattern or a component in words.

    Examples
    --------
    >>> words("crowd_new_source")
    'crowd new source'
    """
    return shown(name).replace("_", " ")


def entity(one: Entity) -> str:
    """An entity in words.

    Examples
    --------
    >>> entity(Entity("user", "ann")), entity(Entity("crowd", "partition 2"))
    ('user ann', 'all users of partition 2')
    """
    if is_pseudonym(one.value):
        return one.value  # it begins with the kind
    return f"all users of {shown(one.value)}" if one.kind == "crowd" else f"{one.kind} {shown(one.value)}"


def moment(time: str) -> str:
    """An RFC 3339 time to the second.

    Examples
    --------
    >>> moment("2026-11-30T08:00:01.250Z")
    '2026-11-30 08:00:01'
    """
    return time[:19].replace("T", " ")


def age(milliseconds: int) -> str:
    """A duration in words.

    Examples
    --------
    >>> age(420), age(65_000), age(7_200_000)
    ('0.4 s', '65 s', '2 hours')
    """
    return span(milliseconds / 1000)


def _counted(number: int, noun: str, nouns: str = "") -> str:
    return f"{number:,} {nouns}" if nouns and number != 1 else counted(number, noun)


_environment = Environment(
    loader=PackageLoader("streamguard.serving.page"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters.update(shown=shown, words=words, entity=entity, moment=moment, age=age, counted=_counted)
_environment.globals.update(
    bar=pictures.bar,
    columns=pictures.columns,
    steps=pictures.steps,
    week=pictures.week,
    caller=None,
    hidden=HIDDEN,
    as_of=None,
    breaches=BREACHES,
    rejections=REJECTIONS,
)


def html(template: str, status: int = 200, **context: Any) -> Response[str]:
    """A page from a template."""
    return Response(text(template, **context), status_code=status, media_type="text/html; charset=utf-8")


def text(template: str, **context: Any) -> Markup:
    """A template with its values."""
    return Markup(_environment.get_template(template).render(**context))  # noqa: S704 - autoescaped
