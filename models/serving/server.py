"""The server as a whole: a socket, the web application, the batcher, and an orderly end."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

from treegym.errors import BackendError, ConfigError, require
from treegym.models.base import LanguageModel, context_length
from treegym.models.remote.keys import is_loopback, key_from
from treegym.models.serving.batcher import Batcher

__all__ = ["ServeSettings", "Served", "running_server", "serve"]

KEPT_S = 75  # an idle connection is kept: clients with pools send on what was closed a moment ago, and lose a request

DEFAULT_LENGTH = 4096  # for models that do not say how long a context they take


@dataclass(frozen=True)
class ServeSettings:
    """How to serve."""

    host: str = "127.0.0.1"
    port: int = 8000  # 0 takes any free one
    max_batch_size: int = 32
    max_wait_ms: float = 5.0
    max_queue: int = 512
    max_length: int | None = None  # tokens of prompt and answer; default what the model's configuration says
    max_logprobs: int | None = None  # told per position at most; 0 tells none, None all
    key_env: str | None = None  # name of the variable with the key that clients must send
    drain_s: float = 30.0  # how long requests under way may take to finish at shutdown

    def __post_init__(self) -> None:
        if self.max_logprobs is not None and self.max_logprobs < 0:
            raise ConfigError(f"max_logprobs is {self.max_logprobs}; it must be at least 0 (leave it out to tell all)")

    def checked_key(self) -> str | None:
        """Returns the key, which is required on anything but the loopback interface."""
        if self.key_env is None and not is_loopback(self.host):
            raise ConfigError(
                f"serving on {self.host} lets other machines in, so a key is required: put one in an environment "
                "variable and name it with --key-env"
            )
        return key_from(self.key_env)


@dataclass(frozen=True)
class Served:
    """A server that listens."""

    url: str  # what clients take as base URL
    name: str
    batcher: Batcher
    stop: Callable[[], None]  # begins the orderly end


def _listen(settings: ServeSettings) -> socket.socket:
    """Returns a bound socket; a port in use is an error at once, not after the model was loaded."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # Named as TCP, so that asyncio sends small answers at once; else each waits 40 ms for an acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host, settings.port))
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot listen on {settings.host} port {settings.port}: {reason}; choose another") from None
    return listener


def _max_length(model: LanguageModel, settings: ServeSettings) -> int:
    limit = context_length(model) or DEFAULT_LENGTH
    if settings.max_length is not None and settings.max_length > limit:
        raise ConfigError(f"max_length is {settings.max_length}, but {model.name} takes {limit} tokens")
    return settings.max_length or limit


def serve(
    load: Callable[[], LanguageModel],
    settings: ServeSettings,
    *,
    ready: Callable[[Served], None],
    handle_signals: bool = True,
    around: Callable[[Batcher, LanguageModel], Any] | None = None,
) -> None:
    """Serves until told to stop: by SIGTERM or Ctrl-C, or by calling `Served.stop`.

    Args:
        load: returns the model; called once the socket is known to be free.
        settings: how to serve.
        ready: called when connections are accepted.
        handle_signals: take SIGTERM and SIGINT, which only the main thread can.
        around: returns what answers instead of the batcher, which it wraps; None: the batcher itself.
    """
    uvicorn = require("uvicorn", extra="http", purpose="serving a model")
    require("starlette", extra="http", purpose="serving a model")
    from treegym.models.serving.app import build_app
    from treegym.models.serving.protocol import Speaker

    key = settings.checked_key()
    listener = _listen(settings)
    try:
        model = load()
        length = _max_length(model, settings)
        tokenizer = model.tokenizer
        speaker = Speaker(model.name, tokenizer, tokenizer.pieces(), model.fingerprint(), length, settings.max_logprobs)
        batcher = Batcher(
            model,
            max_batch_size=settings.max_batch_size,
            max_wait_ms=settings.max_wait_ms,
            max_queue=settings.max_queue,
        )
        answering: Any = batcher if around is None else around(batcher, model)
    except BaseException:
        listener.close()
        raise
    app = build_app(answering, speaker, key=key, loopback=is_loopback(settings.host))
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=settings.drain_s,
        timeout_keep_alive=KEPT_S,
    )
    server: Any = uvicorn.Server(config)
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host

    def stop() -> None:
        server.should_exit = True

    served = Served(f"http://{shown}:{port}/v1", model.name, batcher, stop)
    started = server.startup

    async def startup(sockets: list[socket.socket] | None = None) -> None:
        await started(sockets=sockets)
        if server.started:
            ready(served)

    server.startup = startup
    # uvicorn would raise a signal it took once more at the end, which would cut the orderly end short.
    server.capture_signals = contextlib.nullcontext
    try:
        with _signals(server.handle_exit) if handle_signals else contextlib.nullcontext():
            server.run(sockets=[listener])
    finally:
        answering.close(settings.drain_s)
        listener.close()


@contextlib.contextmanager
def _signals(handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Hands SIGTERM and Ctrl-C to `handle` while the block runs; a second Ctrl-C does not wait for requests."""
    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def running_server(
    model: LanguageModel, *, around: Callable[[Batcher, LanguageModel], Any] | None = None, **settings: Any
) -> Iterator[Served]:
    """Serves a model from a thread of this process while the block runs, on any free port unless told otherwise."""
    chosen = ServeSettings(**{"port": 0, **settings})
    box: list[Served] = []
    failures: list[BaseException] = []
    ready = threading.Event()

    def begin(served: Served) -> None:
        box.append(served)
        ready.set()

    def work() -> None:
        try:
            serve(lambda: model, chosen, ready=begin, handle_signals=False, around=around)
        except BaseException as error:  # noqa: BLE001 (handed to the thread that waits)
            failures.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=work, name="treegym-serve", daemon=True)
    thread.start()
    ready.wait(60.0)
    if failures:
        raise failures[0]
    if not box:
        raise BackendError("the server did not start within 60 s")
    try:
        yield box[0]
    finally:
        box[0].stop()
        deadline = time.monotonic() + chosen.drain_s + 10.0
        thread.join(max(0.0, deadline - time.monotonic()))
