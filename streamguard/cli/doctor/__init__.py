"""`streamguard doctor`: checks everything that a worker and a retrain need, and reports problems with fixes."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from streamguard.cli import options
from streamguard.errors import ExitCode


@click.command()
@options.config
@options.bootstrap_servers
@click.option("--data-dir", help="Directory of the worker's state.")
@click.option("--registry", help="Directory of the model registry.")
@options.as_json
def command(
    config: Path | None, bootstrap_servers: str | None, data_dir: str | None, registry: str | None, as_json: bool
) -> None:  # fmt: skip
    """Check this machine, Kafka and the registry; report problems and fixes.

    The command changes nothing and writes nothing to Kafka, but it compiles kernels that are missing from the cache.
    Run it on the worker's machine as the worker's user. Exit codes: 1 if a check fails, 78 if the settings are
    wrong.
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
    if any(finding.check == "settings" and finding.status == "fail" for finding in findings):
        sys.exit(ExitCode.CONFIGURATION)
    if status == "fail":
        sys.exit(ExitCode.FOUND)
