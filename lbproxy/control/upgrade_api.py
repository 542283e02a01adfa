"""`POST /api/v1/upgrade`: another process takes over (process/upgrade/handing.py)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from lbproxy.control.admin import UPGRADE, Route
from lbproxy.control.caller import Caller
from lbproxy.control.problem import problem
from lbproxy.control.status import Json

Upgrade = Callable[[Caller], Awaitable[tuple[int, Json]]]
_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
_DETAILS = {
    409: "There can be no upgrade now.",
    422: "The new process cannot take over; the running one goes on.",
}


class UpgradeApi:
    """upgrade(caller): 200 and who serves now, 409 or 422 and `problems`."""

    def __init__(self, upgrade: Upgrade) -> None:
        self._upgrade = upgrade

    def routes(self) -> tuple[Route, ...]:
        return (("POST", UPGRADE, self._post),)

    async def _post(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        status, told = await self._upgrade(caller)
        if status == 200:
            return web.json_response(told, headers=_HEADERS)
        return problem(status, _DETAILS[status], _HEADERS, told)
