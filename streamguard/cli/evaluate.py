"""`streamguard evaluate`: measures detection on a file of labelled events."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from streamguard.cli import options, source, sweep_page
from streamguard.cli.campaign_text import warning
from streamguard.cli.sweep_text import curve, outcomes, summary
from streamguard.events import refusals
from streamguard.files.disk import cannot_write
from streamguard.history.evaluate import evaluate
from streamguard.history.labels import ColumnLabels, FileLabels
from streamguard.text import counted

CAMPAIGN = "attack_id"


@click.command()
@source.source_options
@click.option(
    "--label", help="Column that is 1 for an attack and 0 for a benign event.  [default: is_attack]"
)
@click.option(
    "--campaign", help=f"Column with the campaign of an attack.  [default: {CAMPAIGN}, if the file has it]"
)
@click.option(
    "--labels",
    "labels_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Separate file of labels, as `simulate --labels` writes it: JSON lines with event_id and campaign.",
)
@click.option(
    "--train-share",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.3,
    show_default=True,
    help="Share of the events, from the beginning of the file, that is used for training and is not measured.",
)
@click.option(
    "--sweep",
    "with_sweep",
    is_flag=True,
    help="Measure the ranked list with many floors (detection.floor_bits): rows raised a day against campaigns caught.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File for the picture of --sweep, as a page of HTML.",
)
@options.as_json
def command(
    file: str, format: str | None, mapped: tuple[tuple[str, str], ...], partitions: int, config: Path | None,
    label: str | None, campaign: str | None, labels_file: Path | None, train_share: float, with_sweep: bool,
    output: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Replay the labelled events of FILE, and measure scores, incidents and campaigns.

    FILE has the formats that `replay` reads. Detection never uses the labels. The scores are `statistical`, the
    score without patterns and forest; `forest`, a forest that is trained without labels on the first events; and
    `verdict`, the combination of all evidence.
    """
    if labels_file is not None and (label or campaign):
        raise click.UsageError("the file of --labels has labels and campaigns: remove --label and --campaign")
    if output is not None and not with_sweep:
        raise click.UsageError("--output is the file of the picture that --sweep draws: add --sweep")
    labels: ColumnLabels | FileLabels
    if labels_file is not None:
        labels = FileLabels(labels_file, dict(mapped).get("event_id", "event_id"))
        rows = source.Source(file, format, mapped, labels.columns)
    else:
        labels = ColumnLabels(label or "is_attack", campaign or CAMPAIGN)
        optional = [] if campaign else [CAMPAIGN]
        extra = [name for name in labels.columns if name not in optional]
        rows = source.Source(file, format, mapped, extra, optional)
    settings = options.read_settings(config)
    result = evaluate(
        rows,
        labels,
        partitions=partitions,
        train_share=train_share,
        settings=settings,
        techniques=labels.techniques if isinstance(labels, FileLabels) else None,
        with_sweep=with_sweep,
    )
    labels.check()
    if isinstance(labels, ColumnLabels) and labels.unlabelled:
        click.echo(f"{counted(labels.unlabelled, 'event')} without a label: counted as benign", err=True)
    if not result["attacks"]:
        click.echo("no measured event is labelled as an attack: scores cannot be measured", err=True)
    ranked, floor = result["ranked"], settings.detection.floor_bits
    if too_many := warning(ranked["busy_days"], settings.detection):
        click.echo(too_many, err=True)
    if output is not None:
        try:
            output.write_text(
                sweep_page.render(ranked["measures"], ranked["points"], floor), encoding="utf-8"
            )
        except OSError as error:
            raise cannot_write(output, error, "choose another --output") from None
    if as_json:
        click.echo(msgspec.json.encode(result).decode())
        return
    click.echo(table(result, rows.refused()))
    if with_sweep:
        measures = ranked["measures"]
        parts = (outcomes(measures), curve(ranked["points"], measures["total"], floor))
        click.echo("\n" + "\n\n".join("\n".join(part) for part in parts))


def table(result: dict[str, Any], refused: str) -> str:
    """The result as text: a table of scores, then counts."""
    columns = {
        "roc_auc": "ROC-AUC", "average_precision": "avg. precision", "precision_at_100": "precision @100",
        "recall_at_fpr_0.01": "recall @1% FPR", "recall_at_fpr_0.001": "recall @0.1% FPR",
    }  # fmt: skip
    lines = [f"{'':12}" + "".join(f"{name:>18}" for name in columns.values())]
    for score, measures in result["scores"].items():
        cells = [f"{score:12}"]
        if measures is None:
            cells.append(f"   none: {result['forest_missing']}")
        else:
            cells += [f"{_number(measures[name], '.4f'):>18}" for name in columns]
        lines.append("".join(cells))
    caught = result["campaigns"]
    false_incidents = _number(result["incidents_per_benign_day"], ".3f")
    false_events = _number(result["alerted_benign_share"], ".3%")
    delay = _number(caught["median_delay_seconds"], ",.0f")
    lines.append("")
    if result["forest_weight"] is not None:
        lines.append(f"forest      counts with weight {result['forest_weight']:.2f} in the verdict")
    lines += [
        f"events      {result['events']:,}; {result['measured']:,} measured, "
        f"with {counted(result['attacks'], 'attack event')}; {refused}",
        f"incidents   {result['incidents']:,}; {false_incidents} false incidents a day; "
        f"{false_events} of benign events alerted",
        f"campaigns   {caught['caught']} of {caught['total']} caught, median delay of the first alert {delay} s",
        *summary(result["ranked"]["measures"]),
        f"CPU         {result['cpu_seconds']:.2f} s",
        *refusals.lines(msgspec.convert(result["refusals"], dict[str, refusals.Refusals])),
        result["understood"],
    ]
    return "\n".join(lines)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
