"""What `replay` and `evaluate` have in common: where events come from, and what is said of refused rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import click

from streamguard.cli import options
from streamguard.history.files import FORMATS, Batch, HistoryError, read

NAMED = 5
"""Refused rows that are named one by one; the rest is counted."""

Command = TypeVar("Command", bound=Callable[..., Any])


class FieldOfColumn(click.ParamType):
    """`field=column`."""

    name = "field=column"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        field, equals, column = value.partition("=")
        if not (field and equals and column):
            self.fail(f"{value!r} is not FIELD=COLUMN, such as user=account_name", param, ctx)
        return field, column


def source_options(command: Command) -> Command:
    """The argument and options that say what to read and how to fold it."""
    for option in (
        options.config,
        click.option(
            "--partitions",
            type=click.IntRange(1, 1024),
            default=4,
            show_default=True,
            help="Of the topic that the file stands for; users are spread as Kafka spreads them.",
        ),
        click.option(
            "--map",
            "mapped",
            type=FieldOfColumn(),
            metavar="FIELD=COLUMN",
            multiple=True,
            help="Column of CSV or Parquet that holds an event field; those of the field's name need none.",
        ),
        click.option(
            "--format", type=click.Choice(FORMATS), help="[default: by the file's ending; stdin: jsonl]"
        ),
        click.argument("file"),
    ):
        command = option(command)
    return command


class Source:
    """Reads batches, names the first refused rows on standard error and counts them all."""

    def __init__(
        self, file: str, format: str | None, mapped: Sequence[tuple[str, str]], extra: Sequence[str] = (),
        optional: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self._batches = read(file, format=format, columns=dict(mapped), extra=extra, optional=optional)
        self._refused: Counter[str] = Counter()
        self._rows = 0

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._batches:
            for refusal in batch.refused:
                if self._refused.total() < NAMED:
                    click.echo(
                        f"refused {batch.where(refusal)}: {refusal.reason}: {refusal.detail}", err=True
                    )
                self._refused[refusal.reason] += 1
            self._rows += len(batch.values)
            yield batch
        if self._rows and self._rows == self._refused.total():
            raise HistoryError(f"none of the {self._rows:,} rows is an event")

    def refused(self) -> str:
        """How many rows were refused, by reason, in words."""
        if not self._refused:
            return "no row refused"
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in self._refused.most_common())
        return f"{self._refused.total():,} of {self._rows:,} rows refused ({reasons})"
