"""The Jinja environment of page and report: every text is escaped, and both draw with the same macros and style."""

from __future__ import annotations

from pathlib import Path

from jinja2 import BaseLoader, ChoiceLoader, Environment, PackageLoader, StrictUndefined

from streamguard.pictures import drawing, wording

STYLE = Path(__file__).parent / "pictures.css"
"""The style sheet of what the macros draw, with the colours of light and dark."""


def environment(own: BaseLoader) -> Environment:
    """An environment with the macros of `pictures.html`, in which undefined values are errors.

    Parameters
    ----------
    own
        Finds the templates of the caller.
    """
    made = Environment(
        loader=ChoiceLoader([own, PackageLoader("streamguard.pictures")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        urlencode=wording.url_part,
        shown=wording.shown,
        words=wording.words,
        entity=wording.entity,
        moment=wording.moment,
        age=wording.age,
        counted=wording.number_of,
    )
    made.globals.update(
        bar=drawing.bar,
        columns=drawing.columns,
        steps=drawing.steps,
        week=drawing.week,
        weekdays=drawing.DAYS,
    )
    return made
