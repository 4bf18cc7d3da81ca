"""The words by which logs name an outcome and a login: how a status and an event type are understood, in any case.

A text is read word by word: `UserLoginFailed`, `user.login_failed` and `USER-LOGIN-FAILED` are the same words.
`docs/reference/vocabulary.md` is generated from this module.
"""

from __future__ import annotations

import re
from itertools import pairwise

from streamguard.events import indicators as flag
from streamguard.events.absent import ABSENT
from streamguard.events.readings import MAX_CHARACTERS, Readings

SUCCESS = frozenset({
    "accept", "accepted", "allow", "allowed", "approved", "authenticated", "authorized", "complete",
    "completed", "grant", "granted", "noerror", "ok", "okay", "pass", "passed", "permit", "permitted",
    "succeed", "succeeded", "success", "successes", "successful", "successfully",
})  # fmt: skip
"""Words of a success, in any case: Okta, CloudTrail, Windows' audit success, ECS, OCSF, sshd, firewalls."""

FAILURE = frozenset({
    "abort", "aborted", "accessdenied", "bad", "block", "blocked", "canceled", "cancelled", "denied", "denies",
    "deny", "disabled", "disallowed", "drop", "dropped", "err", "error", "errors", "exception", "expired", "fail",
    "failed", "failing", "fails", "failure", "failures", "forbidden", "fraud", "incorrect", "invalid", "ko", "locked",
    "lockout", "mismatch", "nack", "nak", "nok", "notallowed", "notauthorized", "notfound", "permissiondenied",
    "prevented", "quarantined", "refuse", "refused", "reject", "rejected", "revoked", "suspended", "terminated",
    "throttled", "throttling", "timedout", "timeout", "unauthenticated", "unauthorised", "unauthorized",
    "unsuccessful", "unsuccessfully", "wrong",
})  # fmt: skip
"""Words of a failure, in any case. One of them outweighs any word of a success."""

FAILURE_IN_TYPE = frozenset({
    "bad", "blocked", "denied", "fail", "failed", "failing", "failure", "failures", "forbidden", "incorrect",
    "invalid", "refused", "rejected", "unauthorized", "unsuccessful", "wrong",
})  # fmt: skip
"""Words by which an event type itself states a failure; `session_expired` and `DropTable` state none."""

ENDINGS = (("success", "successful", "succeeded"), ("fail", "failed", "failure"))
"""Endings of a success and of a failure, for words that a log has joined: `loginfailed`, `authsuccess`."""

NEGATION = frozenset({"not", "no", "non", "never", "without"})
"""A word of a success right after one of these is a failure (`not allowed`), and the reverse (`no error`)."""

FAILURE_PHRASES = frozenset({("timed", "out"), ("not", "found"), ("locked", "out"), ("too", "many")})
"""Neighbouring words that together name a failure."""

CANCELLED = frozenset({"none", "zero", "0", "no", "false", "nil", "null", "success"})
"""A word of a failure before one of these at the end names none: `KDC_ERR_NONE`, `errors: 0`, `ERROR_SUCCESS`."""

CODES = (
    "rc",
    "ret",
    "retval",
    "errno",
    "exit",
    "exit code",
    "exit status",
    "exited with",
    "return code",
    "returned",
)
"""Words before a number that make it the code of a program: 0 is a success, and any other number a failure."""

WHOLE = {
    "true": flag.SUCCEEDED, "t": flag.SUCCEEDED, "yes": flag.SUCCEEDED, "y": flag.SUCCEEDED,
    "false": flag.FAILED, "f": flag.FAILED, "no": flag.FAILED, "n": flag.FAILED,
}  # fmt: skip
"""Words that name an outcome only if they are the whole status: Zeek's `auth_success`, auditd's `success=`."""

NUMBERS = (
    ("0", "success", "exit codes, ResultType of Entra, NTSTATUS"),
    ("1", "success", "`status_id` of OCSF"),
    ("2", "failure", "`status_id` of OCSF"),
    ("100 to 399", "success", "HTTP"),
    ("400 to 599", "failure", "HTTP"),
    ("10000 and above", "failure", "error codes of Entra (`50126`) and Winsock"),
    ("below 0", "failure", "NTSTATUS as a signed number (`-1073741715`), errors of C libraries"),
    ("`0x0`", "success", "NTSTATUS and Kerberos codes of Windows"),
    ("`0x` with another number", "failure", "the same: `0xC000006D`, `0x18`"),
)
"""Numbers as a status, for the documentation; `_of_number` reads them. Other numbers are not understood."""

LOGIN = ("login", "logon", "signin", "signon", "auth")
"""Words of an event type that make the event a login, in any case and inside a longer word (`consolelogin`,
`authentication`). Words in which they are followed by `g` (`cataloging`, `signing`) mean something else, and so do
words with `author` and `authz`, which are about permissions."""

LOGIN_PHRASES = (
    ("log", "in"), ("log", "on"), ("logged", "in"), ("logged", "on"), ("sign", "in"), ("sign", "on"),
    ("signed", "in"), ("signed", "on"), ("session", "start"), ("session", "started"), ("session", "opened"),
    ("accepted", "password"), ("accepted", "publickey"), ("failed", "password"), ("invalid", "user"),
    ("credential", "validation"),
)  # fmt: skip
"""Neighbouring words of an event type that make the event a login."""

NO_LOGIN = ("loginprofile",)
"""Names that contain a word of a login and mean something else: CloudTrail's `CreateLoginProfile`."""

LOGIN_NUMBERS = {
    "4624": flag.SUCCEEDED, "6272": flag.SUCCEEDED,
    "4625": flag.FAILED, "4771": flag.FAILED, "6273": flag.FAILED, "18456": flag.FAILED,
    "4648": 0, "4768": 0, "4776": 0, "3002": 0, "300201": 0,
}  # fmt: skip
"""Event types that are numbers of a login, with the outcome that the number itself states (0: none): Windows'
security log, NPS and SQL Server, and OCSF's class and type of a logon."""

READING = frozenset(
    {"get", "list", "describe", "head", "read", "view", "lookup", "search", "query", "watch", "show"}
)
"""Verbs of event types that only read, at the beginning or the end: looking around does less harm than a change."""

MAX_CACHED = 4096
_PHRASES = frozenset(LOGIN_PHRASES)
_LOGIN = re.compile(rf"(?:{'|'.join(LOGIN)})(?!g|or|z)")
_JOINED_FAILURE = re.compile(
    r"(?:bad|invalid|wrong|incorrect)(?:pass|pw|user|cred|log|key|token|pin|otp|code)"
)
"""Words of a failure that a log has joined to what was wrong: `badpassword`."""
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_NUMBER = re.compile(r"(-?[0-9]{1,19})(?:\.0+)?")
_CODE = re.compile(rf"(?:{'|'.join(CODES)})[\s=:]*(-?[0-9]{{1,19}})")
_NAMED = re.compile(r"(?:status|code|result|outcome|response)[\s=:]+(?=\S)")
_ANSWER = re.compile(
    r"(?P<word>[a-z][a-z_. -]*?)\s*(?:=|:)\s*['\"]?(?P<answer>yes|no|true|false|y|n|t|f|1|0)['\"]?"
)
_HEX = re.compile(r"0x[0-9a-f]{1,16}")
_HTTP = re.compile(r"(?:http[ /]?)?(?:[12](?:\.[01])? )?([1-5][0-9]{2})\b")


def words(text: str) -> list[str]:
    """The words of a text in lower case; a change of case, a sign and a digit end a word.

    Examples
    --------
    >>> words("UserLoginFailed"), words("AUDIT_FAILURE"), words("4625: logon-failed")
    (['user', 'login', 'failed'], ['audit', 'failure'], ['4625', 'logon', 'failed'])
    """
    return [word.lower() for word in _WORDS.findall(text)]


def outcome_of_words(found: list[str], failure: frozenset[str] = FAILURE) -> int:
    """The flag of the outcome that words name: a failure outweighs a success; 0 if they name none.

    Examples
    --------
    >>> outcome_of_words(["login", "successful"]) == flag.SUCCEEDED
    True
    >>> outcome_of_words(["not", "allowed"]) == flag.FAILED
    True
    """
    if not FAILURE_PHRASES.isdisjoint(pairwise(found)):
        return flag.FAILED
    outcome, negated, none = 0, False, False
    for place, word in enumerate(found, 1):
        failed = word in failure or word.endswith(ENDINGS[1]) or _JOINED_FAILURE.match(word) is not None
        if failed or word in SUCCESS or word.endswith(ENDINGS[0]):
            if (
                failed
                and not CANCELLED.isdisjoint(found[place : place + 1])
                and found[place + 1 :] in ([], ["0"])
            ):
                return flag.SUCCEEDED
            if failed != (negated or (failed and none)):
                return flag.FAILED
            outcome = flag.SUCCEEDED
        negated, none = word in NEGATION, word == "0" and place == 1
    return outcome


def _of_number(number: int) -> int:
    if number in (0, 1) or 100 <= number < 400:
        return flag.SUCCEEDED
    return flag.FAILED if number in (2, *range(400, 600)) or number < 0 or number >= 10_000 else 0


def _asserted(word: str) -> int:
    """The outcome of `word=yes`; auditd writes `res=1`."""
    return flag.SUCCEEDED if word == "res" else outcome_of_words(words(word))


def _status(text: str) -> int:
    text = text[:MAX_CHARACTERS]
    plain = text.strip().lower()
    if plain in ABSENT:
        return flag.SUCCEEDED | flag.STATUS_ABSENT
    if plain in WHOLE:
        return WHOLE[plain]
    if named := _NAMED.match(plain):
        return _status(plain[named.end() :])
    if number := _NUMBER.fullmatch(plain):
        outcome = _of_number(int(number[1]))
    elif code := _CODE.fullmatch(plain):
        outcome = flag.FAILED if int(code[1]) else flag.SUCCEEDED
    elif (answer := _ANSWER.fullmatch(plain)) and (stated := _asserted(answer["word"])):
        agreed = answer["answer"][0] in "yt1"
        outcome = stated if agreed else flag.SUCCEEDED ^ flag.FAILED ^ stated
    elif _HEX.fullmatch(plain):
        outcome = flag.FAILED if int(plain, 16) else flag.SUCCEEDED
    else:
        outcome = outcome_of_words(words(text))
        if not outcome and (http := _HTTP.match(plain)):
            outcome = _of_number(int(http[1]))
    return outcome or flag.STATUS_UNKNOWN


def _kind(text: str) -> int:
    found = words(text[:MAX_CHARACTERS])
    outcome = outcome_of_words(found, FAILURE_IN_TYPE)
    if found and (number := LOGIN_NUMBERS.get(found[0], LOGIN_NUMBERS.get(found[-1]))) is not None:
        return flag.AUTHENTICATION | (number or outcome)
    login = any("author" not in word and _LOGIN.search(word) for word in found)
    login = login or not _PHRASES.isdisjoint(pairwise(found))
    if login and any(name in "".join(found) for name in NO_LOGIN):
        login = False
    reads = bool(found) and (found[0] in READING or found[-1] in READING)
    techniques = flag.of_type(text[:MAX_CHARACTERS])
    return (flag.AUTHENTICATION if login else 0) | (flag.READ_ONLY if reads else 0) | outcome | techniques


STATUS = Readings(_status, MAX_CACHED)
"""Flags of a status: `FAILED`, `SUCCEEDED`, with `STATUS_ABSENT` where it stands for none; `STATUS_UNKNOWN`.

Examples
--------
>>> STATUS["FAILURE"] == STATUS["Audit Failure"] == STATUS["0xC000006D"] == STATUS["50126"] == flag.FAILED
True
>>> STATUS["pending"] == flag.STATUS_UNKNOWN
True
"""

KIND = Readings(_kind, MAX_CACHED)
"""Flags of an event type: `AUTHENTICATION`, and the outcome that the type itself states.

Examples
--------
>>> KIND["ConsoleLogin"] == flag.AUTHENTICATION
True
>>> KIND["UserLoginFailed"] == KIND["logon-failed"] == KIND["4625"] == flag.AUTHENTICATION | flag.FAILED
True
"""
