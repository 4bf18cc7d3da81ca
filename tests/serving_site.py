"""Servers of `streamguard serve` on a real Kafka, asked as programs and as a browser ask them."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Page, sync_playwright

from streamguard.polling import poll_until
from tests.campaign_site import CampaignSite
from tests.harness import Process, Site
from tests.prometheus import binary


class ServeProcess(Process):
    """A process of `streamguard serve`; its standard output, which has the key, goes to the log, too.

    Parameters
    ----------
    options
        Further options of the command; of two equal ones the last counts.
    environ
        Further variables of its environment.
    """

    def __init__(
        self, site: CampaignSite | Site, name: str, data: str = "", *options: str, **environ: str
    ) -> None:
        config = str(site.directory / "streamguard.toml")
        self.data = site.directory / f"data-{data or name}"
        arguments = [
            "serve",
            "--config",
            config,
            "--port",
            "0",
            "--metrics-port",
            "0",
            "--data-dir",
            str(self.data),
            *options,
        ]
        super().__init__(
            site.directory / f"serve-{name}-{len(list(site.directory.iterdir()))}.log",
            name,
            arguments,
            environ,
        )

    def await_serving(self) -> ServeProcess:
        """Wait until the topics were read."""
        self.await_ready()
        return self

    @property
    def sign_in(self) -> str:
        """Address with the key."""
        found = re.search(r"^open (\S+)$", self.log.read_text(), re.MULTILINE)
        assert found is not None, self.tail()
        return found[1]

    @property
    def address(self) -> str:
        return self.sign_in.partition("/sign-in")[0]

    @property
    def key(self) -> str:
        return self.sign_in.partition("key=")[2]

    def ask(self: ServeProcess | Person, path: str, **body: Any) -> Any:
        """The JSON answer to a request; a body makes it a POST."""
        request = urllib.request.Request(
            self.address + path,
            data=json.dumps(body).encode() if body else None,
            headers={"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return json.loads(error.read())

    def incidents(self, query: str = "") -> list[dict[str, Any]]:
        """All incidents of a list, page by page."""
        found: list[dict[str, Any]] = []
        after = ""
        while True:
            page = self.ask(f"/v1/incidents?limit=200{query}{after}")
            found += page["incidents"]
            if page["next"] is None:
                return found
            after = f"&cursor={page['next']}"

    def await_incidents(self, count: int) -> list[dict[str, Any]]:
        """Wait until the list has so many incidents."""
        poll_until(lambda: len(self.incidents()) >= count, 60.0)
        found = self.incidents()
        assert len(found) == count
        return found


class Person:
    """Somebody with a key of a server that has a file of keys."""

    def __init__(self, server: ServeProcess, key: str) -> None:
        (at,) = re.findall(r"serving incidents of \S+ at (http://[\w.:]+)", server.log.read_text())
        self.address, self.key = at, key

    ask = ServeProcess.ask


@contextmanager
def browser(server: ServeProcess | Person, **options: Any) -> Iterator[Page]:
    """A page of Chromium that is signed in; an error of a script, or a request to another host, fails the test."""
    wrong: list[str] = []
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=binary("chromium"), args=["--no-sandbox"])
        context = chromium.new_context(**options)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: message.type == "error" and wrong.append(message.text))
        page.on(
            "request", lambda request: request.url.startswith(server.address) or wrong.append(request.url)
        )
        if isinstance(server, Person):
            page.goto(server.address + "/sign-in")
            page.fill("#key", server.key)
            page.click("form.sign-in button")
        else:
            page.goto(server.sign_in)
        page.wait_for_url(server.address + "/")
        yield page
        chromium.close()
    assert wrong == []
