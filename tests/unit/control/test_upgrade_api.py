"""What the call answers; who may make it is in the scenarios of process/upgrade."""

from __future__ import annotations

import json

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from lbproxy.control.caller import Caller
from lbproxy.control.status import Json
from lbproxy.control.upgrade_api import UpgradeApi


@pytest.mark.parametrize(
    ("status", "told"), [(200, {"new": {"pid": 7}}), (409, {"problems": ["later"]}), (422, {"problems": ["no", "no"]})]
)
async def test_each_outcome(status: int, told: Json) -> None:
    callers: list[Caller] = []

    async def upgrade(caller: Caller) -> tuple[int, Json]:
        callers.append(caller)
        return status, told

    [(method, path, handler)] = UpgradeApi(upgrade).routes()
    answer = await handler(make_mocked_request(method, path), Caller("ci", "127.0.0.1"))
    assert isinstance(answer, web.Response) and answer.text is not None
    found = json.loads(answer.text)
    assert answer.status == status and callers == [Caller("ci", "127.0.0.1")]
    assert {key: found[key] for key in told} == told
