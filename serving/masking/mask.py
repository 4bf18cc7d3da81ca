"""Masks an answer: pseudonyms stand for names, and free texts are left out, as `classification` declares."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from streamguard.alerts.incident import Entity, Incident
from streamguard.serving.decisions.case import Case
from streamguard.serving.decisions.record import Scope
from streamguard.serving.masking.classification import Kind, classes
from streamguard.serving.masking.pseudonyms import Pseudonyms
from streamguard.serving.query.answers import IncidentAnswer

HIDDEN = "(masked)"
"""Stands for a text that is left out."""
_PLAIN = (int, float, type(None))
"""Types of values that are no text: numbers and truths are shown."""

T = TypeVar("T")


class Mask:
    """Masks answers.

    Parameters
    ----------
    pseudonyms
        Pseudonyms of the deployment.
    """

    def __init__(self, pseudonyms: Pseudonyms) -> None:
        self._pseudonyms = pseudonyms

    def of(self, answer: T) -> T:
        """The answer with pseudonyms instead of names, and without free text."""
        masked: T = self._value(answer, "hidden")
        return masked

    def _value(self, value: Any, kind: Kind) -> Any:
        if isinstance(value, _PLAIN):
            return value
        if isinstance(value, msgspec.Struct):
            return self._struct(value)
        if isinstance(value, str):
            return self._text(value, kind)
        if isinstance(value, tuple | list):
            shown = (one for one in value if kind != "hidden" or not isinstance(one, str))
            return type(value)(self._value(one, kind) for one in shown)
        if isinstance(value, dict) and all(
            isinstance(part, _PLAIN) for pair in value.items() for part in pair
        ):
            return value  # numbers by number
        return {"masked": True}

    def _text(self, text: str, kind: Kind) -> str:
        if kind == "shown" or not text:
            return text
        return HIDDEN if kind in ("hidden", "written") else self._pseudonyms.of(kind, text)

    def _struct(self, one: msgspec.Struct) -> msgspec.Struct:
        known = classes(type(one))
        author_is_masked = getattr(one, "masked", False) or (isinstance(one, Case) and _closed_by_masked(one))
        changed = {}
        for name in one.__struct_fields__:
            kind = known.get(name, "hidden")
            if kind == "written" and author_is_masked:
                kind = "shown"
            value = getattr(one, name)
            masked = self._value(value, kind)
            if masked is not value:
                changed[name] = masked
        match one:
            case Entity():
                changed["value"] = self._pseudonyms.of(one.kind, one.value)
            case Scope():
                changed["entity"] = self._pseudonyms.of(one.entity_kind, one.entity)
            case Incident():
                changed["event"] = {"masked": True}  # whatever it is
            case IncidentAnswer():
                changed["masked"] = True
        return msgspec.structs.replace(one, **changed) if changed else one


def _closed_by_masked(case: Case) -> bool:
    """Whether somebody who sees pseudonyms only has written why the incident is closed."""
    return any(one.kind == "close" and one.masked and one.text == case.reason for one in case.history)
