"""Statuses and event types in the spellings of common logs; `python -m tests.unit.test_vocabulary` writes the page."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamguard.events import indicators as flag
from streamguard.events import readings, vocabulary
from streamguard.events.columns import columns
from streamguard.events.event import parse
from streamguard.events.vocabulary import KIND, STATUS
from tests.streams import START, event

DOC = Path(__file__).parents[2] / "docs" / "reference" / "vocabulary.md"
WORDS = {flag.SUCCEEDED: "success", flag.FAILED: "failure", 0: "none"}


def listed(words: object) -> str:
    return ", ".join(f"`{word}`" for word in sorted(words))  # type: ignore[call-overload]


def page() -> str:
    """The documented vocabulary."""
    rows = "\n".join(f"| {number} | {outcome} | {where} |" for number, outcome, where in vocabulary.NUMBERS)
    whole = ", ".join(f"`{word}` ({WORDS[outcome]})" for word, outcome in vocabulary.WHOLE.items())
    phrases = ", ".join(f"`{a} {b}`" for a, b in vocabulary.LOGIN_PHRASES)
    logins = "\n".join(
        f"| `{number}` | {WORDS[outcome]} |" for number, outcome in vocabulary.LOGIN_NUMBERS.items()
    )
    return f"""# Vocabulary

How the values of `status` and `event_type` are understood. `streamguard/events/vocabulary.py` holds the words.

A text is read word by word, in any case. A change of case, a sign and a digit end a word: `UserLoginFailed`,
`user.login_failed` and `USER-LOGIN-FAILED` are the same three words.

## Status

1. An absent status means success. Blanks stand for an absent one, and these texts do:
   {listed(vocabulary.ABSENT - {""})}.
2. A number is read by the table below.
3. A word of a failure makes the status a failure, also beside a word of a success:
   {listed(vocabulary.FAILURE)}; and words that end in {listed(vocabulary.ENDINGS[1])}.
4. A word of a success makes it a success: {listed(vocabulary.SUCCESS)}; and words that end in
   {listed(vocabulary.ENDINGS[0])}.
5. {listed(vocabulary.NEGATION)} before such a word turns it into its opposite: `not allowed`, `no error`.
6. Only as the whole status: {whole}.
7. Any other status is neither, and is counted as not understood. If the event type states the outcome, the type
   decides.

| number | outcome | used by |
|---|---|---|
{rows}

Some logs use the same number for opposite outcomes: auditd's `res=1` is a success and a shell's exit code 1 is a
failure. Send words instead of numbers if yours differ from this table.

## Login

The patterns for guessed passwords look at logins only. An event is a login if its type contains a word with
{listed(vocabulary.LOGIN)} in it (except for words with `author`, such as `authorize`, and for
{listed(vocabulary.NO_LOGIN)}), if it contains the words {phrases}, or if it begins or ends with one of these numbers:

| event type | outcome that the type states |
|---|---|
{logins}

A type states a failure by one of the words {listed(vocabulary.FAILURE_IN_TYPE)}.
It states an outcome for events without a status, and for those whose status is not understood: `UserLoginFailed`,
`logon-failed` and `4625` without a status are failed logins.
"""


@pytest.mark.parametrize(
    ("spelled", "expected"),
    [
        *((text, flag.SUCCEEDED) for text in (
            "success", "SUCCESS", "Success", " success ", "ALLOW", "Succeeded", "Login Successful", "Audit Success",
            "AUDIT_SUCCESS", "Accepted", "accepted password", "ok", "OK", "200 OK", "HTTP/1.1 204", "0", "1", "200",
            "302",
            "0.0", "0x0", "0x00000000", "true", "T", "yes", "NOERROR", "no error", "loginsuccess", "LoginSucceeded",
        )),
        *((text, flag.FAILED) for text in (
            "failed", "failure", "blocked", "denied", "FAILURE", "Failure", "Failed", "DENY", "error", "Error", "fail",
            "Audit Failure", "AuditFailure", "AUDIT_FAILURE", "0xC000006D", "0x18", "50126", "90072", "50126.0", "2",
            "401",
            "403 Forbidden", "404 Not Found", "HTTP/1.1 401", "false", "F", "no", "AccessDenied", "access denied",
            "Client.UnauthorizedOperation", "Failed password", "Invalid user", "unsuccessful", "not successful",
            "Not allowed", "LOGIN_FAILED", "loginfailed", "Failure: success of the earlier try unknown", "rejected",
        )),
        *((text, flag.SUCCEEDED | flag.STATUS_ABSENT) for text in ("", "-", " ", "N/A", "null", "None", "(null)")),
        *((text, flag.STATUS_UNKNOWN) for text in (
            "pending", "unknown", "CHALLENGE", "foo", "3", "99", "700", "-1", "0x", "\0", "\u202e", "échec", "\u0661",
            "failover", "1e3", "9" * 500 + "x",
        )),
    ],
)  # fmt: skip
def test_status_is_understood_in_any_spelling(spelled: str, expected: int) -> None:
    assert STATUS[spelled] == expected


@pytest.mark.parametrize(
    ("spelled", "expected"),
    [
        *((text, flag.AUTHENTICATION) for text in (
            "auth_attempt", "login", "user_login", "ConsoleLogin", "CONSOLELOGIN", "consolelogin", "Logon", "SignIn",
            "sign-in", "Sign-in activity", "user.session.start", "UserLoggedIn", "logged-in", "oauth2",
            "session opened",
            "user.authentication.sso", "Authentication", "4648", "4768", "3002", "Kerberos pre-authentication",
            "microsoft.windows.security:4776",
        )),
        *((text, flag.AUTHENTICATION | flag.SUCCEEDED) for text in (
            "4624", "Security 4624", "login_success", "Accepted password", "authentication_success",
            "4624: An account was successfully logged on",
        )),
        *((text, flag.AUTHENTICATION | flag.FAILED) for text in (
            "UserLoginFailed", "logon-failed", "4625", "4771", "login_failure", "loginfailed", "Failed password",
            "failed_login", "USER_LOGIN_FAILED", "An account failed to log on", "authentication.denied", "Invalid user",
        )),
        *((text, 0) for text in (
            "logout", "LogOff", "user.session.end", "AuthorizeSecurityGroupIngress", "CreateLoginProfile", "4634",
            "file_access", "dns_query", "instance terminated", "DropTable", "session_expired", "FailoverDBCluster", "",
            "port 4625 opened",
        )),
    ],
)  # fmt: skip
def test_login_is_told_in_any_spelling(spelled: str, expected: int) -> None:
    assert KIND[spelled] == expected


@pytest.mark.parametrize(
    ("kind", "status", "expected"),
    [
        ("UserLoginFailed", None, flag.FAILED),
        ("4625", "-", flag.FAILED),
        ("4625", "pending", flag.FAILED),
        ("4625", "success", flag.SUCCEEDED),
        ("4624", None, flag.SUCCEEDED),
        ("ConsoleLogin", None, flag.SUCCEEDED),
        ("connection_blocked", None, flag.FAILED),
        ("ConsoleLogin", "pending", 0),
    ],
)
def test_type_decides_where_the_status_does_not(kind: str, status: str | None, expected: int) -> None:
    events, *_ = parse([event(START, "ann", kind, status=status)])
    assert columns(events).flags[0] & (flag.FAILED | flag.SUCCEEDED) == expected


@given(st.text(max_size=300))
def test_any_text_has_one_meaning(text: str) -> None:
    """Each status has exactly one of the meanings, whatever was read before."""
    assert STATUS[text] in (
        flag.SUCCEEDED, flag.FAILED, flag.STATUS_UNKNOWN, flag.SUCCEEDED | flag.STATUS_ABSENT
    )  # fmt: skip
    assert STATUS[text] == STATUS[text.upper()] or text.upper().lower() != text.lower()
    assert KIND[text] & ~(flag.AUTHENTICATION | flag.SUCCEEDED | flag.FAILED) == 0


def test_caches_are_bounded() -> None:
    for i in range(3 * vocabulary.MAX_CACHED):
        assert STATUS[f"state {i}"] == flag.STATUS_UNKNOWN
    assert STATUS["x" * 10**6] == flag.STATUS_UNKNOWN
    assert len(STATUS) <= vocabulary.MAX_CACHED
    assert max(map(len, STATUS)) <= readings.MAX_CHARACTERS


def test_page_is_current() -> None:
    assert DOC.read_text() == page()


if __name__ == "__main__":
    DOC.write_text(page())
