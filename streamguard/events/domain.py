"""The registered domain of a DNS name: the part that one owner has, below a public suffix such as `co.uk`."""

from __future__ import annotations

from publicsuffixlist import PublicSuffixList

from streamguard.events.readings import Readings

MAX_CACHED = 4096
"""Names whose domains are remembered; a name takes 10 us to look up."""
MAX_NAME = 255
"""Characters of a name in DNS (RFC 1035)."""

_SUFFIXES = PublicSuffixList()


def _domain(name: str) -> str:
    name = name[-MAX_NAME:].rstrip(".").lower()
    return _SUFFIXES.privatesuffix(name) or name


DOMAIN = Readings(_domain, MAX_CACHED)
"""Registered domain of a name; the name itself if it is a public suffix.

Suffixes of clouds and content networks count, because each of their customers is an owner.

Examples
--------
>>> DOMAIN["www.example.co.uk"], DOMAIN["a.b.example.com."], DOMAIN["x1.cloudfront.net"], DOMAIN["host"]
('example.co.uk', 'example.com', 'x1.cloudfront.net', 'host')
"""
