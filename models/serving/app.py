"""The web application: routes, the key, limits on what is read, back-pressure, and clients that go away."""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from treegym.errors import DataError, TreeGymError
from treegym.models.serving.batcher import Batcher, Full
from treegym.models.serving.jobs import Job
from treegym.models.serving.protocol import Asked, BadRequest, Speaker, read_chat, read_completion
from treegym.models.serving.streaming import attach, events
from treegym.untrusted import json_of

__all__ = ["build_app"]

logger = logging.getLogger(__name__)
Handler = Callable[[Request], Awaitable[Response]]
LOOPBACK_NAMES = ["127.0.0.1", "localhost", "::1", "[::1]"]


class _Gone(Exception):
    """The client closed the connection before its answer was ready."""


def build_app(
    batcher: Batcher,
    speaker: Speaker,
    *,
    key: str | None = None,
    loopback: bool = True,
    max_body_bytes: int = 16 * 2**20,
    body_timeout_s: float = 30.0,
    max_prompts: int = 512,
) -> Starlette:
    """Returns the application.

    Args:
        batcher: what runs the model.
        speaker: the model as the protocol sees it.
        key: what clients must send as a bearer token; None lets everyone in.
        loopback: answer only requests addressed to this machine by a loopback name, so that no web page can reach the
            server under a name of its own.
        max_body_bytes: a longer request is refused.
        body_timeout_s: a request whose body takes longer to arrive is refused.
        max_prompts: most prompts in one request.
    """
    web = _Web(batcher, speaker, key, max_body_bytes, body_timeout_s, max_prompts)
    routes = [
        Route("/health", web.guarded("health", web.health, open_to_all=True)),
        Route("/metrics", web.guarded("metrics", web.measured)),
        Route("/v1/models", web.guarded("models", web.models)),
        Route("/v1/completions", web.guarded("completions", web.completions), methods=["POST"]),
        Route("/v1/chat/completions", web.guarded("chat", web.chat), methods=["POST"]),
        Route("/v1/embeddings", web.guarded("embeddings", web.embeddings), methods=["POST"]),
    ]
    hosts = [Middleware(TrustedHostMiddleware, allowed_hosts=LOOPBACK_NAMES)] if loopback else []
    return Starlette(routes=routes, middleware=hosts)


def _error(status: int, message: str, kind: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": {"message": message, "type": kind, "code": status}}, status, headers)


class _Web:
    def __init__(
        self,
        batcher: Batcher,
        speaker: Speaker,
        key: str | None,
        max_body_bytes: int,
        body_timeout_s: float,
        max_prompts: int,
    ) -> None:
        self._batcher, self._speaker, self._key = batcher, speaker, key
        self._max_body_bytes, self._body_timeout_s, self._max_prompts = max_body_bytes, body_timeout_s, max_prompts
        self._started = int(time.time())
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="treegym-read")

    def guarded(self, name: str, handler: Handler, *, open_to_all: bool = False) -> Handler:
        """Returns a handler that checks the key, turns errors into answers, and counts what was answered."""

        async def handle(request: Request) -> Response:
            if open_to_all or self._admitted(request):
                response = await _answered(handler, request)
            else:
                response = _error(401, "a key is required: send it as a bearer token", "authentication_error")
            self._batcher.metrics.requests[name, response.status_code] += 1
            return response

        return handle

    def _admitted(self, request: Request) -> bool:
        if self._key is None:
            return True
        sent = request.headers.get("authorization", "").encode("utf-8", "replace")
        return hmac.compare_digest(sent, f"Bearer {self._key}".encode())

    # ---------------------------------------------------------------- routes

    async def health(self, _: Request) -> Response:
        return JSONResponse({"status": "ok", "model": self._speaker.name})

    async def measured(self, _: Request) -> Response:
        text = self._batcher.metrics.text(*self._batcher.load)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    async def models(self, _: Request) -> Response:
        card = {
            "id": self._speaker.name,
            "object": "model",
            "created": self._started,
            "owned_by": "treegym",
            "max_model_len": self._speaker.max_length,
            "vocab_size": self._speaker.tokenizer.vocab_size,
            "fingerprint": self._speaker.fingerprint,
            "tokenizer_fingerprint": self._speaker.tokenizer.fingerprint(),
        }
        return JSONResponse({"object": "list", "data": [card]})

    async def completions(self, request: Request) -> Response:
        body = await self._body(request)
        asked = await self._aside(read_completion, body, self._speaker, max_prompts=self._max_prompts)
        return await self._serve(request, asked, "text_completion", self._speaker.choice)

    async def chat(self, request: Request) -> Response:
        asked = await self._aside(read_chat, await self._body(request), self._speaker)
        return await self._serve(request, asked, "chat.completion", self._speaker.chat_choice)

    async def embeddings(self, request: Request) -> Response:
        body = await self._body(request)
        given = body.get("input")
        several = isinstance(given, list) and bool(given) and all(isinstance(p, list | str) for p in given)
        inputs = given if several and isinstance(given, list) else [given]
        contexts = await self._aside(lambda: [self._speaker.ids(p) for p in inputs])
        if len(contexts) > self._max_prompts or any(len(c) > self._speaker.max_length for c in contexts):
            raise BadRequest(
                f"at most {self._max_prompts} inputs of at most {self._speaker.max_length} tokens are taken"
            )
        vectors = await asyncio.wrap_future(self._batcher.embed(contexts))
        data = [{"object": "embedding", "index": i, "embedding": v} for i, v in enumerate(vectors.tolist())]
        return JSONResponse({"object": "list", "model": self._speaker.name, "data": data})

    # ---------------------------------------------------------------- their parts

    async def _aside(self, work: Callable[..., Any], *args: Any, **named: Any) -> Any:
        """Runs what takes long for long prompts in the one thread for that, so that others are answered meanwhile."""
        return await asyncio.get_running_loop().run_in_executor(self._reader, partial(work, *args, **named))

    async def _body(self, request: Request) -> dict[str, Any]:
        """Returns the JSON object a request carries."""
        # A web page can send other types across origins without asking; this one makes its browser ask, and be refused.
        if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
            raise BadRequest("the request must be of type application/json")
        raw = bytearray()
        try:
            async with asyncio.timeout(self._body_timeout_s):
                async for chunk in request.stream():
                    raw += chunk
                    if len(raw) > self._max_body_bytes:
                        raise BadRequest(f"the request is longer than {self._max_body_bytes} bytes; send fewer prompts")
        except ClientDisconnect:
            raise _Gone from None
        except TimeoutError:
            raise BadRequest(f"the request did not arrive within {self._body_timeout_s:g} s") from None
        try:
            body = await self._aside(read_body, bytes(raw))
        except DataError:
            raise BadRequest("the request is not valid JSON") from None
        if not isinstance(body, dict):
            raise BadRequest(f"the request must be a JSON object, not a {type(body).__name__}")
        model = body.get("model")
        if model is not None and model != self._speaker.name:
            raise BadRequest(f"this server serves {self._speaker.name!r}, not {str(model)[:80]!r}")
        return body

    async def _serve(
        self, request: Request, asked: Asked, kind: str, write: Callable[[int, Job, Asked], dict[str, Any]]
    ) -> Response:
        if asked.stream:
            return self._stream(asked, kind)
        self._batcher.submit(asked.jobs)
        await self._all_done(request, asked.jobs)
        choices = [write(index, job, asked) for index, job in enumerate(asked.jobs)]
        for choice, job in zip(choices, asked.jobs, strict=True):
            if job.notes is not None:
                choice["search"] = job.notes
        return JSONResponse(self._speaker.answer(kind, asked.jobs, choices))

    def _stream(self, asked: Asked, kind: str) -> Response:
        if len(asked.jobs) != 1 or asked.echo:
            raise BadRequest("stream is served for one prompt at a time and without echo")
        [job] = asked.jobs
        queue = attach(job)
        self._batcher.submit(asked.jobs)

        async def body() -> Any:
            try:
                async for event in events(job, asked, self._speaker, queue, kind):
                    yield event
            finally:
                self._batcher.cancel(asked.jobs)

        return StreamingResponse(body(), media_type="text/event-stream")

    async def _all_done(self, request: Request, jobs: Sequence[Job]) -> None:
        """Waits for the jobs; cancels them when the client goes away first."""

        async def gone() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass

        # failures are raised below; left in futures that nobody asks, they would be logged as forgotten
        work: asyncio.Future[Any] = asyncio.gather(
            *(asyncio.wrap_future(job.done) for job in jobs), return_exceptions=True
        )
        leaving = asyncio.ensure_future(gone())
        try:
            await asyncio.wait([work, leaving], return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise _Gone
        finally:
            leaving.cancel()
            if not work.done():
                self._batcher.cancel(jobs)
        for job in jobs:
            if (error := job.done.exception()) is not None:
                raise error


def read_body(raw: bytes) -> Any:
    """Returns the JSON value in a request; what is nearly nothing but lists would take many times its size."""
    return json_of(raw, where="the request", values=len(raw) // 2 + 64, containers=len(raw) // 8 + 64)


async def _answered(handler: Handler, request: Request) -> Response:
    """Returns the handler's response, or the one that tells its error."""
    try:
        return await handler(request)
    except Full as error:
        return _error(429, str(error), "overloaded", {"Retry-After": "1"})
    except BadRequest as error:
        return _error(400, str(error), "invalid_request_error")
    except _Gone:
        return Response(status_code=499)
    except TreeGymError as error:
        return _error(503, str(error), "server_error", {"Retry-After": "1"})
    except Exception as error:
        logger.exception("a request failed")
        return _error(500, f"the model failed on this request ({type(error).__name__})", "server_error")
