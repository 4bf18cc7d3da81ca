"""`python -m docs.screenshots`: makes the pictures of docs/pictures with a Kafka, a worker, a server and Chromium.

With --keep, everything runs until Enter is pressed, so that a person can look at it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, ViewportSize, sync_playwright

from docs.palette import reduced
from streamguard.kafka import topics
from streamguard.polling import poll_until
from streamguard.serving.api import keys
from streamguard.settings.schema import Batch, Kafka, Models, Serve, Settings
from streamguard.testing.broker import LocalKafka
from tests.harness import Process, settings_toml
from tests.prometheus import binary

PICTURES = Path(__file__).parent / "pictures"
PERSON = "ann"
"""Name of the analyst on the page; the simulation has no such user."""
TRAFFIC = ("--users", "150", "--days", "8", "--seed", "11", "--attack", "all", "--window", "0.8", "1.0")
"""A week of habits, then each attack once."""
WIDE: ViewportSize = {"width": 1280, "height": 800}
PHONE: ViewportSize = {"width": 390, "height": 800}


class Site:
    """A Kafka with a week of traffic, and the processes that people look at.

    Parameters
    ----------
    kafka
        A running broker without topics.
    directory
        For settings, logs and data.
    """

    def __init__(self, kafka: LocalKafka, directory: Path) -> None:
        self.directory = directory
        self.key, entry = keys.new_key(PERSON, "investigator", 3600.0)
        keys.write(directory / "keys.json", [entry])
        (directory / "signing.key").write_bytes(b"k" * 32)
        self.settings = Settings(
            kafka=Kafka(bootstrap_servers=kafka.bootstrap_servers, partitions=4),
            models=Models(
                registry=str(directory / "runs" / "registry"), key_file=str(directory / "signing.key")
            ),
            batch=Batch(output=str(directory / "runs"), engine="local"),
            serve=Serve(keys_file=str(directory / "keys.json"), data_dir=str(directory / "serve")),
        )
        self._config = directory / "streamguard.toml"
        self._config.write_text(settings_toml(self.settings))
        topics.create(self.settings)

    def run(self, *arguments: str) -> None:
        """Run a command to its end."""
        command = [
            str(Path(sys.executable).with_name("streamguard")),
            *arguments,
            "--config",
            str(self._config),
        ]
        subprocess.run(command, check=True)

    @contextmanager
    def started(self, verb: str, *arguments: str) -> Iterator[Process]:
        """A process that is ready, and is stopped at the end."""
        given = [
            verb,
            "--config",
            str(self._config),
            "--metrics-port",
            "0",
            "--log-format",
            "json",
            *arguments,
        ]
        process = Process(self.directory / f"{verb}.log", verb, given, {})
        try:
            yield process.await_ready(120.0)
        finally:
            if process.alive:
                process.terminate()

    def await_folded(self, worker: Process) -> None:
        """Wait until the worker has no event left."""

        def folded() -> bool:
            lags = [
                value
                for name, value in worker.metrics().items()
                if name.startswith("streamguard_lag_records")
            ]
            return bool(lags) and not any(lags)

        poll_until(folded, 300.0, interval=1.0)


def await_quiet(page: Page, address: str) -> None:
    """Wait until no incident is added any more: workers and campaigns have caught up."""
    seen: list[str] = []

    def quiet() -> bool:
        page.goto(address + "/?view=all")
        seen.append(page.inner_text("#total"))
        time.sleep(1.0)
        return len(seen) > 4 and len(set(seen[-4:])) == 1 and seen[-1] != "0"

    poll_until(quiet, 120.0)


def take(page: Page, name: str, height: int = 0) -> None:
    """Take a picture of the page as it is shown; with a height, of its upper part."""
    path = PICTURES / f"{name}.png"
    width = page.viewport_size["width"] if page.viewport_size else WIDE["width"]
    shown: dict[str, Any] = {"clip": {"x": 0, "y": 0, "width": width, "height": height}} if height else {}
    page.screenshot(path=path, full_page=bool(height), **shown)
    path.write_bytes(reduced(path.read_bytes()))
    print(f"{path.name}: {path.stat().st_size:,} bytes")  # noqa: T201 - the result of the command


def act(page: Page, summary: str, **fields: str) -> None:
    """Open a part of the incident's page, fill in its form, and send it."""
    part = page.locator("details", has=page.locator("summary", has_text=summary)).first
    part.locator("summary").click()
    for name, value in fields.items():
        field = part.locator(f'[name="{name}"]')
        field.select_option(value) if name == "classification" else field.fill(value)
    part.locator("button").click()
    page.wait_for_load_state()


def pictures(page: Page, address: str) -> None:
    """Take all pictures."""
    page.goto(address + "/")
    take(page, "list")
    page.locator("#rows tr:has(a.tag) a.open").first.click()
    page.wait_for_load_state()
    page.locator('form[data-key="a"] button').click()
    page.wait_for_load_state()
    act(page, "Comment", text="Called the owners of the three accounts. They are locked.")
    take(page, "incident", 900)
    closing = page.locator('details[data-key="k-close"]')
    closing.locator("summary").click()
    closing.locator('[name="classification"]').select_option("true_positive")
    closing.locator('[name="reason"]').fill("leaked passwords; reset, TICKET-4711")
    take(page, "closing", 310)
    page.goto(address + "/")
    page.keyboard.press("?")
    take(page, "keyboard")
    page.goto(address + "/?view=open&kind=user&pattern=brute_force&pattern=exfiltration&pattern=dns_tunnel")
    page.locator("#rows a.open").first.click()
    page.locator('a[href^="/users/"]').first.click()
    page.wait_for_load_state()
    take(page, "user", 1400)
    page.goto(address + "/techniques")
    take(page, "techniques", 560)
    page.set_viewport_size(PHONE)
    page.goto(address + "/")
    take(page, "phone")


def report_pictures(page: Page, report: Path) -> None:
    """Take the pictures of the report of a retrain: the ranking, and on a phone why the first user is in it."""
    page.set_viewport_size(WIDE)
    page.goto(report.as_uri())
    take(page, "report", 1000)
    page.set_viewport_size(PHONE)
    page.locator("article", has_text="user ").locator(".reasons").first.evaluate(
        "reasons => reasons.closest('article').scrollIntoView()"
    )
    take(page, "report-phone")


def main() -> int:
    """Start everything, take the pictures, and stop."""
    PICTURES.mkdir(exist_ok=True)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="screenshots-")))
        kafka = stack.enter_context(LocalKafka())
        site = Site(kafka, directory)
        site.run("simulate", "--bootstrap-servers", kafka.bootstrap_servers, *TRAFFIC)
        worker = stack.enter_context(site.started("worker", "--data-dir", str(directory / "worker")))
        sources = stack.enter_context(site.started("sources", "--data-dir", str(directory / "sources")))
        for one in (worker, sources):
            site.await_folded(one)
        site.run("retrain", "--engine", "local")
        stack.enter_context(site.started("campaigns"))
        server = stack.enter_context(site.started("serve", "--port", "0"))
        port = next(line["port"] for line in server.lines() if "port" in line)
        address = f"http://127.0.0.1:{port}"
        playwright = stack.enter_context(sync_playwright())
        chromium = playwright.chromium.launch(executable_path=binary("chromium"), args=["--no-sandbox"])
        page = chromium.new_page(viewport=WIDE)
        page.goto(f"{address}/sign-in?key={site.key}")
        page.wait_for_url(address + "/")
        await_quiet(page, address)
        pictures(page, address)
        report_pictures(page, directory / "runs" / "latest" / "report.html")
        if "--keep" in sys.argv:
            print(f"open {address}/sign-in?key={site.key}; Enter ends it", flush=True)  # noqa: T201
            sys.stdin.readline()
        chromium.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
