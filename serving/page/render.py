"""Renders templates: every text is escaped, and texts of events are shown without control characters."""

from __future__ import annotations

from typing import Any

from jinja2 import PackageLoader
from litestar import Response
from markupsafe import Markup

from streamguard.alerts.incident import Entity
from streamguard.pictures import templates, wording
from streamguard.serving.decisions.mute import BREACHES
from streamguard.serving.decisions.wording import effect
from streamguard.serving.masking.mask import HIDDEN
from streamguard.serving.masking.pseudonyms import is_pseudonym


def entity(one: Entity) -> str:
    """An entity in words; a pseudonym begins with the kind.

    Examples
    --------
    >>> entity(Entity("user", "ann")), entity(Entity("user", "user-xsqafs31gkjddh1d"))
    ('user ann', 'user-xsqafs31gkjddh1d')
    """
    return one.value if is_pseudonym(one.value) else wording.entity(one)


_environment = templates.environment(PackageLoader("streamguard.serving.page"))
_environment.filters.update(entity=entity, effect=effect)
_environment.globals.update(
    caller=None,
    hidden=HIDDEN,
    as_of=None,
    breaches=BREACHES,
    refused=None,
)


def html(template: str, status: int = 200, **context: Any) -> Response[str]:
    """A page from a template."""
    return Response(text(template, **context), status_code=status, media_type="text/html; charset=utf-8")


def text(template: str, **context: Any) -> Markup:
    """A template with its values."""
    return Markup(_environment.get_template(template).render(**context))  # noqa: S704 - autoescaped
