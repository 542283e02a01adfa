"""A body whose client has left. Everything else needs sockets: tests/scenarios/control/test_admin.py."""

from __future__ import annotations

from typing import cast

import pytest
from aiohttp import web

from lbproxy.control.admin import read_body


class Request:
    """One that aiohttp finds closed when it begins to read."""

    def __init__(self, transport: object) -> None:
        self.transport = transport

    async def read(self) -> bytes:
        raise RuntimeError("Connection closed.")


async def test_a_client_that_left_before_anybody_read_is_no_defect() -> None:
    with pytest.raises(ConnectionResetError):
        await read_body(cast(web.Request, Request(None)))


async def test_what_else_goes_wrong_is_one() -> None:
    with pytest.raises(RuntimeError):
        await read_body(cast(web.Request, Request(object())))
