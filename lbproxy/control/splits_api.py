"""Calls of the API that are about splits: see them, change the shares of one.

A split is named by its listener and its route, percent-encoded; the route by its name or its position, from 0 on.
"""

from __future__ import annotations

from aiohttp import web

from lbproxy.control.admin import Route
from lbproxy.control.caller import Caller
from lbproxy.control.live_values import Refused
from lbproxy.control.pools_api import answer, object_of, told
from lbproxy.control.splits import SplitControl

SPLITS = "/api/v1/splits"
SPLIT = SPLITS + "/{listener}/{route}"


class SplitsApi:
    """What `SplitControl` knows and does."""

    def __init__(self, control: SplitControl) -> None:
        self._control = control

    def routes(self) -> tuple[Route, ...]:
        return (("GET", SPLITS, told(self._list)), ("GET", SPLIT, told(self._get)), ("PATCH", SPLIT, told(self._patch)))

    async def _list(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        return answer(200, {"splits": self._control.told()})

    async def _get(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        place = self._control.find(request.match_info["listener"], request.match_info["route"])
        return answer(200, {"split": self._control.told_of(place)})

    async def _patch(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        wanted = await object_of(request)
        unknown = [key for key in wanted if key != "shares"]
        if unknown:
            raise Refused([f"{key:.60}: unknown key; the only one is shares" for key in unknown])
        place = self._control.find(request.match_info["listener"], request.match_info["route"])
        changes = self._control.change(place, wanted.get("shares"), caller)
        changed = {name: {"old": change.old, "new": change.new} for name, change in changes.items()}
        return answer(200, {"split": self._control.told_of(place), "changed": changed})
