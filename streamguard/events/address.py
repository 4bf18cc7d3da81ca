"""One spelling for each address: without a port, IPv4 inside IPv6 as IPv4, IPv6 as RFC 5952 writes it."""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from streamguard.events import indicators as flag
from streamguard.events.absent import UNKNOWN
from streamguard.events.readings import MAX_CHARACTERS, Readings

MAX_CACHED = 65_536
_PLAIN = re.compile(r"(?:(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(?:\.(?!\Z)|\Z)){4}")
_MAX_ELEMENTS = 16
_BETWEEN = re.compile(r"[\s,;|]+")
_AROUND = " \t\r\n\"'<>(){}"
_PREFIX = re.compile(
    r"\A(?:[a-z][a-z0-9+.-]*://|(?:ipv[46]|tcp|udp|ip|for|addr|src|from)[:=/]|/)", re.IGNORECASE
)
_IPV4 = re.compile(
    r"\[?([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})\]?(?:[:.#][0-9]{1,5}|/[0-9]{1,2})?"
)
_NUMBER = re.compile(r"0x[0-9a-f]{8}|[0-9]{8,10}", re.IGNORECASE)
_IPV6 = re.compile(
    r"(?:\[([0-9a-f:.]{2,45})(?:%[^\]\s]*)?\](?:[:.#][0-9]{1,5})?"
    r"|([0-9a-f:.]{2,45})(?:%\S*)?(?:#[0-9]{1,5}|/[0-9]{1,3})?)",
    re.IGNORECASE,
)


def canonical(text: str) -> str:
    """The one spelling of an address; empty for a text that stands for none.

    A list is read at its first address: in `X-Forwarded-For` that is the client. A whole number is the 32 bits of an
    IPv4 address. Anything else than an address, such as a host name, stays as it is but for blanks around it.

    Examples
    --------
    >>> canonical("192.0.2.10:31367"), canonical("::FFFF:192.0.2.10"), canonical("[::ffff:c000:20a]:443")
    ('192.0.2.10', '192.0.2.10', '192.0.2.10')
    >>> canonical("unknown, 192.0.2.10"), canonical("for=192.0.2.10;proto=http"), canonical("3221225994")
    ('192.0.2.10', '192.0.2.10', '192.0.2.10')
    >>> canonical("2001:DB8:0:0:0::1%eth0"), canonical(" LOCAL "), canonical("-")
    ('2001:db8::1', 'LOCAL', '')
    """
    return ADDRESS[text][0]


def with_network(address: str) -> str:
    """An IPv6 address with all its groups, so that the first four are the text of its network (/64).

    Examples
    --------
    >>> with_network("2001:db8::1")
    '2001:0db8:0000:0000:0000:0000:0000:0001'
    """
    try:
        return IPv6Address(address).exploded
    except AddressValueError:
        return address


def _read(text: str) -> tuple[str, int]:
    if _PLAIN.fullmatch(text):
        return text, 0
    plain = text.strip()
    if plain.lower() in UNKNOWN:
        return "", 0
    if plain[0] == "[" and plain[-1] == "]" and any(sign in plain for sign in ",\"'"):
        plain = plain[1:-1]  # a list as it is written in JSON or Python
    absent = True
    for element in _BETWEEN.split(plain[: _MAX_ELEMENTS * MAX_CHARACTERS], maxsplit=_MAX_ELEMENTS)[
        :_MAX_ELEMENTS
    ]:
        bare = element.strip(_AROUND)
        if len(bare) <= MAX_CHARACTERS and (address := _address(bare)):
            return address, 0
        absent = absent and bare.lower() in UNKNOWN
    return ("", 0) if absent else (text.strip(), flag.ADDRESS_UNKNOWN)


def _address(text: str) -> str | None:
    """The canonical spelling of one address; None for another text."""
    bare = _PREFIX.sub("", text, count=1).strip(_AROUND)
    if found := _IPV4.fullmatch(bare):
        parts = [int(part) for part in found.groups()]
        return ".".join(map(str, parts)) if max(parts) < 256 else None
    if _NUMBER.fullmatch(bare):
        number = int(bare, 16 if bare[1] in "xX" else 10)
        return str(IPv4Address(number)) if 1 << 24 <= number < 1 << 32 else None
    if found := _IPV6.fullmatch(bare):
        groups = found[1] or found[2]
        if groups.count(":") == 8 and "::" not in groups:
            groups = groups.rpartition(":")[0]  # eight groups and a port without brackets
        try:
            address = IPv6Address(groups)
        except AddressValueError:
            return None
        inner: IPv4Address | None = address.ipv4_mapped
        return str(inner or address)
    return None


ADDRESS = Readings(_read, MAX_CACHED)
"""Canonical address of a text, and the flag `ADDRESS_UNKNOWN` if it is not one."""
