"""Indicators of an attack in the texts of a single event."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamguard.events import indicators as flag


@pytest.mark.parametrize(
    ("name", "command", "expected"),
    [
        (
            "powershell.exe",
            "powershell.exe -NoProfile -EncodedCommand SQBFAFgAIAAoAE4AZQB3AC0=",
            flag.ENCODED_COMMAND,
        ),
        ("pwsh", "pwsh -e SQBFAFgAIAAoAE4AZQB3AC0=", flag.ENCODED_COMMAND),
        ("bash", "echo aGk= | base64 -d | bash", flag.ENCODED_COMMAND),
        ("certutil.exe", "certutil.exe -decode a.txt a.exe", flag.ENCODED_COMMAND),
        ("x.exe", "mimikatz sekurlsa::logonpasswords", flag.CREDENTIAL_DUMP),
        (
            "rundll32.exe",
            r"rundll32 C:\Windows\System32\comsvcs.dll, MiniDump 624 x full",
            flag.CREDENTIAL_DUMP,
        ),
        ("reg.exe", r"reg save HKLM\SAM out", flag.CREDENTIAL_DUMP),
        ("cat", "cat /etc/shadow", flag.CREDENTIAL_DUMP),
        ("powershell.exe", "powershell.exe Get-Process -Name explorer", 0),
        ("powershell.exe", "powershell.exe -ExecutionPolicy Bypass -File deploy.ps1", 0),
        ("base64", "base64 -d report.b64 > report.pdf", 0),
        ("reg.exe", r"reg query HKLM\Software", 0),
        ("", "", 0),
    ],
)
def test_commands_set_flags(name: str, command: str, expected: int) -> None:
    assert flag.of_process(name, command) == expected
    assert flag.of_process(name.upper(), command.upper()) == expected


@pytest.mark.parametrize(
    ("query", "failed", "expected"),
    [
        ("a" * 32 + ".t.example.com", False, flag.TUNNEL_QUERY),
        ("www.example.com", True, 0),
        ("mail.intranet.example.com.", True, 0),
        ("xkqzjvwpqhtrw.biz", True, flag.GENERATED_NAME),
        ("xkqzjvwpqhtrw.biz", False, 0),
        ("", True, 0),
        (".", True, 0),
        ("." * 300, True, 0),
    ],
)
def test_queries_set_flags(query: str, failed: bool, expected: int) -> None:
    assert flag.of_query(query, failed) == expected


@pytest.mark.parametrize("pad", ["x", " ", "powershell ", "| ", " -e ", "\u0130", "hklm save "])
@pytest.mark.parametrize("n", [300, 3000, 200_000])
def test_padding_hides_nothing(pad: str, n: int) -> None:
    """The time is linear: a quadratic expression once blocked a worker for minutes at such a text."""
    padding = pad * (n // len(pad))
    for around in ("{} {}", "{1} {0}", "{0} {1} {0}"):
        dump = around.format(padding, r"reg save hklm\sam x")
        encoded = around.format(padding, "powershell -enc SQBFAFgAIAAoAE4AZQB3AC0=")
        assert flag.of_process("", dump) == flag.of_process(dump, "") == flag.CREDENTIAL_DUMP
        assert flag.of_process("", encoded) == flag.of_process(encoded, "") == flag.ENCODED_COMMAND
    assert flag.of_process(padding, padding) == 0
    generated = "xkqzjvwpqhtrw.biz"
    assert flag.of_query("a." * n + generated, True) == flag.GENERATED_NAME
    assert flag.of_query("a." * n + "b" * 40 + ".t.example.com", True) == flag.TUNNEL_QUERY
    assert flag.of_query("b" * 40 + ".a" * n, True) == flag.TUNNEL_QUERY
    assert flag.of_query("x." * n, True) == flag.of_query("." * n, True) == 0


@given(st.text(max_size=300), st.text(max_size=300), st.booleans())
def test_any_text_gives_valid_flags(a: str, b: str, failed: bool) -> None:
    assert flag.of_process(a, b) & ~(flag.ENCODED_COMMAND | flag.CREDENTIAL_DUMP) == 0
    assert flag.of_query(a, failed) in (0, flag.TUNNEL_QUERY, flag.GENERATED_NAME)


def test_entropy_is_measured_in_bits() -> None:
    assert flag.entropy("aaaa") == 0.0
    assert flag.entropy("abcd") == 2.0
    assert flag.entropy("") == 0.0
