"""HTTP on the control socket: who may speak, and how long.

    POST /ipvsadm   {"words": ["-A", "-t", "192.0.2.10:80"], "text": ""}
                    {"status": 0, "output": "", "error": ""}
    GET /events     changes as they are made
    ...             what ``resources`` answers; /openapi.json tells

Only root and the director's own user are listened to, by the kernel's word on who connected; at a
TCP address, if one is named, whoever has the token.
Commands run in threads of their own: neither a slow resolver nor a long restore keeps others out.
"""

import asyncio
import contextlib
import hmac
import json
import logging
import os
import pathlib
import queue
import socket
import struct
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from pylvs.control.api.answers import Result, Said
from pylvs.control.api.events import Events
from pylvs.control.api.handling import Asked, Handler, MalformedError, NotFoundError
from pylvs.control.api.openapi import Operation, describe
from pylvs.control.api.resources import Resources
from pylvs.control.ipvsadm.executor import Executor
from pylvs.errors import HostError, UsageError

log = logging.getLogger("pylvs.control")

TEXT_LIMIT: Final = 64 << 20  # bytes of one request: some 1,000,000 rules
_SILENCE_S: Final = 10.0  # a connection that has asked for nothing by then is closed
_KEEP_ALIVE_S: Final = 60
_CONNECTIONS_LIMIT: Final = 256
_BACKLOG: Final = 128
_COMMANDS_LIMIT: Final = 32


class _Limited(HttpToolsProtocol):
    """HTTP with no more peers than there is room for, who do not stay silent."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > _CONNECTIONS_LIMIT:
            transport.abort()
        self.loop.call_later(_SILENCE_S, self._close_if_silent)

    def _close_if_silent(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.close()


class _Peer(_Limited):
    """HTTP with somebody whose user is known and allowed."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        allowed = (0, os.geteuid())
        opened = transport.get_extra_info("socket")
        credentials = opened.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        process, user, _ = struct.unpack("iII", credentials)
        if user not in allowed:
            log.warning("user %d (process %d) may not control this director", user, process)
            transport.abort()


class _Guarded:
    """An application for those who show the token, as in ``Authorization: Bearer TOKEN``."""

    def __init__(self, application: Starlette, token: Callable[[], str]) -> None:
        self._application = application
        self._token = token

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        shown = dict(scope["headers"]).get(b"authorization", b"")
        if hmac.compare_digest(shown, f"Bearer {self._token()}".encode()):
            await self._application(scope, receive, send)
            return
        response = _refuse(401, "show the token, as in Authorization: Bearer TOKEN")
        response.headers["WWW-Authenticate"] = "Bearer"
        await response(scope, receive, send)


class _Server(uvicorn.Server):
    """Signals are the daemon's."""

    def capture_signals(self) -> Any:
        return contextlib.nullcontext()


def _server(application: Any, protocol: type[HttpToolsProtocol]) -> _Server:
    return _Server(
        uvicorn.Config(
            application,
            http=protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=2,
        )
    )


class Api:
    """The control socket, from its making to its end.

    A command runs in a thread, which nobody waits for at the end.
    """

    def __init__(
        self, path: pathlib.Path, executor: Executor, resources: Resources, events: Events
    ) -> None:
        self._path = path
        self._executor = executor
        self._events = events
        self._free = threading.BoundedSemaphore(_COMMANDS_LIMIT)
        self._workers = _Workers()
        self._socket = _listen(path)
        self._inode = path.stat().st_ino
        operations = resources.operations()
        operations.append(
            Operation("POST", "/ipvsadm", self._carry_out, "ipvsadm's commands.", Result, (Said,))
        )
        told = describe(operations)
        operations.append(Operation("GET", "/openapi.json", lambda _: told, "", None))
        handlers: dict[str, dict[str, Handler]] = {}
        for one in operations:
            handlers.setdefault(one.path, {})[one.method] = one.handler
        # A network's name has a slash in it, so what is below a service comes first.
        routes = [
            Route(
                path.replace("{service}", "{service:path}"),
                self._answering(by_method),
                methods=list(by_method),
            )
            for path, by_method in sorted(handlers.items(), reverse=True)
        ]
        routes.append(Route("/events", self._stream, methods=["GET"]))
        refusals: Any = {HTTPException: _unanswered}
        self._application = Starlette(routes=routes, exception_handlers=refusals)
        self._application.router.redirect_slashes = False
        self._servers = [(_server(self._application, _Peer), self._socket)]

    def listen(self, address: str, port: int, token: Callable[[], str]) -> None:
        """Answer at a TCP address as well, those who give the token as it is then."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        opened = socket.socket(family, socket.SOCK_STREAM)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            opened.bind((address, port))
        except OSError as error:
            opened.close()
            raise HostError(f"cannot listen on {address}:{port}: {error.strerror}") from None
        opened.listen(_BACKLOG)
        opened.setblocking(False)
        self._servers.append((_server(_Guarded(self._application, token), _Limited), opened))

    async def serve(self) -> None:
        """Answer until ``stop``."""
        await asyncio.gather(*(one.serve(sockets=[opened]) for one, opened in self._servers))

    def stop(self) -> None:
        for one, _ in self._servers:
            one.should_exit = True

    def close(self) -> None:
        for _, opened in self._servers:
            opened.close()
        if self._path.exists() and self._path.stat().st_ino == self._inode:
            self._path.unlink()

    def _answering(self, handlers: dict[str, Handler]) -> Callable[[Request], Awaitable[Response]]:
        """Return what answers requests by a method's handler, in a thread."""

        def work(method: str, asked: Asked) -> Response:
            try:
                return _answer(handlers[method](asked))
            except NotFoundError as error:
                return _refuse(404, str(error))
            except MalformedError as error:
                return _refuse(400, str(error))
            except UsageError as error:
                return _refuse(409, str(error))
            except HostError as error:
                return _refuse(503, str(error))
            except Exception as error:  # whatever it is, it is this request's alone
                log.exception("a request failed")
                return _refuse(500, f"{type(error).__name__}: {error}")
            finally:
                self._free.release()

        async def answer(request: Request) -> Response:
            body = bytearray()
            try:
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > TEXT_LIMIT:
                        return _refuse(413, f"more than {TEXT_LIMIT} bytes in one request")
            except ClientDisconnect:
                return _refuse(400, "the request was not finished")
            if not self._free.acquire(blocking=False):
                return _refuse(503, f"{_COMMANDS_LIMIT} commands are being carried out; try again")
            asked = Asked(request.path_params, request.query_params, bytes(body))
            method = "GET" if request.method == "HEAD" else request.method
            response: Response = await self._workers.run(partial(work, method, asked))
            return response

        return answer

    async def _stream(self, _: Request) -> Response:
        return StreamingResponse(self._events.listen(), media_type="text/event-stream")

    def _carry_out(self, asked: Asked) -> Any:
        try:
            said = json.loads(asked.body)
            known = isinstance(said, dict) and said.keys() <= {"words", "text"}
            words, text = said["words"], said.get("text", "")
            valid = known and isinstance(text, str) and all(isinstance(word, str) for word in words)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            valid = False
        if not valid or not isinstance(words, list):
            raise MalformedError('give {"words": [text, ...], "text": text}')
        return self._executor.run(words, text)._asdict()


class _Workers:
    """Threads that carry requests out.

    Made when all others are busy, kept for the next request, and waited for by nobody at the end.
    """

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._idle = 0
        self._lock = threading.Lock()

    async def run(self, function: Callable[[], Any]) -> Any:
        """Return the function's result."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()

        def settle(result: Any, error: BaseException | None) -> None:
            if future.cancelled():
                return
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        def work() -> None:
            result, error = None, None
            try:
                result = function()
            except Exception as raised:
                error = raised
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(settle, result, error)

        with self._lock:
            if self._idle:
                self._idle -= 1
            else:
                threading.Thread(target=self._serve, name="pylvs-command", daemon=True).start()
        self._work.put(work)
        return await future

    def _serve(self) -> None:
        while True:
            self._work.get()()
            with self._lock:
                self._idle += 1


async def _unanswered(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    response = _refuse(error.status_code, error.detail)
    response.headers.update(error.headers or {})
    return response


def _answer(content: Any, status: int = 200) -> Response:
    """Return JSON in ASCII: what was typed may not be text in any encoding."""
    return Response(json.dumps(content), status, media_type="application/json")


def _answers(path: pathlib.Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
    return True


def _refuse(status: int, why: str) -> Response:
    return _answer({"error": f"{why}\n"}, status)


def _listen(path: pathlib.Path) -> socket.socket:
    """Return a listening socket; one that a director which crashed has left makes place."""
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        if path.is_socket() and not _answers(path):
            path.unlink()
        opened.bind(str(path))
    except OSError as error:
        opened.close()
        raise HostError(f"cannot listen on {path}: {error.strerror}; give --control PATH") from None
    finally:
        os.umask(mask)
    opened.listen(_BACKLOG)
    opened.setblocking(False)
    return opened
