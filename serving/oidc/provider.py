"""What the provider says about itself: its addresses and the keys that sign its tokens, read when they are needed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Annotated, Any

import httpx
import msgspec
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey, import_key

from streamguard.serving.oidc.errors import ProviderError, SignInError
from streamguard.serving.oidc.transport import HEADERS, TIMEOUT
from streamguard.settings.sign_in import is_safe

SigningKey = RSAKey | ECKey | OKPKey

FRESH_SECONDS = 3600.0
"""How long addresses and keys are believed: a key that the provider has withdrawn is refused after that."""
RETRY_SECONDS = 5.0
"""How long a failure is remembered: meanwhile people see it at once, and the provider is left alone."""
UNKNOWN_KEY_SECONDS = 60.0
"""Shortest time between two requests for the keys because a token names an unknown one."""
MAX_KEYS = 100
_WELL_KNOWN = "/.well-known/openid-configuration"
_Address = Annotated[str, msgspec.Meta(max_length=1000)]


class Document(msgspec.Struct, frozen=True):
    """The parts of the discovery document that a sign-in needs."""

    issuer: _Address
    authorization_endpoint: _Address
    token_endpoint: _Address
    jwks_uri: _Address
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)


class Provider:
    """The provider of one issuer; every method may be called from any thread.

    Parameters
    ----------
    issuer
        Its address, as its tokens name it.
    client
        Sends the requests.
    clock
        Seconds that never go back.
    """

    def __init__(
        self, issuer: str, client: httpx.Client, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.issuer = issuer
        self._client, self._clock = client, clock
        self._lock = threading.Lock()
        self._document: Document | None = None
        self._keys: dict[str | None, SigningKey] = {}
        self._document_until = self._keys_until = self._failed_until = self._asked_again = -1e9
        self._failure = ""

    def document(self) -> Document:
        """The addresses.

        Raises
        ------
        ProviderError
            If the provider does not answer, or its document is not one for this issuer.
        """
        with self._lock:
            return self._read_document()

    def key(self, kid: str | None) -> SigningKey:
        """The key with an id. An unknown one is looked for at the provider, which may have begun to use it.

        Raises
        ------
        SignInError
            If the provider has no such key.
        ProviderError
            If the provider does not answer.
        """
        with self._lock:
            now = self._clock()
            if now >= self._keys_until:
                self._read_keys()
            elif kid not in self._keys and now >= self._asked_again + UNKNOWN_KEY_SECONDS:
                self._asked_again = now
                self._read_keys()
            found = self._keys.get(kid)
        if found is None:
            raise SignInError(
                "the provider's token is signed with a key that the provider does not list: sign in again; if it "
                "happens again a minute later, an administrator has to look at the provider"
            )
        return found

    def _read_document(self) -> Document:
        now = self._clock()
        if self._document is None or now >= self._document_until:
            address = self.issuer.rstrip("/") + _WELL_KNOWN
            found = self._get(address, Document)
            if found.issuer != self.issuer:
                raise self._failed(
                    f"{address} is the document of the issuer {found.issuer[:200]!r}: set serve.oidc_issuer to exactly "
                    "this text if it is the right provider"
                )
            for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
                # A query is possible in an address to which the browser is sent.
                if not is_safe(getattr(found, name).partition("?")[0]):
                    raise self._failed(f"{address}: {name} is not an https address")
            self._document, self._document_until = found, now + FRESH_SECONDS
        return self._document

    def _read_keys(self) -> None:
        address = self._read_document().jwks_uri
        listed = self._get(address, dict[str, Any]).get("keys")
        keys: dict[str | None, SigningKey] = {}
        for one in listed[:MAX_KEYS] if isinstance(listed, list) else ():
            if not isinstance(one, dict) or one.get("use", "sig") != "sig" or one.get("kty") == "oct":
                continue
            try:
                key = import_key(one)
            except (JoseError, ValueError, TypeError, KeyError):
                continue  # of a kind that is not known here, or damaged: its tokens are refused
            kid = one.get("kid")
            if isinstance(key, SigningKey) and (kid is None or isinstance(kid, str)):
                keys[kid] = key
        if not keys:
            raise self._failed(f"{address} lists no key that signs tokens")
        if len(keys) == 1:
            keys[None] = next(iter(keys.values()))  # a token need not name the only key
        self._keys, self._keys_until = keys, self._clock() + FRESH_SECONDS

    def _get(self, address: str, kind: type[Any]) -> Any:
        if self._clock() < self._failed_until:
            raise ProviderError(self._failure)
        try:
            answer = self._client.get(
                address, headers=HEADERS, timeout=TIMEOUT, auth=httpx.Auth(), follow_redirects=False
            )
            if answer.status_code != 200:
                raise self._failed(f"{address} answers with status {answer.status_code}")
            return msgspec.json.decode(answer.content, type=kind)
        except httpx.HTTPError as error:
            raise self._failed(f"{address} does not answer: {_reason(error)}") from None
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise self._failed(f"{address} answers with something else than expected: {error}") from None

    def _failed(self, reason: str) -> ProviderError:
        self._failure = (
            f"{reason}. Try again later, or sign in with an access key. An administrator can check serve.oidc_issuer "
            "and the connection of this server to it"
        )
        self._failed_until = self._clock() + RETRY_SECONDS
        return ProviderError(self._failure)


def _reason(error: httpx.HTTPError) -> str:
    return str(error)[:300] or type(error).__name__
