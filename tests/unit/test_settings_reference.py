"""The settings in the documentation are current; `python -m tests.unit.test_settings_reference` writes them."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from streamguard.settings import schema
from streamguard.settings.schema import Settings

DOC = Path(__file__).parents[2] / "docs" / "settings.md"
START = "## kafka"


def reference() -> str:
    """Heading, description and table of settings of each section."""
    parts = []
    for name, section in get_type_hints(Settings).items():
        rows = [
            f"| `{one}` | {kind} | `{default}` | {meaning} |"
            for one, kind, default, meaning in rows_of(section)
        ]
        head = ["| name | value | default | meaning |", "|---|---|---|---|"]
        parts.append("\n".join([f"## {name}", "", inspect.getdoc(section) or "", "", *head, *rows]))
    return "\n\n".join(parts) + "\n"


def rows_of(section: type[msgspec.Struct]) -> Iterator[tuple[str, str, str, str]]:
    """(name, values, default, meaning) of each setting; the meaning is the text below it."""
    hints = get_type_hints(section, include_extras=True)
    meanings = texts(section)
    for field in msgspec.structs.fields(section):
        default = msgspec.json.encode(field.default).decode()
        yield field.name, values(hints[field.name]), default, meanings.get(field.name, "")


def texts(section: type[msgspec.Struct]) -> dict[str, str]:
    tree = ast.parse(inspect.getsource(section)).body[0]
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for field, text in pairwise(tree.body):
        if (
            isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
        ):  # fmt: skip
            found[field.target.id] = " ".join(str(text.value.value).split())
    return found


def values(hint: Any) -> str:
    """Allowed values in words."""
    if get_origin(hint) is Literal:
        return ", ".join(f"`{msgspec.json.encode(one).decode()}`" for one in get_args(hint))
    kind, limits = hint, msgspec.Meta()
    if get_origin(hint) is Annotated:
        kind, limits = get_args(hint)
    if get_origin(kind) is not None:
        return " or ".join(values(one) for one in get_args(kind))
    word = {bool: "true or false", int: "whole number", float: "number", str: "text", type(None): "nothing"}[
        kind
    ]
    bounds = [
        f"{sign} {bound:g}"
        for sign, bound in (
            ("from", limits.ge),
            ("above", limits.gt),
            ("to", limits.le),
            ("below", limits.lt),
        )
        if bound is not None
    ]
    return " ".join([word, *bounds])


def test_allowed_values_are_described_in_words() -> None:
    assert values(schema.Share) == "number from 0 to 1"
    assert values(schema.Seconds) == "number above 0 to 86400"
    assert values(Literal["a", "b"]) == '`"a"`, `"b"`'


def test_documentation_is_current() -> None:
    assert DOC.read_text().partition(START)[2] == reference().removeprefix(START)


def test_every_setting_is_explained() -> None:
    unexplained = [
        f"{name}.{one}"
        for name, section in get_type_hints(Settings).items()
        for one, _, _, meaning in rows_of(section)
        if not meaning
    ]
    assert unexplained == []


if __name__ == "__main__":
    DOC.write_text(DOC.read_text().partition(START)[0] + reference())
