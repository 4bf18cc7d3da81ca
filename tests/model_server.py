"""A small server with the interface of OpenAI, which records every request and answers what a test sets."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ModelServer:
    """Requests that came, and what is answered to them."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.answers: list[Handler] = []
        """Handlers of the next requests; the last one stays."""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(await request.read())
        self.headers.append(dict(request.headers))
        handler = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
        return await handler(request)


@asynccontextmanager
async def model_server(*answers: Handler) -> AsyncIterator[ModelServer]:
    """A server on the loopback that answers with these handlers, one after the other."""
    server = ModelServer()
    server.answers = list(answers)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        yield server
    finally:
        await runner.cleanup()


def replying(reply: Any, finish_reason: str = "stop", tokens: int = 100) -> Handler:
    """Answers a completion with this content: a text, or what becomes JSON."""
    content = reply if isinstance(reply, str) else json.dumps(reply)

    async def handle(_: web.Request) -> web.StreamResponse:
        choice = {"message": {"role": "assistant", "content": content}, "finish_reason": finish_reason}
        return web.json_response({"choices": [choice], "usage": {"total_tokens": tokens}})

    return handle


def sending(status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Handler:
    """Answers this status, body and headers."""

    async def handle(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=body, headers=headers)

    return handle


async def repeating(request: web.Request) -> web.StreamResponse:
    """Answers "benign", with every placeholder of every fact: the most that a model can make visible."""
    facts = json.loads(await request.read())["messages"][1]["content"].partition("\n\n")[0]
    claims = []
    for line in facts.splitlines()[1:]:
        id, _, text = line.partition(": ")
        if names := re.findall(r"[A-Z]{2,}[0-9]+", text):
            claims.append({"text": f"There is {' and '.join(names)}.", "refs": [id]})
    reply = {"verdict": "benign", "summary": "There is nothing of note.", "claims": claims[:8]}
    return await replying(reply)(request)
