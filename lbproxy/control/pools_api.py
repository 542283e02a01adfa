"""Calls of the API that are about servers: look at one, change it, add some, remove one.

The names stand in the path, percent-encoded; a server's is the rest of the path, so its slashes may also stand as they
are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from aiohttp import web

from lbproxy.control.admin import CallHandler, Route
from lbproxy.control.caller import Caller
from lbproxy.control.discovery.dns import Resolve
from lbproxy.control.live import Conflict, LiveControl, NotThere, hosts_in
from lbproxy.control.live_values import Refused
from lbproxy.control.problem import problem
from lbproxy.control.status import Json
from lbproxy.domain.pool import Pool
from lbproxy.domain.server import Server

SERVERS = "/api/v1/pools/{pool}/servers"
SERVER = SERVERS + "/{server:.+}"
_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class PoolsApi:
    """statuses_of: what the status says of each of some servers. resolve: looks names up, off the loop."""

    def __init__(
        self, live: LiveControl, statuses_of: Callable[[Pool, Sequence[Server]], list[Json]], resolve: Resolve
    ) -> None:
        self._live = live
        self._statuses_of = statuses_of
        self._resolve = resolve

    def routes(self) -> tuple[Route, ...]:
        return (
            ("GET", SERVER, told(self._get)),
            ("PATCH", SERVER, told(self._patch)),
            ("DELETE", SERVER, told(self._delete)),
            ("POST", SERVERS, told(self._post)),
        )

    def _named(self, request: web.Request) -> tuple[Pool, Server]:
        pool = self._live.pool(request.match_info["pool"])
        return pool, self._live.server(pool, request.match_info["server"])

    async def _get(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        pool, server = self._named(request)
        return answer(200, {"pool": pool.name, "server": self._statuses_of(pool, [server])[0]})

    async def _patch(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        wanted = await object_of(request)
        pool, server = self._named(request)
        changes = self._live.change(pool, server, wanted, caller)
        changed = {key: {"old": change.old, "new": change.new} for key, change in changes.items()}
        return answer(200, {"pool": pool.name, "server": self._statuses_of(pool, [server])[0], "changed": changed})

    async def _delete(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        if request.body_exists and await request.read():
            raise Refused(["DELETE takes no body"])
        pool, server = self._named(request)
        is_gone = self._live.remove(pool, server, caller)
        told = {"pool": pool.name, "server": self._statuses_of(pool, [server])[0], "removed": is_gone}
        return answer(200 if is_gone else 202, told)

    async def _post(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        wanted = await object_of(request)
        self._live.pool(request.match_info["pool"])
        addresses = {host: await self._addresses(host) for host in hosts_in(wanted)}
        pool = self._live.pool(request.match_info["pool"])  # it may have gone meanwhile
        servers = self._live.add(pool, wanted, caller, addresses)
        return answer(201, {"pool": pool.name, "servers": self._statuses_of(pool, servers)})

    async def _addresses(self, host: str) -> Sequence[str]:
        try:
            return await self._resolve(host)
        except OSError as error:
            raise Refused([f"address: looking up {host} failed: {error.strerror or error}"]) from None


def told(handler: CallHandler) -> CallHandler:
    """The same, and what it raises as an answer."""

    async def handle(request: web.Request, caller: Caller) -> web.StreamResponse:
        try:
            return await handler(request, caller)
        except NotThere as error:
            return problem(404, str(error))
        except Conflict as error:
            return problem(409, str(error))
        except Refused as error:
            return problem(422, str(error), more={"problems": list(error.problems)})

    return handle


async def object_of(request: web.Request) -> dict[str, object]:
    """The JSON object in the body. Raises Refused, and the answer to what is no JSON."""
    body = await request.read()
    try:
        value = json.loads(body or b"{}", object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        if isinstance(error, Refused):
            raise
        raise web.HTTPBadRequest(text="The body is not JSON.") from None
    if not isinstance(value, dict):
        raise Refused(["the body is a JSON object"])
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise Refused([f"{key}: is given twice"])
        found[key] = value
    return found


def answer(status: int, told: Json) -> web.Response:
    return web.json_response(told, status=status, headers=_HEADERS)
