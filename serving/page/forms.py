"""Forms of the page: what a form asks for, and a form that was refused, which is shown again as it was filled in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar
from urllib.parse import unquote

import msgspec
from litestar import Response
from litestar.enums import RequestEncodingType
from litestar.params import Body

from streamguard.errors import StreamGuardError
from streamguard.serving.api.problems import described
from streamguard.serving.query.detection import DetectionRequest
from streamguard.serving.query.requests import ActionRequest, ConflictError

T = TypeVar("T")
Form = Annotated[dict[str, str], Body(media_type=RequestEncodingType.URL_ENCODED)]

_OF_PAGE = ("action", "back", "confirmed", "count")
"""Fields that say how the page goes on, and not what is asked for."""
_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")
_UNSURE = 503
"""Status of an answer after which the action may be written: it is repeated with the same id."""


class Refused(msgspec.Struct, frozen=True):
    """A form that was refused.

    Attributes
    ----------
    form
        Which one of the page.
    given
        What was filled in.
    message, status
        What was wrong, and the status of the answer.
    field
        Name of the field that was wrong; empty if it is not a single one.
    action
        Id under which the same form is repeated, if it may have had an effect; otherwise empty.
    headers
        Of the answer.
    """

    form: str
    given: Mapping[str, str]
    message: str
    status: int
    field: str = ""
    action: str = ""
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)

    def on(self, answer: Response[str]) -> Response[str]:
        """A page that shows the form, as the answer to it."""
        answer.status_code = self.status
        answer.headers.update(self.headers)
        return answer


def refused_form(
    form: str, given: Mapping[str, str], error: StreamGuardError, action: str = "", field: str = ""
) -> Refused:
    """A form that was refused with an error.

    Parameters
    ----------
    action
        Id of the action that the form has asked for.
    field
        Name of the field that was wrong, if the error does not name it.
    """
    problem, headers = described(error)
    field = field or (error.field if isinstance(error, ConflictError) else "")
    again = action if problem.status == _UNSURE else ""
    # A person sees the label of the field, which begins with its name, and not the name in the API.
    message = problem.detail.replace(f"`{field}`", field.capitalize()) if field else problem.detail
    return Refused(form, given, message, problem.status, field, again, headers or {})


def action_id(form: Mapping[str, str]) -> str:
    """The id that a form gives to its action; empty if it gives none that is valid."""
    given = form.get("action", "")
    return given if _ID.fullmatch(given) else ""


def name_of(form: Mapping[str, str]) -> str:
    """The name of a form for an action on an incident."""
    return "duplicate" if "duplicate_of" in form else form.get("kind", "")


def action_of_form(form: Mapping[str, str]) -> ActionRequest:
    """The action that a form asks for; empty fields are left out.

    Raises
    ------
    ConflictError
        If the form is not complete.
    """
    fields: dict[str, Any] = {name: value for name, value in form.items() if value and name not in _OF_PAGE}
    # An id is copied from the address of the other incident, or is that address.
    if "duplicate_of" in fields:
        fields["duplicate_of"] = unquote(fields["duplicate_of"].strip().rpartition("/")[2])
        fields["classification"] = "duplicate"
    if "expected" in form:
        fields["expected"] = form["expected"]
    return _converted(fields, ActionRequest)


def decision_of_form(form: Mapping[str, str]) -> DetectionRequest:
    """The decision about a value of a user that a form asks for.

    Raises
    ------
    ConflictError
        If the form is not complete.
    """
    fields: dict[str, Any] = {name: value for name, value in form.items() if value and name not in _OF_PAGE}
    # The value that the person saw: that of the latest publication may have changed meanwhile.
    field, _, value = fields.pop("field", "").partition("=")
    if not value:
        raise ConflictError("choose a value of the list", "field")
    return _converted(fields | {"field": field, "value": unquote(value)}, DetectionRequest)


def _converted(fields: Mapping[str, Any], kind: type[T]) -> T:
    try:
        return msgspec.convert(fields, kind, strict=False)
    except msgspec.ValidationError as error:
        part = re.search(r"\$\.(\w+)", str(error))
        raise ConflictError(f"the form is not complete: {error}", part[1] if part else "") from None
