"""What a single event's text gives away: exact flags, each a known trick of an attacker."""

from __future__ import annotations

import math
import re

FAILED = 1
SUCCEEDED = 2
AUTHENTICATION = 4
FILE_READ = 8
FILE_CHANGE = 16
ENCRYPTED = 32
ENCODED_COMMAND = 64
CREDENTIAL_DUMP = 128
TUNNEL_QUERY = 256
GENERATED_NAME = 512
HAS_VOLUME = 1024
HAS_THREAT = 2048

READS = frozenset({"read", "download", "copy", "open", "view"})
CHANGES = frozenset({"write", "modify", "rename", "delete", "encrypt", "overwrite", "update"})

_ENCODED_ARGUMENT = re.compile(r"\s[-/]e(?:c|n|nc|nco|ncodedcommand)?\s+[a-z0-9+/=]{16}")
_TO_SHELL = re.compile(r"\|\s*(?:ba|z|da)?sh\b")
_ENCODED = (
    ("powershell", (_ENCODED_ARGUMENT,)),
    ("pwsh", (_ENCODED_ARGUMENT,)),
    ("frombase64string", ()),
    ("-encodedcommand", ()),
    ("certutil", (re.compile("-decode"),)),
    ("base64", (re.compile("-d"), _TO_SHELL)),
)
_DUMP = (
    ("mimikatz", ()),
    ("sekurlsa", ()),
    ("lsadump", ()),
    ("procdump", (re.compile("lsass"),)),
    ("comsvcs.dll", (re.compile("minidump"),)),
    ("hklm", (re.compile(r"\bsave\s+hklm.(?:sam|security|system)\b"),)),
    ("ntdsutil", (re.compile("ifm"),)),
    ("ntds.dit", ()),
    ("/etc/shadow", ()),
    ("gsecdump", ()),
    ("secretsdump", ()),
)
"""Tricks: a word and the marks that a command line with it must have too. Each costs time linear in the text."""


def of_process(name: str, command_line: str) -> int:
    """Flags of a started process.

    Examples
    --------
    >>> of_process("powershell.exe", "powershell -nop -enc SQBFAFgAIAAoAE4AZQB3AC0=") == ENCODED_COMMAND
    True
    >>> of_process("reg.exe", r"reg save HKLM\\SAM sam.hive") == CREDENTIAL_DUMP
    True
    """
    text = f"{name[:256]} {command_line[:2000]}".lower()
    return (ENCODED_COMMAND if _shows(text, _ENCODED) else 0) | (
        CREDENTIAL_DUMP if _shows(text, _DUMP) else 0
    )


def _shows(text: str, tricks: tuple[tuple[str, tuple[re.Pattern[str], ...]], ...]) -> bool:
    return any(word in text and all(mark.search(text) for mark in marks) for word, marks in tricks)


def of_query(name: str, failed: bool) -> int:
    """Flags of a DNS query: data carried in a name, a name made by an algorithm.

    Examples
    --------
    >>> of_query("dGhpcyBpcyBzdG9sZW4gZGF0YSBpbiBhIG5hbWU0.t.example.com", False) == TUNNEL_QUERY
    True
    >>> of_query("xkqzjvwpqhtrw.biz", True) == GENERATED_NAME
    True
    >>> of_query("www.example.com", False)
    0
    """
    labels = name[:255].rstrip(".").split(".")
    host = labels[:-2]
    longest = max(host, key=len, default="")
    if len(longest) >= 32 or (sum(map(len, host)) >= 40 and entropy("".join(host)) > 3.5):
        return TUNNEL_QUERY
    domain = labels[-2] if len(labels) > 1 else labels[0]
    if (
        failed
        and len(domain) >= 8
        and domain.isalnum()
        and entropy(domain) >= 2.8
        and _unpronounceable(domain)
    ):
        return GENERATED_NAME
    return 0


def entropy(text: str) -> float:
    """Shannon entropy of a text's characters in bits per character."""
    n = len(text)
    return -sum(c / n * math.log2(c / n) for c in map(text.count, sorted(set(text))))


def _unpronounceable(text: str) -> bool:
    vowels = sum(map(text.count, "aeiou"))
    digits = sum(map(str.isdigit, text))
    run = max(map(len, re.split("[aeiou0-9]", text)))
    return digits >= 3 or run >= 5 or vowels / len(text) < 0.2
