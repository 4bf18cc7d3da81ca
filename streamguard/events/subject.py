"""The subject of an event: whose profile it belongs to, and the key that it has in a topic.

The subject is the user. An event that names none belongs to its source address, so that sources never share a profile.
"""

from __future__ import annotations

import hashlib

from streamguard.events.address import ADDRESS
from streamguard.events.event import MAX_USER_CHARACTERS, Event

_MARK = "\0"
_SOURCE, _USER = _MARK + "a", _MARK + "u"


def subject_of(user: str, source: str) -> str:
    """Name of the subject; a user who is named like an address is another subject than the address.

    Parameters
    ----------
    user
        Empty if the event names none.
    source
        The source address in its canonical spelling.

    Examples
    --------
    >>> subject_of("ann", "10.0.0.1"), subject_of("10.0.0.1", "") == subject_of("", "10.0.0.1")
    ('ann', False)
    """
    if not user:
        if len(source) > MAX_USER_CHARACTERS:
            digest = hashlib.sha256(source.encode("utf-8", "surrogatepass")).hexdigest()[:16]
            source = f"{source[: MAX_USER_CHARACTERS - 17]}#{digest}"
        return _SOURCE + source
    return _USER + user if user[0] == _MARK else user


def profile_key(subject: str) -> bytes:
    """Key under which the profile of a subject is stored: `u` and the user, or `a` and the address.

    Examples
    --------
    >>> profile_key("ann"), profile_key(subject_of("", "10.0.0.1"))
    (b'uann', b'a10.0.0.1')
    """
    if subject.startswith(_SOURCE):
        return b"a" + subject[len(_SOURCE) :].encode()
    return b"u" + subject.removeprefix(_USER).encode()


def subject_of_key(key: bytes) -> str:
    """The subject whose profile is stored under a key; the inverse of `profile_key`.

    Examples
    --------
    >>> subject_of_key(b"uann"), subject_of_key(b"a10.0.0.1") == subject_of("", "10.0.0.1")
    ('ann', True)
    """
    name = key[1:].decode()
    if key[:1] == b"a":
        return _SOURCE + name
    return _USER + name if name[:1] == _MARK else name


def shown(subject: str) -> str:
    """A subject in words for people and files: the name of the user, or `source` and the address.

    Examples
    --------
    >>> shown("ann"), shown(subject_of("", "10.0.0.1"))
    ('ann', 'source 10.0.0.1')
    """
    if subject.startswith(_SOURCE):
        return f"source {subject[len(_SOURCE) :]}"
    return subject.removeprefix(_USER)


def topic_key(user: str | None, source: str | None) -> str:
    """Key of an event in a topic: its user, or else its source address in the canonical spelling."""
    return user or ADDRESS[source or ""][0]


def key_of(event: Event) -> str:
    """See `topic_key`."""
    return topic_key(event.user, event.source_ip)
