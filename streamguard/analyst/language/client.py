"""Asks a server with the interface of OpenAI for one chat completion; nothing it answers is trusted here."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import msgspec

from streamguard.analyst.language.check import RejectedError
from streamguard.analyst.language.reply import json_schema
from streamguard.settings.schema import Analyst

MAX_BYTES = 262_144
"""Bytes of an answer; longer ones are refused."""
MAX_TOKENS = 800
"""Tokens that a model may write."""
MAX_COUNTED = 1_000_000
"""Tokens of one call that are believed."""
MAX_WAIT_SECONDS = 20.0
"""Longest wait before the second attempt, whatever the server asks for."""
WAIT_SECONDS = 1.0
"""Wait before the second attempt if the server asks for none."""
KEY_VARIABLE = "STREAMGUARD_ANALYST_KEY"
"""Environment variable that holds the key if no file does."""


class Completion(NamedTuple):
    """What a model has answered: its text, why it ended, and the tokens of prompt and answer."""

    text: str
    finish_reason: str
    tokens: int


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    total_tokens: int = 0


class _Answer(msgspec.Struct):
    choices: list[_Choice]
    usage: _Usage | None = None


class _RetryableError(RejectedError):
    """A failure after which a second attempt may succeed."""

    wait: float = WAIT_SECONDS


class Client:
    """A client of one server. Errors and logs contain neither the key nor anything that the server wrote.

    Parameters
    ----------
    settings
        Where the server is, and how it is asked.
    wait
        Sleeps for a number of seconds.
    environment
        Where the key is looked for if no file is set.
    """

    def __init__(
        self,
        settings: Analyst,
        *,
        wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self._settings = settings
        self._url = settings.base_url.rstrip("/") + "/chat/completions"
        self._wait = wait
        self._environment = environment
        self._session: aiohttp.ClientSession | None = None

    async def complete(self, messages: list[dict[str, Any]], ids: Sequence[str] = ()) -> Completion:
        """Ask, and once more after a time-out, a lost connection, 429 or a fault of the server.

        Parameters
        ----------
        messages
            The chat.
        ids
            Ids that the answer may cite, for a server that is bound by a schema.

        Raises
        ------
        RejectedError
            If no usable answer came.
        """
        try:
            return await self._attempt(self._body(messages, ids))
        except _RetryableError as error:
            await self._wait(min(error.wait, MAX_WAIT_SECONDS))
        return await self._attempt(self._body(messages, ids))

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _attempt(self, body: dict[str, Any]) -> Completion:
        headers = {"Authorization": f"Bearer {key}"} if (key := self._key()) else {}
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=self._settings.timeout_seconds)
            self._session = aiohttp.ClientSession(timeout=timeout)
        try:
            async with self._session.post(
                self._url, json=body, headers=headers, allow_redirects=False
            ) as response:
                if 300 <= response.status < 400:
                    raise RejectedError("redirect")
                if response.status == 429 or response.status >= 500:
                    failure = _RetryableError("status")
                    failure.wait = _seconds(response.headers.get("Retry-After", ""))
                    raise failure
                if response.status != 200:
                    raise RejectedError("status")
                return _completion(await _read(response))
        except TimeoutError:
            raise _RetryableError("timeout") from None
        except (aiohttp.ClientError, OSError):
            raise _RetryableError("connection") from None

    def _body(self, messages: list[dict[str, Any]], ids: Sequence[str]) -> dict[str, Any]:
        body = {
            "model": self._settings.model,
            "messages": messages,
            "max_tokens": MAX_TOKENS,
            "temperature": 0,
        }
        if self._settings.structured == "schema":
            form = {"name": "analysis", "strict": True, "schema": json_schema(ids)}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        elif self._settings.structured == "object":
            body["response_format"] = {"type": "json_object"}
        return body

    def _key(self) -> str:
        if not self._settings.key_file:
            key = self._environment.get(KEY_VARIABLE, "")
        else:
            try:
                key = Path(self._settings.key_file).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError):
                raise RejectedError("key") from None
        key = key.strip()
        if not key.isascii() or not key.isprintable():
            raise RejectedError("key")
        return key


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for part in response.content.iter_chunked(16_384):
        body += part
        if len(body) > MAX_BYTES:
            raise RejectedError("too_large")
    return bytes(body)


def _completion(body: bytes) -> Completion:
    try:
        answer = msgspec.json.decode(body, type=_Answer)
    except (msgspec.DecodeError, RecursionError):
        raise RejectedError("protocol") from None
    if not answer.choices:
        raise RejectedError("protocol")
    first = answer.choices[0]
    tokens = min(max(answer.usage.total_tokens, 0), MAX_COUNTED) if answer.usage else 0
    return Completion(first.message.content or "", first.finish_reason or "", tokens)


def _seconds(text: str) -> float:
    return float(text) if text.isascii() and text.isdigit() and len(text) < 10 else WAIT_SECONDS
