"""Reads and checks the settings of `serve` about signing in, proxies and TLS that are more than one value."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Protocol
from urllib.parse import urlsplit

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_ROLES = 200
"""Pairs of a value and a role in `serve.oidc_roles`."""
MAX_VALUE = 256
"""Characters of a value of the claim of roles."""
MAX_PROXIES = 100
"""Networks in `serve.trusted_proxies`."""


class SignIn(Protocol):
    """The settings of `serve` that are checked here."""

    @property
    def certificate_file(self) -> str: ...
    @property
    def private_key_file(self) -> str: ...
    @property
    def trusted_proxies(self) -> str: ...
    @property
    def oidc_issuer(self) -> str: ...
    @property
    def oidc_client_id(self) -> str: ...
    @property
    def oidc_roles(self) -> str: ...


def check(serve: SignIn) -> None:
    """Check each setting by itself.

    Raises
    ------
    ValueError
        If one is wrong; the text begins with its name.
    """
    tuple(networks(serve.trusted_proxies))
    roles(serve.oidc_roles)
    if serve.oidc_issuer and not is_safe(serve.oidc_issuer):
        raise ValueError(
            f"serve.oidc_issuer: {serve.oidc_issuer[:100]!r} is not an https address without a query, such as "
            "https://id.example.com/realms/main; http is possible for a provider on this machine"
        )


def missing(serve: SignIn) -> str:
    """What is missing beside the settings that are set, and what to do; empty if nothing is.

    The settings are not refused for it when they are read, because each may come from another place.
    """
    if serve.private_key_file and not serve.certificate_file:
        return "serve.private_key_file is set, but serve.certificate_file is not: set both"
    if serve.oidc_issuer and not serve.oidc_client_id:
        return (
            "serve.oidc_issuer is set, but serve.oidc_client_id is not: register this server with the provider, and "
            "set the id that it gives"
        )
    if serve.oidc_issuer and not roles(serve.oidc_roles):
        return (
            "serve.oidc_issuer is set, but serve.oidc_roles is not, so that nobody would have a role: write pairs such "
            "as soc-leads=admin;soc=analyst"
        )
    return ""


def roles(text: str) -> tuple[tuple[str, str], ...]:
    """The pairs (value of the claim, role) of `serve.oidc_roles`.

    Examples
    --------
    >>> roles("soc-leads=admin; CN=SOC,OU=Groups=analyst")
    (('soc-leads', 'admin'), ('CN=SOC,OU=Groups', 'analyst'))
    """
    pairs = []
    for pair in filter(None, (one.strip() for one in text.split(";"))):
        value, _, role = (part.strip() for part in pair.rpartition("="))
        if not value or not role or len(value) > MAX_VALUE:
            raise ValueError(
                f"serve.oidc_roles: {pair[:100]!r} is not value=role, such as soc=analyst, with at most {MAX_VALUE} "
                "characters in the value; separate pairs with semicolons"
            )
        pairs.append((value, role))
    if len(pairs) > MAX_ROLES:
        raise ValueError(f"serve.oidc_roles: there are {len(pairs)} pairs, the maximum is {MAX_ROLES}")
    return tuple(pairs)


def networks(text: str) -> Iterator[Network]:
    """The networks of `serve.trusted_proxies`.

    Examples
    --------
    >>> [str(one) for one in networks("10.0.0.7, 192.168.0.0/24")]
    ['10.0.0.7/32', '192.168.0.0/24']
    """
    parts = [one.strip() for one in text.split(",") if one.strip()]
    if len(parts) > MAX_PROXIES:
        raise ValueError(
            f"serve.trusted_proxies: there are {len(parts)} networks, the maximum is {MAX_PROXIES}"
        )
    for part in parts:
        try:
            yield ipaddress.ip_network(part)
        except ValueError:
            raise ValueError(
                f"serve.trusted_proxies: {part[:100]!r} is not an IP address or a network such as 10.0.0.0/24; "
                "separate several with commas"
            ) from None


def is_safe(address: str) -> bool:
    """Whether an address may be asked for tokens and keys: https, or any scheme of the web on this machine.

    Examples
    --------
    >>> is_safe("https://id.example.com"), is_safe("http://localhost:9000"), is_safe("http://id.example.com")
    (True, True, False)
    """
    try:
        parts = urlsplit(address)
        host = parts.hostname or ""
        parts.port  # noqa: B018 - raises an error for a wrong one
    except ValueError:
        return False
    plain = parts.username is None and not parts.query and not parts.fragment and len(address) <= 1000
    return (
        plain
        and bool(host)
        and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host)))
        and not any(character.isspace() or ord(character) < 32 for character in address)
    )


def is_loopback(host: str) -> bool:
    """Whether a name or an address is always this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
