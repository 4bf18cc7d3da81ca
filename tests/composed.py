"""docker-compose.yml and Dockerfile as the tests read them: variables filled in, and the environment of an image."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
VARIABLE = re.compile(r"\$\{(?P<name>[A-Z_]+)(?::(?P<how>[-?])(?P<text>[^}]*))?\}")


class MissingError(KeyError):
    """A variable without a default is not set."""


def read(text: str) -> dict[str, Any]:
    """YAML of a compose file, merge keys resolved."""
    parsed: dict[str, Any] = yaml.safe_load(text)
    return parsed


def compose(environ: Mapping[str, str]) -> dict[str, Any]:
    """docker-compose.yml with its variables filled in from `environ`, as `docker compose config` does."""

    def fill(found: re.Match[str]) -> str:
        value = environ.get(found["name"], "")
        if value or found["how"] is None:
            return value
        if found["how"] == "?":
            raise MissingError(f"{found['name']}: {found['text']}")
        return str(found["text"])

    return read(VARIABLE.sub(fill, (ROOT / "docker-compose.yml").read_text()))


def stages() -> dict[str, tuple[str, list[tuple[str, str]]]]:
    """Stages of the Dockerfile: name -> (base, own instructions)."""
    lines = [
        line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")
    ]
    found: dict[str, tuple[str, list[tuple[str, str]]]] = {}
    for line in "\n".join(lines).replace("\\\n", "").splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            base, name = rest.split(" AS ")
            found[name] = (base, [])
        elif word and found:
            found[list(found)[-1]][1].append((word, rest))
    return found


def instructions(target: str) -> list[tuple[str, str]]:
    """Instructions of a stage and of all stages that it is based on, in order."""
    known = stages()
    base, own = known[target]
    return (instructions(base) if base in known else []) + own


def environment(target: str) -> dict[str, str]:
    """Variables that an image sets, except `PATH`."""
    pairs = [
        pair.partition("=")
        for word, rest in instructions(target)
        if word == "ENV"
        for pair in shlex.split(rest)
    ]
    return {name: value for name, _, value in pairs if name != "PATH"}
