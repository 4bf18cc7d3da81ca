"""The two steps of a sign-in: to the provider, and back with a code that is exchanged for a token about the person."""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
import threading
import time
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec
from authlib.common.errors import AuthlibBaseError
from authlib.deprecate import AuthlibDeprecationWarning
from authlib.oidc.core import CodeIDToken
from joserfc import jws, jwt
from joserfc.errors import JoseError

from streamguard.errors import ConfigurationError
from streamguard.serving.api.keys import Principal
from streamguard.serving.oidc.errors import ProviderError, SignInError
from streamguard.serving.oidc.identity import principal, role_pairs
from streamguard.serving.oidc.provider import Document, Provider
from streamguard.serving.oidc.transport import HEADERS, TIMEOUT, Transport, authorities
from streamguard.settings.schema import Serve

with warnings.catch_warnings():
    # Authlib prefers httpx2 and works with httpx, which Litestar brings.
    warnings.simplefilter("ignore", AuthlibDeprecationWarning)
    from authlib.integrations.httpx_client import OAuth2Client

BEGUN_SECONDS = 600
"""How long a person may take at the provider."""
LEEWAY_SECONDS = 60
"""Difference between the clocks of this server and of the provider that is accepted."""
MAX_EXCHANGES = 8
"""Sign-ins that wait for the provider at the same time: they must not take all threads from other requests."""
MAX_TOKEN_BYTES = 64 << 10
MAX_SECRET_BYTES = 4096
ALGORITHMS = (
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "Ed25519",
    "EdDSA",
)
"""Signatures with a key pair. Those with the secret of the client, and none at all, are refused."""

_log = logging.getLogger(__name__)


class Flow:
    """Signs people in with the provider of the settings; every method may be called from any thread.

    Parameters
    ----------
    settings
        Issuer, client, claims and roles.
    secret
        Signs what the browser brings back; servers behind one address share it.

    Raises
    ------
    ConfigurationError
        If a file or a role of the settings cannot be used.
    """

    def __init__(self, settings: Serve, secret: bytes) -> None:
        self._settings = settings
        self._pairs = role_pairs(settings)
        self._secret = hmac.digest(secret, b"streamguard sign-in", "sha256")
        self._client_secret = _client_secret(settings.oidc_client_secret_file)
        self._authorities = authorities(settings.oidc_ca_file)
        self._provider = Provider(
            settings.oidc_issuer,
            httpx.Client(transport=Transport(self._authorities), trust_env=False, timeout=TIMEOUT),
        )
        self._exchanges = threading.BoundedSemaphore(MAX_EXCHANGES)
        self.host = urlsplit(settings.oidc_issuer).netloc
        self.begun_seconds = BEGUN_SECONDS

    @property
    def policy(self) -> str:
        """A text that differs when the settings give roles otherwise; sessions of another policy have ended."""
        own = self._settings
        parts = own.oidc_issuer, own.oidc_client_id, own.oidc_role_claim, own.oidc_roles, own.oidc_name_claim
        return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:16]

    def begin(self, redirect: str) -> tuple[str, str]:
        """(address of the provider, cookie that binds the sign-in to the browser).

        State, nonce and PKCE's verifier are computed from the random id in the cookie, so that no server has to
        remember a sign-in that has begun.

        Raises
        ------
        ProviderError
            If the provider does not answer.
        """
        with self._waiting():
            document = self._provider.document()
        id = secrets.token_urlsafe(32)
        body = f"{int(time.time()) + BEGUN_SECONDS}.{id}"
        with self._client(document, redirect) as client:
            address, _ = client.create_authorization_url(
                document.authorization_endpoint,
                state=self._derived(id, "state"),
                nonce=self._derived(id, "nonce"),
                code_verifier=self._derived(id, "verifier"),
            )
        return address, f"{body}.{self._derived(body, 'cookie')}"

    def finish(self, cookie: str, state: str, code: str, redirect: str) -> Principal:
        """The person whom the provider names.

        Raises
        ------
        SignInError
            If the sign-in did not begin in this browser, or the provider's answer is not valid.
        ProviderError
            If the provider does not answer.
        """
        id = self._begun(cookie)
        if not hmac.compare_digest(state.encode(), self._derived(id, "state").encode()):
            raise SignInError(
                "the answer belongs to another sign-in than the one that this browser began: sign in again"
            )
        with self._waiting():
            document = self._provider.document()
            token = self._exchanged(document, code, self._derived(id, "verifier"), redirect)
            claims = self._verified(token, self._derived(id, "nonce"))
        return principal(claims, self._settings, self._pairs)

    def _begun(self, cookie: str) -> str:
        body, _, signature = cookie.rpartition(".")
        ends, _, id = body.partition(".")
        if not hmac.compare_digest(signature.encode(), self._derived(body, "cookie").encode()):
            raise SignInError(
                "this browser has not begun a sign-in, or another server has: sign in again; servers behind one "
                "address need the same serve.session_key_file"
            )
        if int(ends) < time.time():
            raise SignInError(f"the sign-in took longer than {BEGUN_SECONDS // 60} minutes: sign in again")
        return id

    def _derived(self, text: str, purpose: str) -> str:
        return hmac.new(self._secret, f"{purpose} {text}".encode(), hashlib.sha256).hexdigest()

    def _client(self, document: Document, redirect: str) -> Any:
        methods = document.token_endpoint_auth_methods_supported
        post = "client_secret_basic" not in methods and "client_secret_post" in methods
        return OAuth2Client(
            client_id=self._settings.oidc_client_id,
            client_secret=self._client_secret,
            token_endpoint_auth_method="none"
            if not self._client_secret
            else "client_secret_post"
            if post
            else "client_secret_basic",
            scope=self._settings.oidc_scopes,
            redirect_uri=redirect,
            code_challenge_method="S256",
            transport=Transport(self._authorities),
            timeout=TIMEOUT,
            trust_env=False,
            follow_redirects=False,
        )

    def _exchanged(self, document: Document, code: str, verifier: str, redirect: str) -> dict[str, Any]:
        try:
            with self._client(document, redirect) as client:
                token: dict[str, Any] = client.fetch_token(
                    document.token_endpoint,
                    grant_type="authorization_code",
                    code=code,
                    code_verifier=verifier,
                    headers=HEADERS | {"Content-Type": "application/x-www-form-urlencoded;charset=UTF-8"},
                )
        except httpx.HTTPError as error:
            _log.warning("the provider does not exchange a code: %s", error)
            raise ProviderError(
                f"{document.token_endpoint} does not answer: {str(error)[:300] or type(error).__name__}. Sign in again "
                "later, or sign in with an access key"
            ) from None
        except (AuthlibBaseError, ValueError) as error:
            # The description is the provider's, and goes to the log of the administrator only.
            _log.warning("the provider refuses to exchange a code: %s", ascii(str(error))[:300])
            raise SignInError(
                "the provider does not accept the code of this sign-in: sign in again; if it happens again, an "
                "administrator has to compare serve.oidc_client_id, serve.oidc_client_secret_file and the address of "
                "the page with what the provider has registered"
            ) from None
        return dict(token)

    def _verified(self, token: dict[str, Any], nonce: str) -> dict[str, Any]:
        text = token.get("id_token")
        if not isinstance(text, str) or len(text) > MAX_TOKEN_BYTES:
            raise SignInError(
                "the provider has sent no token about the person: an administrator has to look at serve.oidc_scopes, "
                "which must contain openid"
            )
        try:
            header = jws.extract_compact(text.encode()).headers()
            kid = header.get("kid")
            key = self._provider.key(kid if isinstance(kid, str) else None)
            found = jwt.decode(text, key, algorithms=list(ALGORITHMS))
            claims = CodeIDToken(
                found.claims,
                found.header,
                options={
                    "iss": {"essential": True, "value": self._settings.oidc_issuer},
                    "aud": {"essential": True, "value": self._settings.oidc_client_id},
                },
                params={
                    "nonce": nonce,
                    "client_id": self._settings.oidc_client_id,
                    "access_token": token.get("access_token"),
                },
            )
            claims.validate(leeway=LEEWAY_SECONDS)
        except (JoseError, ValueError, TypeError, KeyError) as error:
            reason = ascii(str(error))[1:200]
            _log.warning("a token of the provider was refused: %s", reason)
            raise SignInError(
                f"the provider's token is not valid ({reason}): sign in again; if it happens again, an administrator "
                "has to compare the clocks, serve.oidc_issuer and serve.oidc_client_id with the provider"
            ) from None
        if not isinstance(claims["sub"], str) or not 0 < len(claims["sub"]) <= 255:
            raise SignInError(
                "the provider's token does not say who the person is: its claim sub is not valid"
            )
        return dict(claims)

    def _waiting(self) -> _Waiting:
        return _Waiting(self._exchanges)


class _Waiting:
    """One of the sign-ins that wait for the provider."""

    def __init__(self, places: threading.BoundedSemaphore) -> None:
        self._places = places

    def __enter__(self) -> None:
        if not self._places.acquire(blocking=False):
            raise ProviderError("too many people sign in at this moment: try again in some seconds")

    def __exit__(self, *_: object) -> None:
        self._places.release()


def _client_secret(file: str) -> str:
    if not file:
        return ""
    try:
        text = Path(file).read_bytes()[: MAX_SECRET_BYTES + 1].decode().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"serve.oidc_client_secret_file: {file} cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from None
    if not text or len(text) > MAX_SECRET_BYTES:
        raise ConfigurationError(
            f"serve.oidc_client_secret_file: {file} is empty or larger than {MAX_SECRET_BYTES:,} bytes: write the "
            "secret into it that the provider gives"
        )
    return text
