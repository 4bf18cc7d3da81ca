"""Page and API over HTTP in this process, with the server of `streamguard serve`, and a provider beside them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from oidc_provider_mock import User, run_server_in_thread

from streamguard.polling import poll_until
from streamguard.probes import bind
from streamguard.serving.api import keys
from streamguard.serving.api.app import application
from streamguard.serving.api.keys import Keyring, new_key
from streamguard.serving.api.sessions import Sessions
from streamguard.serving.connections import Server, bounded_server
from streamguard.serving.oidc.flow import Flow
from streamguard.serving.page.routes import ROUTES, problem_page
from streamguard.serving.query.service import QueryService
from streamguard.settings.schema import Serve
from tests.serving_stores import filled, placed, privacy
from tests.unit.test_campaigns import NOON, spray

SECRET = b"s" * 32
CLIENT, CLIENT_SECRET = "streamguard", "not-really-secret"
PEOPLE = (
    User(
        sub="1", claims={"preferred_username": "ann", "groups": ["staff", "soc"], "email": "ann@example.org"}
    ),
    User(sub="2", claims={"preferred_username": "root", "groups": ["soc-leads", "soc"]}),
    User(sub="3", claims={"preferred_username": "bob", "groups": ["staff"]}),
    User(sub="4", claims={"preferred_username": "<b>bob</b>", "groups": "soc"}),
)


class HttpSite:
    """A server over a store with a few incidents.

    Attributes
    ----------
    key
        An access key with the role analyst.
    address
        Where it listens.
    server
        uvicorn's server, whose connections a test may count.
    """

    def __init__(self, directory: Path, secret: bytes = SECRET, given: bool = False, **settings: Any) -> None:
        self.store = filled(directory / "store", placed(spray(NOON, ["a", "b", "c"], entered="a")))
        self.key, self.stored = new_key("ann", "analyst", 3600)
        self.file = directory / "keys.json"
        if not given:
            keys.write(self.file, [self.stored])
        self.keyring = Keyring(None, self.stored) if given else Keyring(self.file)
        self.settings = Serve(**settings)
        self.flow = Flow(self.settings, secret) if self.settings.oidc_issuer else None
        self.sessions = Sessions(self.keyring, secret, self.flow.policy if self.flow else "")
        service = QueryService(self.store, ())
        service.privacy = privacy()
        self.app = application(
            service,
            self.keyring,
            self.settings,
            ROUTES,
            functools.partial(problem_page, provider=self.flow.host if self.flow else ""),
            sessions=self.sessions,
            state={"flow": self.flow},
        )
        self.server: Server = bounded_server(self.app, self.settings, 1.0)
        self.address = ""

    def client(self, **options: Any) -> httpx.Client:
        """A browser without redirects."""
        return httpx.Client(base_url=self.address, trust_env=False, **options)

    @contextmanager
    def running(self) -> Iterator[HttpSite]:
        """Serve in a thread on a free port of the loopback."""
        socket = bind("127.0.0.1", 0)
        scheme = "https" if self.settings.certificate_file else "http"
        self.address = f"{scheme}://127.0.0.1:{socket.getsockname()[1]}"
        self.server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
        thread = threading.Thread(target=lambda: asyncio.run(self.server.serve(sockets=[socket])))
        thread.start()
        try:
            poll_until(lambda: self.server.started, 30.0)
            yield self
        finally:
            self.server.should_exit = True
            thread.join()
            socket.close()
            self.store.close()


@contextmanager
def provider(**options: Any) -> Iterator[str]:
    """Issuer of a provider that knows `PEOPLE`."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with run_server_in_thread(user_claims=PEOPLE, **options) as server:
        yield f"http://localhost:{server.server_port}"


def oidc(issuer: str, directory: Path) -> dict[str, Any]:
    """Settings for a provider."""
    file = directory / "client-secret"
    file.write_text(CLIENT_SECRET + "\n")
    file.chmod(0o600)
    return {
        "oidc_issuer": issuer,
        "oidc_client_id": CLIENT,
        "oidc_client_secret_file": str(file),
        "oidc_roles": "soc-leads=admin;soc=analyst",
    }


def consent(address: str, person: str) -> str:
    """Say yes at the provider as a person; the address to which it sends the browser back."""
    answer = httpx.post(address, data={"sub": person}, follow_redirects=False, trust_env=False)
    assert answer.status_code == 302, answer.text[:500]
    return answer.headers["location"]


def sign_in(client: httpx.Client, person: str) -> httpx.Response:
    """Sign in with the provider as a browser does."""
    there = client.get("/sign-in/oidc")
    assert there.status_code == 302, there.text
    return client.get(consent(there.headers["location"], person))
