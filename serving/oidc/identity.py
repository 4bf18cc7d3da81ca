"""Whom a verified token names: the name under which the person acts, and the role."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from streamguard.errors import ConfigurationError
from streamguard.serving.api.keys import Principal
from streamguard.serving.masking.roles import ROLES, Role
from streamguard.serving.oidc.errors import NoRoleError
from streamguard.settings.schema import Serve
from streamguard.settings.sign_in import roles

MADE_UP = "oidc-"
"""How names begin that are made of `sub`; no claim may give such a name."""
MAX_VALUES = 1000
"""Values of the claim that are looked at."""
_NAME = re.compile(r"[\w.@-]{1,64}")


def role_pairs(settings: Serve) -> tuple[tuple[str, Role], ...]:
    """Which value of the claim gives which role, in the order of the settings.

    Raises
    ------
    ConfigurationError
        If a role does not exist.
    """
    known: dict[str, Role] = {role: role for role in ROLES}
    pairs = []
    for value, role in roles(settings.oidc_roles):
        if role not in known:
            raise ConfigurationError(
                f"serve.oidc_roles: there is no role {role[:100]!r}; the roles are {', '.join(ROLES)}"
            )
        pairs.append((value, known[role]))
    return tuple(pairs)


def principal(claims: Mapping[str, Any], settings: Serve, pairs: Sequence[tuple[str, Role]]) -> Principal:
    """The person of a verified token.

    Raises
    ------
    NoRoleError
        If no value of the claim gives a role.
    """
    name = _name(claims, settings)
    values = _values(claims, settings.oidc_role_claim)
    for value, role in pairs:
        if value in values:
            return Principal(name, role)
    raise NoRoleError(
        f"You are signed in at the provider as {name}, but nothing in the claim {settings.oidc_role_claim} gives you a "
        "role. Ask an administrator of StreamGuard for access, then sign in again: a group of the provider that "
        "serve.oidc_roles names gives a role"
    )


def _name(claims: Mapping[str, Any], settings: Serve) -> str:
    claim = settings.oidc_name_claim
    name = claims.get(claim)
    if (
        claim != "sub"
        and isinstance(name, str)
        and _NAME.fullmatch(name)
        and not name.startswith(MADE_UP)
        and (claim != "email" or claims.get("email_verified") is True)
    ):
        return name
    # `sub` may be long and of any characters; it is unique at the issuer and never assigned again.
    subject = f"{claims['iss']}\n{claims['sub']}".encode()
    return MADE_UP + hashlib.sha256(subject).hexdigest()[:16]


def _values(claims: Mapping[str, Any], claim: str) -> set[str]:
    """The texts of a claim, whose name may be a path.

    Examples
    --------
    >>> sorted(_values({"realm_access": {"roles": ["a", "b", 3]}}, "realm_access.roles"))
    ['a', 'b']
    >>> _values({"https://example.com/roles": "a"}, "https://example.com/roles")
    {'a'}
    """
    found: Any = claims
    if claim in claims:
        found = claims[claim]
    else:
        for part in claim.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
    if isinstance(found, str):
        return {found}
    return {one for one in found[:MAX_VALUES] if isinstance(one, str)} if isinstance(found, list) else set()
