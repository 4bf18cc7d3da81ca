"""Signing in with a provider: over real HTTP with a real provider, and with tokens that must be refused."""

from __future__ import annotations

import base64
import hmac
import socket
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from joserfc.jwk import RSAKey

from streamguard.errors import ConfigurationError
from streamguard.serving.oidc import flow, transport
from streamguard.serving.oidc import provider as provider_module
from streamguard.serving.oidc.errors import NoRoleError, ProviderError, SignInError
from streamguard.serving.oidc.flow import Flow
from streamguard.serving.oidc.identity import principal, role_pairs
from streamguard.serving.oidc.provider import UNKNOWN_KEY_SECONDS, Provider
from streamguard.serving.oidc.transport import Transport, authorities
from streamguard.settings.schema import Serve
from tests.false_provider import FalseProvider, false_provider
from tests.serving_http import CLIENT, SECRET, HttpSite, consent, oidc, provider, sign_in

NO_ALGORITHM = b'{"alg":"none","kid":"first"}'
SECRET_ALGORITHM = b'{"alg":"HS256","kid":"first"}'


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    with provider(require_nonce=True) as issuer:
        yield issuer


@pytest.fixture
def site(tmp_path: Path, issuer: str) -> Iterator[HttpSite]:
    with HttpSite(tmp_path, **oidc(issuer, tmp_path)).running() as site:
        yield site


def test_person_signs_in_with_the_provider(site: HttpSite, issuer: str) -> None:
    client = site.client()
    form = client.get("/sign-in").text
    assert f"Sign in with {urlsplit(issuer).netloc}" in form and 'href="/sign-in/oidc"' in form
    there = client.get("/sign-in/oidc")
    asked = {name: value[0] for name, value in parse_qs(urlsplit(there.headers["location"]).query).items()}
    assert asked["client_id"] == CLIENT and asked["code_challenge_method"] == "S256"
    assert asked["redirect_uri"] == f"{site.address}/sign-in/oidc/callback"
    assert len({asked[one] for one in ("state", "nonce", "code_challenge")}) == 3
    cookie = there.headers["set-cookie"]
    assert "SameSite=lax" in cookie and "HttpOnly" in cookie and "Max-Age=600" in cookie
    assert all(asked[one] not in cookie for one in ("state", "nonce", "code_challenge"))
    signed = sign_in(client, "1")
    assert signed.status_code == 200, signed.text
    assert any(
        "streamguard_session=" in one and "SameSite=strict" in one and "HttpOnly" in one
        for one in signed.headers.get_list("set-cookie")
    )
    page = client.get("/").text
    assert "ann (analyst)" in page
    assert client.get("/v1/audit").status_code == 403


def test_first_pair_that_applies_gives_the_role(site: HttpSite) -> None:
    client = site.client()
    assert sign_in(client, "2").status_code == 200
    assert "root (admin)" in client.get("/").text


def test_person_without_a_role_sees_what_to_do(site: HttpSite) -> None:
    client = site.client()
    refused = sign_in(client, "3")
    assert refused.status_code == 403
    assert "You have no role here" in refused.text and "Ask an administrator" in refused.text
    assert "streamguard_session" not in client.cookies and client.get("/").status_code == 401


def test_name_that_no_key_could_have_is_made_of_the_subject(site: HttpSite) -> None:
    client = site.client()
    assert sign_in(client, "4").status_code == 200
    page = client.get("/").text
    assert "oidc-" in page and "<b>bob" not in page and "bob" not in page


def test_answer_of_another_browser_or_sign_in_is_refused(site: HttpSite) -> None:
    victim, attacker = site.client(), site.client()
    stolen = consent(attacker.get("/sign-in/oidc").headers["location"], "1")
    without = victim.get(stolen)
    assert without.status_code == 400 and "has not begun a sign-in" in without.text
    victim.get("/sign-in/oidc")
    other = victim.get(stolen)
    assert other.status_code == 400 and "belongs to another sign-in" in other.text
    assert "streamguard_session" not in victim.cookies
    assert victim.get(stolen).status_code == 400, "the cookie is gone after one attempt"


def test_code_and_nonce_of_another_sign_in_are_refused(site: HttpSite) -> None:
    client = site.client()
    location = client.get("/sign-in/oidc").headers["location"]
    nonce = parse_qs(urlsplit(location).query)["nonce"][0]
    refused = client.get(consent(location.replace(nonce, "n" * 64), "1"))
    assert refused.status_code == 400 and "token is not valid" in refused.text and "nonce" in refused.text
    foreign = (
        client.get("/sign-in/oidc").headers["location"].replace(f"client_id={CLIENT}", "client_id=other")
    )
    refused = client.get(consent(foreign, "1"))
    assert refused.status_code == 400 and "does not accept the code" in refused.text
    back = consent(client.get("/sign-in/oidc").headers["location"], "1")
    cookie = client.cookies["streamguard_sign_in"]
    assert client.get(back).status_code == 200
    again = client.get(back, headers={"Cookie": f"streamguard_sign_in={cookie}"})
    assert again.status_code == 400 and "does not accept the code" in again.text


def test_sign_in_ends_after_ten_minutes(site: HttpSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "BEGUN_SECONDS", -1)
    client = site.client()
    refused = sign_in(client, "1")
    assert refused.status_code == 400 and "took longer than" in refused.text


def test_expired_token_is_refused(tmp_path: Path) -> None:
    with (
        provider(access_token_max_age=timedelta(seconds=-120)) as issuer,
        HttpSite(tmp_path, **oidc(issuer, tmp_path)).running() as site,
    ):
        refused = sign_in(site.client(), "1")
    assert refused.status_code == 400 and "token is not valid" in refused.text and "expired" in refused.text


def test_servers_with_the_same_key_share_sign_ins_and_sessions(tmp_path: Path, issuer: str) -> None:
    settings = oidc(issuer, tmp_path)
    with (
        HttpSite(tmp_path / "one", **settings).running() as one,
        HttpSite(tmp_path / "other", **settings).running() as other,
        HttpSite(tmp_path / "foreign", secret=b"f" * 32, **settings).running() as foreign,
    ):
        client = one.client()
        assert sign_in(client, "1").status_code == 200
        for site, status in ((one, 200), (other, 200), (foreign, 401)):
            cookies = {"Cookie": f"streamguard_session={client.cookies['streamguard_session']}"}
            assert httpx.get(site.address, headers=cookies).status_code == status


def test_sign_out_ends_a_session_of_the_provider(site: HttpSite) -> None:
    client = site.client()
    sign_in(client, "1")
    stolen = {"Cookie": f"streamguard_session={client.cookies['streamguard_session']}"}
    assert httpx.get(site.address, headers=stolen).status_code == 200
    assert client.post("/sign-out").status_code == 200
    assert httpx.get(site.address, headers=stolen).status_code == 401


def test_provider_that_is_down_leaves_keys_and_says_what_to_do(tmp_path: Path) -> None:
    with provider() as issuer:
        pass
    with HttpSite(tmp_path, **oidc(issuer, tmp_path)).running() as site:
        client = site.client()
        down = client.get("/sign-in/oidc")
        assert down.status_code == 503
        assert "cannot be used" in down.text and "sign in with an access key" in down.text
        assert "Connection refused" in down.text
        assert client.post("/sign-in", data={"key": site.key}).status_code == 200
        assert client.get("/").status_code == 200


def test_refusal_of_the_provider_is_shown_without_its_texts(site: HttpSite) -> None:
    client = site.client()
    for error, shown in (("access_denied", "access_denied"), ("<script>", "an unknown reason")):
        answer = client.get("/sign-in/oidc/callback", params={"error": error, "error_description": "<i>evil"})
        assert answer.status_code == 400 and shown in answer.text
        assert "evil" not in answer.text and "<script>" not in answer.text.replace('<script src="', "")


def test_without_a_provider_there_is_no_way_to_it(tmp_path: Path) -> None:
    with HttpSite(tmp_path).running() as site:
        assert site.client().get("/sign-in/oidc").status_code == 404
        assert "Sign in with" not in site.client().get("/sign-in").text


@pytest.fixture
def false(tmp_path: Path) -> Iterator[tuple[FalseProvider, HttpSite]]:
    with false_provider() as false, HttpSite(tmp_path, **oidc(false.issuer, tmp_path)).running() as site:
        yield false, site


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "other"},
        {"aud": "other", "azp": CLIENT},
        {"aud": [CLIENT, "other"]},
        {"aud": [CLIENT, "other"], "azp": "other"},
        {"aud": None},
        {"iss": "http://127.0.0.1:1"},
        {"exp": 1},
        {"exp": None},
        {"exp": "never"},
        {"iat": 1 << 40},
        {"nonce": None},
        {"nonce": "other"},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"at_hash": "other"},
    ],
    ids=str,
)
def test_token_with_a_wrong_claim_is_refused(
    false: tuple[FalseProvider, HttpSite], claims: dict[str, Any]
) -> None:
    provider, site = false
    assert provider.sign_in(site).status_code == 200
    provider.claims = claims
    assert provider.sign_in(site).status_code == 400


def test_token_that_the_listed_keys_have_not_signed_is_refused(false: tuple[FalseProvider, HttpSite]) -> None:
    provider, site = false
    assert provider.sign_in(site).status_code == 200
    good = provider.key
    provider.key = RSAKey.generate_key(2048, parameters={"kid": "first"}, private=True)
    assert provider.sign_in(site).status_code == 400, "another key with the same id"
    provider.key = good
    claims = provider.token().split(".")[1]
    for forged in (
        _signed_with_public_key(good, claims),
        f"{_part(NO_ALGORITHM)}.{claims}.",
        "not a token",
        f"{_part(b'{')}.{claims}.x",
        "é.é.é",
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(provider, "token", lambda forged=forged: forged)
            assert provider.sign_in(site).status_code == 400, forged
    assert provider.sign_in(site).status_code == 200


def _signed_with_public_key(key: RSAKey, claims: str) -> str:
    """A token with a signature by a secret, for which the public key is taken."""
    text = f"{_part(SECRET_ALGORITHM)}.{claims}"
    return f"{text}.{_part(hmac.digest(key.as_pem(private=False), text.encode(), 'sha256'))}"


def _part(text: bytes) -> str:
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def test_new_key_is_looked_for_once_a_minute() -> None:
    now = [0.0]
    with false_provider() as false:
        client = httpx.Client(transport=Transport(authorities("")))
        own = Provider(false.issuer, client, lambda: now[0])
        assert own.key("first").kid == "first" and own.key(None).kid == "first"
        new = RSAKey.generate_key(2048, parameters={"kid": "second"}, private=True)
        false.listed = [new]
        assert own.key("second").kid == "second"
        assert false.asked["/keys"] == 2
        for _ in range(5):
            with pytest.raises(SignInError, match="a key that the provider does not list"):
                own.key("third")
        assert false.asked["/keys"] == 2
        now[0] = UNKNOWN_KEY_SECONDS + 1
        with pytest.raises(SignInError):
            own.key("first")
        assert false.asked["/keys"] == 3
        assert false.asked["/.well-known/openid-configuration"] == 1


def test_answers_that_are_large_or_lead_elsewhere_are_refused(false: tuple[FalseProvider, HttpSite]) -> None:
    provider, site = false
    path = "/.well-known/openid-configuration"
    large = b" " * (transport.MAX_ANSWER_BYTES + 1)
    for status, headers, body, reason in (
        (302, {"Location": "http://127.0.0.1:1/"}, b"", "redirects"),
        (200, {}, large, "larger than"),
        (200, {"Content-Encoding": "gzip"}, b"x", "compressed"),
        (500, {}, b"", "status 500"),
        (200, {}, b"[]", "something else than expected"),
        (200, {}, b"\xff", "something else than expected"),
        (200, {}, b'{"issuer": "' + provider.issuer.encode() + b'"}', "something else than expected"),
    ):
        provider.answers[path] = status, headers, body
        site.flow._provider._failed_until = 0.0  # type: ignore[union-attr]
        answer = provider.sign_in(site)
        assert answer.status_code == 503 and reason in answer.text, reason


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"issuer": "https://other.example"}, "document of the issuer"),
        ({"token_endpoint": "http://other.example/token"}, "token_endpoint is not an https address"),
        ({"authorization_endpoint": "javascript:alert(1)"}, "authorization_endpoint is not an https address"),
        ({"jwks_uri": "file:///etc/passwd"}, "jwks_uri is not an https address"),
    ],
)
def test_document_of_another_issuer_or_with_unsafe_addresses_is_refused(
    false: tuple[FalseProvider, HttpSite], document: dict[str, Any], reason: str
) -> None:
    provider, site = false
    provider.document = document
    answer = provider.sign_in(site)
    assert answer.status_code == 503 and reason in answer.text


def test_provider_that_answers_slowly_is_given_up(
    false: tuple[FalseProvider, HttpSite], monkeypatch: pytest.MonkeyPatch
) -> None:
    provider, site = false
    monkeypatch.setattr(transport, "ANSWER_SECONDS", -1.0)
    answer = provider.sign_in(site)
    assert answer.status_code == 503 and "takes longer than" in answer.text
    monkeypatch.undo()
    monkeypatch.setattr(provider_module, "TIMEOUT", httpx.Timeout(0.1))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        asked = Provider(
            f"http://127.0.0.1:{silent.getsockname()[1]}", httpx.Client(transport=Transport(authorities("")))
        )
        with pytest.raises(ProviderError, match="does not answer: timed out"):
            asked.document()


def test_failure_is_remembered_for_some_seconds(false: tuple[FalseProvider, HttpSite]) -> None:
    provider, site = false
    path = "/.well-known/openid-configuration"
    provider.answers[path] = 500, {}, b""
    for _ in range(4):
        assert provider.sign_in(site).status_code == 503
    assert provider.asked[path] == 1


def test_too_many_sign_ins_at_once_do_not_take_all_threads(false: tuple[FalseProvider, HttpSite]) -> None:
    provider, site = false
    assert site.flow is not None
    for _ in range(flow.MAX_EXCHANGES):
        site.flow._exchanges.acquire()
    answer = provider.sign_in(site)
    assert answer.status_code == 503 and "too many people" in answer.text
    for _ in range(flow.MAX_EXCHANGES):
        site.flow._exchanges.release()
    assert provider.sign_in(site).status_code == 200


def claimed(claims: dict[str, Any], **settings: Any) -> tuple[str, str]:
    own = Serve(oidc_roles="soc-leads=admin;soc=analyst;CN=SOC,OU=Groups=viewer", **settings)
    found = principal({"iss": "https://id.example", "sub": "1"} | claims, own, role_pairs(own))
    return found.name, found.role


def test_name_and_role_come_from_the_claims() -> None:
    soc: dict[str, Any] = {"groups": ["soc"]}
    assert claimed({"preferred_username": "ann", "groups": "soc"}) == ("ann", "analyst")
    assert claimed({"preferred_username": "ann", "groups": ["CN=SOC,OU=Groups", 3, None]}) == (
        "ann",
        "viewer",
    )
    paths: dict[str, Any] = {"realm_access": {"roles": ["soc-leads"]}}
    assert claimed({"preferred_username": "ann"} | paths, oidc_role_claim="realm_access.roles")[1] == "admin"
    email: dict[str, Any] = {"email": "ann@example.org"} | soc
    verified = claimed(email | {"email_verified": True}, oidc_name_claim="email")[0]
    assert verified == "ann@example.org"
    made = claimed(email, oidc_name_claim="email")[0]
    assert made.startswith("oidc-") and made == claimed(soc)[0] == claimed(soc, oidc_name_claim="sub")[0]
    assert claimed(soc | {"sub": "2"})[0] != made != claimed(soc | {"iss": "https://other.example"})[0]
    for name in ("", "a b", "a\n", "x" * 65, "oidc-0123456789abcdef", 5, None, "\u202eann"):
        assert claimed(soc | {"preferred_username": name})[0] == made, name


@pytest.mark.parametrize(
    "groups", [None, [], "", {}, {"soc": 1}, 5, ["socs"], [["soc"]], ["x"] * 1000 + ["soc"]], ids=repr
)
def test_claim_that_names_no_known_value_gives_no_role(groups: Any) -> None:
    with pytest.raises(NoRoleError, match="nothing in the claim groups"):
        claimed({"preferred_username": "ann", "groups": groups})


def test_wrong_files_and_roles_stop_the_start(tmp_path: Path) -> None:
    base = {"oidc_issuer": "https://id.example", "oidc_client_id": "x", "oidc_roles": "a=viewer"}
    empty = tmp_path / "empty"
    empty.write_text("\n")
    for wrong, text in (
        ({"oidc_roles": "a=emperor"}, "there is no role 'emperor'; the roles are viewer"),
        (
            {"oidc_client_secret_file": str(tmp_path / "none")},
            "oidc_client_secret_file: .* cannot be read: No such",
        ),
        ({"oidc_client_secret_file": str(empty)}, "is empty or larger"),
        ({"oidc_ca_file": str(empty)}, "oidc_ca_file: .* cannot be used"),
    ):
        with pytest.raises(ConfigurationError, match=text):
            Flow(Serve(**(base | wrong)), SECRET)


def test_tokens_are_asked_for_over_https_only() -> None:
    client = httpx.Client(transport=Transport(authorities("")))
    with pytest.raises(httpx.UnsupportedProtocol):
        client.get("http://id.example.com/")
    with pytest.raises(ProviderError, match="is not one of https"):
        Provider("http://id.example.com", client).document()
