"""A provider of identities that answers as a test wants: with wrong claims, keys, sizes and redirections."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

from tests.serving_http import CLIENT, HttpSite


class FalseProvider:
    """A provider that signs whatever a test puts into `claims`.

    Attributes
    ----------
    claims
        Replace those of a correct token; None removes one.
    answers
        Replace the answer to a path: (status, headers, body).
    asked
        Requests by path.
    """

    def __init__(self, issuer: str) -> None:
        self.issuer = issuer
        self.key = RSAKey.generate_key(2048, parameters={"kid": "first"}, private=True)
        self.listed = [self.key]
        self.header: dict[str, Any] = {"alg": "RS256", "kid": "first"}
        self.claims: dict[str, Any] = {}
        self.document: dict[str, Any] = {}
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.asked: Counter[str] = Counter()
        self.nonce = ""

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """The answer to a request."""
        self.asked[path] += 1
        if path in self.answers:
            return self.answers[path]
        body: Any
        if path == "/.well-known/openid-configuration":
            body = {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/keys",
            } | self.document
        elif path == "/keys":
            body = {"keys": [key.as_dict(private=False) for key in self.listed]}
        else:
            body = {"access_token": "a", "token_type": "Bearer", "id_token": self.token()}
        return 200, {"Content-Type": "application/json"}, json.dumps(body).encode()

    def token(self) -> str:
        """A signed ID token."""
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "sub": "7",
            "aud": CLIENT,
            "exp": now + 60,
            "iat": now,
            "nonce": self.nonce,
            "preferred_username": "ann",
            "groups": ["soc"],
        } | self.claims
        return jwt.encode(self.header, {k: v for k, v in claims.items() if v is not None}, self.key)

    def sign_in(self, site: HttpSite) -> Any:
        """The answer to a browser that signs in here."""
        client = site.client()
        there = client.get("/sign-in/oidc")
        if there.status_code != 302:
            return there
        asked = parse_qs(urlsplit(there.headers["location"]).query)
        self.nonce = asked["nonce"][0]
        return client.get("/sign-in/oidc/callback", params={"state": asked["state"][0], "code": "c"})


@contextmanager
def false_provider() -> Iterator[FalseProvider]:
    """Run one on a free port of the loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, headers, body = found.answer(urlsplit(self.path).path)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815 - a name of the library

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = FalseProvider(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
