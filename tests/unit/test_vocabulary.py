"""Statuses and event types in the spellings of common logs; `python -m tests.unit.test_vocabulary` writes the page."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamguard.events import absent, place, readings, vocabulary
from streamguard.events import indicators as flag
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
   {listed(absent.ABSENT - {""})}.
2. A number is read by the table below.
3. A word of a failure makes the status a failure, also beside a word of a success:
   {listed(vocabulary.FAILURE)}; and words that end in {listed(vocabulary.ENDINGS[1])}.
4. A word of a success makes it a success: {listed(vocabulary.SUCCESS)}; and words that end in
   {listed(vocabulary.ENDINGS[0])}.
   The words {phrases_of(vocabulary.FAILURE_PHRASES)} also make it a failure, and so does a word that joins `bad`,
   `invalid`, `wrong` or `incorrect` with the name of a credential: `badpassword`.
5. {listed(vocabulary.NEGATION)} before such a word turns it into its opposite: `not allowed`, `no error`. The answer
   `no` after it does the same: `success=no`, `failed: false`. A failure becomes a success if the status begins
   with 0 before it (`0 errors`), or ends after it with one of
   {listed(vocabulary.CANCELLED)}: `KDC_ERR_NONE`, `errors: 0`.
6. A number after {listed(vocabulary.CODES)} is the code of a program: 0 is a success, any other number a failure. A
   number after `res` is a success unless it is 0, as auditd writes it. After `status`, `code`, `result`, `outcome` and
   `response` the status itself follows.
7. Only as the whole status: {whole}.
8. Any other status is neither, and is counted as not understood. If the event type states the outcome, the type
   decides.

| number | outcome | used by |
|---|---|---|
{rows}

Some logs use the same number for opposite outcomes: 1 alone is a success, and a shell's exit code 1 is a failure. Send
words, or the name of the number (`exit code 1`), if yours differ from this table.

## Login

The patterns for guessed passwords look at logins only. An event is a login if its type contains a word with
{listed(vocabulary.LOGIN)} in it (except for words with `author` or `authz`, such as `authorize`, for words in which
`g` follows, such as `signing`, and for {listed(vocabulary.NO_LOGIN)}), if it contains the words {phrases},
or if it begins or ends with one of these numbers:

| event type | outcome that the type states |
|---|---|
{logins}

A type states a failure by one of the words {listed(vocabulary.FAILURE_IN_TYPE)}.
It states an outcome for events without a status, and for those whose status is not understood: `UserLoginFailed`,
`logon-failed` and `4625` without a status are failed logins.

## User, address and place

These texts, in any case, stand for no address and for no place:
{listed(absent.UNKNOWN - {""})}. All of them but {listed(absent.UNKNOWN - absent.NOBODY)} stand for no user. An event
without a user belongs to its source address.

An address is read without its port, prefix length, zone and protocol. Of several in one text, the first one counts.

A place is a country by its code or name, and the rest: `DE-Berlin`, `Germany-Berlin`, `Berlin, DE` and
`Berlin, Germany` are one. A code of two letters behind a comma is a country, so write `US-Los Angeles` and not
`Los Angeles, CA`. These texts stand for no place, either: {listed(place.NOWHERE - absent.UNKNOWN)}. A sender that hides
its place is in a place of its own: {listed(place.HIDDEN)}.
"""


def phrases_of(pairs: object) -> str:
    return listed({" ".join(pair) for pair in pairs})  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("spelled", "expected"),
    [
        *((text, flag.SUCCEEDED) for text in (
            "success", "SUCCESS", "Success", " success ", "ALLOW", "Succeeded", "Login Successful", "Audit Success",
            "AUDIT_SUCCESS", "Accepted", "accepted password", "ok", "OK", "200 OK", "HTTP/1.1 204", "0", "1", "200",
            "302",
            "KDC_ERR_NONE", "failed=0", "errors: 0", "0 errors", "0 ok",
            "0 - Success", "0: success", "(0) OK", "0 (ok)", "200 (ok)",
            "ERROR_SUCCESS", "ERROR_SUCCESS (0)", "Success (0)",
            "rc=0", "exit code 0", "exit status: 0", "status=200", "code: 0", "success=yes", "success: true",
            "failed=no", "error: none", "success=1", "res=1", "auth_success=T", "outcome: Success",
            "0.0", "0x0", "0x00000000", "true", "T", "yes", "NOERROR", "no error", "loginsuccess", "LoginSucceeded",
        )),
        *((text, flag.FAILED) for text in (
            "failed", "failure", "blocked", "denied", "FAILURE", "Failure", "Failed", "DENY", "error", "Error", "fail",
            "Audit Failure", "AuditFailure", "AUDIT_FAILURE", "0xC000006D", "0x18", "50126", "90072", "50126.0", "2",
            "401",
            "NOK", "KO", "disabled", "suspended", "timed_out", "TimedOut", "NotFound", "not found", "-1073741715", "-1",
            "rc=1", "exit code 127", "errno=13", "badpassword", "BADPASSWORD", "invalidcredentials", "wrongpw",
            "success=no", "success: false", "auth_success=F", "failed=yes", "res=0", "status=403", "code: 50126",
            "too many attempts", "account locked out", "errors: 3", "failed: 1 of 3", "denied: no route",
            "403 Forbidden", "404 Not Found", "HTTP/1.1 401", "false", "F", "no", "AccessDenied", "access denied",
            "Client.UnauthorizedOperation", "Failed password", "Invalid user", "unsuccessful", "not successful",
            "Not allowed", "LOGIN_FAILED", "loginfailed", "Failure: success of the earlier try unknown", "rejected",
        )),
        *((text, flag.SUCCEEDED | flag.STATUS_ABSENT) for text in ("", "-", " ", "N/A", "null", "None", "(null)")),
        *((text, flag.STATUS_UNKNOWN) for text in (
            "pending", "unknown", "CHALLENGE", "foo", "3", "99", "700", "badge", "code", "zone=1",
            "0x", "\0", "\u202e", "échec", "\u0661",
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
            "bad_login", "BadLogin",
            "UserLoginFailed", "logon-failed", "4625", "4771", "login_failure", "loginfailed",
            "Failed password",
            "failed_login", "USER_LOGIN_FAILED", "An account failed to log on", "authentication.denied", "Invalid user",
        )),
        *((text, 0) for text in (
            "cataloging", "signing", "designing", "code_signing", "authz", "badge_in",
            "logout", "LogOff", "user.session.end", "AuthorizeSecurityGroupIngress", "CreateLoginProfile", "4634",
            "file_access", "instance terminated", "DropTable", "session_expired", "FailoverDBCluster", "",
            "port 4625 opened",
        )),
        *((text, flag.READ_ONLY) for text in ("dns_query", "ListUsers", "pods.list", "DescribeInstances")),
        *((text, flag.AUDIT_TAMPERING) for text in ("StopLogging", "cloudtrail.delete_trail", "4719")),
        *((text, flag.LOG_CLEARING) for text in ("1102", "audit_log_cleared", "ClearLog")),
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
