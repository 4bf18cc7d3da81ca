"""Converts events to arrays: the columns of one chunk, which the fold reads."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamguard.events import indicators as flag
from streamguard.events.address import ADDRESS, with_network
from streamguard.events.domain import DOMAIN
from streamguard.events.event import Event
from streamguard.events.hashing import FILES_KEY, hash_texts
from streamguard.events.place import PLACE
from streamguard.events.subject import subject_of
from streamguard.events.vocabulary import KIND, STATUS

TEXTS = ("source", "location", "host", "agent", "resource", "type", "reason", "action", "command", "name")
"""Texts of an event that are hashed, in order. `action` is what was done: the type and the operation on a file, the
rule of another system that it has met, and whether it failed. `command` is a command line without its particulars,
`name` a DNS name with an indicator."""

MAX_QUANTITY = 2.0**53
_pack = struct.Struct("<qddI").pack_into
_ROW = np.dtype([("timestamp", "<i8"), ("threat", "<f8"), ("volume", "<f8"), ("flags", "<u4")])
_PARTICULARS = re.compile(r"[0-9a-f]{6,}|[0-9]+|\{[^}]*\}")
"""Numbers, hexadecimal digits and unique ids, by which command lines differ that do the same."""
MAX_COMMAND = 400
"""Characters of a command line that distinguish it from others."""
MAX_RULE = 120
"""Characters of the name of a rule that distinguish it from others."""
_OUTCOME = flag.FAILED | flag.SUCCEEDED
_NOT_STATED = flag.STATUS_ABSENT | flag.STATUS_UNKNOWN


@dataclass(frozen=True, slots=True)
class Columns:
    """One chunk of n events.

    Attributes
    ----------
    users
        n user names; empty where the event has no user.
    subjects
        n subjects: the owners of the profiles, see `streamguard.events.subject`.
    timestamp
        Epoch milliseconds, int64 (n,).
    threat
        Threat score from the upstream system, clipped to [0, 1e6], float64 (n,); 0 where absent.
    volume
        Bytes moved, float64 (n,).
    flags
        Flags of `streamguard.events.indicators`, uint32 (n,).
    hashes
        uint64 (n, 10), in the order of `TEXTS`; 0 where absent.
    network, area
        Hashes of the network of the source address and of the country of the location, uint64 (n,); 0 where absent.
    texts
        The texts themselves, row by row; address and location in their canonical spelling.
    """

    users: list[str]
    subjects: list[str]
    timestamp: NDArray[np.int64]
    threat: NDArray[np.float64]
    volume: NDArray[np.float64]
    flags: NDArray[np.uint32]
    hashes: NDArray[np.uint64]
    network: NDArray[np.uint64]
    area: NDArray[np.uint64]
    texts: list[str]

    def text(self, name: str) -> list[str]:
        """Return one of the `TEXTS` of all n events; empty where absent."""
        return self.texts[TEXTS.index(name) :: len(TEXTS)]


def without_particulars(command_line: str) -> str:
    """A command line as the column `command` has it.

    Examples
    --------
    >>> without_particulars("Tar -x backup-2025.tar")
    'tar -x backup-#.tar'
    """
    return _PARTICULARS.sub("#", command_line[:MAX_COMMAND].lower())


def columns(events: Sequence[Event], key: bytes = FILES_KEY) -> Columns:
    """Convert a chunk of events to arrays; `key` is that of the hashes."""
    rows = bytearray(_ROW.itemsize * len(events))
    texts: list[str] = []
    spelled_out: dict[int, str] = {}  # IPv6, whose network is a prefix of the text only with all its groups
    users: list[str] = []
    subjects: list[str] = []
    add, extend, position = users.append, texts.extend, 0
    for event in events:
        kind = event.event_type
        stated = KIND[kind]
        flags = STATUS[event.status or ""]
        if flags & _NOT_STATED and stated & _OUTCOME:
            flags = flags & ~_OUTCOME | stated
        else:
            flags |= stated & ~_OUTCOME
        source, unknown = ADDRESS[event.source_ip or ""]
        if ":" in source:
            spelled_out[len(texts)] = with_network(source)
        place = ""
        if (meta := event.metadata) is not None and meta.geo_location:
            place, nowhere = PLACE[meta.geo_location]
            unknown |= nowhere
        flags |= unknown
        volume, resource, reason = 0.0, event.destination_ip, event.failure_reason
        action, command, dns_name = kind, "", ""
        if resource:
            resource = ADDRESS[resource][0]
        # The first part that states anything names the resource; a part never hides the flags or the volume of another.
        named = False
        if (auth := event.auth_details) is not None and (auth.auth_type or auth.failure_reason):
            named, resource = True, auth.auth_type
            reason = auth.failure_reason or reason
        if (net := event.network_details) is not None:
            volume = max((net.bytes_sent or 0.0) + (net.bytes_received or 0.0), 0.0)
            if not named and (volume or net.destination_hostname):
                named, resource = True, net.destination_hostname or resource
        if (file := event.file_details) is not None:
            size = file.file_size_bytes or 0.0
            volume += max(size, 0.0)
            operation = (file.operation or "").lower()
            if operation:
                action = f"{kind} {operation}"
            if operation in flag.READS:
                flags |= flag.FILE_READ
            elif operation in flag.CHANGES:
                flags |= flag.FILE_CHANGE
            if file.is_encrypted:
                flags |= flag.ENCRYPTED
            if not named and (size or operation or file.file_path or file.is_encrypted):
                named, resource = True, (file.file_path or "").replace("\\", "/").rpartition("/")[0]
        if (process := event.process_details) is not None and (process.process_name or process.command_line):
            if process.command_line:
                flags |= flag.of_process(process.process_name or "", process.command_line)
                command = without_particulars(process.command_line)
            if not named:
                named, resource = True, process.process_name
        if (dns := event.dns_details) is not None and (dns.query_name or dns.response_code is not None):
            name = dns.query_name or ""
            shown = flag.of_query(name, str(dns.response_code) in {"NXDOMAIN", "3"})
            if shown:
                flags |= shown
                dns_name = name
            if not named:
                resource = DOMAIN[name]
        if event.rule_name and (rule := event.rule_name[:MAX_RULE].strip().casefold()):
            action += f" (rule: {rule})"
            flags &= ~flag.READ_ONLY  # what another system warns of is news, even if it only reads
        if flags & flag.FAILED:
            action += " (failed)"
        if volume > 0.0:
            flags |= flag.HAS_VOLUME
            volume = min(volume, MAX_QUANTITY)
        threat = event.threat_score
        if threat is None:
            threat = 0.0
        else:
            flags |= flag.HAS_THREAT
            threat = min(max(threat, 0.0), 1e6)
        _pack(rows, position, event.timestamp, threat, volume, flags)
        position += _ROW.itemsize
        if meta is not None:
            extend(
                (
                    source,
                    place,
                    meta.hostname or "",
                    meta.user_agent or "",
                    resource or "",
                    kind,
                    reason or "",
                    action,
                    command,
                    dns_name,
                )
            )
        else:
            extend((source, "", "", "", resource or "", kind, reason or "", action, command, dns_name))
        user = event.user or ""
        add(user)
        subjects.append(user if user and user[0] != "\0" else subject_of(user, source))
    table = np.frombuffer(rows, _ROW)
    hashed = texts
    if spelled_out:
        hashed = texts.copy()
        for k, text in spelled_out.items():
            hashed[k] = text
    hashes, network, area = hash_texts(hashed, len(TEXTS), key)
    area[table["flags"] & flag.PLACE_UNKNOWN != 0] = 0
    return Columns(
        users=users,
        subjects=subjects,
        timestamp=np.ascontiguousarray(table["timestamp"]),
        threat=np.ascontiguousarray(table["threat"]),
        volume=np.ascontiguousarray(table["volume"]),
        flags=np.ascontiguousarray(table["flags"]),
        hashes=hashes,
        network=network,
        area=area,
        texts=texts,
    )
