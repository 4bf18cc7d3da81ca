"""Logging of the worker to standard error, as one JSON object per line or as text."""

from __future__ import annotations

import logging
import math
import re
import sys
import time
from collections.abc import Callable
from typing import Any

import msgspec

from streamguard.errors import StreamGuardError
from streamguard.text import counted

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_OURS = ("streamguard",)
_TEMPLATE = 200
_MAX_TEMPLATES = 1000
REPEAT_SECONDS = 10.0
"""Time for which further messages of the same template are suppressed."""
_SERVICE = re.compile(r"\[\^-*[^\]]*\]: ")
"""Prefix of Faust's messages: the place of a service in Faust's tree of services."""


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON: time, level, logger, message, and the fields of `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        milliseconds = int(record.msecs)
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{milliseconds:03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
        }
        line.update((k, v) for k, v in vars(record).items() if k not in _STANDARD)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=str).decode()


class TextFormatter(logging.Formatter):
    """Formats a record as text: `12:00:01.250 warning streamguard.state.store: message key=value`."""

    def format(self, record: logging.LogRecord) -> str:
        head = time.strftime("%H:%M:%S", time.localtime(record.created)) + f".{int(record.msecs):03d}"
        extra = "".join(f" {k}={v}" for k, v in vars(record).items() if k not in _STANDARD)
        text = f"{head} {record.levelname.lower()} {record.name}: {_message(record)}{extra}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


class Repeats(logging.Filter):
    """Limits repeated warnings of libraries: Kafka clients log a missing broker many times a second.

    Examples
    --------
    >>> clock = iter([0.0, 1.0, 2.0, 11.0])
    >>> repeats = Repeats(clock=lambda: next(clock))
    >>> warning = {"name": "aiokafka", "levelno": logging.WARNING, "msg": "no broker"}
    >>> records = [logging.makeLogRecord(warning) for _ in range(4)]
    >>> [repeats.filter(record) for record in records], records[3].getMessage()
    ([True, False, False, True], 'no broker (2 similar messages suppressed)')
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._passed: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.partition(".")[0] in _OURS:
            return True
        now, template = self._clock(), (record.name, str(record.msg)[:_TEMPLATE])
        passed_at, suppressed = self._passed.get(template, (-math.inf, 0))
        if now - passed_at < REPEAT_SECONDS:
            self._passed[template] = passed_at, suppressed + 1
            return False
        if len(self._passed) >= _MAX_TEMPLATES:
            self._passed.clear()
        self._passed[template] = now, 0
        if suppressed:
            similar = counted(suppressed, "similar message")
            record.msg, record.args = f"{record.getMessage()} ({similar} suppressed)", ()
        return True


def _message(record: logging.LogRecord) -> str:
    message = record.getMessage()
    prefix = _SERVICE.match(message)
    return message[prefix.end() :] if prefix else message


def _handler(form: str) -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    return handler


def last_line(error: StreamGuardError, form: str) -> None:
    """Write an error that ends the worker before its logging is configured.

    Parameters
    ----------
    error
        Its message and its exit code are written.
    form
        `json` or `text`.
    """
    fields = {"reason": error.exit_code.name.lower(), "exit_code": int(error.exit_code)}
    record = logging.makeLogRecord(
        {"name": __name__, "levelno": logging.CRITICAL, "levelname": "CRITICAL", "msg": str(error), **fields}
    )
    _handler(form).handle(record)


def configure(form: str, level: int = logging.INFO) -> None:
    """Send all log records to standard error.

    Parameters
    ----------
    form
        `json` or `text`.
    level
        Lowest level of StreamGuard's own records that is shown; for Faust and aiokafka it is WARNING.
    """
    handler = _handler(form)
    handler.addFilter(Repeats())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in _OURS:
        logging.getLogger(name).setLevel(level)
    # The fetcher logs each failed fetch; a broker that is down is already visible from other messages.
    logging.getLogger("aiokafka.consumer.fetcher").setLevel(logging.CRITICAL)
