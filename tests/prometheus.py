"""A real Prometheus server on loopback that tests start as a process."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import pytest

from streamguard.testing.broker import free_port
from tests.harness import eventually


def binary(name: str = "prometheus") -> str:
    """Path of a program; without it the test is skipped, which CI counts as a failure."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name} on the path: install Debian's package `{name}`, or that of its project")
    return found


class Prometheus:
    """Scrapes the added targets every second.

    Parameters
    ----------
    directory
        Directory of its configuration, data and log.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True)
        self._targets = directory / "targets.json"
        self._jobs: dict[str, list[str]] = {}
        self._targets.write_text("[]")
        (directory / "prometheus.yml").write_text(
            "global: {scrape_interval: 1s, scrape_timeout: 900ms}\n"
            "scrape_configs:\n"
            "  - job_name: unused\n"
            "    file_sd_configs: [{files: [targets.json], refresh_interval: 1s}]\n"
        )
        port = free_port()
        self._url = f"http://127.0.0.1:{port}"
        self._log = directory / "prometheus.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    binary(),
                    f"--config.file={directory / 'prometheus.yml'}",
                    f"--storage.tsdb.path={directory / 'data'}",
                    f"--web.listen-address=127.0.0.1:{port}",
                    "--log.level=warn",
                ],
                stdout=log,
                stderr=log,
            )

    def __enter__(self) -> Self:
        eventually("Prometheus is ready", self._ready)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(30)

    def _ready(self) -> bool:
        assert self.process.poll() is None, self._log.read_text()
        try:
            with urllib.request.urlopen(f"{self._url}/-/ready", timeout=5):
                return True
        except OSError:
            return False

    def scrape(self, job: str, port: int) -> None:
        """Add `/metrics` of a port of this machine to the scraped targets."""
        self._jobs.setdefault(job, []).append(f"127.0.0.1:{port}")
        groups = [{"targets": targets, "labels": {"job": job}} for job, targets in self._jobs.items()]
        new = self._targets.with_suffix(".new")
        new.write_text(json.dumps(groups))
        new.replace(self._targets)

    def ask(self, path: str, query: Mapping[str, Any]) -> Any:
        """Data of a response of the API.

        Raises
        ------
        AssertionError
            If the API refuses the query; contains its message.
        """
        address = f"{self._url}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(address, timeout=30) as answer:
                body = json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{query}: {error.read().decode()}") from None
        assert body["status"] == "success", body
        return body["data"]

    def value(self, expression: str) -> float | None:
        """Current first value of an expression."""
        result = self.ask("query", {"query": expression})["result"]
        return float(result[0]["value"][1]) if result else None
