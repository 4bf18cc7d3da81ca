"""`streamguard doctor`: looks at everything that a worker and a retrain need, and says what to do."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from streamguard.cli import options


@click.command()
@options.config
@options.bootstrap_servers
@click.option("--data-dir", help="Where this worker keeps its state.")
@click.option("--registry", help="Directory of the model registry.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(
    config: Path | None,
    bootstrap_servers: str | None,
    data_dir: str | None,
    registry: str | None,
    as_json: bool,
) -> None:
    """Look at this machine, Kafka and the registry, and say what is wrong and what to do about it.

    Changes nothing and writes nothing to Kafka; kernels that are not compiled yet are compiled. Run it where the
    worker runs, as the user that it runs as. Ends with 1 if anything fails.
    """
    import msgspec

    from streamguard.cli.doctor.examine import examine
    from streamguard.cli.doctor.finding import worst
    from streamguard.text import printable

    findings = []
    for finding in examine(
        config,
        kafka={"bootstrap_servers": bootstrap_servers},
        worker={"data_dir": data_dir},
        models={"registry": registry},
    ):
        findings.append(finding)
        if not as_json:
            lines = [f"{finding.status:4}  {finding.check:12}  {finding.found}"]
            if finding.remedy:
                lines.append(f"{'':20}-> {finding.remedy}")
            for line in lines:
                click.echo(printable(line.replace("\n", " ")))
    status = worst(findings)
    if as_json:
        click.echo(msgspec.json.encode({"status": status, "findings": findings}))
    if status == "fail":
        sys.exit(1)
