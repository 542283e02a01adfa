"""The admin address: metrics, probes and the API, over TCP or a unix socket. Who may do what: control/access.py."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from aiohttp import web

from lbproxy.address import Address
from lbproxy.control.access import SAFE_METHODS, Access, Credentials
from lbproxy.control.admin_door import Door
from lbproxy.control.admin_gate import BODY_BYTES, NO_JSON, OPEN, PROBES, READER, UNIX, Gate, peer_of
from lbproxy.control.admin_guard import BACKLOG, CONNECTIONS, REQUEST_S, AdminGuard
from lbproxy.control.admin_turns import FULL, Turns
from lbproxy.control.caller import Caller
from lbproxy.control.dashboard.pages import DashboardFiles
from lbproxy.control.metrics import OPENMETRICS_TYPE, TEXT_TYPE, wants_openmetrics
from lbproxy.control.problem import problem
from lbproxy.control.status import Json
from lbproxy.dataplane.listener import listen_tcp
from lbproxy.dataplane.net.unix_socket import SocketFile, bind_unix
from lbproxy.tasks import Tasks

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
CallHandler = Callable[[web.Request, Caller], Awaitable[web.StreamResponse]]
Reload = Callable[[Caller, bool], Awaitable[tuple[int, Json]]]
Route = tuple[str, str, CallHandler]
"""Method, path as aiohttp takes it, and who answers."""
SOCKET_MODE = 0o600
DEFER_S = 1  # who says nothing for so long is accepted all the same
ENDLESS = "/api/v1/events"  # whose answer goes on until somebody leaves
NAMES = "name[]"  # of a query: metrics that are wanted, as Prometheus' client libraries have it
UPGRADE = "/api/v1/upgrade"  # which has a bound of its own


async def _nothing_to_wait_for() -> None:
    """Everything is in this process."""


class AdminServer:
    """Serves the admin address on the running event loop.

    metrics(is_openmetrics, names) renders the exposition, or these families of it; status() the JSON; not_ready()
    gives the reason of a 503 or None.
    reload(caller, is_dry): read the config file again, or only say what that would change: 200 and the steps, or 422
    and `problems`. routes: what else it answers, below /api/.
    limit: connections at once. may_move: a port that is taken is replaced by a free one. inherited: sockets of another
    process, in place of binding; it accepts at them until `serve` is called here. file: of that unix socket.
    look: what must be waited for before metrics and status are what they are now. no_reader: why another reader of
    events can't be taken, None if it can. reader_s: what another one is going to cost, in seconds of the loop's time.
    """

    def __init__(
        self,
        bind: Address,
        access: Access,
        *,
        metrics: Callable[[bool, Sequence[str]], bytes],
        status: Callable[[], Json],
        not_ready: Callable[[], str | None],
        reload: Reload,
        routes: Sequence[Route] = (),
        limit: int = CONNECTIONS,
        may_move: bool = False,
        inherited: Sequence[socket.socket] = (),
        file: SocketFile | None = None,
        clock: Callable[[], float] = time.monotonic,
        look: Callable[[], Awaitable[None]] = _nothing_to_wait_for,
        no_reader: Callable[[], str | None] = lambda: None,
        reader_s: Callable[[], float] = lambda: 0.001,
    ) -> None:
        self._bind = bind
        self._look = look
        self._may_move = may_move
        self._dashboard = DashboardFiles()
        self._turns = Turns(clock)
        paths = frozenset((*self._dashboard.paths, "/metrics", *PROBES))
        self._gate = Gate(access, paths, ENDLESS, {READER: no_reader, OPEN: self._turns.refusal})
        self._guard = AdminGuard(limit, clock)
        self._clock = clock
        self._reader_s = reader_s
        self._door: Door | None = None
        self._tasks = Tasks()
        self._access = access
        self._routes = routes
        self._metrics = metrics
        self._status = status
        self._not_ready = not_ready
        self._reload = reload
        self._runner: web.AppRunner | None = None
        self._inherited = tuple(inherited)
        self._file = file
        self.bound: tuple[str, ...] = ()

    async def start(self) -> None:
        """Bind and serve; `bound` then has the addresses with real ports. Raises OSError if binding fails.

        With inherited sockets call `serve`, too.
        """
        runner = web.AppRunner(self.application(), access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await runner.setup()
        assert runner.server is not None  # since setup()
        loop = asyncio.get_running_loop()
        try:
            sockets = self._inherited or await self._listen(loop)
        except BaseException:
            await runner.cleanup()
            self._remove_file()
            raise
        self._runner = runner
        self._door = Door(
            self._guard,
            self._gate,
            runner.server,
            tasks=self._tasks,
            clock=self._clock,
            reader_s=self._reader_s,
        )
        self._door.open(loop, sockets)
        if not self._inherited:
            self._door.serve()
        self._guard.start(loop)
        names = [sock.getsockname() for sock in sockets]
        self.bound = (
            (str(self._bind),) if self._bind.is_unix else tuple(str(Address(name[0], name[1])) for name in names)
        )

    async def serve(self) -> None:
        """Accept at inherited sockets: who has opened them is about to leave."""
        if self._door is not None:
            self._door.serve()

    @property
    def filenos(self) -> list[int]:
        """The listening sockets' descriptors."""
        return [] if self._door is None else [sock.fileno() for sock in self._door.sockets]

    @property
    def socket_file(self) -> SocketFile | None:
        """The file of its unix socket, if that has one."""
        return self._file

    async def _listen(self, loop: asyncio.AbstractEventLoop) -> list[socket.socket]:
        if self._bind.is_unix:
            sock, self._file = bind_unix(self._bind, SOCKET_MODE, BACKLOG)
            return [sock]
        host, port = self._bind.host, self._bind.port
        try:
            return await _bound(loop, host, port)
        except OSError as error:
            if not self._may_move or error.errno != errno.EADDRINUSE:
                raise
        sockets = await _bound(loop, host, 0)
        chosen = Address(host, sockets[0].getsockname()[1])
        log.warning(
            "%s is taken, perhaps by another lbproxy: the admin address of this one is %s (lbproxy status --admin %s)",
            self._bind,
            chosen,
            chosen,
        )
        return sockets

    async def stop(self, *, keeps_file: bool = False) -> None:
        """Stop serving; calls in progress get a second to finish. keeps_file: another process listens there."""
        if keeps_file:
            self._file = None
        if self._runner is None:
            return
        if self._door is not None:
            self._door.close()
        await self._tasks.cancel_all()
        await self._runner.cleanup()
        self._guard.stop()
        self._runner = self._door = None
        self._remove_file()

    def _remove_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.remove()

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._bounded, _problems, self._check], client_max_size=BODY_BYTES)
        for path in self._dashboard.paths:
            self._add(app, "GET", path, self._get_page)
        self._add(app, "GET", "/metrics", self._get_metrics)
        self._add(app, "GET", "/healthz", self._get_healthz)
        self._add(app, "GET", "/readyz", self._get_readyz)
        self._add(app, "GET", "/api/v1/status", self._get_status)
        self._add(app, "GET", "/api/v1/whoami", partial(self._call, self._get_whoami))
        self._add(app, "POST", "/api/v1/reload", partial(self._call, self._post_reload))
        for method, path, handler in self._routes:
            self._add(app, method, path, partial(self._call, handler))
        app.router.add_route("*", "/{path:.*}", _nothing_there, expect_handler=_invite)  # as its own 404 has no handler
        return app

    def _add(self, app: web.Application, method: str, path: str, handler: Handler) -> None:
        resource = app.router.add_resource(path)
        resource.add_route(method, handler, expect_handler=_invite)
        if method == "GET":
            resource.add_route("HEAD", handler, expect_handler=_invite)

    # --- handlers ---

    def _is_anybody(self, request: web.Request) -> bool:
        return peer_of(request.transport) != UNIX and not self._access.knows(request.headers.get("Authorization"))

    async def _get_page(self, request: web.Request) -> web.StreamResponse:
        if self._is_anybody(request) and not await self._turns.come(0.0):
            return _later()
        return await self._dashboard.answer(request)

    async def _get_metrics(self, request: web.Request) -> web.StreamResponse:
        is_openmetrics = wants_openmetrics(request.headers.get("Accept", ""))
        headers = {"Content-Type": OPENMETRICS_TYPE if is_openmetrics else TEXT_TYPE}
        render = partial(self._metrics, is_openmetrics, request.query.getall(NAMES, ()))
        if not self._is_anybody(request):
            await self._look()
            return web.Response(body=render(), headers=headers)
        paid_s = self._turns.work_s
        if not await self._turns.come(paid_s):
            return _later()
        await self._look()
        body = self._turns.work(render, paid_s)
        return web.Response(body=body, headers=headers)

    async def _get_healthz(self, request: web.Request) -> web.StreamResponse:
        return web.Response(text="ok\n")

    async def _get_readyz(self, request: web.Request) -> web.StreamResponse:
        reason = self._not_ready()
        if reason is None:
            return web.Response(text="ready\n")
        return web.Response(status=503, text=f"not ready: {reason}\n")

    async def _get_status(self, request: web.Request) -> web.StreamResponse:
        headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
        await self._look()
        return web.json_response(self._status(), headers=headers)

    async def _get_whoami(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        told = self._access.rights(caller, **_credentials(request))
        return web.json_response(told, headers={"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"})

    async def _post_reload(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        status, told = await self._reload(caller, request.query.get("dry_run") in ("1", "true"))
        headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
        if status == 200:
            return web.json_response(told, headers=headers)
        return problem(status, "The config file cannot be used; the one in force stays.", headers, told)

    def allow(self, access: Access) -> None:
        """Others may call from the next request on."""
        self._access = access
        self._gate.allow(access)

    # --- who may call ---

    @web.middleware
    async def _bounded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self._guard.began(request.protocol)
        try:
            async with asyncio.timeout(None if request.path in (ENDLESS, UPGRADE) else REQUEST_S):
                return await handler(request)
        except TimeoutError:
            return problem(408, f"The request was not complete after {REQUEST_S:g} s.", {"Connection": "close"})
        finally:
            self._guard.ended(request.protocol)

    @web.middleware
    async def _check(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path.startswith("/api/"):
            self._caller(request)
            if request.method not in SAFE_METHODS and request.body_exists:
                if request.content_type != "application/json":
                    raise web.HTTPUnsupportedMediaType(text=NO_JSON)
                if (request.content_length or 0) > BODY_BYTES:  # nobody waits for what will be refused
                    raise web.HTTPRequestEntityTooLarge(BODY_BYTES, request.content_length or 0)
                await read_body(request)
        return await handler(request)

    def _caller(self, request: web.Request) -> Caller:
        return self._access.check(method=request.method, **_credentials(request))

    async def _call(self, handler: CallHandler, request: web.Request) -> web.StreamResponse:
        return await handler(request, self._caller(request))


async def _bound(loop: asyncio.AbstractEventLoop, host: str, port: int) -> list[socket.socket]:
    """Listening sockets: a name may mean several addresses. Raises OSError; nothing stays open then."""
    infos = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    try:
        for info in dict.fromkeys(infos):
            sockets.append(listen_tcp(info[0], info[4], shares_port=False))
            _defer(sockets[-1])
            sockets[-1].listen(BACKLOG)
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _defer(sock: socket.socket) -> None:
    """Have the kernel keep who says nothing yet, for some seconds: then he is refused at once, not remembered first."""
    option = getattr(socket, "TCP_DEFER_ACCEPT", None)
    if option is not None:
        with contextlib.suppress(OSError):  # it is a favour
            sock.setsockopt(socket.IPPROTO_TCP, option, DEFER_S)


def _later() -> web.StreamResponse:
    """The connection ends: the next call has to pass the gate, where it is refused for less."""
    answer = problem(503, FULL, {"Retry-After": "5"})
    answer.force_close()
    return answer


async def _invite(request: web.Request) -> None:
    """Expect: 100-continue is answered; any other value is ignored (RFC 9110 section 10.1.1 allows that).

    aiohttp answers 417 with the value in it, and throws when that is no UTF-8.
    """
    if request.version >= (1, 1) and request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")


async def _nothing_there(request: web.Request) -> web.StreamResponse:
    allowed: set[str] = set()
    for resource in request.app.router.resources():
        _, methods = await resource.resolve(request)
        allowed |= methods - {"*"}
    raise web.HTTPMethodNotAllowed(request.method, allowed) if allowed else web.HTTPNotFound


async def read_body(request: web.Request) -> None:
    """The body, at most BODY_BYTES; it is kept for the handler. Raises ConnectionResetError if the client has left."""
    try:
        await request.read()
    except RuntimeError as error:
        if request.transport is None:  # aiohttp says so where it was lost before anybody began to read
            raise ConnectionResetError("the client left before its body was whole") from error
        raise


def _credentials(request: web.Request) -> Credentials:
    return {
        "authorization": request.headers.get("Authorization"),
        "host": request.headers.get("Host", ""),
        "origin": request.headers.get("Origin"),
        "peer": peer_of(request.transport),
    }


@web.middleware
async def _problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Errors as application/problem+json (RFC 9457)."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        default = f"{error.status}: {error.reason}"
        detail = error.text if error.text and error.text != default else _DETAILS.get(error.status, error.reason)
        kept = {name: error.headers[name] for name in ("Allow", "WWW-Authenticate") if name in error.headers}
        answer = problem(error.status, detail, kept)
        if error.status in _REFUSALS:
            answer.force_close()  # the next call has to pass the gate again
        return answer
    except ConnectionResetError:
        return problem(400, "The client left before its request was whole.")  # to nobody
    except Exception:
        log.exception("the admin address failed to answer %s %s", request.method, request.path)
        return problem(500, "lbproxy has a defect; please report it with the traceback from the log.", {})


_DETAILS = {404: "There is nothing at this path; see docs/admin.md.", 405: "This path does not take this method."}
_REFUSALS = frozenset({400, 401, 403, 404, 405, 413, 415})
