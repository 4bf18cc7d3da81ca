"""Input of `replay` and `evaluate`: the options that describe a file, and the report on refused rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import click

from streamguard.cli import options
from streamguard.events.event import repairs_of
from streamguard.history.files import FORMATS, Batch, HistoryError, read
from streamguard.history.order import RowOrder
from streamguard.text import counted

NAMED = 5
"""Number of refused rows that are printed one by one, besides the first one of each reason. All of them are counted."""

Command = TypeVar("Command", bound=Callable[..., Any])


class FieldOfColumn(click.ParamType):
    """An event field and its column, written `field=column`."""

    name = "field=column"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        field, equals, column = value.partition("=")
        if not (field and equals and column):
            self.fail(f"{value!r} is not FIELD=COLUMN, such as user=account_name", param, ctx)
        return field, column


def source_options(command: Command) -> Command:
    """Add the argument and the options that define what is read and how it is folded."""
    for option in (
        options.config,
        click.option(
            "--partitions",
            type=click.IntRange(1, 1024),
            default=1,
            show_default=True,
            help="Number of partitions. Users are assigned to them as Kafka's default partitioner does.",
        ),
        click.option(
            "--map",
            "mapped",
            type=FieldOfColumn(),
            metavar="FIELD=COLUMN",
            multiple=True,
            help="Column of a CSV or Parquet file that holds an event field. Columns with the name of a field "
            "need no mapping.",
        ),
        click.option(
            "--format",
            type=click.Choice(FORMATS),
            help="Format of the input.  [default: by the file's extension; jsonl for standard input]",
        ),
        click.argument("file"),
    ):
        command = option(command)
    return command


class Source:
    """Reads batches, and prints on standard error what is wrong with them.

    These are the first refused rows, of which all are counted, and the order of rows that go back in time.
    """

    def __init__(
        self, file: str, format: str | None, mapped: Sequence[tuple[str, str]], extra: Sequence[str] = (),
        optional: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self._batches = read(file, format=format, columns=dict(mapped), extra=extra, optional=optional)
        self._refused: Counter[str] = Counter()
        self._repairs: Counter[str] = Counter()
        self._repaired = 0
        self._rows = 0
        self._name = "standard input" if file == "-" else file
        self._order = RowOrder()

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._batches:
            for refusal in batch.refused:
                if self._refused.total() < NAMED or refusal.reason not in self._refused:
                    click.echo(
                        f"refused {batch.where(refusal)}: {refusal.reason}: {refusal.detail}", err=True
                    )
                self._refused[refusal.reason] += 1
            self._repaired += len(batch.repaired)
            self._repairs.update(repairs_of(batch.repaired))
            self._rows += len(batch.values)
            self._order.add(batch.events)
            yield batch
        if warning := self._order.warning(self._name):
            click.echo(f"warning: {warning}", err=True)
        if self._rows and self._rows == self._refused.total():
            raise HistoryError(f"no row is a valid event: {counted(self._rows, 'row')} refused")

    def refused(self) -> str:
        """Number of refused rows, by reason, and of repaired events, by repair, as text."""
        text = "no row refused"
        if self._refused:
            text = f"{self._refused.total():,} of {counted(self._rows, 'row')} refused ({_listed(self._refused)})"
        if self._repaired:
            text += f", {counted(self._repaired, 'event')} repaired ({_listed(self._repairs)})"
        return text


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.most_common())
