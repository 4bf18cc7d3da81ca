"""What the worker writes to standard error: one JSON object a line, or text for people."""

from __future__ import annotations

import logging
import math
import re
import sys
import time
from collections.abc import Callable
from typing import Any

import msgspec

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_OURS = ("agents", "streamguard")
_TEMPLATE = 200
_MAX_TEMPLATES = 1000
REPEAT_SECONDS = 10.0
"""How long a message of the same template is kept back."""
_SERVICE = re.compile(r"\[\^-*[^\]]*\]: ")
"""Where Faust's service stands in its tree, before each of its messages."""


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and whatever `extra` gave."""

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
    """`12:00:01.250 warning streamguard.agents.task.store: message key=value`."""

    def format(self, record: logging.LogRecord) -> str:
        head = time.strftime("%H:%M:%S", time.localtime(record.created)) + f".{int(record.msecs):03d}"
        extra = "".join(f" {k}={v}" for k, v in vars(record).items() if k not in _STANDARD)
        text = f"{head} {record.levelname.lower()} {record.name}: {_message(record)}{extra}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


class Repeats(logging.Filter):
    """Lets other people's warnings pass once in a while: clients say the same of a missing broker many times a second.

    Examples
    --------
    >>> clock = iter([0.0, 1.0, 2.0, 11.0])
    >>> repeats = Repeats(clock=lambda: next(clock))
    >>> warning = {"name": "aiokafka", "levelno": logging.WARNING, "msg": "no broker"}
    >>> records = [logging.makeLogRecord(warning) for _ in range(4)]
    >>> [repeats.filter(record) for record in records], records[3].getMessage()
    ([True, False, False, True], 'no broker (and 2 like it)')
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._said: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.partition(".")[0] in _OURS:
            return True
        now, said = self._clock(), (record.name, str(record.msg)[:_TEMPLATE])
        at, kept_back = self._said.get(said, (-math.inf, 0))
        if now - at < REPEAT_SECONDS:
            self._said[said] = at, kept_back + 1
            return False
        if len(self._said) >= _MAX_TEMPLATES:
            self._said.clear()
        self._said[said] = now, 0
        if kept_back:
            record.msg, record.args = f"{record.getMessage()} (and {kept_back:,} like it)", ()
        return True


def _message(record: logging.LogRecord) -> str:
    message = record.getMessage()
    prefix = _SERVICE.match(message)
    return message[prefix.end() :] if prefix else message


def configure(form: str, level: int = logging.INFO) -> None:
    """Send all log records to standard error.

    Parameters
    ----------
    form
        `json` or `text`.
    level
        The least level of our own records; Faust's and aiokafka's are shown from warnings on.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(Repeats())
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in _OURS:
        logging.getLogger(name).setLevel(level)
    # Its own message per fetch that failed; a broker that is down says so by other lines.
    logging.getLogger("aiokafka.consumer.fetcher").setLevel(logging.CRITICAL)
