"""One spelling for each place: the country by its ISO code, a dash, and the rest as it was sent."""

from __future__ import annotations

import re
import unicodedata

from streamguard.events import indicators as flag
from streamguard.events.absent import UNKNOWN
from streamguard.events.countries import CODE_OF
from streamguard.events.readings import MAX_CHARACTERS, Readings

NOWHERE = UNKNOWN | {
    "xx", "zz", "o1", "a2", "eu", "ap", "private", "internal", "reserved", "local", "lan", "loopback", "intranet",
    "unknown country", "unknown city", "other country", "other", "satellite provider", "europe", "asia/pacific region",
}  # fmt: skip
"""Texts that stand for no place, in any case: what geolocation says of addresses that it cannot place."""

HIDDEN = {"a1": "A1", "anonymous proxy": "A1", "t1": "T1", "tor": "T1"}
"""Geolocation's codes for a sender that hides its place: a place of its own, although no country."""

MAX_CACHED = 16_384
_SIGNS = re.compile(r"[\W_]+")
_PARTS = re.compile(r"\s*[,;/|]\s*")


def canonical(text: str) -> str:
    """The one spelling of a place, `CC-PLACE` or `CC`; empty for a text that stands for none.

    The country comes first before a dash (`Germany-Munich`), or first or last in a list (`Berlin, DE`). Without a
    country the text stays as it is.

    Examples
    --------
    >>> canonical("DE-Berlin"), canonical("Germany"), canonical("Munich, Germany"), canonical("usa")
    ('DE-Berlin', 'DE', 'DE-Munich', 'US')
    >>> canonical("Unknown"), canonical("Atlantis")
    ('', 'Atlantis')
    """
    return PLACE[text][0]


def country(text: str) -> str | None:
    """The ISO code of a country by its code or its name; None if it is not one.

    Examples
    --------
    >>> country("Türkiye"), country("The Netherlands"), country("Côte d'Ivoire"), country("Berlin")
    ('TR', 'NL', 'CI', None)
    """
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c)).lower()
    plain = _SIGNS.sub(" ", plain.replace("'", "").replace("\u2019", "").replace("&", " and ")).strip()
    return CODE_OF.get(plain.removeprefix("the "))


def _read(text: str) -> tuple[str, int]:
    plain = text.strip()
    if plain.lower() in NOWHERE:
        return "", 0
    if len(plain) > MAX_CHARACTERS:
        return plain, flag.PLACE_UNKNOWN
    if code := _area(plain):  # first, because some countries have a dash: Guinea-Bissau
        return code, 0
    head, dash, rest = (part.strip() for part in plain.partition("-"))
    if dash and head.lower() in NOWHERE:
        return _read(rest) if rest.lower() not in NOWHERE else ("", 0)
    if dash and (code := _area(head)):
        return f"{code}-{rest}" if rest.lower() not in NOWHERE else code, 0
    parts = [part for part in _PARTS.split(plain) if part.lower() not in NOWHERE]
    if not parts:
        return "", 0
    if code := _area(parts[-1]):
        return "-".join((code, ", ".join(parts[:-1]))) if parts[1:] else code, 0
    if code := _area(parts[0]):
        return f"{code}-{', '.join(parts[1:])}", 0
    return plain, flag.PLACE_UNKNOWN


def _area(text: str) -> str | None:
    return country(text) or HIDDEN.get(text.lower())


PLACE = Readings(_read, MAX_CACHED)
"""Canonical place of a text, and the flag `PLACE_UNKNOWN` if it names no country."""
