"""The settings of a file, with what the command line says in their place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from streamguard.brokers import Brokers
from streamguard.configured import load
from streamguard.exit_codes import MISFIT
from streamguard.settings import Settings, SettingsError


class Ended(click.ClickException):
    """The command ends with a sentence and an exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.exit_code = code


def chosen(config: Path | None, **sections: dict[str, Any]) -> Settings:
    """Settings, by section what the command line says; None there says nothing.

    Raises
    ------
    Ended
        With `MISFIT`, if the file, an environment variable or the command line does not fit.
    """
    try:
        settings = load(config)
    except SettingsError as error:
        raise Ended(str(error), MISFIT) from None
    for section, given in sections.items():
        said = {name: value for name, value in given.items() if value is not None}
        replaced = msgspec.structs.replace(getattr(settings, section), **said)
        settings = msgspec.structs.replace(settings, **{section: replaced})
    try:
        settings = msgspec.convert(msgspec.to_builtins(settings), Settings)
        Brokers.of(settings)
    except SettingsError as error:
        raise Ended(str(error), MISFIT) from None
    except msgspec.ValidationError as error:
        raise Ended(f"the command line: {error}", MISFIT) from None
    return settings
