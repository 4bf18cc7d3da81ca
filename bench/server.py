"""A running `streamguard serve` and the client that asks it, for benchmarks."""

from __future__ import annotations

import http.client
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from bench.worker import environment
from streamguard.polling import poll_until
from streamguard.settings.schema import Serve, Settings
from streamguard.testing.broker import free_port

PATIENCE_SECONDS = 900.0
"""Maximum time until a server has read its topics."""
TIMEOUT_SECONDS = 60.0
"""Maximum time of one request."""
MAX_REQUESTS = 100_000_000
"""Requests a minute of the key: as many as the benchmark can send."""


class Client:
    """Asks a server over one connection, which stays open.

    Parameters
    ----------
    address
        Host and port.
    headers
        Headers of every request.
    """

    def __init__(self, address: str, headers: dict[str, str]) -> None:
        self._connection = http.client.HTTPConnection(address, timeout=TIMEOUT_SECONDS)
        self._headers = headers

    def send(self, path: str, body: Any = None) -> http.client.HTTPResponse:
        """Send a request, with a body as JSON, and return the answer before it is read."""
        method, content = ("GET", None) if body is None else ("POST", msgspec.json.encode(body))
        try:
            self._connection.request(method, path, content, self._headers)
            return self._connection.getresponse()
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
            self._connection.close()  # the server closes a connection that was idle; the next request opens another one
            self._connection.request(method, path, content, self._headers)
            return self._connection.getresponse()

    def ask(self, path: str, body: Any = None) -> Any:
        """The JSON of an answer.

        Raises
        ------
        RuntimeError
            If it is an error.
        """
        answer = self.send(path, body)
        content = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path} was answered with {answer.status}: {content[:500]!r}")
        return msgspec.json.decode(content)

    def timed(self, path: str, body: Any = None) -> tuple[Any, float]:
        """The JSON of an answer, and the milliseconds until it was read."""
        begun = time.perf_counter()
        found = self.ask(path, body)
        return found, (time.perf_counter() - begun) * 1000


class RunningServer:
    """A running server. `serving` creates it.

    Parameters
    ----------
    process
        Process of the server.
    log
        File of its log and of its standard output.
    """

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log

    def client(self) -> Client:
        """A client with the key that the server has printed."""
        address, key = self.await_address()
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        return Client(address, headers)

    def await_address(self) -> tuple[str, str]:
        """Host with port, and the key, once the server has printed them.

        Raises
        ------
        RuntimeError
            If the server ends before.
        """

        def printed() -> re.Match[str] | None:
            if self._process.poll() is not None:
                raise RuntimeError(f"the server has ended; its log:\n{self._log.read_text()[-2000:]}")
            return re.search(r"^open (\S+)/sign-in\?key=(\S+)$", self._log.read_text(), re.MULTILINE)

        found = poll_until(printed, TIMEOUT_SECONDS)
        return urlsplit(found[1]).netloc, found[2]

    def until(self, client: Client, path: str, holds: Any) -> None:
        """Wait until a request succeeds, and `holds` is true for its answer."""

        def asked() -> bool:
            answer = client.send(path)
            content = answer.read()
            return answer.status == 200 and bool(holds(msgspec.json.decode(content)))

        poll_until(asked, PATIENCE_SECONDS)

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """Stop the process until the context ends."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def resident(self) -> tuple[int, int]:
        """Resident memory in bytes, and how much of it is code of libraries, which processes of a machine share."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        total, code = (
            int(re.findall(rf"^{name}:\s+(\d+) kB$", status, re.MULTILINE)[0]) << 10
            for name in ("VmRSS", "RssFile")
        )
        return total, code


@contextmanager
def serving(chosen: Settings, directory: Path) -> Iterator[RunningServer]:
    """Run a server over a data directory until the context ends."""
    own = Serve(data_dir=str(directory), port=0, metrics_port=free_port(), requests_per_minute=MAX_REQUESTS)
    directory.mkdir(parents=True, exist_ok=True)
    log = directory / "serve.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "streamguard.cli", "serve"],
            stdout=out, stderr=out, env=environment(msgspec.structs.replace(chosen, serve=own)),
        )  # fmt: skip
    try:
        yield RunningServer(process, log)
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
