"""What the worker writes to standard error: one JSON object a line, or text for people."""

from __future__ import annotations

import logging
import re
import sys
import time
from typing import Any

import msgspec

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
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
    """`12:00:01.250 warning agents.table: message key=value`."""

    def format(self, record: logging.LogRecord) -> str:
        head = time.strftime("%H:%M:%S", time.localtime(record.created)) + f".{int(record.msecs):03d}"
        extra = "".join(f" {k}={v}" for k, v in vars(record).items() if k not in _STANDARD)
        text = f"{head} {record.levelname.lower()} {record.name}: {_message(record)}{extra}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


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
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in ("agents", "streamguard"):
        logging.getLogger(name).setLevel(level)
    # Its own message per fetch that failed; a broker that is down says so by other lines.
    logging.getLogger("aiokafka.consumer.fetcher").setLevel(logging.CRITICAL)
